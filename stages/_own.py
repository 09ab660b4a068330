"""What the commands `preset` and `compress` share: parameters written, stages run."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from stages.latency import TABLE, latency


def write(name: str, overrides: Sequence[str], params: Path, force: bool) -> None:
    """Show what a preset changes and write it to a file whose content is saved, or with `force`."""
    from gnnrl.errors import UserError
    from gnnrl.files import atomic_write
    from gnnrl.params import presets

    values = presets.preset(name, overrides)
    for line in presets.differences(params, values):
        print(line)
    if params.exists() and not force and not _saved(params):
        raise UserError(
            f"{params} has changes that are neither committed nor a preset's: commit or --force"
        )
    atomic_write(params, presets.text(name, values).encode())
    print(f"wrote {params}: {presets.title(name)}")


def _saved(params: Path) -> bool:
    """Whether the file is as Git has it; where Git does not know, whether it is a preset."""
    from gnnrl.params import presets

    command = ["git", "-C", str(params.parent), "status", "--porcelain", "--", params.name]
    try:
        status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        status = "no Git"
    return not status or presets.is_one(params)


def budget(asked: dict[str, float | None]) -> list[str]:
    """Return the settings of the one budget that is not None."""
    from gnnrl.errors import UserError

    given = {name: value for name, value in asked.items() if value is not None}
    if len(given) != 1:
        names = " and ".join(f"--{name}" for name in given) or "none"
        raise UserError(f"got {names}: give exactly one of --flops, --latency and --parameters")
    table = [f"search.latency_table={TABLE}"] if "latency" in given else []
    return [*(f"search.budget.{name}={given.get(name, 'null')}" for name in asked), *table]


def sources(network: str, images: Path, weights: str) -> list[str]:
    """Return the settings of network, images and weights."""
    return [f"network.name={network}", f"data.root={images}", f"pretrain.weights={weights}"]


def checked(settings: list[str]) -> list[str]:
    """Read images and weights once, say what was found; return what follows from their number."""
    from gnnrl.errors import UserError
    from gnnrl.params import check, presets, refuse_absent

    found = check(presets.preset("own", [*settings, "data.reward_images=1"]), "compress")
    refuse_absent(found, "pretrain")
    from gnnrl.data.load import load_data, transform_of
    from gnnrl.pretrained import dense_checkpoint

    data, shape = found.data, found.network.input_shape
    splits = load_data(data, shape, found.task.build().targets)
    transform = transform_of(data, shape)
    sizes = splits.sizes()
    there = sizes["test"] + 1
    if there < 2:
        raise UserError(f"{data.root} has one test image: half of them score the search, add more")
    given = any(setting.startswith("data.reward_images=") for setting in settings)
    count = min(500, there // 2)
    dense_checkpoint(found.network, found.pretrain, splits)
    print(
        f"images: {sizes['train']} to train, {there} to test, {splits.num_classes} classes; "
        f"{count} of the test images score the search\n"
        f"scaled to cover {shape[1]} x {shape[2]} and cut at the middle; mean "
        f"{_short(transform.mean)}, std {_short(transform.std)} (--set data.mean=[...])"
    )
    return [] if given else [f"data.reward_images={count}"]


def _short(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def run(names: tuple[str, ...], params: Path, with_dvc: bool) -> None:
    """Run stages, with DVC or directly."""
    if with_dvc:
        code = subprocess.run([sys.executable, "-m", "dvc", "repro", *names]).returncode
        if code:
            raise typer.Exit(code)
        return
    for name in names:
        getattr(importlib.import_module(f"stages.{name}"), name)(params=params)


def table(params: Path) -> None:
    """Measure the latency table of single images."""
    latency(out=TABLE, images=1, params=params)
