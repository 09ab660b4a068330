"""Kills, damages and floods the pipeline at random for some minutes, and counts what happens.

    python -m benchmarks.soak --minutes 20 --seed 0

An undisturbed run comes first; the minutes begin after it. Everything runs in a temporary folder
on ResNet-20 and the digits of scikit-learn. The exit code is 1 if anything was silently wrong,
ended in another exception than a sentence, or hung.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
import yaml

from gnnrl.checkpoint import Checkpoint
from gnnrl.errors import UserError
from gnnrl.graph.budget import Budget
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.latency import LatencyTable
from gnnrl.measurement.operation_latency import measure
from gnnrl.params import check
from gnnrl.pruning.importance import l1
from gnnrl.pruning.plan import PruningPlan
from gnnrl.sealed import read_state
from gnnrl.search.journal import EVALUATIONS, Journal
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.search.spaces.filters import FilterSpace
from gnnrl.search.spaces.layers import LayerSpace
from gnnrl.search.spaces.weights import WeightSpace

ROOT = Path(__file__).parents[1]
SETTINGS = (
    "network.name=resnet20",
    "network.input_shape=[1, 8, 8]",
    "data.name=digits",
    "data.reward_images=100",
    "pretrain.recipe.epochs=1",
    "pretrain.snapshots=[]",
    "search.evaluations=8",
    "search.batch=4",
    "train.recipe.epochs=1",
    "evaluate.latency_rounds=2",
)
PATIENCE = 300.0  # seconds after which a stage hangs
BAD = ("silent", "traceback", "hang", "left behind", "lost evaluations")
ODD = (None, True, -1, 0, 1e300, 2**70, "", "x", [], {}, [[]], "\u0000", 0.5, "a.b:c")
Counts = dict[str, Counter[str]]


# --- kills


class Pipeline:
    """The stages in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.artifacts, self.scratch = folder / "artifacts", folder / "scratch"
        made = self.artifacts
        graph, dense = made / "extract" / "graph.json", made / "pretrain" / "final.safetensors"
        self.words: dict[str, tuple[object, ...]] = {
            "pretrain": (),
            "extract": ("--network", dense),
            "search": ("--pretrain", made / "pretrain", "--graph", graph),
            "prune": (
                *("--pretrain", made / "pretrain", "--graph", graph),
                *("--plan", made / "search" / "plan.json"),
            ),
            "train": ("--subnet", made / "prune" / "subnet.safetensors", "--teacher", dense),
            "evaluate": ("--dense", dense, "--subnet", made / "train" / "subnet.safetensors"),
            "report": ("--artifacts", made),
        }

    def start(self, stage: str, out: Path, scratch: Path) -> subprocess.Popen[str]:
        """Start a stage in a process of its own."""
        words = [*map(str, self.words[stage]), "--out", str(out)]
        for setting in SETTINGS:
            words += ["--set", setting]
        env = {**os.environ, "GNNRL_SCRATCH": str(scratch), "GNNRL_PROGRESS": "0"}
        return subprocess.Popen(
            [sys.executable, "-m", f"stages.{stage}", *words],
            cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, stage: str, out: Path, scratch: Path) -> str:
        """Run a stage to its end; return what it says on stderr where it fails."""
        process = self.start(stage, out, scratch)
        try:
            _, said = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return "hang"
        return said if process.returncode else ""


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files but those with times."""
    timed = ("latency.json", "report.html")
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in timed]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def evaluated(scratch: Path) -> int:
    """Return how many evaluations stand in the journals below a folder."""
    return sum(path.read_bytes().count(b"\n") for path in scratch.rglob(EVALUATIONS))


def kill(pipeline: Pipeline, stage: str, seconds: float, chance: random.Random) -> str:
    """Kill a stage at a random moment, run it again and compare with the undisturbed run."""
    number = signal.SIGKILL if chance.random() < 0.7 else signal.SIGTERM
    with tempfile.TemporaryDirectory() as name:
        out, scratch = Path(name) / "out", Path(name) / "scratch"
        process = pipeline.start(stage, out, scratch)
        time.sleep(seconds * chance.random())
        process.send_signal(number)
        since = time.monotonic()
        _, said = process.communicate(timeout=PATIENCE)
        if time.monotonic() - since > 6:
            return "hang"
        if "Traceback" in said:
            return "traceback"
        before = evaluated(scratch)
        if problem := pipeline.run(stage, out, scratch):
            return "hang" if problem == "hang" else "traceback"
        if stage == "search" and evaluated(scratch) < before:
            return "lost evaluations"
        left = [
            path for path in out.parent.rglob("*") if ".new" in path.name or ".tmp" in path.name
        ]
        if left:
            return "left behind"
        same = contents(out) == contents(pipeline.artifacts / stage)
        return "same bytes after the rerun" if same else "silent"


# --- damage


def flipped(data: bytes, chance: random.Random) -> bytes:
    """Flip a bit, cut the end off, leave a part out, write zeros over one, or put one in."""
    place, length = chance.randrange(len(data)), chance.randrange(1, 200)
    made = (
        lambda: data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :],
        lambda: data[:place],
        lambda: data[:place] + data[place + length :],
        lambda: data[:place] + bytes(min(length, len(data) - place)) + data[place + length :],
        lambda: data[:place] + chance.randbytes(length) + data[place:],
    )
    return chance.choice(made)()


def mutated(value: Any, chance: random.Random) -> Any:
    """Return JSON content with one value, deep inside, replaced, removed or doubled."""
    value = copy.deepcopy(value)
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return value
        key = chance.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and chance.random() < 0.8:
            place = place[key]
            continue
        how = chance.randrange(3)
        if how == 0:
            del place[key]
        elif how == 1 and isinstance(place, list):
            place.insert(key, place[key])
        else:
            place[key] = chance.choice(ODD)
        return value


def damage(data: bytes, chance: random.Random) -> bytes:
    """Damage bytes, or the structure of JSON."""
    try:
        content = json.loads(data)
    except ValueError:
        return flipped(data, chance)
    if chance.random() < 0.4:
        return flipped(data, chance)
    if chance.random() < 0.05:
        return b"[" * 200_000
    return json.dumps(mutated(content, chance)).encode()


def outcome(read: Callable[[], Any], expected: Any) -> str:
    """Say what became of a damaged file."""
    try:
        found = read()
    except UserError as error:
        return "sentence" if "\n" not in str(error) else "traceback"
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return "traceback"
    return "harmless" if found == expected else "silent"


def plain(value: Any) -> Any:
    """Return tensors as lists, so that states can be compared."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def checkpoint_of(path: Path) -> Any:
    """Return what a checkpoint means."""
    found = Checkpoint.load(path)
    return found.digest, plain(dict(found.state))


