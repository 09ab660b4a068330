"""One command for a trained network of one's own: parameters, all stages, the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stages import _cli, _own
from stages.__main__ import STAGES

app = _cli.app(__doc__)


@app.command()
def compress(
    network: Annotated[str, typer.Option(help="torchvision/NAME, package.module:function, ...")],
    images: Annotated[Path, typer.Option(help="Folder with train/CLASS and test/CLASS.")],
    weights: Annotated[str, typer.Option(help="File, or a name of torchvision's weights.")],
    flops: Annotated[float | None, typer.Option(help="Fraction of the flops to keep.")] = None,
    latency: Annotated[
        float | None, typer.Option(help="Of the time, if not set of one image in PyTorch.")
    ] = None,
    parameters: Annotated[float | None, typer.Option(help="Of the parameters.")] = None,
    params: Annotated[Path, typer.Option(help="The file to write.")] = _cli.PARAMS,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is not saved.")] = False,
    overrides: _cli.Overrides = None,
) -> None:
    """Write params.yaml for a trained network and images, run all stages, print the result.

    Exactly one of --flops, --latency and --parameters. The stages run with `dvc repro` in a DVC
    repository, else one after the other.
    """
    with _cli.refusals("compress"):
        asked = {"flops": flops, "latency": latency, "parameters": parameters}
        settings = [
            *_own.budget(asked),
            *_own.sources(network, images, weights),
            *(overrides or ()),
        ]
        settings += _own.checked(settings)
        _own.write("own", settings, params, force)
    with_dvc = _own.by_dvc(params, STAGES)
    done = 0
    if latency is not None:
        _own.run(STAGES[:2], params, with_dvc)
        _own.table(params)
        done = 0 if with_dvc else 2
    _own.run(STAGES[done:], params, with_dvc)


if __name__ == "__main__":
    app()
