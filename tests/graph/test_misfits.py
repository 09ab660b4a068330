"""Plans and graphs of something else are refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gnnrl.errors import UserError
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.networks.build import build_network
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune
from tests.graph.made import IMAGE, Made


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ({"nowhere": (0,)}, "does not have"),
        ({"conv1": (0, 8)}, "filter 8"),
        ({"conv1": (0,)}, "must be removed together"),
        ({"conv1": (0,), "conv2": (1,)}, "must be removed together"),
        ({"head": (0,)}, "must be kept"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(kept: dict[str, tuple[int, ...]], words: str) -> None:
    network = Made(lambda n, x: x + n.conv2(x))
    graph, plan = extract(network, IMAGE), PruningPlan(kept)
    for use in (lambda: prune(network, graph, plan), lambda: cost(graph, plan)):
        with pytest.raises(UserError, match=words) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_unknown_removed_and_sparse_layers_are_refused() -> None:
    network = Made(lambda n, x: n.conv2(x))
    graph = extract(network, IMAGE)
    for plan in (
        PruningPlan(removed_layers=frozenset({"nowhere"})),
        PruningPlan(weight_sparsity={"nowhere": 0.5}),
    ):
        for use in (lambda: prune(network, graph, plan), lambda: cost(graph, plan)):  # noqa: B023
            with pytest.raises(UserError, match="'nowhere'"):
                use()


def test_the_graph_of_another_network_is_refused() -> None:
    graph = extract(build_network("resnet20"), torch.zeros(1, 3, 32, 32))
    with pytest.raises(UserError, match="not that of this"):
        prune(build_network("resnet32"), graph, PruningPlan({}))


def _saved(path: Path) -> dict[str, object]:
    extract(Made(lambda n, x: n.conv2(x)), IMAGE).save(path)
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("edit", ["groups", "nodes", "parameters", "digest", "input_shape"])
def test_a_graph_edited_by_hand_is_refused(edit: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    content = _saved(path)
    if edit == "groups":
        content["groups"][0]["size"] += 1
    elif edit == "nodes":
        content["nodes"][0]["shape"][0] += 1
    elif edit == "parameters":
        content["parameters"].popitem()
    elif edit == "digest":
        content["digest"] = "0" * 64
    else:
        del content["input_shape"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=r"graph\.json.*extract") as caught:
        ComputationalGraph.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "3", '{"digest": 1}'])
def test_what_is_no_graph_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"graph\.json"):
        ComputationalGraph.load(path)
