"""What every task of the library says of outputs and targets."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnrl.data.targets import IGNORED
from gnnrl.errors import UserError
from gnnrl.tasks import comparing
from gnnrl.tasks.base import Task
from gnnrl.tasks.registry import TASKS, build_task
from gnnrl.tasks.segmentation import mean_iou

CLASSES, SIDE = 3, 4
LOGITS = {
    "classification": (CLASSES,),
    "segmentation": (CLASSES, SIDE, SIDE),
    "outputs": (CLASSES, 2),
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Gives(nn.Module):
    """A network that gives the same for all images."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> object:
        return self.value


def images(count: int) -> Tensor:
    return torch.zeros(count, 1, SIDE, SIDE)


def targets(task: Task, count: int) -> Tensor:
    shape = (count, SIDE, SIDE) if task.targets == "masks" else (count,)
    return torch.randint(CLASSES, shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=LOGITS)
def case(request):
    """A task, outputs of two networks for six images, and targets."""
    task, shape = build_task(request.param), LOGITS[request.param]
    two = [task.outputs(Gives(random(6, *shape, seed=seed)), images(6)) for seed in (2, 3)]
    return task, *two, targets(task, 6)


def measured(task: Task, outputs: object, right: object, dense: object) -> float:
    meter = task.meter()
    meter.add(outputs, right, dense)
    return meter.value()


def test_the_dense_network_does_not_diverge_from_itself(case):
    task, outputs, other, _ = case
    same, apart = task.divergences(outputs, outputs), task.divergences(outputs, other)
    assert same["cosine"] == pytest.approx(1.0) and apart["cosine"] < 0.9
    for name in ("divergence", "jensen_shannon", "squared_error"):
        assert same[name] == pytest.approx(0.0, abs=1e-9) and apart[name] > 0.01
    assert apart["jensen_shannon"] < math.log(2)


@pytest.mark.parametrize("kind", ["kl", "mse"])
def test_a_student_like_its_teacher_has_nothing_to_learn_from_it(case, kind):
    task, outputs, other, _ = case
    assert float(task.distance(outputs, outputs, kind, 2.0)) == pytest.approx(0.0, abs=1e-6)
    assert float(task.distance(outputs, other, kind, 2.0)) > 1e-4


def test_a_metric_is_the_same_batch_by_batch_and_in_several_processes(case):
    task, outputs, dense, right = case
    whole = measured(task, outputs, right, dense)
    assert 0 < abs(whole) < 1
    meters = [task.meter(), task.meter()]
    for rows, meter in zip((slice(0, 2), slice(2, 6)), meters, strict=True):
        cut = [tuple(t[rows] for t in x) if isinstance(x, tuple) else x[rows]
               for x in (outputs, dense)]  # fmt: skip
        meter.add(cut[0], right[rows], cut[1])
    totals = [meter._total for meter in meters]
    meters[0].merge(lambda _: totals[0] + totals[1])
    assert meters[0].value() == pytest.approx(whole)
    assert math.isnan(task.meter().value())


def test_batches_are_joined_and_infinite_outputs_are_seen(case):
    task, outputs, other, _ = case
    both = task.joined([outputs, other])
    assert task.divergences(both, both)["squared_error"] == 0.0
    assert bool(task.finite(both))
    spoilt = task.outputs(Gives(torch.full((2, *LOGITS[_name(task)]), math.inf)), images(2))
    assert not bool(task.finite(spoilt))


def _name(task: Task) -> str:
    return next(name for name, path in TASKS.items() if path.endswith(f":{type(task).__name__}"))


def test_accuracy_is_the_fraction_of_images_whose_class_ranks_first():
    task = build_task("classification")
    logits = torch.eye(3)[[0, 1, 2, 2]]
    assert measured(task, logits, torch.tensor([0, 1, 2, 0]), None) == 0.75


