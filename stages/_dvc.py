"""What DVC and Git know of experiments, asked by their commands."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any


def shown(file: str | None) -> Any:
    """Return what `dvc exp show --json` prints: from a file, standard input (-), or DVC itself."""
    from gnnrl.errors import UserError

    text = ""
    if file not in (None, "-"):
        text = Path(str(file)).read_text(encoding="utf-8")
    elif file == "-" or not sys.stdin.isatty():
        text = sys.stdin.read()
    if not text.strip() and file is None:
        text = run("exp", "show", "--json")
    try:
        return json.loads(text)
    except ValueError:
        source = "DVC" if file is None else file
        raise UserError(
            f"{source} gave no JSON ({text[:40].strip()!r}): expected what `dvc exp show --json` "
            "prints"
        ) from None


class Lineage:
    """Which figures of a revision are its own."""

    def computed(self, revision: str, path: str) -> bool:
        """Whether a revision computed a file itself; true where Git does not know it."""
        lock, own = self._read(revision)
        from gnnrl.report.lineage import stage_of

        stage = stage_of(path, lock)
        return own is None or stage is None or stage in own

    @cache  # noqa: B019  (one object for one command)
    def _read(self, revision: str) -> tuple[Any, set[str] | None]:
        import yaml

        from gnnrl.report.lineage import cached_listing, own_stages

        texts = [self._file(revision, name) for name in ("dvc.lock", "params.yaml")]
        if None in texts:
            print(f"table: it is not known which figures of {revision} are its own; all are shown",
                  file=sys.stderr)  # fmt: skip
            return None, None
        lock, params = (yaml.safe_load(text or "") for text in texts)
        return lock, own_stages(lock, params, cached_listing)

    def _file(self, revision: str, name: str) -> str | None:
        if revision == "workspace":
            return Path(name).read_text(encoding="utf-8") if Path(name).exists() else None
        command = ["git", "show", f"{revision}:./{name}"]
        found = subprocess.run(command, capture_output=True, text=True)
        return None if found.returncode else found.stdout


def run(*words: str, settings: Mapping[str, str] | None = None) -> str:
    """Run DVC with more environment variables; return what it printed. Its failure is ours."""
    from gnnrl.errors import UserError

    command, env = [sys.executable, "-m", "dvc", *words], {**os.environ, **(settings or {})}
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env)
    if found.returncode:
        raise UserError(f"`dvc {' '.join(words)}` failed: see what it said above")
    return found.stdout


def combinations(values: Sequence[str]) -> list[list[str]]:
    """Return every combination of `section.key=value,value...`; commas in brackets are no ends."""
    from gnnrl.errors import UserError

    each = []
    for given in values:
        key, equals, text = given.partition("=")
        if not (key and equals and text):
            raise UserError(f"-S wants section.key=value,value..., got {given!r}")
        parts = _parts(text)
        if not all(parts):
            raise UserError(f"-S {given} has an empty value: write one between all commas, or null")
        each.append([f"{key}={part}" for part in parts])
    return [list(chosen) for chosen in itertools.product(*each)]


def _parts(text: str) -> list[str]:
    """Split at the commas that stand in no bracket."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "[{") - (sign in "]}")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def visible_devices() -> list[str]:
    """Return the GPUs that may be used, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def usable_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def workers(devices: Sequence[str], each: int, cores: int) -> list[dict[str, str]]:
    """Return the environment of every worker: its GPU, if there are any, and its threads."""
    places = [device for device in devices for _ in range(each)] or [""] * each
    threads = str(max(1, cores // len(places)))
    common = {"OMP_NUM_THREADS": threads}
    return [{"CUDA_VISIBLE_DEVICES": place, **common} if place else common for place in places]


def wait_for_the_queue(pause: float = 10.0) -> int:
    """Return, when nothing waits or runs any more, how many experiments have failed."""
    while True:
        states = [line.split() for line in run("queue", "status").splitlines()]
        if not any({"Queued", "Running"} & set(words) for words in states):
            return sum("Failed" in words for words in states)
        time.sleep(pause)
