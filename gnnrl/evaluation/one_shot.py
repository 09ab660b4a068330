"""How good a plan is without training: prune the network, run it on the reward images.

The network is traced once and pruned many times; the images are in memory, normalised and on the
device, before the first plan.
"""

# N: reward images

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from gnnrl.errors import UserError
from gnnrl.evaluation.base import FAILED, Decided, Evaluation, Evaluator, Plan
from gnnrl.evaluation.equivalent import EQUIVALENT
from gnnrl.evaluation.fused_batch_norm import FoldedSubnet
from gnnrl.evaluation.masked_subnet import MaskedRuns, MaskedSubnet, can_be_masked
from gnnrl.evaluation.measured import PRECISIONS, measured, metric
from gnnrl.evaluation.reusable_subnet import Slot, cuts_channels_alone
from gnnrl.evaluation.rewards import Measured, RewardSettings
from gnnrl.graph.cost import Cost, Costs
from gnnrl.pruning.batch_norm import batch_statistics, recalibrate
from gnnrl.pruning.compensation.gram import GramSolve
from gnnrl.pruning.matching import NormMoments, match, norm_moments
from gnnrl.pruning.sparsity import sparsify
from gnnrl.pruning.surgery import Surgeon
from gnnrl.tasks.base import Network, Outputs, Targets, Task
from gnnrl.tasks.classification import CLASSIFICATION

SMALL = 2**20
"""Numbers of the outputs for all images that are scored on the processor while a GPU goes on."""

TOGETHER = 32
"""Plans that are best given at once to an evaluator that runs them masked."""


