"""Space `single_weights`: which single weights are kept, a fixed number over the whole network."""

# A: weights   L: layers

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from gnnrl.errors import UserError
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.masks import packed, unpacked
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.plan import PruningPlan
from gnnrl.rl import subsets
from gnnrl.rl.subsets import Choice
from gnnrl.search.spaces.base import PlanSpace

if TYPE_CHECKING:
    from torch_geometric.data import Data


class SingleWeightSpace(PlanSpace):
    """Which weights are kept: exactly `round((1 - sparsity) * weights)`, from any layers.

    Shapes stay as they are, weights that are not kept become zero, and stay so in training (the
    masks of the thesis, the lottery ticket and SNIP).  No layer loses all its weights.

    importance: a score for each weight, by layer (`gnnrl.pruning.weight_saliency`).
    """

    action_kind = "subset"

    def __init__(self, graph: ComputationalGraph, importance: Importance, budget: Budget) -> None:
        if budget.resource != "sparsity":
            raise UserError(
                f"space single_weights keeps a number of weights, it cannot meet a budget of "
                f"{budget.resource}; give budget.sparsity and set the others to null"
            )
        if not importance:
            raise UserError(
                "space single_weights finds no weights: all layers are protected or share their "
                "weights; protect fewer in extract.protect"
            )
        self.graph, self.budget, self.dense = graph, budget, cost(graph)
        self.names = list(importance)
        self._sizes = [len(importance[name]) for name in self.names]
        self.size = sum(self._sizes)
        self.keep = round(budget.fraction * self.size)
        if self.keep < len(self.names):
            raise UserError(
                f"budget.sparsity {budget.value} leaves {self.keep} of {self.size} weights, but "
                f"{len(self.names)} layers need one each; lower the sparsity"
            )
        part = torch.repeat_interleave(torch.arange(len(self._sizes)), torch.tensor(self._sizes))
        self.choice = Choice(self.keep, part, torch.ones(len(self._sizes), dtype=torch.int64))
        self._score = torch.cat([importance[name].float() for name in self.names])
        self._seen = self._observation()

    def plan(self, action: np.ndarray) -> PruningPlan:
        """Return the plan that keeps the weights chosen, bool `[A]`."""
        chosen = np.asarray(action)
        if chosen.shape != (self.size,) or not np.isin(chosen, (0, 1)).all():
            wrong: str | None = (
                f"shape {chosen.shape}, expected a yes or no for each of {self.size} weights"
            )
        else:
            wrong = subsets.choice_fault(chosen.astype(bool), self.choice)
        if wrong:
            raise UserError(f"space single_weights cannot make a plan of this action: {wrong}")
        parts = np.split(chosen.astype(bool), np.cumsum(self._sizes)[:-1])
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

    def random(self, generator: torch.Generator) -> np.ndarray:
        """Return a random action: all weights have the same chance."""
        order = subsets.draw(torch.zeros(self.size), self.choice, generator)
        return subsets.as_mask(order, self.size)

    def uniform(self) -> PruningPlan:
        """Return the control: the same fraction of every layer, its most important weights."""
        places = [s.argsort(stable=True).argsort() for s in self._score.split(self._sizes)]
        shares = torch.cat([place.double() / len(place) for place in places])
        return self.plan(subsets.as_mask(subsets.best(shares, self.choice), self.size))

    def step(self, keep: np.ndarray | None, action: np.ndarray) -> np.ndarray:
        """Return the action: all weights are chosen in one step."""
        return np.asarray(action)

    def met(self, keep: np.ndarray) -> bool:
        """Whether the weights chosen are as many as the sparsity asks for."""
        return int(np.sum(keep)) == self.keep

    def used(self, plan: PruningPlan) -> float:
        """Return the fraction of the weights that is kept."""
        return float(self.kept(plan).mean())

    def observation(self, keep: np.ndarray | None = None) -> Data:
        """Return a node for every weight, without edges: its score and its layer."""
        return self._seen

    def _observation(self) -> Data:
        from torch_geometric.data import Data

        scale = self._score.abs().max().clamp(min=1e-12)
        layer = self.choice.part.float() / max(len(self.names) - 1, 1)
        return Data(
            x=torch.stack([self._score / scale, layer], dim=1),
            edge_index=torch.zeros(2, 0, dtype=torch.int64),
            edge_attr=torch.zeros(0, 1),
            decision_index=torch.arange(self.size),
            keep=torch.tensor([self.keep]),
            part=self.choice.part,
            least=self.choice.least,
            score=self._score,
        )
