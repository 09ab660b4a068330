"""The unit of what evaluations cost."""

EQUIVALENT = 500
"""Forward images of one evaluation equivalent, the unit that costs of searches are compared in."""
