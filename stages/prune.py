"""The plan becomes a smaller network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stages import _cli

app = _cli.app(__doc__)


@app.command()
@_cli.described
def prune(
    pretrain: _cli.Pretrain = Path("artifacts/pretrain"),
    graph: _cli.Graph = Path("artifacts/extract/graph.json"),
    plan: Annotated[Path, typer.Option(help="What to keep.")] = Path("artifacts/search/plan.json"),
    out: _cli.Out = Path("artifacts/prune"),
    params: _cli.ParamsFile = _cli.PARAMS,
    overrides: _cli.Overrides = None,
) -> None:
    """Prune the network to the plan; compensate for what it lost; measure batch norm anew."""
    with _cli.stage("prune", params, overrides, out) as sections:
        from gnnrl.checkpoint import Checkpoint
        from gnnrl.data.load import load_data
        from gnnrl.files import write_json
        from gnnrl.graph.graph import ComputationalGraph
        from gnnrl.pruning.plan import PruningPlan
        from gnnrl.pruning.repair import repaired
        from gnnrl.pruning.surgery import Surgeon
        from gnnrl.runtime import device
        from gnnrl.training.evaluate import RewardScore

        weights = _cli.weights_file(pretrain, sections.prune.weights)
        checkpoint = Checkpoint.load(weights, trust=sections.network.name)
        read = ComputationalGraph.load(graph)
        checkpoint.refuse_graph(read)
        chosen = PruningPlan.load(plan, read.digest)
        task = sections.task.build()
        splits = load_data(sections.data, checkpoint.input_shape, task.targets)
        surgeon = Surgeon(checkpoint.restore().to(device()), read)
        surgeon.prove(chosen)
        score = RewardScore(task, splits.reward, surgeon.network)
        figures = {}
        if sections.prune.recalibration_images or sections.prune.compensation != "none":
            figures[f"{score.name}_before_repair"] = score(surgeon.cut(chosen))
        subnet = repaired(surgeon, chosen, sections.prune, splits.train, sections.data.seed)
        figures[score.name] = score(subnet)
        with _cli.results(out, settings=sections) as folder:
            cut = checkpoint.following(subnet, chosen, read)
            cut.save(folder / "subnet.safetensors")
            write_json(folder / "metrics.json", {"prune": figures})
        _cli.right("prune", score, figures[score.name], out / "subnet.safetensors")


if __name__ == "__main__":
    app()
