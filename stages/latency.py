"""A table of what the network's operations take on this machine, for budgets of latency."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stages import _cli

TABLE = Path("inputs/search/latency.json")

app = _cli.app(__doc__)


@app.command()
def latency(
    dense: _cli.Dense = Path("artifacts/pretrain/final.safetensors"),
    graph: _cli.Graph = Path("artifacts/extract/graph.json"),
    out: Annotated[Path, typer.Option(help="The file to write.")] = TABLE,
    runtime: Annotated[str, typer.Option(help="As in evaluate.latency_runtimes.")] = "torch",
    images: Annotated[int, typer.Option(min=1, help="Images that pass at once.")] = 16,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: PyTorch's own.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Of which the median is taken.")] = 15,
    subnets: Annotated[int, typer.Option(min=0, help="Whole subnets, to correct the sum.")] = 16,
    params: _cli.ParamsFile = _cli.PARAMS,
) -> None:
    """Measure once per device, runtime and batch size; name the file in search.latency_table."""
    with _cli.refusals("latency"):
        from gnnrl.checkpoint import Checkpoint
        from gnnrl.graph.graph import ComputationalGraph
        from gnnrl.measurement.latency_table import about, table_of
        from gnnrl.measurement.runtimes import runtime_of
        from gnnrl.measurement.settings import EvaluateSettings
        from gnnrl.params import load_params
        from gnnrl.pruning.surgery import Surgeon
        from gnnrl.runtime import device

        runtime_of(runtime)
        found = load_params("evaluate", params) if params.exists() else None
        trust = found.network.name if found else False
        checkpoint, read = Checkpoint.load(dense, trust), ComputationalGraph.load(graph)
        checkpoint.refuse_graph(read)
        surgeon = Surgeon(checkpoint.restore().to(device()).eval(), read)
        table = table_of(surgeon, images, rounds, runtime, threads, subnets)
        table.save(out)
        print(f"{out}: {about(table)}")
        if noise := table.noise((found.evaluate if found else EvaluateSettings()).noisy_above):
            print(f"latency: {noise}")


if __name__ == "__main__":
    app()
