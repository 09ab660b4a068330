"""How good a plan is: cut the network, look at reward images.

Evaluations are what a search pays for.  The network is read once and cut many times; the images
are in memory, normalised and on the device, before the first plan.
"""

# N: reward images   K: classes

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gnnrl.errors import UserError
from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.units import kept_units
from gnnrl.pruning.gram import GramSolve
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.recalibration import batch_statistics, recalibrate
from gnnrl.pruning.slot import Slot
from gnnrl.pruning.surgery import Surgeon
from gnnrl.search.reward import Evaluation

EQUIVALENT = 500
"""Forward images of one evaluation equivalent, the unit that costs of searches are compared in."""

FAILED = -100.0
"""Reward of a network that gives no finite numbers: below every reward of one that does."""


@dataclass(frozen=True)
class Measured:
    """What the subnet said about the reward images: accuracy [0, 1], mean cross-entropy, mean
    Kullback-Leibler divergence from the dense network."""

    accuracy: float
    loss: float
    divergence: float


STATISTICS = ("batch", "kept")

REWARDS: dict[str, Callable[[Measured], float]] = {
    "accuracy": lambda m: m.accuracy,
    "loss": lambda m: -m.loss,
    "divergence": lambda m: -m.divergence,
}
"""Terms by name; all higher = better."""


class Evaluator:
    """Evaluates plans of one network.

    images `[N, C, H, W]`, normalised, with labels `[N]`: reward images, never test images.
    statistics: of batch norm in the cut network.  `batch`: those of the reward images as they
    pass (no labels, no second pass); `kept`: the dense network's; a tensor `[M, C, H, W]`: measured
    anew on these images first.
    reward: a name in `REWARDS`.  precision: what the subnet computes in; bfloat16 is faster on
    processors that have it and ranks plans alike.
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
        reward: str = "accuracy",
        precision: torch.dtype = torch.float32,
        batch_size: int = 512,
        compensate: GramSolve | None = None,
    ) -> None:
        if reward not in REWARDS:
            raise UserError(f"unknown reward {reward!r}, expected one of {list(REWARDS)}")
        if isinstance(statistics, str) and statistics not in STATISTICS:
            raise UserError(f"unknown statistics {statistics!r}, expected one of {STATISTICS}")
        self.graph, self.labels = graph, labels
        self._reward, self._batch_size, self._statistics = REWARDS[reward], batch_size, statistics
        with torch.no_grad():
            self._dense = _logits(network.eval(), images, batch_size)
        self._prepare = lambda net: net.to(precision, memory_format=torch.channels_last).eval()
        self._images = self._ready(images, precision)
        if isinstance(statistics, Tensor):
            self._statistics = self._ready(statistics, precision)
        self._slot = Slot(Surgeon(network, graph), self._prepare)
        self._compensate = compensate

    @property
    def cost(self) -> float:
        """Evaluation equivalents of one evaluation."""
        extra = len(self._statistics) if isinstance(self._statistics, Tensor) else 0
        return (len(self._images) + extra) / EQUIVALENT

    def __call__(self, plans: Sequence[PruningPlan]) -> list[Evaluation]:
        """Evaluate plans one after the other; equal plans get equal evaluations."""
        return [self.evaluate(plan) for plan in plans]

    def evaluate(self, plan: PruningPlan) -> Evaluation:
        price = cost(self.graph, plan)
        logits = self.logits(plan)
        if not torch.isfinite(logits).all():
            return Evaluation(
                FAILED, 0.0, price.flops, price.parameters, status="not finite", cost=self.cost
            )
        measured = self.measure(logits)
        return Evaluation(
            self._reward(measured), measured.accuracy, price.flops, price.parameters, cost=self.cost
        )

    def logits(self, plan: PruningPlan) -> Tensor:
        """What the cut network says about the reward images `[N, K]`."""
        with torch.inference_mode():
            subnet = self._slot.fill(plan)
            if self._compensate is not None:
                self._compensate(subnet, kept_units(self.graph, plan.kept))
            if isinstance(self._statistics, Tensor):
                recalibrate(subnet, self._statistics.split(self._batch_size))
            if self._statistics == "batch":
                with batch_statistics(subnet):
                    return _logits(subnet, self._images, self._batch_size)
            return _logits(subnet, self._images, self._batch_size)

    def measure(self, logits: Tensor) -> Measured:
        """Compare logits `[N, K]` with labels and with the dense network."""
        log_p, dense = F.log_softmax(logits.double(), 1), F.log_softmax(self._dense.double(), 1)
        return Measured(
            accuracy=float((logits.argmax(1) == self.labels).double().mean()),
            loss=float(F.nll_loss(log_p, self.labels)),
            divergence=float(F.kl_div(log_p, dense, log_target=True, reduction="batchmean")),
        )

    @staticmethod
    def _ready(images: Tensor, precision: torch.dtype) -> Tensor:
        return images.to(precision).contiguous(memory_format=torch.channels_last)


def _logits(network: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    return torch.cat([network(part) for part in images.split(batch_size)]).float()
