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
    front: _cli.Front = None,
) -> None:
    """Search the graph for the best plan within the budget; a killed search continues."""
    with _cli.stage("search", params, overrides, out) as sections:
        from gnnrl.checkpoint import Checkpoint
        from gnnrl.data.load import load_data
        from gnnrl.graph.graph import ComputationalGraph
        from gnnrl.search import results
        from gnnrl.search.build import SearchTask, latency_table, run
        from gnnrl.search.front import Front

        options = sections.search
        if front is not None:
            read = ComputationalGraph.load(graph)
            file = Front.load(out).write(out, read, front, latency_table(options))
            _cli.closing("search", f"a plan for {front:g}, without an evaluation", file)
            return
        trust, weights = sections.network.name, _cli.weights_file(pretrain, options.weights)
        checkpoint, read = Checkpoint.load(weights, trust), ComputationalGraph.load(graph)
        checkpoint.refuse_graph(read)
        start = pretrain / "initial.safetensors"
        initial = Checkpoint.load(start, trust) if options.needs_initial else None
        meaning = sections.task.build()
        metric = meaning.metric
        splits = load_data(sections.data, checkpoint.input_shape, meaning.targets)
        task = SearchTask(options, checkpoint, read, splits.reward, splits.train, initial, meaning)
        with _cli.claimed("search", *task.identity()) as journal:
            if before := results.evaluated_before(journal):
                print(f"search goes on after {before} evaluated plans", flush=True)
            task = replace(task, folder=journal / "students")
            watch = _cli.watched("search", options.agent, options.seed, journal)
            found, spent = run(task, journal, watch)
            with _cli.results(out, *results.OWN, settings=sections) as folder:
                how = task.store, options.reward, metric, journal, latency_table(options)
                figures = results.save(folder, read, found, spent, *how)
            _cli.closing("search", results.told(figures, metric), out / "plan.json")


if __name__ == "__main__":
    app()