def journal_of(path: Path) -> Any:
    """Return what a journal has that was not written: nothing, if all damage is found."""
    whole = path.with_suffix(".whole")
    known = {row["plan"]: row["reward"] for row in map(json.loads, whole.read_text().splitlines())}
    with contextlib.redirect_stdout(io.StringIO()):
        found = Journal(path.parent, {})
    wrong = [p for p, row in found._known.items() if row.reward != known.get(p)]
    for aside in path.parent.glob("*.damaged"):
        aside.unlink()
    return wrong


def readers(artifacts: Path, journal: Path) -> dict[str, tuple[Path, Callable[[Path], Any]]]:
    """Return every kind of artifact: a file, and how it is read."""
    graph = ComputationalGraph.load(artifacts / "extract" / "graph.json")
    measure(graph, 1, 1, "soak").save(artifacts / "table.json")
    (journal / EVALUATIONS).with_suffix(".whole").write_bytes((journal / EVALUATIONS).read_bytes())
    return {
        "checkpoint": (artifacts / "pretrain" / "final.safetensors", checkpoint_of),
        "subnet": (artifacts / "train" / "subnet.safetensors", checkpoint_of),
        "graph": (
            artifacts / "extract" / "graph.json",
            lambda path: ComputationalGraph.load(path).digest,
        ),
        "plan": (artifacts / "search" / "plan.json", PruningPlan.load),
        "agent": (artifacts / "search" / "agent.pt", lambda path: plain(read_state(path))),
        "search state": (journal / "search.pt", lambda path: plain(read_state(path))),
        "journal": (journal / EVALUATIONS, journal_of),
        "latency table": (
            artifacts / "table.json",
            lambda path: dict(LatencyTable.load(path).milliseconds),
        ),
    }


# --- floods


