"""The computational graph of the dense network."""

from __future__ import annotations

from pathlib import Path

from stages import _cli

app = _cli.app(__doc__)


@app.command()
@_cli.described
def extract(
    network: _cli.Dense = Path("artifacts/pretrain/final.safetensors"),
    out: _cli.Out = Path("artifacts/extract"),
    params: _cli.ParamsFile = _cli.PARAMS,
    overrides: _cli.Overrides = None,
) -> None:
    """Read the network as operations, channel groups and costs, and say what can be pruned."""
    with _cli.stage("extract", params, overrides, out) as sections:
        import torch

        from gnnrl.checkpoint import Checkpoint
        from gnnrl.files import atomic_write, write_json
        from gnnrl.graph import extract as graphs
        from gnnrl.report.coverage import coverage, summary
        from gnnrl.report.graph_picture import draw

        checkpoint = Checkpoint.load(network, trust=sections.network.name)
        image = torch.zeros(1, *checkpoint.input_shape)
        graph = graphs.extract(checkpoint.restore(), image, **dict(sections.extract))
        covered, picture = coverage(graph), draw(graph)
        with _cli.results(out, settings=sections) as folder:
            graph.save(folder / "graph.json")
            write_json(folder / "coverage.json", covered)
            atomic_write(folder / "graph.png", picture)
        first, *whole = summary(covered).splitlines()
        _cli.closing("extract", first, out / "graph.json")
        for line in whole:
            print(line)


if __name__ == "__main__":
    app()
