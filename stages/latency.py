"""A table of what the network's operations take on this machine, for budgets of latency."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stages import _cli

app = _cli.app(__doc__)


@app.command()
def latency(
    graph: Annotated[Path, typer.Option(help="The network's graph.")] = Path(
        "artifacts/extract/graph.json"
    ),
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path(
        "inputs/search/latency.json"
    ),
    images: Annotated[int, typer.Option(min=1, help="Images that pass at once.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Of which the median is taken.")] = 7,
) -> None:
    """Measure once per machine, keep the file, and name it in search.latency_table."""
    with _cli.refusals("latency"):
        import platform

        from gnnrl.graph.graph import ComputationalGraph
        from gnnrl.measurement.operation_latency import measure

        machine = f"{platform.machine()} {platform.processor()}".strip()
        table = measure(ComputationalGraph.load(graph), images, rounds, machine)
        table.save(out)
        print(f"{out}: {len(table.milliseconds)} operations at {images} images")


if __name__ == "__main__":
    app()
