from __future__ import annotations

import pytest
import torch
from torch import nn

from gnnrl.data.load import DataRecipe, load_data
from gnnrl.errors import UserError
from gnnrl.training import loop
from gnnrl.training.distillation import Distillation, Objective
from gnnrl.training.evaluate import accuracy
from gnnrl.training.loop import train
from gnnrl.training.recipe import TrainingRecipe

RECIPE = TrainingRecipe(epochs=4, batch_size=64, learning_rate=0.05, augment=False)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("GNNRL_DEVICE", "cpu")


@pytest.fixture(scope="module")
def splits():
    return load_data(DataRecipe("digits", reward_images=200), (1, 8, 8))


def network(seed: int = 0) -> nn.Sequential:
    """A small one with everything that has a state: batch norm, dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(256, 10),
        )


def same(one: nn.Module, other: nn.Module) -> bool:
    states = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in states)


def test_training_learns_the_digits(splits):
    learned = network()
    result = train(learned, splits.train, RECIPE)
    assert accuracy(learned, splits.reward) > 0.93
    losses = [row["loss"] for row in result.history]
    assert losses == sorted(losses, reverse=True)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]


def test_adamw_learns_and_resumes_as_sgd_does(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_STATES", 0.0)
    recipe = RECIPE.changed(optimizer="adamw", learning_rate=0.003, weight_decay=0.05)
    whole = network()
    train(whole, splits.train, recipe)
    assert accuracy(whole, splits.reward) > 0.9

    def killed(epoch: int, network: nn.Module) -> dict[str, float]:
        if epoch == 3:
            raise KilledError
        return {}

    with pytest.raises(KilledError):
        train(network(), splits.train, recipe, each_epoch=killed, scratch=tmp_path)
    resumed = network()
    train(resumed, splits.train, recipe, each_epoch=lambda *_: {}, scratch=tmp_path)
    assert same(resumed, whole)


def test_the_seed_alone_decides_the_weights(splits):
    recipe = TrainingRecipe(epochs=1, batch_size=64)
    results = []
    for seed in (0, 0, 1):
        torch.rand(1)  # what the rest of the program draws does not matter
        learned = network()
        history = train(learned, splits.train, recipe, seed=seed).history
        results.append((learned, history))
    assert same(results[0][0], results[1][0]) and results[0][1] == results[1][1]
    assert not same(results[0][0], results[2][0])


def test_training_leaves_the_global_random_numbers_alone(splits):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(network(), splits.train, TrainingRecipe(epochs=1))
    assert torch.equal(torch.rand(3), expected)


class KilledError(Exception):
    pass


def test_a_killed_run_ends_as_if_it_had_not_been_killed(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_STATES", 0.0)
    recipe = TrainingRecipe(epochs=4, batch_size=64)

    def measured(epoch: int, network: nn.Module) -> dict[str, float]:
        return {"reward_accuracy": accuracy(network, splits.reward)}

    def killed(epoch: int, network: nn.Module) -> dict[str, float]:
        if epoch == 3:
            raise KilledError
        return measured(epoch, network)

    whole, halved = network(), network()
    expected = train(whole, splits.train, recipe, snapshots=(0, 1, 4), each_epoch=measured)
    asked = {"snapshots": (0, 1, 4), "scratch": tmp_path}
    with pytest.raises(KilledError):
        train(halved, splits.train, recipe, each_epoch=killed, **asked)
    halved = network(seed=1)  # whatever the new process starts from
    result = train(halved, splits.train, recipe, each_epoch=measured, **asked)
    assert same(whole, halved) and result.history == expected.history
    assert result.snapshots.keys() == expected.snapshots.keys() == {0, 1, 4}
    for epoch, state in expected.snapshots.items():
        assert all(torch.equal(result.snapshots[epoch][key], state[key]) for key in state)


def test_snapshots_are_the_weights_of_their_epoch(splits):
    fresh, learned = network(), network()
    result = train(learned, splits.train, RECIPE, snapshots=(0, 4))
    for epoch, other in ((0, fresh), (4, learned)):
        assert all(
            torch.equal(v, result.snapshots[epoch][k]) for k, v in other.state_dict().items()
        )
    with pytest.raises(UserError, match="epoch 9"):
        train(network(), splits.train, RECIPE, snapshots=(9,))


def test_no_epochs_change_nothing(splits):
    untouched = network()
    assert train(untouched, splits.train, TrainingRecipe(epochs=0)).history == ()
    assert same(untouched, network())


def test_a_teacher_is_learned_from_and_left_as_it_was(splits):
    teacher = network()
    train(teacher, splits.train, RECIPE)
    before, student = teacher.state_dict().copy(), network(seed=1)
    train(
        student,
        splits.train,
        RECIPE,
        objective=Objective(distillation=Distillation(teacher, alpha=1.0)),
    )
    assert accuracy(student, splits.reward) > 0.9  # it has seen no label
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


def test_divergence_is_said_in_one_sentence(splits):
    recipe = TrainingRecipe(epochs=5, learning_rate=1e9)
    with pytest.raises(UserError, match=r"training diverged in epoch 1 .* lower learning_rate"):
        train(network(), splits.train, recipe)


@pytest.mark.parametrize("option", [{"channels_last": True}, {"bf16": True}])
def test_faster_arithmetic_learns_as_well(splits, option):
    learned = network()
    train(learned, splits.train, RECIPE.changed(**option))
    assert accuracy(learned, splits.reward) > 0.9


def test_weights_that_are_zero_stay_zero_and_the_others_learn(splits):
    sparse, kept = (
        network(),
        torch.rand(16, 1, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5,
    )
    sparse[0].weight.data *= kept
    before = sparse[0].weight.detach().clone()
    train(sparse, splits.train, RECIPE, zeros={"0.weight": ~kept})
    assert (sparse[0].weight[~kept] == 0).all()
    assert (sparse[0].weight[kept] != before[kept]).all()
    assert accuracy(sparse, splits.reward) > 0.9


def test_a_mask_of_no_weight_is_refused(splits):
    with pytest.raises(AttributeError, match="weigth"):
        train(network(), splits.train, RECIPE, zeros={"0.weigth": torch.zeros(1)})
