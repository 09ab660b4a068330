from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from gnnrl.checkpoint import HEADER, Checkpoint
from gnnrl.errors import UserError
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune

SHAPE = (3, 32, 32)
PLANS = (
    PruningPlan(kept={"layer1.0.conv1": (0, 2, 5), "layer3.2.conv1": tuple(range(0, 64, 3))}),
    PruningPlan(kept={"layer2.1.conv1": (1, 4), "layer1.0.conv1": (1, 2)}),
)


@pytest.fixture
def network():
    """A network with statistics that differ from the initial ones."""
    network = build_network("resnet20", 10, SHAPE).train()
    network(torch.rand(4, *SHAPE))
    return network.eval()


@pytest.fixture
def checkpoint(network):
    return Checkpoint.of(network, "resnet20", 10, SHAPE, epoch=3)


def test_a_restored_network_is_the_one_that_was_saved(network, checkpoint, tmp_path):
    checkpoint.save(tmp_path / "a.safetensors")
    loaded = Checkpoint.load(tmp_path / "a.safetensors")
    assert (loaded.name, loaded.num_classes, loaded.input_shape) == ("resnet20", 10, SHAPE)
    assert loaded.epoch == 3 and loaded.plans == ()
    images = torch.rand(2, *SHAPE)
    assert torch.equal(loaded.restore()(images), network(images))


def test_plans_are_applied_again_in_turn(network, checkpoint, tmp_path):
    subnet = network
    for plan in PLANS:
        subnet = prune(subnet, extract(subnet, torch.zeros(1, *SHAPE)), plan).eval()
        checkpoint = checkpoint.following(subnet, plan=plan)
    checkpoint.save(tmp_path / "a.safetensors")
    restored = Checkpoint.load(tmp_path / "a.safetensors").restore()
    images = torch.rand(2, *SHAPE)
    assert restored.get_submodule("layer1.0.conv1").out_channels == 2
    assert torch.equal(restored(images), subnet(images))
    assert checkpoint.following(subnet, epoch=9).plans == checkpoint.plans


def test_the_same_checkpoint_has_the_same_bytes(checkpoint, tmp_path):
    checkpoint = checkpoint.following(checkpoint.restore(), plan=PLANS[0])
    checkpoint.save(tmp_path / "a")
    Checkpoint.load(tmp_path / "a").save(tmp_path / "elsewhere" / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "elsewhere" / "b").read_bytes()
    assert checkpoint.digest == Checkpoint.load(tmp_path / "a").digest


def test_restoring_draws_no_random_numbers(checkpoint):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    checkpoint.restore()
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_does_not_follow_its_network(network, checkpoint):
    with torch.no_grad():
        network.linear.weight.zero_()
    assert checkpoint.state["linear.weight"].any()


@pytest.mark.parametrize("length", [0, 7, 500, -1])
def test_a_truncated_file_is_refused(length, checkpoint, tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"a\.safetensors is no usable checkpoint") as caught:
        Checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint at .*none\.safetensors"):
        Checkpoint.load(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match=r"none\.safetensors: run `python -m stages.prune` first$"):
        Checkpoint.load(tmp_path / "prune" / "none.safetensors")


@pytest.mark.parametrize(
    "recipe",
    [None, "{", "[]", json.dumps({"name": "resnet20"})],
)
def test_weights_without_a_recipe_are_refused(recipe, checkpoint, tmp_path):
    metadata = None if recipe is None else {HEADER: recipe}
    save_file(dict(checkpoint.state), tmp_path / "a.safetensors", metadata)
    with pytest.raises(UserError, match="no usable checkpoint"):
        Checkpoint.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("changed", [{"input_shape": [3, 32]}, {"epoch": "3"}, {"more": 1}])
def test_an_edited_recipe_is_refused(changed, checkpoint, tmp_path):
    recipe = {"name": "resnet20", "num_classes": 10, "input_shape": SHAPE, "plans": [], "epoch": 3}
    text = json.dumps({**recipe, **changed})
    save_file(dict(checkpoint.state), tmp_path / "a.safetensors", {HEADER: text})
    with pytest.raises(UserError, match="no usable checkpoint"):
        Checkpoint.load(tmp_path / "a.safetensors")


def test_weights_of_another_network_are_refused(checkpoint):
    other = Checkpoint("resnet32", 10, SHAPE, checkpoint.state)
    with pytest.raises(UserError, match="do not fit resnet32"):
        other.restore()


def test_weights_in_another_order_of_memory_are_saved_as_well(network, checkpoint, tmp_path):
    turned = {
        key: value.to(memory_format=torch.channels_last) if value.ndim == 4 else value
        for key, value in network.state_dict().items()
    }
    replace(checkpoint, state=turned).save(tmp_path / "a")
    checkpoint.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
