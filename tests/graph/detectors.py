"""Detectors of torchvision at small sizes, and the oracle of their cuts: the detector itself, each
part of which runs with the channels of a plan held at zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from gnnrl.graph.graph import ComputationalGraph
from gnnrl.pruning.plan import PruningPlan
from gnnrl.tracing.read import read_network
from tests.masking import Masked, _Interpreter, all_there

CLASSES = 6

NAMES = (
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "keypointrcnn_resnet50_fpn",
)


def detector(name: str, size: int = 64) -> nn.Module:
    """A detector with random weights for images of `size` pixels; SSD has sizes of its own."""
    sizes = {} if name.startswith("ssd") else {"min_size": size, "max_size": size}
    build: Callable[..., nn.Module] = getattr(detection, name)
    return build(weights=None, weights_backbone=None, num_classes=CLASSES, **sizes)


class Stem(nn.Sequential):
    """A backbone of two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, width, 3, 2, 1)
        )
        self.out_channels = width


def tiny(kind: str) -> nn.Module:
    """A detector for images of 32 pixels: `fcos` or `fasterrcnn`."""
    sizes = {"min_size": 32, "max_size": 32}
    if kind == "fcos":
        anchors = AnchorGenerator(((8,),), ((1.0,),))
        return detection.FCOS(Stem(32), 3, anchor_generator=anchors, **sizes)
    return detection.FasterRCNN(
        Stem(8),
        rpn_anchor_generator=AnchorGenerator(((8, 16),), ((1.0,),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
        box_head=detection.faster_rcnn.TwoMLPHead(8 * 9, 12),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(12, 3),
        rpn_post_nms_top_n_test=20,
        **sizes,
    )


def images(count: int, size: int = 64) -> list[Tensor]:
    """Images of different sizes."""
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(3, size, size - 8 * i, generator=generator) for i in range(count)]


def targets(count: int, size: int = 64) -> list[dict[str, Tensor]]:
    """Two boxes for each image, with masks and keypoints."""
    boxes = torch.tensor([[4.0, 4.0, size / 2, size / 2], [size / 4, size / 4, size / 2, size - 9]])
    masks = torch.zeros(2, size, size, dtype=torch.uint8)
    masks[:, 8:24, 8:24] = 1
    points = torch.full((2, 17, 3), size / 3)
    labels = torch.tensor([1, 2])
    return [
        {"boxes": boxes, "labels": labels, "masks": masks, "keypoints": points}
        for _ in range(count)
    ]


def outputs_of(network: nn.Module, parts: list[str], given: Any) -> tuple[list[Tensor], Any]:
    """What the parts of a detector give in turn, and what the detector gives."""
    found: list[Tensor] = []

    def note(module: nn.Module, args: Any, value: Any) -> None:
        found.extend(pytree.tree_leaves(value))

    handles = [network.get_submodule(name).register_forward_hook(note) for name in parts]
    with torch.no_grad():
        answer = network(given)
    for handle in handles:
        handle.remove()
    return found, answer


def settled(network: nn.Module, graph: ComputationalGraph, size: int) -> None:
    """Scale the last layers of all heads so that what they give is at most one: boxes are found."""

    def scale(module: nn.Module, args: Any, value: Tensor) -> Tensor:
        largest = value.abs().max() if len(value) else torch.ones(())
        for parameter in module.parameters():
            parameter.data /= largest
        return value / largest

    last = [name for name, node in graph.layers.items() if (node.filter_units < 0).all()]
    handles = [network.get_submodule(name).register_forward_hook(scale) for name in last]
    with torch.no_grad():
        network(images(2, size))
    for handle in handles:
        handle.remove()


class MaskedDetector:
    """A dense detector in double precision that lacks the channels which a plan removes."""

    def __init__(self, network: nn.Module, image: Tensor, plan: PruningPlan) -> None:
        shell = read_network(network, image).meta["shell"]
        self.network: nn.Module = shell.network.double().eval()
        self.parts = list(shell.parts)
        self._masks: dict[int, Masked] = {}
        for name, part in shell.parts.items():
            inside = f"{name}."
            kept = {k.removeprefix(inside): v for k, v in plan.kept.items() if k.startswith(inside)}
            interpreter = _Interpreter(part.traced.double().eval(), kept)
            self._replace(name, lambda *given, run=interpreter.run: run(*given))
        for name, module in self.network.named_modules():
            if isinstance(module, MultiScaleRoIAlign):
                self._replace(name, self._pooled(module.forward))

    def _replace(self, name: str, run: Callable[..., Any]) -> None:
        def forward(*args: Any) -> Any:
            return pytree.tree_map(self._remembered, run(*pytree.tree_map(self._known, args)))

        self.network.get_submodule(name).forward = forward

    def _known(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return self._masks.get(id(value)) or all_there(value)

    def _remembered(self, value: Any) -> Any:
        if not isinstance(value, Masked):
            return value
        self._masks[id(value.value)] = value
        return value.value

    @staticmethod
    def _pooled(forward: Callable[..., Tensor]) -> Callable[..., Masked]:
        """Regions have the channels that their feature maps have anywhere."""

        def run(maps: dict[str, Masked], boxes: list[Masked], sizes: Any) -> Masked:
            value = forward({k: m.value for k, m in maps.items()}, [b.value for b in boxes], sizes)
            there = torch.stack([m.whole.any(0).any(-1).any(-1) for m in maps.values()]).any(0)
            return Masked.of(value, there[None, :, None, None])

        return run
