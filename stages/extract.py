"""The computational graph of the dense network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stages import _cli

app = _cli.app(__doc__)


@app.command()
def extract(
    network: Annotated[Path, typer.Option(help="Checkpoint of the dense network.")] = Path(
        "artifacts/pretrain/final.safetensors"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("artifacts/extract"),
    params: _cli.ParamsFile = _cli.PARAMS,
    overrides: _cli.Overrides = None,
) -> None:
    """Read the network as operations, channel groups and costs.

    Reads the sections network and extract. Writes graph.json, graph.png and settings.yaml.
    """
    with _cli.stage("extract", params, overrides, out) as sections:
        import torch

        from gnnrl.checkpoint import Checkpoint
        from gnnrl.files import atomic_write
        from gnnrl.graph import extract as graphs
        from gnnrl.graph.cost import cost
        from gnnrl.report.graph_picture import draw

        checkpoint = Checkpoint.load(network, trust=sections.network.name)
        image = torch.zeros(1, *checkpoint.input_shape)
        graph = graphs.extract(checkpoint.restore(), image, sections.extract.protect)
        picture = draw(graph)
        with _cli.results(out, settings=sections) as folder:
            graph.save(folder / "graph.json")
            atomic_write(folder / "graph.png", picture)
        dense = cost(graph)
        _cli.closing(
            "extract",
            f"{len(graph.layers)} layers, {len(graph.groups)} channel groups, "
            f"{dense.flops / 1e6:,.2f} M flops, {dense.parameters / 1e3:,.1f} k parameters",
            out / "graph.json",
        )


if __name__ == "__main__":
    app()
