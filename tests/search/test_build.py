"""Pruning as a task: what is looked at before the search, and what that is charged."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from gnnrl.data.images import Images
from gnnrl.data.transform import Transform
from gnnrl.errors import UserError
from gnnrl.evaluation.equivalent import EQUIVALENT
from gnnrl.evaluation.one_shot import OneShot
from gnnrl.pruning import surgery
from gnnrl.pruning.surgery import Surgeon
from gnnrl.search import build
from gnnrl.search.build import Inputs, make_env, mixed
from gnnrl.search.settings import SearchSettings
from gnnrl.search.spaces.channels import ChannelSpace
from tests.dense import dense

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = Images(
    torch.randint(0, 256, (24, 3, 32, 32), generator=GENERATOR, dtype=torch.uint8),
    torch.randint(0, 10, (24,), generator=GENERATOR),
    Transform(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
)
GATES = {"batches": 2, "batch_size": 8}


def task_of(resource="flops", race=0, **options):
    network, graph = dense("resnet20")
    settings = SearchSettings(
        budget={resource: 0.5},
        calibration_images=16,
        bottleneck=GATES,
        reward={"statistics": "batch", "batch_size": 24, "race": race},
        **options,
    )
    return make_env(settings, Inputs(Surgeon(network, graph), IMAGES, IMAGES))


def test_the_gates_of_a_bottleneck_are_a_prior_that_is_charged_for():
    plain, env = task_of(), task_of(importance="bottleneck", prior="bottleneck")
    assert plain.spent == 0
    assert env.spent == (16 + 3 * 2 * 8) / EQUIVALENT
    middle = env.space.plan(np.full(env.space.size, 0.5))
    assert middle != plain.space.uniform() and env.space.used(middle) <= 0.5


def test_too_few_evaluations_are_refused_before_the_calibration_pass(monkeypatch):
    network, graph = dense("resnet20")
    inputs = Inputs(Surgeon(network, graph), IMAGES, IMAGES)
    few = SearchSettings(budget={"flops": 0.5}, prior="reconstruction", evaluations=1)
    spent = build.calibrate(few.model_copy(update={"evaluations": 2}), inputs).forward_images
    monkeypatch.setattr(build, "EQUIVALENT", spent)  # the pass costs 1
    monkeypatch.setattr(build, "reconstruct", None)
    with pytest.raises(UserError, match=r"alone counts as 1: allow at least 2"):
        build.calibrate(few, inputs)


@pytest.mark.slow
def test_gates_may_order_channels_only_or_say_how_many_only():
    ordered, counted = task_of(importance="bottleneck"), task_of(prior="bottleneck")
    assert ordered.space.uniform() != task_of().space.uniform()
    assert [len(f) for f in ordered.space.uniform().kept.values()] == [
        len(f) for f in task_of().space.uniform().kept.values()
    ]
    middle = counted.space.plan(np.full(counted.space.size, 0.5))
    assert middle != task_of().space.uniform()


@pytest.mark.parametrize("name", ["orthogonality", "taylor"])
def test_an_importance_orders_channels_by_its_name_and_is_charged_for_its_images(name):
    env = task_of(importance=name)
    assert env.space.uniform() != task_of().space.uniform()
    images = env.spent * EQUIVALENT
    assert images > 0 if name == "taylor" else images == 0


def test_a_prior_of_channels_is_refused_by_a_space_that_decides_others():
    with pytest.raises(UserError, match="has a prior, which is an allocation of channels"):
        SearchSettings(budget={"parameters": 0.5}, space="weights", prior="bottleneck")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"space": "channels"}, "the space layers knows, but the space channels"),
        ({"space": "layers", "agent": "annealing"}, "a policy starts, but the agent annealing"),
    ],
)
def test_a_prior_of_depth_is_refused_where_nothing_starts_near_it(settings, said):
    with pytest.raises(UserError, match=f"has the prior depth, .*{said}"):
        SearchSettings(budget={"parameters": 0.5}, prior="depth", **settings)


@pytest.mark.parametrize("name", ["l1", "grasp", "reconstruction"])
def test_an_importance_that_ranks_no_single_weights_is_refused_before_anything_is_read(name):
    with pytest.raises(UserError, match=f"importance {name}, which ranks no single weights, .* to"):
        SearchSettings(
            space="single_weights",
            budget={"sparsity": 0.5},
            agent="ranking",
            importance=name,
        )


def test_a_race_is_run_on_as_many_reward_images_as_asked():
    assert task_of(race=6).evaluate.cost == (6 + 24) / EQUIVALENT
    assert isinstance(task_of(race=0).evaluate, OneShot)


def test_the_first_reward_images_are_of_all_classes_also_where_folders_come_class_by_class():
    labels = torch.arange(10).repeat_interleave(8)
    values = labels.to(torch.uint8)[:, None, None, None].expand(80, 3, 4, 4)
    by_class = Images(values, labels, Transform(mean=(0.0,) * 3, std=(1.0,) * 3))
    images, given = mixed(by_class, seed=0)
    assert len(set(given[:40].tolist())) == 10
    assert torch.equal((255 * images[:, 0, 0, 0]).round().long(), given), "labels went with images"
    assert torch.equal(given.sort().values, labels)
    assert torch.equal(mixed(by_class, seed=0)[1], given)


def test_the_network_is_traced_once_whatever_is_computed(monkeypatch):
    traced = []
    read = surgery.analyse
    monkeypatch.setattr(surgery, "analyse", lambda *given: traced.append(1) or read(*given))
    task_of(race=6, importance="bottleneck", prior="reconstruction")
    assert len(traced) == 1


def test_a_space_is_built_once_also_with_a_prior(monkeypatch):
    built = []
    made = ChannelSpace.__init__

    @functools.wraps(made)
    def counted(*given, **named):
        built.append(1)
        made(*given, **named)

    monkeypatch.setattr(ChannelSpace, "__init__", counted)
    task_of(importance="reconstruction", prior="reconstruction")
    assert len(built) == 1
