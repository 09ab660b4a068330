"""Artifacts that are damaged at random, or made by a stranger, and read as the stages read them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import pickle
import random
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.soak.counting import Trial
from benchmarks.soak.stages import Pipeline
from gnnrl.checkpoint import Checkpoint
from gnnrl.errors import UserError
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.latency import LatencyTable
from gnnrl.measurement.operation_latency import measure
from gnnrl.pruning.plan import PruningPlan
from gnnrl.report.run import read_run
from gnnrl.sealed import read_state
from gnnrl.search.journal import EVALUATIONS, Journal

ODD = (None, True, -1, 0, 1e300, 2**70, "", "x", [], {}, [[]], "\u0000", 0.5, "stranger:network")
SECONDS = 60  # after which reading a file hangs


@dataclass(frozen=True)
class Kind:
    """One kind of artifact: a file, and what reading it gives."""

    path: Path
    read: Callable[[Path], Any]


class Payload:
    """Pickled, it writes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.mark, "executed")


def trials(pipeline: Pipeline, seed: int) -> Iterator[Trial]:
    """Yield damages of all kinds in turn."""
    pipeline = pipeline.copied(pipeline.folder / "damaged")
    mark = pipeline.folder / "executed"
    stranger = pipeline.folder / "strangers"
    stranger.mkdir(exist_ok=True)
    text = f"from pathlib import Path\nPath({str(mark)!r}).write_text('import')\n"
    (stranger / "stranger.py").write_text(text, encoding="utf-8")
    sys.path.insert(0, str(stranger))
    kinds = kinds_of(pipeline)
    whole = {name: kind.path.read_bytes() for name, kind in kinds.items()}
    expected = {name: kind.read(kind.path) for name, kind in kinds.items()}
    number = 0
    while True:
        for name, kind in kinds.items():
            chance = random.Random(f"{seed} {name} {number}")
            run = partial(try_damage, kind, whole[name], expected[name], chance, mark)
            yield Trial(f"damaged {name}", number, run)
        number += 1


def kinds_of(pipeline: Pipeline) -> dict[str, Kind]:
    """Return every kind of artifact that a run leaves."""
    made, scratch = pipeline.artifacts, pipeline.scratch
    (journal,) = [path.parent for path in scratch.rglob(EVALUATIONS)]
    graph = ComputationalGraph.load(made / "extract" / "graph.json")
    measure(graph, 1, 1, "soak").save(made / "table.json")
    lines = journal / EVALUATIONS
    known = {row["plan"]: row["reward"] for row in map(json.loads, lines.read_text().splitlines())}
    page = partial(Kind, read=lambda _: page_of(made))
    return {
        "checkpoint": Kind(made / "pretrain" / "final.safetensors", checkpoint_of),
        "subnet": Kind(made / "train" / "subnet.safetensors", checkpoint_of),
        "graph": Kind(made / "extract" / "graph.json", lambda p: ComputationalGraph.load(p).digest),
        "plan": Kind(made / "search" / "plan.json", PruningPlan.load),
        "agent": Kind(made / "search" / "agent.pt", state_of),
        "search state": Kind(journal / "search.pt", state_of),
        "journal": Kind(lines, partial(journal_of, known)),
        "latency table": Kind(
            made / "table.json", lambda p: dict(LatencyTable.load(p).milliseconds)
        ),
        "metrics.json": page(made / "evaluate" / "metrics.json"),
        "metrics.json of the search": page(made / "search" / "metrics.json"),
        "latency.json": page(made / "evaluate" / "latency.json"),
        "evaluations.csv": page(made / "search" / "evaluations.csv"),
        "history.csv": page(made / "train" / "history.csv"),
        "settings.yaml": page(made / "search" / "settings.yaml"),
        "digests.json": page(made / "search" / "digests.json"),
    }


def try_damage(kind: Kind, whole: bytes, expected: Any, chance: random.Random, mark: Path) -> str:
    """Damage a file, read it, put it back; say what became of it."""
    changed = whole
    while changed == whole:
        changed = damaged(whole, chance, mark)
    kind.path.write_bytes(changed)
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = kind.read(kind.path)
        how = "harmless" if found == expected else "silently wrong"
    except UserError as error:
        how = "sentence" if "\n" not in str(error) else "traceback"
    except TimeoutError:
        how = "hang"
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        how = "traceback"
    finally:
        signal.alarm(0)
        kind.path.write_bytes(whole)
    if mark.exists():
        mark.unlink()
        return "code run"
    return how


def _late(number: int, frame: object) -> None:
    raise TimeoutError


def damaged(data: bytes, chance: random.Random, mark: Path) -> bytes:
    """Damage bytes, or the structure of JSON; put something of a stranger in their place."""
    if chance.random() < 0.03:
        return chance.choice((b"", b"[" * 200_000, b"\0" * 1000, pickle.dumps(Payload(mark))))
    if data.startswith(b"PK") and chance.random() < 0.1:
        buffer = io.BytesIO()
        torch.save({"policy": Payload(mark), "agent": Payload(mark)}, buffer)
        return buffer.getvalue()
    try:
        content = json.loads(data)
    except ValueError:
        return flipped(data, chance)
    if chance.random() < 0.4:
        return flipped(data, chance)
    return json.dumps(mutated(content, chance)).encode()


def flipped(data: bytes, chance: random.Random) -> bytes:
    """Flip a bit, cut the end off, leave a part out, write zeros over one, put one in."""
    place, length = chance.randrange(len(data)), chance.randrange(1, 200)
    made = (
        lambda: data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :],
        lambda: data[:place],
        lambda: data[:place] + data[place + length :],
        lambda: data[:place] + bytes(min(length, len(data) - place)) + data[place + length :],
        lambda: data[:place] + chance.randbytes(length) + data[place:],
        lambda: data.replace(b"basic", b"stran").replace(b"resnet20", b"os:abort"),
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


# --- what reading gives, so that it can be compared


def plain(value: Any) -> Any:
    """Return tensors as lists."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def state_of(path: Path) -> Any:
    """Return what a saved state holds."""
    return plain(read_state(path))


def checkpoint_of(path: Path) -> Any:
    """Return what a checkpoint means."""
    found = Checkpoint.load(path)
    return found.digest, plain(dict(found.restore().state_dict()))


def journal_of(known: dict[str, float], path: Path) -> Any:
    """Return the evaluations of a journal that were not written so: none, if damage is found."""
    found = Journal(path.parent, {})
    wrong = [plan for plan, row in found._known.items() if row.reward != known.get(plan)]
    for aside in path.parent.glob("*.damaged"):
        aside.unlink()
    return wrong


def page_of(artifacts: Path) -> Any:
    """Return what the report would show."""
    run = read_run(artifacts)
    tables = [run.evaluations, *run.histories.values()]
    texts = [table.to_csv() for table in tables]
    return run.figures, run.latency, run.plan, texts, run.metrics, run.search
