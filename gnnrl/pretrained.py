"""Where the dense network comes from, and what pretraining leaves of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

from torch import Tensor, nn

from gnnrl.checkpoint import Checkpoint
from gnnrl.data.splits import Splits
from gnnrl.data.targets import Targets
from gnnrl.errors import UserError
from gnnrl.networks.build import build_network
from gnnrl.networks.settings import NetworkSettings
from gnnrl.networks.weights import load_weights, weights_file
from gnnrl.shapes import Shape
from gnnrl.training.loop import Training
from gnnrl.training.settings import PretrainSettings


def dense_checkpoint(
    network: NetworkSettings, options: PretrainSettings, splits: Splits
) -> Checkpoint:
    """Return the network that a run starts from, as its settings and its images ask for it."""
    classes = network.classes(splits.num_classes)
    given = options.weights, options.sha256, splits.reward_from
    return starting_point(network.name, classes, network.input_shape, *given)


def starting_point(
    name: str,
    num_classes: int,
    input_shape: Shape,
    weights: str | None,
    sha256: str | None,
    reward_from: str = "test",
) -> Checkpoint:
    """Return the network before any training here: initialised, or with the weights given.

    weights: what `load_weights` takes, or a checkpoint of ours, which may be a subnet: so
    a pruned network is pruned once more. A checkpoint of ours is known by its header.
    reward_from: the split of the reward images, which weights of others may have been trained on.
    Raises `UserError` for weights of another network, or that were trained on the reward images.
    """
    if weights is not None and _is_ours(weights, sha256):
        checkpoint = Checkpoint.load(weights_file(weights, sha256), trust=name)
        _refuse_other(checkpoint, name, num_classes, input_shape, weights)
        return replace(checkpoint, epoch=None)
    fresh = build_network(name, num_classes, input_shape)
    if weights is not None:
        if reward_from == "train":
            raise UserError(
                f"data.reward_from is train, but the network of pretrain.weights {weights} has "
                "been trained on these images and would be scored by its memory: set it to test"
            )
        load_weights(fresh, weights, name=name, sha256=sha256)
    return Checkpoint.of(fresh, name, num_classes, input_shape)


def _is_ours(weights: str, sha256: str | None) -> bool:
    named_so = Path(urlparse(weights).path).suffix == ".safetensors"
    return named_so and Checkpoint.is_at(weights_file(weights, sha256))


def _refuse_other(
    checkpoint: Checkpoint, name: str, num_classes: int, input_shape: Shape, weights: str
) -> None:
    found = (checkpoint.name, checkpoint.num_classes, checkpoint.input_shape)
    if found != (name, num_classes, tuple(input_shape)):
        raise UserError(
            f"pretrain.weights {weights} is {found[0]} for {found[1]} classes and images of "
            f"{found[2]}, but the parameters ask for {name} for {num_classes} classes and images "
            f"of {tuple(input_shape)}: set network and data to what the checkpoint is"
        )


def keep(folder: Path, start: Checkpoint, network: nn.Module, training: Training) -> None:
    """Save the weights before training, after the epochs asked for, and after the last one."""
    replace(start, epoch=0).save(folder / "initial.safetensors")
    for epoch, state in training.snapshots.items():
        replace(start, state=state, epoch=epoch).save(folder / "snapshots" / f"{epoch}.safetensors")
    start.following(network, epoch=len(training.history)).save(folder / "final.safetensors")


def no_better_than_chance(accuracy: float, labels: Targets, metric: str = "accuracy") -> str:
    """What to say of a network that is no better on these images than the commonest label; or "".

    Two standard deviations of the accuracy of guessing count as no better.  Nothing is known of
    chance in another metric.
    """
    if metric != "accuracy" or not isinstance(labels, Tensor):
        return ""
    chance = labels.bincount().max().item() / len(labels)
    if accuracy > chance + 2.0 * (chance * (1.0 - chance) / len(labels)) ** 0.5:
        return ""
    return (
        f"the dense network is right on {accuracy:.3f} of the reward images, guessing the "
        f"commonest class on {chance:.3f}: check data.mean and data.std, the labels and the "
        "weights, or train longer; a search cannot tell good subnets of it from bad ones"
    )
