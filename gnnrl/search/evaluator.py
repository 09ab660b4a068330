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
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.recalibration import recalibrate
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


REWARDS: dict[str, Callable[[Measured], float]] = {
    "accuracy": lambda m: m.accuracy,
    "loss": lambda m: -m.loss,
    "divergence": lambda m: -m.divergence,
}
"""Terms by name; all higher = better."""


class Evaluator:
    """Evaluates plans of one network.

    images `[N, C, H, W]`, normalised, with labels `[N]`: reward images, never test images.
    calibration `[M, C, H, W]`: training images for batch-norm statistics; None: the reward
    images themselves (their labels play no part in it); an empty tensor: keep the old statistics.
    reward: a name in `REWARDS`.
    """

    def __init__(
        self,
        network: nn.Module,
        graph: ComputationalGraph,
        images: Tensor,
        labels: Tensor,
        *,
        calibration: Tensor | None = None,
        reward: str = "accuracy",
        batch_size: int = 512,
    ) -> None:
        if reward not in REWARDS:
            raise UserError(f"unknown reward {reward!r}, expected one of {list(REWARDS)}")
        self.graph = graph
        self._surgeon = Surgeon(network.eval(), graph)
        self._images, self._labels = images, labels
        self._calibration = images if calibration is None else calibration
        self._reward, self._batch_size = REWARDS[reward], batch_size
        with torch.no_grad():
            self._dense = self._logits(network)

    @property
    def cost(self) -> float:
        """Evaluation equivalents of one evaluation."""
        return (len(self._images) + len(self._calibration)) / EQUIVALENT

    def __call__(self, plans: Sequence[PruningPlan]) -> list[Evaluation]:
        """Evaluate plans one after the other; equal plans get equal evaluations."""
        return [self.evaluate(plan) for plan in plans]

    def evaluate(self, plan: PruningPlan) -> Evaluation:
        subnet = self.subnet(plan)
        price = cost(self.graph, plan)
        with torch.no_grad():
            logits = self._logits(subnet)
        if not torch.isfinite(logits).all():
            return Evaluation(
                FAILED, 0.0, price.flops, price.parameters, status="not finite", cost=self.cost
            )
        measured = self.measure(logits)
        return Evaluation(
            self._reward(measured), measured.accuracy, price.flops, price.parameters, cost=self.cost
        )

    def subnet(self, plan: PruningPlan) -> nn.Module:
        """The cut network as it is evaluated."""
        subnet = self._surgeon.cut(plan).eval()
        if len(self._calibration):
            recalibrate(subnet, self._calibration.split(self._batch_size))
        return subnet

    def measure(self, logits: Tensor) -> Measured:
        """Compare logits `[N, K]` with labels and with the dense network."""
        log_p, dense = F.log_softmax(logits.double(), 1), F.log_softmax(self._dense.double(), 1)
        return Measured(
            accuracy=float((logits.argmax(1) == self._labels).double().mean()),
            loss=float(F.nll_loss(log_p, self._labels)),
            divergence=float(F.kl_div(log_p, dense, log_target=True, reduction="batchmean")),
        )

    def _logits(self, network: nn.Module) -> Tensor:
        return torch.cat([network(part) for part in self._images.split(self._batch_size)]).float()