def test_top5_accuracy_is_the_fraction_of_images_whose_class_is_among_the_five_largest():
    task = build_task("classification_top5")
    assert task.metric == "top5_accuracy"
    logits = torch.arange(10.0).expand(4, 10)
    assert measured(task, logits, torch.tensor([9, 5, 4, 0]), None) == 0.5
    assert measured(task, logits[:, :3], torch.tensor([0, 1, 2, 0]), None) == 1.0


def test_mean_iou_by_hand_leaves_out_classes_that_do_not_occur():
    # class 0: 3 right, 1 of its pixels is taken for 1; class 2 does not occur
    assert mean_iou(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]])) == pytest.approx(
        (3 / 4 + 2 / 3) / 2
    )


def test_ignored_pixels_count_for_nothing_in_loss_and_metric():
    task = build_task("segmentation")
    logits, masks = random(2, CLASSES, SIDE, SIDE), targets(task, 2)
    masks[:, 0] = IGNORED
    spoilt = logits.clone()
    spoilt[:, :, 0] = 100 * random(2, CLASSES, SIDE, seed=9)
    for found in (
        lambda x: measured(task, x, masks, None),
        lambda x: float(task.training_loss(Gives(x), images(2), masks)[0]),
        lambda x: float(task.losses(x, masks).mean()),
    ):
        assert found(logits) == pytest.approx(found(spoilt)) and found(logits) > 0
    by_hand = F.cross_entropy(logits[:, :, 1:], masks[:, 1:])
    torch.testing.assert_close(task.training_loss(Gives(logits), images(2), masks)[0], by_hand)


def test_an_auxiliary_head_is_trained_with_half_the_weight_and_otherwise_left_out():
    task = build_task("segmentation")
    out, aux = (random(2, CLASSES, SIDE, SIDE, seed=seed) for seed in (0, 1))
    masks = targets(task, 2)
    both = Gives({"out": out, "aux": aux})
    loss, logits = task.training_loss(both, images(2), masks)
    alone = [task.training_loss(Gives(x), images(2), masks)[0] for x in (out, aux)]
    torch.testing.assert_close(loss, alone[0] + 0.5 * alone[1])
    assert logits is out and task.outputs(both, images(2)) is out


def test_outputs_without_labels_are_trained_by_their_teacher_alone():
    task = build_task("outputs")
    loss, found = task.training_loss(Gives([random(2, 3), random(2, 4)]), images(2), None)
    assert loss == 0 and len(found) == 2 and not task.labelled
    other = (random(2, 3), 2 * random(2, 4))
    assert float(task.distance(other, found, "mse", 1.0)) == pytest.approx(0.5)  # of 0 and 1


@pytest.mark.parametrize(
    ("task", "given", "said"),
    [
        ("classification", random(2, 3, 4, 4), r"shape \[2, 3, 4, 4\].*segmentation"),
        ("classification", {"out": random(2, 3)}, "gives dict"),
        ("segmentation", random(2, 3), r"shape \[2, 3\] for images.*classification"),
        ("segmentation", random(2, 3, 2, 2), "height and width"),
        ("segmentation", [random(2, 3)], "gives list"),
        ("outputs", torch.ones(2, 3, dtype=torch.long), "gives none"),
        ("outputs", random(5, 3), r"\[\[5, 3\]\] for 2 images"),
    ],
)
def test_outputs_of_another_task_are_refused(task, given, said):
    with pytest.raises(UserError, match=said):
        build_task(task).outputs(Gives(given), images(2))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("segmentatoin", "did you mean segmentation"),
        ("collections:UserDict", "gives UserDict, expected"),
    ],
)
def test_what_is_no_task_is_refused(name, said):
    with pytest.raises(UserError, match=said):
        build_task(name)


def test_maps_are_compared_alike_all_at_once_and_a_few_images_at_a_time(monkeypatch):
    task = build_task("segmentation")
    outputs, dense = random(7, CLASSES, SIDE, SIDE, seed=2), random(7, CLASSES, SIDE, SIDE, seed=3)
    whole = task.divergences(outputs, dense)
    monkeypatch.setattr(comparing, "NUMBERS", 3 * CLASSES * SIDE**2)
    assert task.divergences(outputs, dense) == pytest.approx(whole)
