"""How the dense network and the subnet are trained."""

from __future__ import annotations

from gnnrl.settings import CountOrNone, Name, Seed, Settings
from gnnrl.training.recipe import DistillationSettings, TrainingRecipe


class PretrainSettings(Settings):
    """Where the dense network's weights come from."""

    seed: Seed = 0
    """Of the initial weights and the order of the images."""
    weights: Name | None = None
    """Weights to start from: a file, a URL, or a name: torchvision's; CIFAR10 of our ResNets."""
    sha256: Name | None = None
    """Digest that the file behind a URL must have."""
    snapshots: tuple[CountOrNone, ...] = ()
    """Epochs after which the weights are kept, besides initial and final."""
    recipe: TrainingRecipe = TrainingRecipe()
    """Training schedule; 0 epochs: the network as it is initialised, or as its weights are."""


class TrainSettings(Settings):
    """How the subnet is trained."""

    seed: Seed = 0
    """Of the order of the images."""
    recipe: TrainingRecipe = TrainingRecipe()
    """Training schedule."""
    distillation: DistillationSettings = DistillationSettings()
    """What the dense network, as a teacher, adds to the labels."""
