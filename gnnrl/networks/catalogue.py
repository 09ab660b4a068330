"""Published weights of this library's own networks, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Weights behind an address.

    sha256: the digest of the file, or, as torchvision has it, its first eight digits.
    """

    address: str
    sha256: str


AKAMASTER = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"


def _cifar10(name: str, sha256: str) -> Mapping[str, Published]:
    return {"CIFAR10": Published(f"{AKAMASTER}{name}-{sha256[:8]}.th", sha256)}


CATALOGUE: Mapping[str, Mapping[str, Published]] = {
    "resnet20": _cifar10(
        "resnet20", "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8"
    ),
    "resnet32": _cifar10("resnet32", "d509ac18"),
    "resnet44": _cifar10("resnet44", "014dd654"),
    "resnet56": _cifar10(
        "resnet56", "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367"
    ),
    "resnet110": _cifar10("resnet110", "1d1ed7c2"),
}
"""By network, then by name.

CIFAR10: Y. Idelbayev, "Proper ResNet Implementation for CIFAR10/CIFAR100 in PyTorch"; images
normalised with ImageNet's mean and standard deviation.
"""
