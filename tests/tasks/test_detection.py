"""Detection: what counts as found, and what is compared of detectors."""

from __future__ import annotations

import copy
import importlib.util
import math

import pytest
import torch
from torch import Tensor, nn

from gnnrl.data.images import Images
from gnnrl.data.targets import Boxes
from gnnrl.data.transform import Transform
from gnnrl.errors import UserError
from gnnrl.networks.build import build_network
from gnnrl.tasks.detection import Detection
from gnnrl.training.distillation import Distillation, Objective
from gnnrl.training.loop import train
from gnnrl.training.recipe import TrainingRecipe
from tests.graph.detectors import tiny

WANTED = Boxes(
    (torch.tensor([[2.0, 2.0, 12.0, 12.0], [16.0, 16.0, 30.0, 30.0]]), torch.zeros(0, 4)),
    (torch.tensor([1, 2]), torch.zeros(0, dtype=torch.long)),
)
DRAWN = torch.Generator().manual_seed(1)
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
    assert torch.isfinite(loss) and loss > 0
    assert all(p.grad is not None for p in network.parameters())
    assert all(one.keys() == {"heads"} for one in outputs)
    meter = Detection().meter()
    meter.add(outputs, WANTED)  # it gives no boxes in training
    assert meter.value() != meter.value()  # NaN


@pytest.mark.parametrize("network", detectors(), ids=["one stage", "two stages"])
@pytest.mark.parametrize("kind", ["kl", "mse"])
def test_a_teacher_draws_the_heads_to_its_own(network, kind):
    task, teacher = Detection(), copy.deepcopy(network).eval()
    taught = Objective(task, Distillation(teacher, 1.0, kind=kind, temperature=1.0))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=DRAWN)
        dense = task.outputs(teacher, IMAGES)

    def apart() -> float:
        with torch.no_grad():
            return float(task.distance(task.outputs(network.eval(), IMAGES), dense, kind, 1.0))

    assert float(task.distance(dense, dense, kind, 1.0)) == pytest.approx(0.0, abs=1e-12)
    before, optimiser = apart(), torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(10):
        loss, outputs, answer = taught.loss(network.train(), IMAGES, WANTED, 0.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert outputs[0]["heads"].keys() == answer[0]["heads"].keys()
    assert apart() < before


def heads(*logits: float) -> list[dict[str, dict[str, Tensor]]]:
    """One image, 100 anchors: of the first these logits (background, two classes)."""
    rows = torch.tensor([10.0, 0.0, 0.0]).repeat(100, 1)
    rows[0] = torch.tensor(logits)
    return [{"heads": {"cls_logits": rows, "bbox_regression": torch.ones(100, 4)}}]


def test_finding_nothing_is_as_far_from_an_object_as_finding_another():
    task, dense = Detection(), heads(0.0, 10.0, 0.0)
    apart = {
        name: task.divergences(heads(*logits), dense)["jensen_shannon"]
        for name, logits in {
            "nothing": (10.0, 0.0, 0.0),
            "another": (0.0, 0.0, 10.0),
            "less sure": (0.0, 5.0, 0.0),
        }.items()
    }
    assert apart["nothing"] == pytest.approx(math.log(2), rel=0.05)
    assert apart["another"] == pytest.approx(apart["nothing"], rel=0.05)
    assert 0 < apart["less sure"] < 0.05 * apart["nothing"]


def test_boxes_count_where_there_are_objects():
    task, dense = Detection(), heads(0.0, 10.0, 0.0)
    errors = []
    for place in (0, 1):
        moved = heads(0.0, 10.0, 0.0)
        moved[0]["heads"]["bbox_regression"][place] = 2.0
        errors.append(task.divergences(moved, dense)["squared_error"])
        errors.append(float(task.distance(moved, dense, "kl", 1.0)))
    assert errors[0] > 100 * errors[2] > 0 and errors[1] > 100 * errors[3] > 0


def test_the_progress_of_training_names_no_figure_that_training_does_not_have(capsys, monkeypatch):
    monkeypatch.delenv("GNNRL_PROGRESS", raising=False)
    shown = Images((255 * IMAGES).byte(), WANTED, Transform((0.5,), (0.25,)).for_channels(3))
    recipe = TrainingRecipe(epochs=1, batch_size=2, learning_rate=0.01, augment=False)
    objective = Objective(Detection())
    (row,) = train(detectors()[0], shown, recipe, objective=objective, visible=True).history
    said = capsys.readouterr().err
    assert row["loss"] > 0 and "training: 1/1" in said
    assert "best" not in said and "nan" not in said


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
