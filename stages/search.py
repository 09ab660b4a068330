"""The search for what to keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stages import _cli

app = _cli.app(__doc__)


@app.command()
@_cli.described
def search(
    pretrain: _cli.Pretrain = Path("artifacts/pretrain"),
    graph: _cli.Graph = Path("artifacts/extract/graph.json"),
    out: _cli.Out = Path("artifacts/search"),
    params: _cli.ParamsFile = _cli.PARAMS,
    overrides: _cli.Overrides = None,
) -> None:
    """Search the graph for the best plan within the budget; a killed search continues."""
    with _cli.stage("search", params, overrides, out) as sections:
        from gnnrl.checkpoint import Checkpoint
        from gnnrl.data.load import load_data
        from gnnrl.graph.graph import ComputationalGraph
        from gnnrl.search import results
        from gnnrl.search.build import SearchTask, run
        from gnnrl.watch import Watch

        options = sections.search
        trust, weights = sections.network.name, _cli.weights_file(pretrain, options.weights)
        checkpoint, read = Checkpoint.load(weights, trust), ComputationalGraph.load(graph)
        checkpoint.refuse_graph(read)
        start = pretrain / "initial.safetensors"
        initial = Checkpoint.load(start, trust) if options.needs_initial else None
        splits = load_data(sections.data, checkpoint.input_shape)
        task = SearchTask(options, checkpoint, read, splits.reward, splits.train, initial)
        with _cli.claimed("search", *task.identity()) as journal:
            if before := results.evaluated_before(journal):
                print(f"search goes on after {before} evaluated plans", flush=True)
            task = replace(task, folder=journal / "students")
            watch = Watch.of(f"search-{options.agent}-seed{options.seed}", journal.name)
            found, spent = run(task, journal, watch)
            own = "students/*/*.safetensors", "agents/*.pt"
            with _cli.results(out, *own, settings=sections) as folder:
                results.keep_agents(journal, folder)
                precision = options.reward.precision
                figures = results.save(folder, read, found, spent, task.store, precision)
            _cli.closing(
                "search",
                f"{figures['evaluations']:.4g} evaluations, best reward {figures['reward']:.4f}, "
                f"accuracy {100 * figures['reward_accuracy']:.2f} % on the reward images, "
                f"{figures['flops_kept']:.3f} of the flops",
                out / "plan.json",
            )


if __name__ == "__main__":
    app()
