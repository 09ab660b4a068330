"""Random actions and vectors read as actions, for agents that search actions directly."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.rl.observation import ActionKind
from gnnrl.rl.subsets import Choice, as_mask, best


def allowed(observation: Data) -> Tensor:
    """Return which decisions are allowed, bool [A]."""
    mask = observation.get("action_mask")
    size = observation.decision_index.numel()
    return torch.ones(size, dtype=torch.bool) if mask is None else mask


def as_action(kind: ActionKind, vector: Tensor, observation: Data) -> np.ndarray | int:
    """Read a vector [A] in [0, 1] as an action that the observation allows.

    continuous: the entries; binary: those of at least one half; categorical: the largest; subset:
    the largest, as many as are asked for.
    """
    if kind == "subset":
        return as_mask(best(vector, Choice.of(observation)), len(vector))
    mask = allowed(observation)
    if kind == "continuous":
        return vector.to(torch.float32).numpy()
    if kind == "binary":
        return ((vector >= 0.5) & mask).numpy()
    return int(torch.where(mask, vector, -1.0).numpy().argmax())


def random_vector(observation: Data, generator: torch.Generator) -> Tensor:
    """Draw a uniform vector [A]; read as an action it is uniform among those allowed."""
    return torch.rand(observation.decision_index.numel(), generator=generator)
