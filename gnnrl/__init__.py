"""Neural networks made smaller: read as a graph, searched by an agent, pruned, trained again.

One call: `gnnrl.compress(network, "photos", budget=0.5)`.  Step by step:

| step | where |
|---|---|
| load a network, weights | `gnnrl.networks.build`, `gnnrl.networks.weights`, `gnnrl.checkpoint` |
| read it as a graph; count its cost | `gnnrl.graph.extract`, `gnnrl.graph.cost` |
| load images | `gnnrl.data.load` |
| rank channels; say what to keep | `gnnrl.pruning.importance`, `gnnrl.pruning.plan` |
| a space of plans within a budget | `gnnrl.search.spaces.channels` |
| score plans | `gnnrl.evaluation.one_shot` |
| search with an agent | `gnnrl.search.env`, `gnnrl.agents.registry`, `gnnrl.search.loop` |
| prune, repair | `gnnrl.pruning.surgery`, `gnnrl.pruning.compensation` |
| train | `gnnrl.training.loop`, `gnnrl.training.distillation` |

`docs/introduction.md` has them in one script; the commands of the pipeline are in `stages`.
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # imported at its first use: everything imports this package, which therefore imports nothing
    if name == "compress":
        from importlib import import_module

        return import_module("gnnrl.compressing").compress
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
