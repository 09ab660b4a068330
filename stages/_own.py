"""What the commands `preset` and `compress` share: parameters written, stages run."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from stages._cli import PARAMS
from stages.latency import TABLE, latency

RESCORE = {"plans": 3, "images": 500, "compensation": "sequential"}
"""How a search for depth and width chooses among its best plans."""


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
    """Return the settings of the one budget that is not None.

    Latency is saved by depth, too; then the best plans are refitted and scored on other images, for
    the reward prefers plans without blocks that the refit needs.
    """
    from gnnrl.errors import UserError

    given = {name: value for name, value in asked.items() if value is not None}
    if len(given) != 1:
        names = " and ".join(f"--{name}" for name in given) or "none"
        raise UserError(f"got {names}: give exactly one of --flops, --latency and --parameters")
    further = {"search.latency_table": TABLE, "search.space": "joint", "search.rescore": RESCORE}
    latency = [f"{key}={value}" for key, value in further.items()] if "latency" in given else []
    return [*(f"search.budget.{name}={given.get(name, 'null')}" for name in asked), *latency]


def sources(network: str, images: Path, weights: str) -> list[str]:
    """Return the settings of network, images and weights."""
    return [f"network.name={network}", f"data.root={images}", f"pretrain.weights={weights}"]


def checked(settings: list[str]) -> list[str]:
    """Read images and weights once, say what was found; return the settings that follow from it."""
    from gnnrl.errors import UserError
    from gnnrl.measurement.export import require_onnx
    from gnnrl.params import check, presets, refuse_absent

    found = check(presets.preset("own", [*settings, "data.reward_images=1"]), "compress")
    refuse_absent(found, "pretrain")
    require_onnx()
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
    dense = dense_checkpoint(found.network, found.pretrain, splits).restore()
    print(
        f"images: {sizes['train']} to train, {there} to test, {splits.num_classes} classes; "
        f"{count} of the test images score the search\n"
        f"scaled to cover {shape[1]} x {shape[2]} and cut at the middle; mean "
        f"{_short(transform.mean)}, std {_short(transform.std)} (--set data.mean=[...])"
    )
    return [*([] if given else [f"data.reward_images={count}"]), *_timed(found, dense)]


def _timed(found: Any, dense: Any) -> list[str]:
    """Return in what `evaluate` measures speed: first in that of a latency table, if one is given.

    found: all parameters.  dense: the network, which tells the runtimes where none are given.
    """
    from gnnrl.errors import UserError
    from gnnrl.files import user_path
    from gnnrl.graph.latency import LatencyTable

    asked, search = found.evaluate, found.search
    measured = {
        "runtimes": _runtimes(found, dense), "batches": asked.latency_batches,
        "threads": asked.latency_threads,
    }  # fmt: skip
    if search.budget.latency is not None and search.latency_table != str(TABLE):
        table = LatencyTable.load(user_path(search.latency_table))
        measured["runtimes"] = (table.runtime, *measured["runtimes"])
        measured["batches"] = (table.batch_size, *measured["batches"])
        measured["threads"] = table.threads
    for name in ("runtimes", "batches"):
        if not measured[name]:
            raise UserError(f"'evaluate.latency_{name}' is empty, so no speed would be measured")
        measured[name] = list(dict.fromkeys(measured[name]))
    print(
        f"speed: measured in {', '.join(measured['runtimes'])}; the headline's is that of "
        f"{measured['runtimes'][0]} at batch {measured['batches'][0]}"
    )
    return [f"evaluate.latency_{name}={value}" for name, value in measured.items() if value]


def _runtimes(found: Any, dense: Any) -> tuple[str, ...]:
    """Return the runtimes that are given, else the customary ones that can run the network."""
    import torch

    from gnnrl.errors import UserError
    from gnnrl.measurement.running import unusable
    from gnnrl.measurement.runtimes import runtime_of

    given, shape = found.evaluate.latency_runtimes, found.network.input_shape
    if "latency_runtimes" in found.evaluate.model_fields_set:
        for name in given:
            runtime_of(name)  # refused before anything is computed
        return given
    why = unusable(dense, torch.zeros(1, *shape))
    if all(why.values()):
        raise UserError(f"network.input_shape is {list(shape)}: {next(iter(why.values()))}")
    print("".join(f"speed: {reason}\n" for reason in why.values() if reason), end="")
    return tuple(name for name, reason in why.items() if not reason)


def _short(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def by_dvc(params: Path, names: Sequence[str]) -> bool:
    """Return whether DVC can run these stages with these parameters here; say why it cannot."""
    if not Path(".dvc").is_dir() or params != PARAMS or not find_spec("dvc"):
        return False
    command = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    listed = subprocess.run(command, capture_output=True, text=True)
    missing = sorted(set(names) - set(listed.stdout.split()))
    if missing:
        reason = listed.stderr.strip() or f"dvc.yaml has no stage {missing[0]}"
        print(f"the stages run without DVC, which cannot run them here ({reason.splitlines()[-1]})")
    return not missing


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
    """Measure the latency table that is searched by, in what `evaluate` measures first."""
    from gnnrl.files import read_yaml
    from gnnrl.params import check

    found = check(read_yaml(params))
    if found.search.latency_table == str(TABLE):
        first = found.evaluate
        runtime, images = first.latency_runtimes[0], first.latency_batches[0]
        latency(runtime=runtime, images=images, threads=first.latency_threads, params=params)
