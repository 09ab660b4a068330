"""Detection: what counts as found, and what is compared of detectors."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor, nn

from gnnrl.data.targets import Boxes
from gnnrl.errors import UserError
from gnnrl.networks.build import build_network
from gnnrl.tasks.detection import Detection
from tests.graph.detectors import tiny

WANTED = Boxes(
    (torch.tensor([[2.0, 2.0, 12.0, 12.0], [16.0, 16.0, 30.0, 30.0]]), torch.zeros(0, 4)),
    (torch.tensor([1, 2]), torch.zeros(0, dtype=torch.long)),
)
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def found(boxes: list[list[float]], labels: list[int], scores: list[float]) -> dict[str, Tensor]:
    rows = torch.tensor(boxes).view(-1, 4)
    return {"boxes": rows, "labels": torch.tensor(labels), "scores": torch.tensor(scores)}


def metric(*images: dict[str, Tensor]) -> float:
    meter = Detection().meter()
    meter.add(images, WANTED)
    return meter.value()


NOTHING = found([], [], [])
BOTH = WANTED.boxes[0].tolist()


def test_all_boxes_found_give_one_and_none_give_zero():
    assert metric(found(BOTH, [1, 2], [0.9, 0.8]), NOTHING) == pytest.approx(1.0)
    assert metric(NOTHING, NOTHING) == 0.0


def test_a_box_of_another_class_is_not_found():
    assert metric(found(BOTH, [1, 1], [0.9, 0.8]), NOTHING) == pytest.approx(0.5)


def test_a_better_box_where_there_is_none_halves_the_precision():
    ghost = found([BOTH[0]], [1], [0.95])
    assert metric(found(BOTH, [1, 2], [0.9, 0.8]), ghost) == pytest.approx(0.75)


def test_a_box_that_overlaps_by_two_thirds_counts_at_four_of_ten_thresholds():
    shifted = [[2.0, 2.0, 12.0, 8.7], BOTH[1]]
    assert metric(found(shifted, [1, 2], [0.9, 0.8]), NOTHING) == pytest.approx((0.4 + 1.0) / 2)


def test_there_is_no_figure_without_boxes_to_find():
    meter = Detection().meter()
    meter.add([NOTHING], Boxes(WANTED.boxes[1:], WANTED.labels[1:]))
    assert meter.value() != meter.value()  # NaN


def detectors() -> list[nn.Module]:
    return [build_network("ssd_small", 3, (3, 32, 32)), tiny("fasterrcnn")]


@pytest.mark.parametrize("network", detectors(), ids=["one stage", "two stages"])
def test_heads_are_compared_with_those_of_the_dense_detector(network):
    task = Detection()
    with torch.no_grad():
        dense = task.outputs(network.eval(), IMAGES)
        assert task.divergences(dense, dense)["squared_error"] == pytest.approx(0.0, abs=1e-12)
        for parameter in network.parameters():
            parameter *= 1.2
        other = task.divergences(task.outputs(network, IMAGES), dense)
    assert other.keys() == {"divergence", "jensen_shannon", "squared_error", "cosine"}
    assert other["divergence"] > 0 and other["squared_error"] > 1e-3
    assert other["jensen_shannon"] > 0 and other["cosine"] <= 1.0 + 1e-12


@pytest.mark.parametrize("network", detectors(), ids=["one stage", "two stages"])
def test_the_loss_is_that_of_the_detector_and_reaches_its_weights(network):
    loss, outputs = Detection().training_loss(network.train(), IMAGES, WANTED)
    loss.backward()
    assert outputs is None and torch.isfinite(loss) and loss > 0
    assert all(p.grad is not None for p in network.parameters())


def test_a_network_that_is_no_detector_is_refused_in_one_sentence():
    network = build_network("basic_cnn_eighth", 3, (3, 32, 32))
    for call in (
        lambda: Detection().outputs(network, IMAGES),
        lambda: Detection().training_loss(network, IMAGES, WANTED),
    ):
        with pytest.raises(UserError, match="takes a detector as torchvision has them"):
            call()


def test_a_missing_package_is_named_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'gnnrl-pipeline\[detection\]'"):
        Detection()
