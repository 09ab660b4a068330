"""Labelled images that stay on disk, for data sets which memory does not hold."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gnnrl.data.files import Decoder
from gnnrl.data.images import Batch, Shape, chosen_indices
from gnnrl.data.transform import Augmentation, Transform, augmented, draws

AHEAD = 4  # batches on their way while one is used


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Image files, decoded anew whenever they are asked for."""

    paths: Sequence[Path]
    labels: Tensor
    transform: Transform
    decode: Decoder

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> Shape:
        """Channels, height, width of one image."""
        return self.decode.input_shape

    def take(self, indices: Tensor) -> StreamedImages:
        """Return these images only, in this order."""
        paths = [self.paths[i] for i in indices.tolist()]
        return replace(self, paths=paths, labels=self.labels[indices])

    def to(self, device: torch.device) -> StreamedImages:
        """Return the same images: they stay on disk."""
        return self

    def fingerprint(self) -> str:
        """Return a digest of names, sizes, labels and transform (not of all the pixels)."""
        digest = hashlib.sha256(repr((self.transform, self.labels.tolist())).encode())
        for path in self.paths:
            digest.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
        return digest.hexdigest()[:20]

    def batches(
        self,
        batch_size: int,
        device: torch.device | None = None,
        generator: torch.Generator | None = None,
        *,
        augment: bool = False,
    ) -> Iterator[Batch]:
        """Serve every image once, in a random order if there is a generator."""
        how = self.transform.augmentation_if(augment and generator is not None)
        rest = replace(how, resized=False)  # the random part is cut out of the full file
        for indices, arrays in self._decoded(batch_size, generator, how):
            pixels = torch.from_numpy(np.stack(arrays)).to(device)
            if generator is not None:
                pixels = augmented(pixels, rest, generator)
            yield self.transform.normalised(pixels), self.labels[indices].to(device)

    def _decoded(
        self, batch_size: int, generator: torch.Generator | None, how: Augmentation
    ) -> Iterator[tuple[Tensor, list[np.ndarray]]]:
        waiting: deque[tuple[Tensor, Iterator[np.ndarray]]] = deque()
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for indices in chosen_indices(len(self), batch_size, generator):
                paths = [self.paths[i] for i in indices.tolist()]
                parts: Sequence[Tensor | None] = [None] * len(paths)
                if how.resized and generator is not None:
                    parts = list(draws(len(paths), generator))
                waiting.append((indices, threads.map(self.decode, paths, parts)))
                if len(waiting) > AHEAD:
                    indices, arrays = waiting.popleft()
                    yield indices, list(arrays)
            for indices, arrays in waiting:
                yield indices, list(arrays)
