"""One command for a trained network of one's own: parameters, all stages, the result."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from stages import _cli
from stages.__main__ import STAGES
from stages.preset import write

app = _cli.app(__doc__)

TABLE = Path("latency.json")


@app.command()
def compress(
    network: Annotated[str, typer.Option(help="torchvision/NAME, package.module:function, ...")],
    images: Annotated[Path, typer.Option(help="Folder with train/CLASS and test/CLASS.")],
    weights: Annotated[str, typer.Option(help="File, or a name of torchvision's weights.")],
    flops: Annotated[float | None, typer.Option(help="Fraction of the flops to keep.")] = None,
    latency: Annotated[float | None, typer.Option(help="Of the time of one image.")] = None,
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
        settings = [*_budget(asked), *_sources(network, images, weights), *(overrides or ())]
        settings += _checked(settings)
        write("own", settings, params, force)
    with_dvc = Path(".dvc").is_dir() and params == _cli.PARAMS and bool(find_spec("dvc"))
    done = 0
    if latency is not None:
        _run(STAGES[:2], params, with_dvc)
        _table()
        done = 0 if with_dvc else 2
    _run(STAGES[done:], params, with_dvc)


def _budget(asked: dict[str, float | None]) -> list[str]:
    from gnnrl.errors import UserError

    given = {name: value for name, value in asked.items() if value is not None}
    if len(given) != 1:
        names = " and ".join(f"--{name}" for name in given) or "none"
        raise UserError(f"got {names}: give exactly one of --flops, --latency and --parameters")
    table = [f"search.latency_table={TABLE}"] if "latency" in given else []
    return [*(f"search.budget.{name}={given.get(name, 'null')}" for name in asked), *table]


def _sources(network: str, images: Path, weights: str) -> list[str]:
    return [f"network.name={network}", f"data.root={images}", f"pretrain.weights={weights}"]


def _checked(settings: list[str]) -> list[str]:
    """Read images and weights once, say what was found; return what follows from their number."""
    from gnnrl.data.load import load_data, transform_of
    from gnnrl.errors import UserError
    from gnnrl.params import check, presets
    from gnnrl.pretraining import starting_point

    found = check(presets.preset("own", [*settings, "data.reward_images=1"]), "compress")
    data, shape = found.data, found.network.input_shape
    splits, transform = load_data(data, shape), transform_of(data, shape)
    sizes = splits.sizes()
    there = sizes["test"] + 1
    if there < 2:
        raise UserError(f"{data.root} has one test image: half of them score the search, add more")
    given = any(setting.startswith("data.reward_images=") for setting in settings)
    count = min(500, there // 2)
    pretrain = found.pretrain
    starting_point(found.network.name, splits.num_classes, shape, pretrain.weights, pretrain.sha256)
    print(
        f"images: {sizes['train']} to train, {there} to test, {splits.num_classes} classes; "
        f"{count} of the test images score the search\n"
        f"scaled to cover {shape[1]} x {shape[2]} and cut at the middle; mean "
        f"{_short(transform.mean)}, std {_short(transform.std)} (--set data.mean=[...])"
    )
    return [] if given else [f"data.reward_images={count}"]


def _short(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _run(names: tuple[str, ...], params: Path, with_dvc: bool) -> None:
    if with_dvc:
        code = subprocess.run([sys.executable, "-m", "dvc", "repro", *names]).returncode
        if code:
            raise typer.Exit(code)
        return
    for name in names:
        getattr(importlib.import_module(f"stages.{name}"), name)(params=params)


def _table() -> None:
    from stages.latency import latency

    latency(out=TABLE, images=1)


if __name__ == "__main__":
    app()
