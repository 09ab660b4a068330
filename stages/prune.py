"""The plan becomes a smaller network."""

from __future__ import annotations

from pathlib import Path

from stages import _cli

app = _cli.app(__doc__)


@app.command()
@_cli.described
def prune(
    pretrain: _cli.Pretrain = Path("artifacts/pretrain"),
    graph: _cli.Graph = Path("artifacts/extract/graph.json"),
    plan: _cli.Plan = Path("artifacts/search/plan.json"),
    out: _cli.Out = Path("artifacts/prune"),
    params: _cli.ParamsFile = _cli.PARAMS,
    overrides: _cli.Overrides = None,
) -> None:
    """Prune the network to the plan and repair it, or take the plan's trained student."""
    with _cli.stage("prune", params, overrides, out) as sections:
        from gnnrl.checkpoint import Checkpoint
        from gnnrl.data.load import load_data
        from gnnrl.evaluation.student_store import kept_student
        from gnnrl.files import write_json
        from gnnrl.graph.graph import ComputationalGraph
        from gnnrl.pruning.plan import PruningPlan
        from gnnrl.pruning.repair import repaired
        from gnnrl.pruning.surgery import Surgeon
        from gnnrl.runtime import device
        from gnnrl.training.evaluate import RewardScore

        options, read = sections.prune, ComputationalGraph.load(graph)
        weights = _cli.weights_file(pretrain, options.dense_weights)
        checkpoint = Checkpoint.load(weights, trust=sections.network.name)
        checkpoint.refuse_graph(read)
        chosen = PruningPlan.load(plan, read.digest)
        task = sections.task.build()
        splits = load_data(sections.data, checkpoint.input_shape, task.targets)
        surgeon = Surgeon(checkpoint.restore().to(device()), read)
        surgeon.prove(chosen)
        score = RewardScore(task, splits.reward, surgeon.network)
        figures = {}
        if options.repairs:
            figures[f"{score.name}_before_repair"] = score(surgeon.cut(chosen))
        if options.goes_on:
            subnet = kept_student(plan.parent, checkpoint, chosen).restore().to(device())
        else:
            subnet = repaired(surgeon, chosen, options, splits.train, sections.data.seed)
        figures[score.name] = score(subnet)
        with _cli.results(out, settings=sections) as folder:
            checkpoint.following(subnet, chosen, read).save(folder / "subnet.safetensors")
            write_json(folder / "metrics.json", {"prune": figures})
        _cli.right("prune", score, figures[score.name], out / "subnet.safetensors")


if __name__ == "__main__":
    app()
