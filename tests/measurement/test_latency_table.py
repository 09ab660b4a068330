"""A latency table knows the blocks of kernels, is corrected by subnets, and says what it is of."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gnnrl.errors import UserError
from gnnrl.graph.budget import Budget
from gnnrl.graph.extract import extract
from gnnrl.graph.latency import POINTS, LatencyCosts, LatencyTable, by_key, keys, knots, predicted
from gnnrl.graph.removal import without
from gnnrl.measurement import latency, operation_latency, running, runtimes
from gnnrl.measurement.latency import Timing, time_in_turns
from gnnrl.measurement.latency_table import about, corrected, kind_of, plans_of
from gnnrl.networks.build import build_network
from gnnrl.pruning.importance import l1
from gnnrl.pruning.plan import PruningPlan
from gnnrl.search.build import latency_table
from gnnrl.search.settings import SpaceSettings
from gnnrl.search.spaces.layers import LayerSpace
from gnnrl.search.spaces.registry import build_space
from tests.dense import dense
from tests.golden.world import world

CPU = torch.device("cpu")


def made_up(graph, multiple: int = 1, **fields) -> LatencyTable:
    """Every operation takes as many milliseconds as the blocks that it reads and writes."""
    grids = {}
    for i, key in enumerate(keys(graph)):
        if key:
            node, source = graph.nodes[i], graph.nodes[graph.sources[i]]
            reads, writes = knots(source.width, multiple), knots(node.width, multiple)
            grids[key] = tuple(tuple(float(a * b) for b in writes) for a in reads)
    return LatencyTable(grids, 4, "a machine", multiple=multiple, **fields)


def test_a_width_costs_as_much_as_the_next_whole_block():
    assert knots(64, 8).tolist() == [8, 24, 32, 48, 64]
    assert knots(3, 8).tolist() == [1, 1.5, 2, 2.5, 3]  # fewer channels than a block
    graph = world().graph
    table = made_up(graph, 4, ragged=1.5)
    costs = LatencyCosts(graph, table)
    whole = np.array([axis.units.size for axis in costs.axes])
    wide = whole.argmax()
    by_width = {}
    for width in (5, 7, 8):
        lengths = whole.copy()
        lengths[wide] = width
        by_width[width] = costs.by_operation(lengths)
    assert np.array_equal(by_width[5], by_width[7])
    dearer = by_width[5] / np.maximum(by_width[8], 1e-12)
    assert {round(float(ratio), 6) for ratio in dearer[by_width[8] > 0]} == {1.0, 1.5}


def test_what_is_interpolated_at_a_measured_width_is_what_was_measured():
    graph = world().graph
    costs = LatencyCosts(graph, made_up(graph, 2))
    for point in range(POINTS):
        lengths = np.array([knots(axis.units.size, 2)[point] for axis in costs.axes])
        lengths[0] = 1
        by_hand = [
            lengths[a] * lengths[b] if key else 0.0
            for key, a, b in zip(keys(graph), costs._reads, costs._writes, strict=True)
        ]
        assert costs.by_operation(lengths) == pytest.approx(by_hand)


def test_whole_subnets_correct_the_sum_of_the_operations():
    graph = world().graph
    table = made_up(graph)
    plans = plans_of(graph, 10, 1)
    assert plans[0].removed_layers == frozenset() and len(set(plans)) == len(plans)
    parts = [by_key(graph, table, plan) for plan in plans]
    whole = np.array([sum(part.values()) for part in parts])
    light = np.array([sum(t for k, t in p.items() if k and kind_of(k) == "other") for p in parts])
    heavy = whole - light
    found = corrected(table, graph, plans, 7.0 + 0.5 * heavy + 0.25 * light)
    assert found.overhead == pytest.approx(7.0, rel=1e-3) and found.error < 1e-3
    for plan, much, less in zip(plans, heavy, light, strict=True):
        expected = 7.0 + 0.5 * much + 0.25 * less
        assert predicted(graph, found, plan) == pytest.approx(expected, rel=1e-3)


def test_convolutions_of_several_groups_are_corrected_apart():
    network = build_network("mobilenet_v1", 4, (3, 16, 16)).eval()
    graph = extract(network, torch.zeros(1, 3, 16, 16))
    table = made_up(graph)
    plans = plans_of(graph, 16, 1)
    depthwise = np.array(
        [
            sum(t for k, t in by_key(graph, table, p).items() if k and kind_of(k) == "grouped")
            for p in plans
        ]
    )
    assert (depthwise > 0).all()
    whole = np.array([predicted(graph, table, plan) for plan in plans])
    found = corrected(table, graph, plans, whole - 0.8 * depthwise)
    assert found.error < 1e-3
    for plan, all_, part in zip(plans, whole, depthwise, strict=True):
        assert predicted(graph, found, plan) == pytest.approx(all_ - 0.8 * part, rel=1e-3)


def test_a_call_that_is_cheaper_within_a_network_is_counted_apart():
    graph = world().graph
    table = made_up(graph)
    plans = plans_of(graph, 16, 1)

    def truth(plan: PruningPlan) -> float:
        left = without(graph, plan.removed_layers)
        calls = sum(bool(key) for key in keys(left))  # of 1.0 ms each in the table
        return 7.0 + predicted(graph, table, plan) - 0.9 * calls

    found = corrected(table, graph, plans, np.array([truth(plan) for plan in plans]))
    assert found.error < 1e-3
    for plan in plans_of(graph, 8, 1, seed=1):
        assert predicted(graph, found, plan) == pytest.approx(truth(plan), rel=1e-3)


@pytest.mark.parametrize("bend", [0.9, 1.0, 1.1])
def test_small_networks_are_faster_or_slower_than_the_sum_of_their_operations(bend):
    graph = world().graph
    table, plans = made_up(graph), plans_of(graph, 16, 1)
    whole = predicted(graph, table, plans[0])

    def truth(plan: PruningPlan) -> float:
        return whole * (predicted(graph, table, plan) / whole) ** bend

    found = corrected(table, graph, plans, np.array([truth(plan) for plan in plans]))
    assert found.bend == pytest.approx(bend) and found.error < 1e-3
    for plan in plans_of(graph, 8, 1, seed=1):
        assert predicted(graph, found, plan) == pytest.approx(truth(plan), rel=1e-3)
    space = build_space(
        "channels", graph=graph, importance=l1(world().network, graph),
        budget=Budget(latency=0.5), table=found,
    )  # fmt: skip
    plan = space.plan(np.full(space.size, 0.5))
    assert space.used(plan) == pytest.approx(predicted(graph, found, plan) / whole)
    assert 0.45 < space.used(plan) <= 0.5


def test_the_whole_network_is_met_where_the_subnets_contradict_it():
    """Budgets are fractions of its time: its error counts as much as all others together."""
    graph = world().graph
    table, plans = made_up(graph), plans_of(graph, 16, 1)
    taken = np.array([predicted(graph, table, plan) for plan in plans])
    taken[0] *= 1.1
    found = corrected(table, graph, plans, taken)
    assert predicted(graph, found, plans[0]) == pytest.approx(taken[0], rel=0.05)


@pytest.mark.parametrize(
    ("operation", "runtime", "copies"),
    [("conv", "torch", 1), ("conv", "onnxruntime", 4), ("activation", "onnxruntime", 1)],
)
def test_one_call_of_a_runtime_times_several_copies_of_a_layer(
    operation, runtime, copies, monkeypatch
):
    graph, seen = world().graph, []
    monkeypatch.setattr(
        operation_latency, "ready", lambda name, network, x, threads: seen.append(network(x))
    )
    bench = operation_latency._Bench(graph, 1, 1, runtime, CPU, 1)
    place = next(i for i, node in enumerate(graph.nodes) if node.operation == operation)
    source = graph.nodes[graph.sources[place]]
    assert bench._run(graph.nodes[place], source, source.width, 4)[1] == copies
    (outputs,) = seen
    assert len(outputs) == copies
    assert len({float(output.sum()) for output in outputs}) == copies  # none stands for another


def test_the_overhead_stays_when_layers_are_removed():
    graph = world().graph
    table = made_up(graph, overhead=1000.0)
    costs = LatencyCosts(graph, table)
    assert costs.without([node.name for node in graph.nodes]) == 1000.0
    assert predicted(graph, table, PruningPlan()) == pytest.approx(costs.without(()))


def test_layers_are_removed_within_a_budget_of_latency():
    _, graph = dense("resnet20")
    table = made_up(graph)
    space = LayerSpace(graph, Budget(latency=0.6), table=table)
    plan = space.plan(np.zeros(space.size, dtype=bool))
    whole = predicted(graph, table, PruningPlan())
    assert predicted(graph, table, plan) / whole == pytest.approx(space.used(plan))
    assert plan.removed_layers and space.used(plan) <= 0.6


def test_a_table_keeps_what_it_was_made_on_and_reads_tables_of_earlier_versions(tmp_path):
    path, graph = tmp_path / "table.json", world().graph
    table = made_up(
        graph, 4, runtime="onnxruntime", device="cuda", threads=3, ragged=1.25, overhead=0.5,
        bend=1.1, whole=9.0,
        fused=("norm",), error=0.04, spread=0.25,
    )  # fmt: skip
    table.save(path)
    assert LatencyTable.load(path) == table
    for word in ("onnxruntime", "cuda", "a machine", "4 images", "threads: 3", "4.0 %"):
        assert word in about(table)
    content = {k: v for k, v in json.loads(path.read_text()).items() if k in OLD}
    path.write_text(json.dumps(content))
    old = LatencyTable.load(path)
    assert (old.runtime, old.device, old.multiple, old.overhead) == ("torch", "cpu", 1, 0.0)
    assert "a spread of 25 %, above 10 %: measure it again" in table.noise(0.1)
    assert not table.noise(0.25) and not old.noise(0.0)


OLD = ("milliseconds", "batch_size", "machine")


@pytest.mark.parametrize(
    "spoiled",
    [
        {"threads": 0},
        {"multiple": 2.5},
        {"ragged": 0.5},
        {"overhead": -1},
        {"bend": 0.0},
        {"spread": "wide"},
        {"runtime": 3},
    ],
)
def test_a_table_with_senseless_conditions_is_refused(spoiled, tmp_path):
    path = tmp_path / "table.json"
    made_up(world().graph).save(path)
    content = json.loads(path.read_text()) | spoiled
    del content["sha256"], content["format"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"table\.json: not a latency table"):
        LatencyTable.load(path)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"runtime": "onnxruntime"}, "is of runtime torch, but search.latency_for.runtime is onnx"),
        ({"batch_size": 1}, "is of batch_size 4, but search.latency_for.batch_size is 1"),
        ({"device": "cuda"}, "is of device cpu, but search.latency_for.device is cuda"),
        ({"threads": 2}, "is of threads 1, but search.latency_for.threads is 2"),
    ],
)
def test_a_table_of_something_else_is_refused(wanted, message, tmp_path):
    path = tmp_path / "table.json"
    table = made_up(world().graph)
    table.save(path)
    given = {"budget": {"latency": 0.5}, "latency_table": str(path)}
    assert latency_table(SpaceSettings(**given)) == table
    with pytest.raises(UserError, match=message):
        latency_table(SpaceSettings(**given, latency_for=wanted))


def test_a_table_of_another_network_is_refused():
    _, graph = dense("basic_cnn")
    with pytest.raises(UserError, match="measure a table of this network"):
        LatencyCosts(graph, made_up(world().graph))


def test_the_timer_takes_turns_and_tells_the_spread():
    calls: list[str] = []
    runs = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = time_in_turns(runs, rounds=3, warmup=2, device=CPU, warm=False)
    assert "".join(calls) == "ab" * 5
    assert len(found["a"].rounds) == 3
    timing = Timing((1.0, 2.0, 3.0, 4.0, 5.0))
    assert (timing.milliseconds, timing.spread) == (3.0, pytest.approx(2 / 3))
    assert timing.over(timing).rounds == (1.0,) * 5


def test_what_is_timed_finds_the_caches_as_it_leaves_them(monkeypatch):
    """A network that takes turns with others would be timed with the caches of the one before."""
    now, calls, takes = [0.0], [], {"a": 0.02, "b": 0.5}
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])

    def run(name: str) -> None:
        cold = not calls or calls[-1] != name
        calls.append(name)
        now[0] += takes[name] + (0.003 if cold else 0.0)

    runs = {name: lambda name=name: run(name) for name in takes}
    found = time_in_turns(runs, rounds=2, warmup=1, device=CPU)
    # a for 50 ms before each of its turns; b, which fills the caches anyway, once at first
    assert "".join(calls) == "aaaa" + "bb" + "aaaa" + "b" + "aaaa" + "b"
    assert found["a"].rounds == pytest.approx((20.0, 20.0))
    assert found["b"].rounds == pytest.approx((503.0, 503.0))


def test_threads_are_pinned_for_a_while_only():
    before = torch.get_num_threads()
    with latency.pinned(before + 1) as count:
        assert count == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_a_runtime_that_is_not_known_or_not_installed_is_refused(monkeypatch):
    with pytest.raises(UserError, match=r"'onnxruntme'.*did you mean onnxruntime"):
        runtimes.runtime_of("onnxruntme")
    absent = replace(runtimes.RUNTIMES["onnxruntime"], needs=("no_such_module",))
    monkeypatch.setitem(runtimes.RUNTIMES, "onnxruntime", absent)
    with pytest.raises(UserError, match="onnxruntime is not installed"):
        runtimes.runtime_of("onnxruntime")
    monkeypatch.setattr(running, "which", lambda name: None)
    with pytest.raises(UserError, match="torch_compile needs a C\\+\\+ compiler"):
        running.ready("torch_compile", torch.nn.ReLU(), torch.zeros(1), 1)


@pytest.mark.parametrize("runtime", ["torch", "torch_channels_last", "onnxruntime"])
def test_every_runtime_times_a_network_and_leaves_it_as_it_was(runtime):
    if runtime == "onnxruntime":
        pytest.importorskip("onnxruntime")
    network = world().network.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    shape = world().graph.input_shape
    found = latency.time_networks({"a": network}, shape, 2, rounds=2, runtime=runtime, threads=1)
    assert found["a"].milliseconds > 0
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
