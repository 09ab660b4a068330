"""Labelled images that are read from disk, for data sets which memory does not hold."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from gnnrl.data.augmentations import Augmentation
from gnnrl.data.files import Decoder
from gnnrl.data.images import Labelled, Read
from gnnrl.data.transform import Transform, draws
from gnnrl.shapes import Shape

AHEAD = 4  # batches on their way while one is used


@dataclass(frozen=True, eq=False)
class StreamedImages(Labelled):
    """Image files, decoded anew whenever they are asked for."""

    paths: Sequence[Path]
    labels: Tensor  # classes [N]
    transform: Transform
    decode: Decoder

    @property
    def input_shape(self) -> Shape:
        """Channels, height, width of one image."""
        return self.decode.input_shape

    def take(self, indices: Tensor) -> StreamedImages:
        """Return these images only, in this order."""
        paths = [self.paths[i] for i in indices.tolist()]
        return replace(self, paths=paths, labels=self.labels[indices])

    def fingerprint(self) -> str:
        """Return a digest of names, sizes, labels and transform (not of all the pixels)."""
        digest = hashlib.sha256(repr((self.transform, self.labels.tolist())).encode())
        for path in self.paths:
            digest.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
        return digest.hexdigest()[:20]

    def _read(self, order: list[Tensor], how: Augmentation, draw: Generator | None) -> Read:
        rest = replace(how, resized=False)  # the random part is cut out of the full file
        waiting: deque[tuple[Tensor, Iterator[np.ndarray]]] = deque()
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for place, indices in enumerate(order):
                parts: Iterable[Tensor | None] = repeat(None)
                if how.resized and draw is not None:
                    parts = draws(len(indices), draw)
                paths = [self.paths[i] for i in indices.tolist()]
                waiting.append((self.labels[indices], threads.map(self.decode, paths, parts)))
                while waiting and (len(waiting) > AHEAD or place == len(order) - 1):
                    labels, arrays = waiting.popleft()
                    yield torch.from_numpy(np.stack(list(arrays))), labels, rest
