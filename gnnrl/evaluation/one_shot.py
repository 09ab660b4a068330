"""How good a plan is: cut the network, look at reward images.

Evaluations are what a search pays for.  The network is read once and cut many times; the images
are in memory, normalised and on the device, before the first plan.
"""

# N: reward images   K: classes

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.evaluation.base import EQUIVALENT, Evaluation
from gnnrl.evaluation.fused_batch_norm import FoldedSubnet
from gnnrl.evaluation.reusable_subnet import Slot
from gnnrl.evaluation.rewards import REWARDS, Measured, measured
from gnnrl.graph.cost import Cost, cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.batch_norm import batch_statistics, match, norm_moments, recalibrate
from gnnrl.pruning.compensation.gram import GramSolve
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.registry import named

FAILED = -100.0
"""Reward of a network that gives no finite numbers: below every reward of one that does."""


STATISTICS = ("matched", "batch", "kept")


class Evaluator:
    """Evaluates plans of one network.

    images `[N, C, H, W]`, normalised, with labels `[N]`: reward images, never test images.
    statistics: of batch norm in the cut network.  `matched`: as the reward images pass, each norm
    gives the mean and variance that the dense one gives for them; `batch`: those of the reward
    images with the old scale (both without labels or a second pass); `kept`: the dense network's;
    a tensor `[M, C, H, W]`: measured anew on these images first.
    statistics_images: so many of the reward images, the first ones, give `matched` and `batch`
    statistics for all of them, and norms are folded into convolutions; 0: every batch its own.
    reward: a key of `REWARDS`, or `package.module:function`, called with `Measured`.
    precision: what the subnet computes in; bfloat16 is faster on processors that have it and ranks
    plans alike.
    compensate: makes up for lost inputs in every subnet.
    """

    def __init__(
        self,
        network: nn.Module,
        graph: ComputationalGraph,
        images: Tensor,
        labels: Tensor,
        *,
        statistics: str | Tensor = "batch",
        statistics_images: int = 0,
        reward: str = "accuracy",
        precision: torch.dtype = torch.float32,
        batch_size: int = 512,
        compensate: GramSolve | None = None,
    ) -> None:
        if isinstance(statistics, str) and statistics not in STATISTICS:
            raise UserError(f"unknown statistics {statistics!r}, expected one of {STATISTICS}")
        if statistics_images and (isinstance(statistics, Tensor) or statistics == "kept"):
            raise UserError(
                f"statistics_images {statistics_images} with statistics that reward images do not "
                "give, expected 0: set it so, or take matched or batch statistics"
            )
        self.graph, self.labels = graph, labels
        self.reward, self._reward = reward, named(reward, REWARDS, "reward")
        self._batch_size, self._statistics = batch_size, statistics
        with torch.no_grad():
            self._dense = _logits(network.eval(), images, batch_size)
        matched = isinstance(statistics, str) and statistics == "matched"
        first = images[: statistics_images or len(images)]
        norms = norm_moments(network, graph, first, batch_size) if matched else {}
        self._norms = {name: found.to(precision) for name, found in norms.items()}
        self._dense_cost = cost(graph)
        self._prepare = lambda net: net.to(precision, memory_format=torch.channels_last).eval()
        self._images = self._ready(images, precision)
        if isinstance(statistics, Tensor):
            self._statistics = self._ready(statistics, precision)
        self._slot = Slot(Surgeon(network, graph), self._prepare)
        self._compensate = compensate
        self._first, self._folded = statistics_images, None
        how = {"statistics": statistics, "statistics_images": statistics_images,
               "reward": reward, "precision": precision,
               "batch_size": batch_size, "compensate": compensate}  # fmt: skip
        self.on = partial(Evaluator, network, graph, **how)
        self.images = len(images)
        self._last: tuple[PruningPlan, np.ndarray] | None = None

    @property
    def cost(self) -> float:
        """Evaluation equivalents of one evaluation."""
        extra = len(self._statistics) if isinstance(self._statistics, Tensor) else 0
        return (len(self._images) + extra) / EQUIVALENT

    def __call__(self, plans: Sequence[PruningPlan]) -> list[Evaluation]:
        """Evaluate plans one after the other; equal plans get equal evaluations."""
        return [self.evaluate(plan) for plan in plans]

    def evaluate(self, plan: PruningPlan) -> Evaluation:
        """Cut the network to the plan and look at the reward images."""
        return self.rated(plan, self.logits(plan))

    def rated(self, plan: PruningPlan, logits: Tensor) -> Evaluation:
        """The evaluation of a plan whose logits `[N, K]` are known."""
        price = cost(self.graph, plan, self._keep(plan))
        if not torch.isfinite(logits).all():
            return self.failed(plan, "not finite")
        measured = self.measure(logits, price)
        reward = float(self._reward(measured))
        if not math.isfinite(reward):
            raise UserError(
                f"pruning: the reward {self.reward} of {measured} is {reward}, expected a finite "
                "number; give a bad plan a low one instead"
            )
        return Evaluation(reward, measured.accuracy, price.flops, price.parameters, cost=self.cost)

    def failed(self, plan: PruningPlan, reason: str) -> Evaluation:
        """The evaluation of a plan that gives no finite numbers, or nothing at all."""
        price = cost(self.graph, plan)
        return Evaluation(FAILED, 0.0, price.flops, price.parameters, reason, cost=self.cost)

    def logits(self, plan: PruningPlan) -> Tensor:
        """What the cut network says about the reward images `[N, K]`."""
        with torch.inference_mode():
            subnet = self.cut(plan)
            if self._first:
                return self._folded_logits(subnet)
            if isinstance(self._statistics, str) and self._statistics != "kept":
                with batch_statistics(subnet):
                    return _logits(subnet, self._images, self._batch_size)
            return _logits(subnet, self._images, self._batch_size)

    def _folded_logits(self, subnet: nn.Module) -> Tensor:
        if self._folded is None or self._folded.subnet is not subnet:
            self._folded = FoldedSubnet(subnet)
        first, size = self._first, self._batch_size
        rest = (self._images[k : k + size] for k in range(first, len(self._images), size))
        logits = [self._folded.first(self._images[:first]), *map(self._folded, rest)]
        return torch.cat(logits).float()

    def cut(self, plan: PruningPlan) -> nn.Module:
        """The network of a plan as it is run, but for batch statistics; until the next call."""
        keep = self._keep(plan)
        subnet = self._slot.fill(plan, keep)
        if self._compensate is not None:
            self._compensate(subnet, keep)
        if isinstance(self._statistics, Tensor):
            recalibrate(subnet, self._statistics.split(self._batch_size))
        if self._norms:
            match(subnet, self._norms, keep)
        return subnet

    def _keep(self, plan: PruningPlan) -> np.ndarray:
        """Units of a plan `[num_units]`, worked out once for the plan at hand."""
        if self._last is None or self._last[0] is not plan:
            self._last = plan, kept_units(self.graph, plan.kept)
        return self._last[1]

    def measure(self, logits: Tensor, price: Cost) -> Measured:
        """Compare logits `[N, K]` with labels, and all of it with the dense network."""
        return measured(logits, self._dense, self.labels, price, self._dense_cost)

    @staticmethod
    def _ready(images: Tensor, precision: torch.dtype) -> Tensor:
        return images.to(precision).contiguous(memory_format=torch.channels_last)


def _logits(network: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    return torch.cat([network(part) for part in images.split(batch_size)]).float()
