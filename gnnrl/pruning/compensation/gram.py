"""Compensation inside an evaluation: a subnet whose layers make up for the inputs they lost.

Second moments of the dense network's layers are collected once; for a plan each layer that loses
inputs gets another map of those that it keeps.  At most one small solve a layer, no image.
"""

# D, O: as in linear_maps.py

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, fx, nn

from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.compensation.equations import Equations, Stacks
from gnnrl.pruning.compensation.linear_maps import Reader, readers, rewrite
from gnnrl.pruning.compensation.moments import Calibration, collect
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import device_of


class GramSolve:
    """Compensates subnets in place by the least-squares map of the inputs that a layer keeps.

    Ridge regression on Gram matrices, for convolutions, linear layers and attention's projections
    (as GRAIL has it: "zero-finetuning", CPAL 2026, PMLR 328:881).
    """

    stacked = True
    """Whether a GPU solves layers of the same size at once."""

    def __init__(
        self,
        graph: ComputationalGraph,
        calibration: Calibration,
        readers: Iterable[Reader] | None = None,
    ) -> None:
        """graph: of the network that is pruned.  readers: its layers, if it is not the one that
        was calibrated but lacks some of its parts."""
        self._layers = []
        for reader in calibration.readers if readers is None else readers:
            if bool((reader.units >= 0).any()) and reader.layer in calibration.moments:
                filters = graph.layers[reader.layer].filter_units
                moments = calibration.moments[reader.layer]
                self._layers.append(Equations.of(reader, moments, filters))
        self._stacks: Stacks | None = None

    def __call__(self, subnet: nn.Module, keep: np.ndarray) -> None:
        """Give the layers of a subnet that lost inputs the weights that compensate for them.

        keep `[num_units]`: units that the subnet keeps.
        """
        stays, names = np.append(keep, True), dict(subnet.named_modules())
        lost = [e for e in self._layers if e.reader.layer in names and not stays[e.units].all()]
        place = device_of(subnet)
        if place.type != "cpu" and self.stacked:
            for each, best, statistics in self.stacks(place).solved(lost, stays):
                rewrite(subnet, each.reader, best, statistics)
            return
        for each in lost:
            kept, filters = each.kept(stays)
            best = self._best(each, kept, filters)
            rewrite(subnet, each.reader, best, each.statistics(kept, best))

    def stacks(self, place: torch.device) -> Stacks:
        """Return the equations of all layers on a device."""
        self._stacks = self._stacks or Stacks(self._layers, place)
        return self._stacks

    def _best(self, layer: Equations, kept: Tensor, filters: Tensor) -> Tensor:
        """Return the map of the inputs `kept` to `filters` that compensates for the others."""
        factor = torch.linalg.cholesky(layer.matrix[kept][:, kept])
        return torch.cholesky_solve(layer.right[kept][:, filters], factor)


class MeanShift(GramSolve):
    """Compensates in place by a constant: what the lost inputs added in the mean.

    The weights that are kept stay as they are (VBP, variance-based pruning, ICCV 2025).
    """

    stacked = False

    def _best(self, layer: Equations, kept: Tensor, filters: Tensor) -> Tensor:
        best = layer.solution[kept][:, filters]
        if layer.reader.has_constant:
            lost = torch.ones(len(layer.second), dtype=torch.bool)
            lost[kept] = False
            best[-1] += layer.second[-1, lost] @ layer.solution[lost][:, filters]
        return best


SOLVES: Mapping[str, type[GramSolve]] = {"mean_shift": MeanShift, "gram": GramSolve}
"""Compensations that need nothing of a subnet but its plan, by name."""


class Solved:
    """Compensated subnets of many plans, by moments that are collected once.

    images: of the calibration.  first, each: forward images that the calibration and a plan cost.
    """

    def __init__(self, surgeon: Surgeon, how: str, images: Tensor, generator: torch.Generator):
        """how: a key of SOLVES.  images `[n, C, H, W]`: calibration images."""
        self._surgeon, self._how, self.images = surgeon, how, images
        self._calibration = collect(surgeon.analysis, images, generator=generator)
        self.first, self.each = self._calibration.forward_images, 0

    def __call__(self, plan: PruningPlan) -> fx.GraphModule:
        """Return the subnet of a plan; layers that lost their norm, or a part of their kernel, stay
        as they are."""
        analysis, subnet = self._surgeon.reduced(plan), self._surgeon.cut(plan)
        known = {r.layer: (r.norm, r.kernel) for r in self._calibration.readers}
        left = [r for r in readers(analysis) if known.get(r.layer) == (r.norm, r.kernel)]
        solve = SOLVES[self._how](analysis.graph, self._calibration, left)
        solve(subnet, kept_units(analysis.graph, plan.kept))
        return subnet