def spaces(artifacts: Path) -> Iterator[tuple[str, Any, ComputationalGraph]]:
    """Yield every space on the dense network."""
    network = Checkpoint.load(artifacts / "pretrain" / "final.safetensors").restore()
    graph = ComputationalGraph.load(artifacts / "extract" / "graph.json")
    scores = l1(network, graph)
    yield "channels", ChannelSpace(graph, scores, budget=0.5), graph
    yield "weights", WeightSpace(graph, scores, budget=0.5), graph
    yield "layers", LayerSpace(graph, Budget(flops=0.8)), graph
    yield "filters", FilterSpace(graph, scores, Budget(sparsity=0.5)), graph


def act(space: Any, name: str, draw: np.random.Generator) -> str:
    """Give a space a random action, legal or not; say what became of it."""
    kind = draw.integers(6)
    action = draw.random(space.size) * draw.choice([1.0, 1e-6, 1e6])
    if name in ("layers", "filters"):
        action = (draw.random(space.size) < draw.random()).astype(float)
    spoilt = kind == 0
    if spoilt:
        action[draw.integers(space.size)] = draw.choice([np.nan, np.inf, -np.inf])
    elif kind == 1:
        action = action[: draw.integers(space.size)]
    try:
        plan = space.plan(action)
    except UserError:
        return "sentence"
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        return "traceback"
    empty = any(not kept for kept in plan.kept.values())
    over = name != "filters" and space.used(plan) > space.budget.fraction + 1e-9
    return "silent" if spoilt or empty or over else "plan within the budget"


def parameters(values: dict[str, Any], chance: random.Random) -> str:
    """Change one to three values of params.yaml."""
    for _ in range(chance.randint(1, 3)):
        values = mutated(values, chance)
    try:
        check(values)
    except UserError as error:
        return "sentence" if "\n" not in str(error) else "traceback"
    except Exception as error:
        print(f"params: {type(error).__name__}: {error}", file=sys.stderr)
        return "traceback"
    return "accepted"


# --- all of it


def soak(minutes: float, seed: int, folder: Path) -> Counts:
    """Run everything for about so many minutes; return counts by what was tried and happened."""
    counts: Counts = {}
    chance = random.Random(seed)

    def count(what: str, how: str) -> None:
        counts.setdefault(what, Counter())[how] += 1

    pipeline, took = Pipeline(folder), {}
    for stage in pipeline.words:
        since = time.monotonic()
        if said := pipeline.run(stage, pipeline.artifacts / stage, pipeline.scratch):
            raise SystemExit(f"{stage} fails undisturbed: {said}")
        took[stage] = time.monotonic() - since
    until = time.monotonic() + 60 * minutes  # the undisturbed run before it comes on top
    (journal,) = [path.parent for path in pipeline.scratch.rglob(EVALUATIONS)]
    left = until - time.monotonic()
    flood = time.monotonic() + 0.4 * left
    for number, (what, (path, read)) in enumerate(readers(pipeline.artifacts, journal).items()):
        whole, expected, end = path.read_bytes(), read(path), 0.25 * left * (number + 1) / 8
        while time.monotonic() < flood - 0.4 * left + end:
            path.write_bytes(damage(whole, chance))
            count(f"damaged {what}", outcome(lambda path=path, read=read: read(path), expected))
        path.write_bytes(whole)
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    draw, known = np.random.default_rng(seed), list(spaces(pipeline.artifacts))
    while time.monotonic() < flood:
        for name, space, _ in known:
            count(f"actions on {name}", act(space, name, draw))
        count("parameters", parameters(values, chance))
    while time.monotonic() < until:
        stage = chance.choice(list(pipeline.words))
        count(f"killed {stage}", kill(pipeline, stage, took[stage], chance))
    return counts


def main(minutes: float = 20.0, seed: int = 0, out: Path | None = None) -> None:
    """Soak the pipeline; print the table of counts, and write it to a CSV file if one is named."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        counts = soak(minutes, seed, Path(name))
    rows = [(what, how, n) for what, found in counts.items() for how, n in found.items()]
    for what, how, n in rows:
        print(f"{what:24} {how:28} {n:7}")
    if out is not None:
        with open(out, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("tried", "outcome", "count"), *rows])
    if any(how in BAD for _, how, _ in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
