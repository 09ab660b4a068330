"""The table of operations: what the rules name, the observations show and latency measures."""

from __future__ import annotations

from dataclasses import replace

import torch

from gnnrl.graph.latency import keys
from gnnrl.graph.operations import OPERATIONS, Operation
from gnnrl.graph.rules import table
from gnnrl.measurement.operation_latency import measure
from gnnrl.search.observations import channels, layers
from tests.golden.world import world


def test_every_operation_that_a_rule_names_is_in_the_table():
    named = {word for _, word, _ in (*table._MODULES, *table._FUNCTIONS)}
    assert named <= set(OPERATIONS)
    assert {node.operation for node in world().graph.nodes} <= set(OPERATIONS)


def test_the_columns_of_observations_keep_their_order():
    """Agents that were trained before depend on it; new operations come last."""
    assert channels.KINDS == (
        "input", "conv", "linear", "norm", "activation", "pool", "add", "mul", "cat", "reshape",
        "pad", "slice", "group",
    )  # fmt: skip
    assert layers.KINDS == (
        "conv", "linear", "activation", "norm", "pool", "input", "add", "cat", "part"
    )  # fmt: skip


def test_the_table_alone_decides_what_a_latency_table_measures(monkeypatch):
    graph = world().graph
    measured = {key for key in keys(graph) if key}
    assert set(measure(graph, 1, 1, "test").milliseconds) == measured
    monkeypatch.setitem(OPERATIONS, "conv", replace(OPERATIONS["conv"], timed=None))
    assert {key for key in keys(graph) if key} == {k for k in measured if '"conv"' not in k}


def test_an_operation_of_ones_own_is_timed_as_it_says(monkeypatch):
    graph = world().graph
    seen = []

    def timed(node, x, outputs):
        seen.append((x.shape[1], outputs))
        return torch.relu

    monkeypatch.setitem(OPERATIONS, "conv", Operation("conv", mixes_channels=True, timed=timed))
    measure(graph, 1, 1, "test")
    conv = next(node for node in graph.nodes if node.operation == "conv")
    assert (graph.nodes[graph.sources[graph.places[conv.name]]].width, conv.width) in seen