class OneShot(Evaluator):
    """Evaluates plans of one network, as its subnets are before any training.

    surgeon: of the dense network.  images `[N, C, H, W]`, normalised, with labels `[N]`, or other
    targets of the task: reward images, never test images.
    settings.statistics: of batch norm in the subnet.  `matched`: batch statistics, with scale and
    shift set so that each norm's output has the dense network's mean and variance; `batch`: batch
    statistics with the old scale and shift; `kept`: the dense network's; `images`: measured anew on
    `recalibration` `[M, C, H, W]` for each plan.
    settings.statistics_images: so many of the reward images, the first ones, give `matched` and
    `batch` statistics for all of them, and norms are folded into convolutions; 0: every batch its
    own.
    compensate: compensates for lost inputs in every subnet.
    Raises `UserError` where the statistics and `recalibration` do not suit each other.
    """

    def __init__(
        self,
        surgeon: Surgeon,
        images: Tensor,
        labels: Targets,
        settings: RewardSettings | None = None,
        *,
        recalibration: Tensor | None = None,
        compensate: GramSolve | None = None,
        task: Task = CLASSIFICATION,
    ) -> None:
        self.settings = settings = settings or RewardSettings()
        if (settings.statistics == "images") != (recalibration is not None):
            raise UserError(
                f"reward.statistics {settings.statistics}: images for recalibration are given for "
                "the statistics `images`, and for no others"
            )
        self.surgeon, self.graph, self.labels = surgeon, surgeon.graph, labels
        self.images, self.task = len(images), task
        self._reward = settings.function
        self._given: dict[str, Any] = {
            "recalibration": recalibration, "compensate": compensate, "task": task
        }  # fmt: skip
        self._compensate = compensate
        network, self._precision = surgeon.network.eval(), PRECISIONS[settings.precision]
        self._dense, norms = self._of_dense(network, images)
        self._norms = {name: found.to(self._precision) for name, found in norms.items()}
        self._costs = Costs(self.graph)
        self._dense_cost = self._costs.of()
        self._images = self._ready(images)
        self._recalibration = None if recalibration is None else self._ready(recalibration)
        self._slot = Slot(surgeon, self._prepared)
        self._folded: FoldedSubnet | None = None
        self._masked: MaskedRuns | None = None
        extra = 0 if recalibration is None else len(recalibration)
        self.cost = (len(images) + extra) / EQUIVALENT

    def on(self, images: Tensor, labels: Targets) -> OneShot:
        """Return the same evaluator on other images `[N, C, H, W]` with their labels."""
        return OneShot(self.surgeon, images, labels, self.settings, **self._given)

    def __call__(self, plans: Sequence[Plan]) -> list[Evaluation]:
        """Evaluate plans; equal plans get equal evaluations."""
        decided = [self._decided(plan) for plan in plans]
        if self._masked is None or not all(cuts_channels_alone(each.plan) for each in decided):
            return [self.evaluate(plan) for plan in decided]
        outputs = self._masked.outputs([each.units_of(self.graph) for each in decided])
        return [self.scored(plan, given) for plan, given in zip(decided, outputs, strict=True)]

    def run_masked(self) -> None:
        """Run plans at the dense network's widths from now on, where that gives the same.

        A GPU then evaluates tens of times as many.
        """
        settings, solve = self.settings, self._compensate
        suits = solve is None or (solve.stacked and settings.statistics == "matched")
        suits = suits and settings.statistics != "images" and isinstance(self._dense, Tensor)
        if not suits or not can_be_masked(self.surgeon):
            return
        subnet = MaskedSubnet(self.surgeon, self._prepared, self._norms, solve)
        if self._dense.numel() <= SMALL:
            self._dense, self.labels = self._dense.cpu(), self.labels.cpu()
        self._masked, self.together = MaskedRuns(subnet, self._run, self._dense.device), TOGETHER

    def evaluate(self, plan: Plan) -> Evaluation:
        """Prune the network to the plan and score it on the reward images."""
        decided = self._decided(plan)
        return self.scored(decided, self.outputs(decided))

    def scored(self, plan: Plan, outputs: Outputs) -> Evaluation:
        """Return the evaluation of a plan whose outputs for all images are known."""
        decided = self._decided(plan)
        subnet = self._costs.of(decided.plan, decided.units)
        if not self.task.finite(outputs):
            return self.failed(plan, "not finite")
        measured = self.measure(outputs, subnet)
        reward = float(self._reward(measured))
        if not math.isfinite(reward):
            raise UserError(
                f"pruning: the reward {self.settings.kind} of {measured} is {reward}, expected a "
                "finite number; give a bad plan a low one instead"
            )
        return Evaluation(
            reward, measured.accuracy, subnet.flops, subnet.parameters, cost=self.cost
        )

    def failed(self, plan: Plan, reason: str) -> Evaluation:
        """Return the evaluation of a plan that gives no finite numbers, or no result at all."""
        subnet = self._costs.of(Decided.of(plan).plan)
        return Evaluation(FAILED, 0.0, subnet.flops, subnet.parameters, reason, cost=self.cost)

    def outputs(self, plan: Plan) -> Outputs:
        """Return the subnet's outputs on the reward images, as the task reads them."""
        decided = self._decided(plan)
        if self._masked is not None and cuts_channels_alone(decided.plan):
            return next(self._masked.outputs([decided.units_of(self.graph)]))
        with torch.inference_mode():
            outputs = self._run(self.cut(decided))
        return outputs if self._masked is None else outputs.to(self._dense.device)

    def _run(self, subnet: fx.GraphModule) -> Outputs:
        if self.settings.statistics_images:
            return self._folded_outputs(subnet)
        if self.settings.statistics in ("matched", "batch"):
            with batch_statistics(subnet):
                return self._outputs(subnet, self._images)
        return self._outputs(subnet, self._images)

    def _of_dense(
        self, network: nn.Module, images: Tensor
    ) -> tuple[Outputs, Mapping[str, NormMoments]]:
        """Return the dense network's outputs and what its norms give, in one pass if possible."""
        size, first = self.settings.batch_size, self.settings.statistics_images
        if self.settings.statistics == "matched" and not first:
            outputs: list[Outputs] = []
            norms = norm_moments(
                network,
                self.graph,
                images,
                size,
                lambda part: outputs.append(self.task.outputs(network, part)),
            )
            return self.task.joined(outputs), norms
        with torch.no_grad():
            dense = self._outputs(network, images)
        if self.settings.statistics != "matched":
            return dense, {}
        return dense, norm_moments(network, self.graph, images[:first], size)

    def _outputs(self, network: Network, images: Tensor) -> Outputs:
        parts = images.split(self.settings.batch_size)
        return self.task.joined([self.task.outputs(network, part) for part in parts])

    def _folded_outputs(self, subnet: fx.GraphModule) -> Outputs:
        if self._folded is None or self._folded.subnet is not subnet:
            self._folded = FoldedSubnet(subnet)
        first, size = self.settings.statistics_images, self.settings.batch_size
        rest = (self._images[k : k + size] for k in range(first, len(self._images), size))
        outputs = [self.task.outputs(self._folded.first, self._images[:first])]
        outputs += [self.task.outputs(self._folded, part) for part in rest]
        return self.task.joined(outputs)

    def cut(self, plan: Plan) -> fx.GraphModule:
        """Return the subnet as it is run, but for batch statistics; valid until the next call."""
        decided = self._decided(plan)
        assert decided.units is not None
        subnet = self._slot.fill(decided.plan, decided.units)
        if self._compensate is not None:
            self._compensate(subnet, decided.units)
            sparsify(subnet, self.graph, decided.plan)  # zeros may be no more
        if self._recalibration is not None:
            recalibrate(subnet, self._recalibration.split(self.settings.batch_size))
        if self._norms:
            match(subnet, self._norms, decided.units)
        return subnet

    def measure(self, outputs: Outputs, subnet: Cost) -> Measured:
        """Compare outputs with labels, and all of it with the dense network."""
        dense, whole, known = self._dense, self._dense_cost, self._dense_metric
        return measured(outputs, dense, self.labels, subnet, whole, self.task, known)

    @cached_property
    def _dense_metric(self) -> float:
        return metric(self._dense, self.labels, self._dense, self.task)

    def _decided(self, plan: Plan) -> Decided:
        """Return the plan with its units."""
        decided = Decided.of(plan)
        if decided.units is not None:
            return decided
        return Decided(decided.plan, decided.units_of(self.graph))

    def _prepared(self, network: fx.GraphModule) -> fx.GraphModule:
        return network.to(self._precision).to(memory_format=torch.channels_last).eval()

    def _ready(self, images: Tensor) -> Tensor:
        return images.to(self._precision).contiguous(memory_format=torch.channels_last)
