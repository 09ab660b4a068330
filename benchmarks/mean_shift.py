"""Why the mean shift harms a vision transformer: the error of each layer, and that of the network.

    python -m benchmarks.mean_shift --images FOLDER --checkpoint final.safetensors

For the plans `uniform` and the allocation at half of the flops, on test images, in the mean over
the layers that lost inputs (those in brackets are over the class token alone):

- layer: squared error of what a layer gives for the dense network's inputs, relative to what the
  dense layer gives without its bias;
- block: squared error of the residual stream behind the layer in the subnet, relative to the
  variance of the dense one over images;
- last norm: variance over images of what the last layer norm gives, relative to the dense one;
- logits: squared error relative to their own squares, and how often the class is the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx, nn

from benchmarks.after_repair import setting_of
from benchmarks.harness import IMAGES, existing
from gnnrl.checkpoint import Checkpoint
from gnnrl.data.calibration import calibration_images
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.compensation.gram import SOLVES
from gnnrl.pruning.compensation.linear_maps import Reader, folded
from gnnrl.pruning.compensation.moments import Calibration, collect, reconstruction
from gnnrl.pruning.compensation.stepper import out_of_place
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import generator
from gnnrl.search.spaces.channels import ChannelSpace

CALIBRATION, TEST = 512, 96
LAST = "encoder_ln"
Values = dict[str, Tensor]
Pair = tuple[float, float]


def values(network: fx.GraphModule, images: Tensor) -> Values:
    """Every tensor of a traced network by the name of its operation, the logits as `logits`."""
    found: Values = {}

    class Remember(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, Tensor):
                found["logits" if n.op == "output" else n.name] = value
            return value

    with torch.no_grad():
        Remember(out_of_place(network)).run(images)
    return found


def tokens(value: Tensor) -> Tensor:
    """Images first, then tokens, then width."""
    return value.reshape(TEST, -1, value.shape[-1])


def error(found: Tensor, dense: Tensor) -> float:
    return float((found - dense).square().sum() / dense.square().sum())


def centred(value: Tensor) -> Tensor:
    return value - value.mean(0, keepdim=True)


def over(figure: Callable[[slice], float]) -> Pair:
    """A figure of all tokens, and of the class token alone."""
    return figure(slice(None)), figure(slice(1))


def of_layer(
    reader: Reader, subnet: nn.Module, kept: Tensor, inputs: Tensor, dense: Tensor
) -> Pair:
    """Error of what a layer gives for the dense network's inputs; dense `[D, O]`: its own map."""
    made = folded(subnet, reader)
    given = inputs[..., kept] @ made[:-1] + made[-1]
    return over(lambda to: error(given[:, to] - dense[-1], (inputs @ dense[:-1])[:, to]))


def relative(found: Tensor, dense: Tensor) -> Pair:
    """Squares of a tensor, relative to the variance of the dense one over images."""
    return over(
        lambda to: float(found[:, to].square().sum() / centred(dense[:, to]).square().sum())
    )


def show(
    name: str, surgeon: Surgeon, plan: PruningPlan, calibration: Calibration, images: Tensor
) -> None:
    """Print a line for each repair of a plan."""
    graph = surgeon.analysis.graph
    keep = kept_units(graph, plan.kept)
    stays, dense = np.append(keep, True), values(surgeon.analysis.traced, images)
    for how in ("none", *SOLVES):
        subnet = surgeon.cut(plan).eval()
        if how != "none":
            SOLVES[how](graph, calibration)(subnet, keep)
        found, layers, blocks = values(subnet, images), [], []
        for reader in calibration.readers:
            if stays[reader.units].all():
                continue
            own = folded(surgeon.analysis.traced, reader)
            kept = torch.from_numpy(np.flatnonzero(stays[reader.units]))
            layers.append(of_layer(reader, subnet, kept, tokens(dense[reader.source]), own))
            stream = tokens(dense[reader.end])
            blocks.append(relative(tokens(found[reader.end]) - stream, stream))
        spread = relative(centred(found[LAST]), dense[LAST])
        same = float((found["logits"].argmax(1) == dense["logits"].argmax(1)).float().mean())
        pairs = (*(np.mean(each, axis=0) for each in (layers, blocks)), spread)
        shown = [f"{a:.2f} ({b:.2f})" for a, b in pairs]
        print(name, how, *shown, f"{error(found['logits'], dense['logits']):.2f}", f"{same:.3f}",
              sep=" | ", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=IMAGES, help="an image folder")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of the dense network")
    given = parser.parse_args()
    checkpoint = Checkpoint.load(existing(given.checkpoint, "--checkpoint"))
    setting = setting_of(checkpoint, given.images)
    surgeon = Surgeon(setting.network, setting.graph)
    drawn = calibration_images(setting.train, CALIBRATION, 0, torch.device("cpu"))
    calibration = collect(surgeon.analysis, drawn, generator=generator(0, "calibration"))
    importance, curves = reconstruction(setting.network, surgeon.analysis, calibration)
    images = calibration_images(setting.report, TEST, 0, torch.device("cpu"))
    print("plan | repair | layer | block | last norm | logits | same class")
    for name, prior in (("uniform", None), ("allocation", "reconstruction")):
        space = ChannelSpace(setting.graph, importance, 0.5, curves=curves, prior=prior)
        plan = space.plan(np.full(space.size, 0.5))
        show(name, surgeon, plan, calibration, images)


if __name__ == "__main__":
    main()
