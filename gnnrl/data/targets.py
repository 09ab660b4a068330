"""What a data set knows of its images: classes, masks, boxes."""

# N: images   H, W: height, width

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from gnnrl.errors import UserError

IGNORED = 255
"""Class of the pixels of a mask that count for nothing."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of N images.

    boxes: of each image `[n, 4]`, float32: left, top, right, bottom in pixels.  labels: their
    classes `[n]`, whole numbers from 0.
    """

    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, indices: Tensor | slice) -> Boxes:
        """Return the boxes of these images, in this order."""
        chosen = torch.arange(len(self))[indices.cpu() if isinstance(indices, Tensor) else indices]
        places = chosen.tolist()
        return Boxes(tuple(self.boxes[i] for i in places), tuple(self.labels[i] for i in places))

    def to(self, device: torch.device | None) -> Boxes:
        """Return the same boxes, held on the device."""
        return Boxes(
            tuple(one.to(device) for one in self.boxes),
            tuple(one.to(device) for one in self.labels),
        )


Targets: TypeAlias = Tensor | Boxes
"""Classes `[N]` or masks `[N, H, W]` as a tensor, or boxes."""


def joined(parts: Iterable[Targets]) -> Targets:
    """Return the targets of several batches as those of one."""
    parts = list(parts)
    if isinstance(parts[0], Tensor):
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    found = [part for part in parts if isinstance(part, Boxes)]
    return Boxes(
        tuple(one for part in found for one in part.boxes),
        tuple(one for part in found for one in part.labels),
    )


def digest(targets: Targets) -> bytes:
    """Return a SHA-256 that changes with the targets."""
    found = hashlib.sha256()
    tensors = (targets,) if isinstance(targets, Tensor) else (*targets.boxes, *targets.labels)
    for tensor in tensors:
        found.update(f"{tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().cpu().numpy().tobytes())
    return found.digest()


def refuse_out_of_range(targets: Targets, classes: int, where: str) -> None:
    """Raise `UserError` for labels that are of none of so many classes.

    where: which images they are of, for the message.
    """
    found = targets if isinstance(targets, Tensor) else torch.cat(targets.labels)
    known = found[found != IGNORED] if found.ndim > 1 else found
    wrong = known[(known < 0) | (known >= classes)]
    if len(wrong):
        also = f", or {IGNORED} for pixels that count for nothing" if found.ndim > 1 else ""
        raise UserError(
            f"{where}: a label is {int(wrong[0])}, expected 0 to {classes - 1} for {classes} "
            f"classes{also}: correct the labels or the classes"
        )
