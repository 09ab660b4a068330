"""Space `single_weights`: which single weights are kept, a fixed number over the whole network."""

# A: weights   L: layers

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gnnrl.errors import UserError
from gnnrl.graph.budget import Budget
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.masks import packed, unpacked
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.saliency import local
from gnnrl.rl.subsets import Choice
from gnnrl.search.spaces.subset import SubsetSpace, refuse_other_budgets

if TYPE_CHECKING:
    from torch_geometric.data import Data


class SingleWeightSpace(SubsetSpace):
    """Which weights are kept: exactly `round((1 - sparsity) * weights)`, from any layers.

    Shapes stay as they are, weights that are not kept become zero, and stay so in training (the
    masks of the thesis, the lottery ticket and SNIP).  No layer loses all its weights.

    importance: a score for each weight, by layer (`gnnrl.pruning.weight_saliency`).
    """

    name, things = "single_weights", "weights"

    def __init__(self, graph: ComputationalGraph, importance: Importance, budget: Budget) -> None:
        refuse_other_budgets(SingleWeightSpace, budget)
        if not importance:
            raise UserError(
                "space single_weights finds no weights: all layers are protected or share their "
                "weights; protect fewer in extract.protect"
            )
        self.names = list(importance)
        self._scores = [importance[name].float() for name in self.names]
        self._sizes = [len(score) for score in self._scores]
        super().__init__(graph, budget, weight_choice(self._sizes, budget))

    def plan(self, action: np.ndarray) -> PruningPlan:
        """Return the plan that keeps the weights chosen, bool `[A]`."""
        parts = np.split(self.chosen(action), np.cumsum(self._sizes)[:-1])
        found = zip(self.names, parts, strict=True)
        return PruningPlan(masks={name: packed(kept) for name, kept in found if not kept.all()})

    def kept(self, plan: PruningPlan) -> np.ndarray:
        """Return the action of a plan, bool `[A]`."""
        sizes = zip(self.names, self._sizes, strict=True)
        return np.concatenate(
            [
                unpacked(name, plan.masks[name], size)
                if name in plan.masks
                else np.ones(size, bool)
                for name, size in sizes
            ]
        )

    def _ranks(self) -> Tensor:
        return torch.cat([local(score) for score in self._scores])

    def _observation(self) -> Data:
        """A node for every weight, without edges: its score and its layer."""
        from torch_geometric.data import Data

        score = torch.cat(self._scores)
        scale = score.abs().max().clamp(min=1e-12)
        layer = self.choice.part.float() / max(len(self.names) - 1, 1)
        return Data(
            x=torch.stack([score / scale, layer], dim=1),
            edge_index=torch.zeros(2, 0, dtype=torch.int64),
            edge_attr=torch.zeros(0, 1),
            decision_index=torch.arange(self.size),
            keep=torch.tensor([self.keep]),
            part=self.choice.part,
            least=self.choice.least,
            score=score,
        )


def weight_choice(sizes: Sequence[int], budget: Budget) -> Choice:
    """Return how many weights are kept, in all and at least of each layer: one.

    sizes: the number of weights of each layer.
    Raises `UserError` where the layers need more than are kept.
    """
    weights, layers = sum(sizes), len(sizes)
    keep = round(budget.fraction * weights)
    if keep < layers:
        raise UserError(
            f"budget.sparsity {budget.value} leaves {keep} of {weights} weights, but {layers} "
            "layers need one each; lower the sparsity"
        )
    part = torch.repeat_interleave(torch.arange(layers), torch.tensor(sizes))
    return Choice(keep, part, torch.ones(layers, dtype=torch.int64))
