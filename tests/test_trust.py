"""Files of strangers run no code, and files that were changed are refused or mean the same."""

from __future__ import annotations

import json
import math
import pickle
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gnnrl.agents.transfer import adopt
from gnnrl.checkpoint import HEADER, Checkpoint
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.latency import POINTS, LatencyTable
from gnnrl.pruning.plan import PruningPlan
from gnnrl.sealed import read_state, write_state
from gnnrl.search.journal import EVALUATIONS, STATE, Journal
from stages.__main__ import STAGES
from tests import stage_runs, tiny

SETTINGS = (*tiny.SETTINGS, "prune.weights=final", "search.weights=final")
PARAMS = Path(__file__).parents[1] / "params.yaml"


class Payload:
    """Pickled, it writes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.mark, "executed")


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that a stranger's code would write, and the module that would write it."""
    mark = tmp_path / "executed"
    module = f"from pathlib import Path\nPath({str(mark)!r}).write_text('import')\n"
    (tmp_path / "stranger.py").write_text(f"{module}from tests.tiny import network\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield mark
    sys.modules.pop("stranger", None)


@pytest.fixture
def dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from tiny.alone_with_dense(tmp_path, monkeypatch)


def strangers_checkpoint(path: Path) -> Path:
    recipe = {"name": "stranger:network", "num_classes": tiny.CLASSES, "plans": []}
    recipe |= {"input_shape": list(tiny.SHAPE), "protected": [], "epoch": None}
    state = tiny.network(tiny.CLASSES, tiny.SHAPE).state_dict()
    save_file(state, path, {HEADER: json.dumps(recipe)})
    return path


def test_a_checkpoint_imports_what_it_names_only_if_it_is_trusted(mark, tmp_path):
    path = strangers_checkpoint(tmp_path / "a.safetensors")
    for trust in (False, "tests.tiny:network"):
        with pytest.raises(UserError, match=r"names code to run, 'stranger:network'"):
            Checkpoint.load(path, trust=trust).restore()
    assert not mark.exists()
    for trust in (True, "stranger:network"):
        Checkpoint.load(path, trust=trust).restore()
    assert mark.exists()


@pytest.mark.parametrize("stage", ["extract", "search", "prune", "train", "evaluate"])
def test_no_stage_imports_what_a_checkpoint_names(stage, mark, dense):
    given = strangers_checkpoint(dense / "final.safetensors")
    words = {
        "extract": ("--network", given),
        "search": ("--pretrain", dense, "--graph", dense / "graph.json"),
        "prune": ("--pretrain", dense, "--graph", dense / "graph.json", "--plan", dense / "p"),
        "train": ("--subnet", given, "--teacher", given),
        "evaluate": ("--subnet", given, "--dense", given),
    }
    PruningPlan().save(dense / "p")
    code, said = stage_runs.outcome(stage, PARAMS, SETTINGS, *words[stage], "--out", dense / "out")
    assert code == 1 and "names code to run" in said and said.count("\n") == 1
    assert not mark.exists() and not (dense / "out").exists()


def test_nothing_pickled_in_an_agent_is_executed(mark, tmp_path):
    class Agent:
        policy = torch.nn.Linear(1, 1)

    torch.save({"policy": Payload(mark)}, tmp_path / "agent.pt")
    with pytest.raises(UserError, match=r"agent_from .*agent\.pt: not a saved agent"):
        adopt(Agent(), tmp_path / "agent.pt")
    assert not mark.exists()


@pytest.mark.parametrize("write", [torch.save, lambda x, p: p.write_bytes(pickle.dumps(x))])
def test_a_strangers_state_of_a_search_is_set_aside(write, mark, tmp_path, capsys):
    write({"settings": {}, "agent": Payload(mark)}, tmp_path / STATE)
    assert Journal(tmp_path, {}).load() is None
    assert not mark.exists()
    assert f"{STATE}.damaged: set aside" in capsys.readouterr().out


# --- what was changed


def state_of(path: Path) -> Any:
    state = read_state(path)
    return {key: value.tolist() for key, value in state.items()}


def checkpoint_of(path: Path) -> Any:
    found = Checkpoint.load(path)
    return found.digest, found.name, found.epoch


def table_of(path: Path) -> Any:
    table = LatencyTable.load(path)
    return table.milliseconds, table.batch_size


def write_table(path: Path) -> None:
    rows = tuple(tuple(1.0 + i + j for j in range(POINTS)) for i in range(POINTS))
    LatencyTable({"conv": rows, "linear": rows}, 4, "test").save(path)


def write_graph(path: Path) -> None:
    tiny.write_dense(path.parent)
    (path.parent / "graph.json").rename(path)


def write_checkpoint(path: Path) -> None:
    tiny.write_dense(path.parent)
    (path.parent / "final.safetensors").rename(path)


PLAN = PruningPlan({"0": tuple(range(5)), "3": (1, 2, 7)}, frozenset(), {"8": 0.25})
KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "checkpoint": (write_checkpoint, checkpoint_of),
    "graph": (write_graph, lambda path: ComputationalGraph.load(path).digest),
    "plan": (lambda path: PLAN.save(path, "1" * 64), PruningPlan.load),
    "table": (write_table, table_of),
    "state": (lambda path: write_state(path, {"a": torch.arange(300.0)}), state_of),
}


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Flip a bit, cut the end off, leave a part out, or write zeros over one."""
    place, length = chance.randrange(len(data)), chance.randrange(1, 64)
    how = chance.randrange(4)
    if how == 0:
        return data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]
    if how == 1:
        return data[:place]
    if how == 2:
        return data[:place] + data[place + length :]
    return data[:place] + bytes(len(data[place : place + length])) + data[place + length :]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_in_one_sentence_or_means_the_same(kind, tmp_path):
    write, read = KINDS[kind]
    path = tmp_path / kind
    write(path)
    whole, expected = path.read_bytes(), read(path)
    chance, refused = random.Random(kind), 0
    for _ in range(150):
        path.write_bytes(damaged(whole, chance))
        try:
            assert read(path) == expected
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("kind", ["graph", "plan", "table"])
def test_a_file_of_a_newer_version_says_so(kind, tmp_path):
    write, read = KINDS[kind]
    write(tmp_path / kind)
    content = json.loads((tmp_path / kind).read_text())
    (tmp_path / kind).write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(UserError, match="99"):
        read(tmp_path / kind)


def test_a_plan_written_by_hand_needs_no_digest_and_an_edited_one_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(PLAN.to_json()))
    assert PruningPlan.load(path) == PLAN
    PLAN.save(path)
    path.write_text(path.read_text().replace("0.25", "0.75"))
    with pytest.raises(UserError, match="does not match its digest"):
        PruningPlan.load(path)


@pytest.mark.parametrize(
    "text",
    [
        '{"kept": {"a": [false, true]}}',
        '{"kept": {"a": [9223372036854775808]}}',
        '{"kept": {}, "weight_sparsity": {"a": "0.9"}}',
        '{"kept": {}, "kept": {"a": [0]}}',
        '{"kept": {"a": ' + 5000 * "[" + 5000 * "]" + "}}",
        '{"kept": {}, "weight_sparsity": {"a": NaN}}',
    ],
    ids=["bool", "large", "text", "twice", "deep", "nan"],
)
def test_what_is_no_plan_is_refused(text, tmp_path):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(UserError, match=r"plan\.json"):
        PruningPlan.load(tmp_path / "plan.json")


# --- what does not belong together


def test_the_plan_of_another_graph_is_refused(dense):
    graph = ComputationalGraph.load(dense / "graph.json")
    PLAN.save(dense / "plan.json", graph.digest)
    assert PruningPlan.load(dense / "plan.json", graph.digest) == PLAN
    with pytest.raises(UserError, match="plan of another graph"):
        PruningPlan.load(dense / "plan.json", "0" * 64)


@pytest.mark.parametrize("stage", ["search", "prune"])
def test_the_graph_of_another_image_size_is_refused(stage, dense):
    from gnnrl.graph.extract import extract

    network = Checkpoint.load(dense / "final.safetensors", trust=True).restore()
    extract(network, torch.zeros(1, 3, 16, 16)).save(dense / "graph.json")
    PruningPlan().save(dense / "p")
    plan = ("--plan", dense / "p") if stage == "prune" else ()
    words = ("--pretrain", dense, "--graph", dense / "graph.json", *plan, "--out", dense / "out")
    code, said = stage_runs.outcome(stage, PARAMS, SETTINGS, *words)
    assert code == 1 and "extracted at images of (3, 16, 16)" in said


def test_a_subnet_of_another_network_is_not_compared(dense):
    other = Checkpoint.of(tiny.network(7, tiny.SHAPE), "tests.tiny:network", 7, tiny.SHAPE)
    other.save(dense / "subnet.safetensors")
    words = ("--dense", dense / "final.safetensors", "--subnet", dense / "subnet.safetensors")
    code, said = stage_runs.outcome("evaluate", PARAMS, SETTINGS, *words, "--out", dense / "out")
    assert code == 1 and "not cut from the dense network" in said


# --- what is not finite


def with_nan(dense: Path, value: float = math.nan) -> Path:
    checkpoint = Checkpoint.load(dense / "final.safetensors")
    state = {key: tensor.clone() for key, tensor in checkpoint.state.items()}
    state["0.weight"][0, 0, 0, 0] = value
    path = dense / "subnet.safetensors"
    Checkpoint(checkpoint.name, checkpoint.num_classes, checkpoint.input_shape, state).save(path)
    return path


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_network_that_is_not_finite_gets_no_figures(stage, value, dense):
    other = "--teacher" if stage == "train" else "--dense"
    words = ("--subnet", with_nan(dense, value), other, dense / "final.safetensors")
    settings = (*SETTINGS, "train.recipe.epochs=0")
    code, said = stage_runs.outcome(stage, PARAMS, settings, *words, "--out", dense / "out")
    assert code == 1 and "NaN or infinite values in 0.weight" in said
    assert not (dense / "out").exists()


def test_figures_are_written_although_the_export_fails(dense, monkeypatch):
    def fails(network, shape, about):
        raise UserError("the exported network differs")

    monkeypatch.setattr("gnnrl.measurement.export.onnx_bytes", fails)
    final, out = dense / "final.safetensors", dense / "out"
    words = ("--subnet", final, "--dense", final, "--out", out)
    (out / "subnet.onnx").parent.mkdir()
    (out / "subnet.onnx").write_text("of an earlier run")
    settings = (*SETTINGS, "evaluate.latency_rounds=1", "evaluate.latency_batches=[1]")
    code, said = stage_runs.outcome("evaluate", PARAMS, settings, *words)
    assert code == 1 and said.endswith("\nevaluate: the exported network differs\n")
    assert json.loads((out / "metrics.json").read_text())["evaluate"]["accuracy"] > 0
    assert not (out / "subnet.onnx").exists()


def test_an_agent_that_is_not_finite_is_refused(tmp_path):
    class Agent:
        policy = torch.nn.Linear(1, 1)

    broken = {"weight": torch.tensor([[math.nan]]), "bias": torch.zeros(1)}
    write_state(tmp_path / "agent.pt", {"policy": broken})
    with pytest.raises(UserError, match="NaN or infinite"):
        adopt(Agent(), tmp_path / "agent.pt")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows[1].__setitem__(1, math.nan),
        lambda rows: rows[4].__setitem__(4, 0.5),
        lambda rows: rows.__setitem__(2, "12345"),
        lambda rows: rows.pop(),
        lambda rows: rows[0].__setitem__(0, -1.0),
        lambda rows: [row.__setitem__(slice(None), [0.0] * POINTS) for row in rows],
    ],
    ids=["nan", "falls", "text", "size", "negative", "zeros"],
)
def test_a_latency_table_without_sense_is_refused(spoil, tmp_path):
    write_table(tmp_path / "table.json")
    content = json.loads((tmp_path / "table.json").read_text())
    for name in ("format", "sha256"):
        del content[name]
    spoil(content["milliseconds"]["conv"])
    (tmp_path / "table.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"table\.json: not a latency table"):
        LatencyTable.load(tmp_path / "table.json")


# --- journals


def journal(folder: Path, plans: int = 6) -> Journal:
    written = Journal(folder, {"seed": 0})
    for number in range(plans):
        written.add(f"plan{number}", Evaluation(float(number)))
    written.save({"agent": {"weight": torch.ones(3)}})
    return written


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data + b"\0" * 40 + b"\n",
        lambda data: data + b"\n",
        lambda data: data[:-30],
        lambda data: data.replace(b'"reward": 3.0', b'"reward": 9.0'),
        lambda data: data.replace(b'"reward": 3.0', b'"reward": NaN'),
        lambda data: b"[" * 100_000 + b"\n" + data,
    ],
    ids=["zeros", "empty line", "cut", "changed", "nan", "deep"],
)
def test_a_damaged_journal_goes_on_from_what_is_whole(damage, tmp_path, capsys):
    journal(tmp_path)
    path = tmp_path / EVALUATIONS
    path.write_bytes(damage(path.read_bytes()))
    again = Journal(tmp_path, {"seed": 0})
    known = {n: again.known(f"plan{n}") for n in range(6)}
    assert sum(found is not None for found in known.values()) >= 5
    assert all(found is None or found.reward == n for n, found in known.items())
    assert "left out" in capsys.readouterr().out
    assert Journal(tmp_path, {"seed": 0}).known("plan1") is not None
    assert not capsys.readouterr().out, "what is damaged is said once"


@pytest.mark.parametrize("length", [0, 1, 200, -1, -40])
def test_a_damaged_state_is_set_aside_and_the_evaluations_are_kept(length, tmp_path, capsys):
    journal(tmp_path)
    path = tmp_path / STATE
    path.write_bytes(path.read_bytes()[:length])
    again = Journal(tmp_path, {"seed": 0})
    assert again.load() is None and again.known("plan3") is not None
    assert "set aside" in capsys.readouterr().out
    assert path.with_name(f"{STATE}.damaged").exists() and not path.exists()


def test_equal_states_have_equal_bytes_whatever_they_share(tmp_path):
    one = torch.arange(6.0)
    name = "".join(["na", "me"])
    write_state(tmp_path / "a", {"x": one, "y": one, "name": "name", "other": name})
    write_state(tmp_path / "b", read_state(tmp_path / "a"))
    write_state(tmp_path / "c", {"x": one[:], "y": one.clone(), "name": name, "other": "name"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()


# --- actions


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("space", ["channels", "weights", "layers"])
def test_a_space_refuses_actions_that_are_no_numbers(space, bad):
    from gnnrl.graph.extract import extract
    from gnnrl.pruning.importance import l1
    from gnnrl.search.spaces.channels import ChannelSpace
    from gnnrl.search.spaces.layers import LayerSpace
    from gnnrl.search.spaces.weights import WeightSpace

    network = tiny.network(tiny.CLASSES, tiny.SHAPE).eval()
    graph = extract(network, torch.zeros(1, *tiny.SHAPE))
    made = {
        "channels": lambda: ChannelSpace(graph, l1(network, graph), budget=0.7),
        "weights": lambda: WeightSpace(graph, l1(network, graph), budget=0.7),
        "layers": lambda: LayerSpace(graph),
    }[space]()
    with pytest.raises(UserError, match="finite"):
        made.plan(np.full(made.size, bad))


def test_every_stage_refuses_an_out_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("")
    for stage in STAGES:
        code, said = stage_runs.outcome(stage, PARAMS, SETTINGS, "--out", tmp_path / "out")
        assert code == 1 and "is no folder" in said, stage
