"""Neural networks made smaller: read as a graph, searched by an agent, cut, trained again."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # imported at its first use: everything imports this package, which therefore imports nothing
    if name == "compress":
        from importlib import import_module

        return import_module("gnnrl.compressing").compress
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
