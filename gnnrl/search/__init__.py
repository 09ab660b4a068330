"""The search: environments, agents, the loop."""
