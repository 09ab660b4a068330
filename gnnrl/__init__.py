"""Neural networks made smaller: read as a graph, searched by an agent, cut, trained again."""

__version__ = "0.1.0"
