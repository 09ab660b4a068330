"""The subnet of a plan with the repairs that need no training, as the stage `prune` makes it."""

from __future__ import annotations

from torch import nn

from gnnrl.data.calibration import BATCH_SIZE, calibration_images, mirrored
from gnnrl.data.images import Labelled
from gnnrl.pruning.compensation.gram import Solved
from gnnrl.pruning.compensation.sequential import compensate
from gnnrl.pruning.matching import recalibrate_matched
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.settings import PruneSettings
from gnnrl.pruning.sparsity import sparsify
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import device, generator


def repaired(
    surgeon: Surgeon, plan: PruningPlan, settings: PruneSettings, images: Labelled, seed: int
) -> nn.Module:
    """Prune the network to a plan, refit its layers and measure its batch norm as settings ask.

    images: training images.  seed: of the choice among them.
    """
    if settings.compensation != "none":
        chosen = calibration_images(images, settings.calibration_images, seed, device())
        own = generator(seed, "compensation")
        if images.transform.augmentation.flip:  # as the network was trained
            chosen = mirrored(chosen, own)
        if settings.compensation == "sequential":
            subnet: nn.Module = compensate(surgeon, plan, chosen, own)
        else:
            subnet = Solved(surgeon, settings.compensation, chosen, own)(plan)
        if plan.weight_sparsity:
            left = surgeon.without(plan.removed_layers)
            sparsify(subnet, left.graph, plan.weight_sparsity)
    else:
        subnet = surgeon.cut(plan)
    if count := settings.recalibration_images:
        chosen = calibration_images(images, count, seed, device())
        dense = surgeon.analysis.network
        recalibrate_matched(dense, surgeon.graph, subnet, plan, chosen, BATCH_SIZE)
    return subnet
