"""Two processes train what one trains with the same batches, within rounding."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from gnnrl.data.load import DataRecipe, load_data
from gnnrl.errors import UserError
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.importance import l1
from gnnrl.pruning.surgery import prune
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.tasks.classification import CLASSIFICATION
from gnnrl.training import loop
from gnnrl.training.distillation import Distillation, Objective
from gnnrl.training.distributed import launch
from gnnrl.training.evaluate import RewardScore
from gnnrl.training.loop import train
from gnnrl.training.recipe import TrainingRecipe

RECIPE = TrainingRecipe(epochs=2, batch_size=101, learning_rate=0.05)  # 101: uneven parts
TWO = RECIPE.changed(processes=2)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("GNNRL_DEVICE", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def splits():
    return load_data(DataRecipe("digits", reward_images=900), (1, 8, 8))


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1, stride=2, bias=False),
            nn.BatchNorm2d(12, momentum=None),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(192, 10),
        )


def cut():
    """A network that has lost channels: it is made of recorded operations."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dense = build_network("resnet20", input_shape=(1, 8, 8)).eval()
    graph = extract(dense, torch.zeros(1, 1, 8, 8))
    return prune(dense, graph, ChannelSpace(graph, l1(dense, graph), budget=0.2).uniform())


def close(one: nn.Module, other: nn.Module, tolerance: float = 2e-4) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.slow
def test_two_processes_train_what_one_does_with_the_same_batches(splits):
    teacher, watch = network(seed=5), RewardScore(CLASSIFICATION, splits.reward).each_epoch
    results = []
    for recipe in (RECIPE, TWO):
        learned = network()
        objective = Objective(distillation=Distillation(teacher, alpha=0.5))
        asked = {"objective": objective, "snapshots": (1,)}
        results.append((learned, train(learned, splits.train, recipe, each_epoch=watch, **asked)))
    (one, alone), (two, together) = results
    close(one, two)
    assert type(two[1]) is nn.BatchNorm2d
    for a, b in zip(alone.history, together.history, strict=True):
        assert a.keys() == b.keys()
        assert all(abs(a[key] - b[key]) < 2e-3 for key in a)
    for key, value in alone.snapshots[1].items():
        torch.testing.assert_close(together.snapshots[1][key], value, rtol=2e-4, atol=2e-4)


@pytest.mark.slow
def test_a_cut_network_and_its_zeros_are_trained_in_two_processes(splits):
    recipe = TrainingRecipe(epochs=1, batch_size=128, learning_rate=0.02)
    zeros = {"conv1.weight": torch.rand(16, 1, 3, 3) < 0.5}
    results = [cut(), cut()]
    zeros = {"conv1.weight": torch.rand_like(results[0].conv1.weight) < 0.5}
    for learned, processes in zip(results, (1, 2), strict=True):
        train(learned, splits.train, recipe.changed(processes=processes), zeros=zeros)
    close(*results, tolerance=2e-3)
    assert not results[1].conv1.weight[zeros["conv1.weight"]].any()


def stop_after_two(epoch: int, network: nn.Module) -> dict[str, float]:
    if epoch == 2:
        raise UserError("killed")
    return {}


def nothing(epoch: int, network: nn.Module) -> dict[str, float]:
    return {}


def resumed(group, folder, images):
    """Train in a process of two until it is cut short, then to the end."""
    loop.SECONDS_BETWEEN_STATES = 0.0
    recipe = RECIPE.changed(epochs=3)
    asked = loop.Asked(recipe, 0, None, (), None, {}, folder)
    training = loop.TrainingState(network(), images, asked, group)
    keeper = loop._Keeper(folder, training)
    with loop.progress("training", 1, visible=False) as bar:
        while training.epoch < 2:
            training.run_epoch(bar)
        keeper.save_now_and_then()
    fresh = network(seed=3)
    loop._train(group, fresh, images, asked, visible=False)
    return dict(fresh.state_dict())


@pytest.mark.slow
def test_a_killed_training_of_two_processes_goes_on(splits, tmp_path):
    whole = network()
    train(whole, splits.train, TWO.changed(epochs=3))
    state = launch(2, 1, resumed, tmp_path, splits.train)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=0, atol=0, msg=key)


@pytest.mark.slow
def test_divergence_in_two_processes_is_said_in_one_sentence(splits):
    with pytest.raises(UserError, match=r"training diverged in epoch 1 .* lower learning_rate"):
        train(network(), splits.train, TWO.changed(learning_rate=1e30))


def test_without_fabric_one_sentence_says_how_to_install_it(splits, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(UserError, match=r"pip install 'gnnrl-pipeline\[distributed\]'"):
        train(network(), splits.train, TWO)


@pytest.mark.parametrize("key", ["processes", "machines"])
def test_no_processes_are_refused(key):
    with pytest.raises(UserError, match=f"'{key}' must be at least 1, got 0"):
        RECIPE.changed(**{key: 0})
