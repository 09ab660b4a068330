"""Transitions made ready for a policy gradient."""

# n: choices of one transition (one per decision; categorical: one in all)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.buffers import Scale


@dataclass(frozen=True)
class Sample:
    """One transition to learn from: its choices [n], their old densities and advantages."""

    observation: Data
    raw: Tensor
    log_prob: Tensor
    advantages: Tensor
    return_: float


def normalised(samples: Sequence[Sample], scale: Scale | None = None) -> list[Sample]:
    """Bring the advantages of all choices to mean 0 and deviation 1; or only to the scale given."""
    every = torch.cat([sample.advantages for sample in samples])
    mean = every.mean() if scale is None else every.new_zeros(())
    std = every.std(correction=0) + 1e-8 if scale is None else scale.std
    return [
        replace(sample, advantages=((sample.advantages - mean) / std).float()) for sample in samples
    ]


def clipped_surrogate(ratio: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """Return the surrogate objective of each choice (Schulman et al. 2017, Eq. 7)."""
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.minimum(ratio * advantages, clipped * advantages)
