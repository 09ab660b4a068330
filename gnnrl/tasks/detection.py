"""Detection: boxes and their classes, by the interface of torchvision's detectors."""

# B: images   K: classes, the background included   R: rows of one image

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from gnnrl.data.targets import Boxes
from gnnrl.errors import UserError
from gnnrl.tasks.average_precision import AveragePrecision
from gnnrl.tasks.base import Meter, Network, Task
from gnnrl.tasks.comparing import angles, divergences

ROWS = 512
"""Of each output of a head, so many at most are compared with the dense network's."""

GRID = 4
"""Regions on each side of an image on which the heads of a two-stage detector are compared."""

CLASSES = ("cls_logits", "objectness", "box_logits")
"""Outputs of heads that are logits of classes; the others place boxes, masks or keypoints."""

Found: TypeAlias = list[dict[str, Any]]
"""For each image what the detector gives, with `heads`: raw outputs `[R, ...]` by name."""


class Detection(Task):
    """Detectors as torchvision has them.

    In training, `network(images, targets)` gives a dict of losses; in evaluation, `network(images)`
    gives a dict for each image: `boxes` [n, 4], `labels` and `scores` [n].  Images are a list,
    class 0 is the background.  The metric is COCO's mean average precision.  Subnets are compared
    with the dense network by what their heads give: logits of classes, and where boxes are.
    """

    metric = "mean_average_precision"
    targets = "boxes"
    distils = False
    lacks = ("loss",)

    def __init__(self) -> None:
        if importlib.util.find_spec("pycocotools") is None:
            raise UserError(
                "the task detection measures by pycocotools, which is not installed: "
                "pip install 'gnnrl-pipeline[detection]'"
            )

    def outputs(self, network: Network, images: Tensor) -> Found:
        """Return boxes, labels, scores and raw outputs of the heads, for each image."""
        with _Heads(network, images) as heads:
            found = _called(network, list(images))
            if not isinstance(found, list) or not all(map(_is_detection, found)):
                raise UserError(_misfit(f"gives {type(found).__name__} in evaluation"))
            raw = heads.rows()
        return [
            {**one, "heads": {name: rows[i] for name, rows in raw.items()}}
            for i, one in enumerate(found)
        ]

    def training_loss(
        self, network: Network, images: Tensor, targets: Boxes, smoothing: float = 0.0
    ) -> tuple[Tensor, None]:
        """Return the sum of the detector's losses; it gives no boxes in training."""
        asked = [
            {"boxes": boxes, "labels": labels}
            for boxes, labels in zip(targets.boxes, targets.labels, strict=True)
        ]
        losses = _called(network, list(images), asked)
        if not isinstance(losses, Mapping) or not losses:
            raise UserError(_misfit(f"gives {type(losses).__name__} in training"))
        return torch.stack([loss.float() for loss in losses.values()]).sum(), None

    def divergences(self, outputs: Found, dense: Found) -> Mapping[str, float]:
        """Compare what the heads give: the first two the logits of classes, the others all."""
        found: list[dict[str, float]] = []
        for name in dense[0]["heads"] if dense else ():
            one, other = (
                torch.stack([image["heads"][name] for image in images]).double()
                for images in (outputs, dense)
            )
            measures = angles(one, other)
            if name in CLASSES:
                measures |= divergences(one.flatten(0, 1), other.flatten(0, 1)) | measures
            found.append(measures)
        names = {name for measures in found for name in measures}
        means = {n: [measures[n] for measures in found if n in measures] for n in sorted(names)}
        return {name: sum(values) / len(values) for name, values in means.items()}

    def meter(self) -> Meter:
        """Return a meter of the mean average precision."""
        return AveragePrecision()


def example_targets(images: Tensor) -> list[dict[str, Tensor]]:
    """Return a box with mask and keypoints (COCO's 17) for each of the images `[B, C, H, W]`, as
    torchvision's detectors take them in training."""
    height, width = images.shape[-2:]
    box = images.new_tensor([[width / 8, height / 8, width / 2, height / 2]])
    masks = torch.zeros(1, height, width, dtype=torch.uint8, device=images.device)
    masks[:, height // 8 : height // 2, width // 8 : width // 2] = 1
    points = images.new_tensor([width / 4, height / 4, 1.0]).expand(1, 17, 3)
    label = torch.ones(1, dtype=torch.long, device=images.device)
    target = {"boxes": box, "labels": label, "masks": masks, "keypoints": points}
    return [dict(target) for _ in images]


class _Heads:
    """Listens to the heads of a detector while it runs.

    A detector of one stage has a `head`, one of two stages `rpn.head` and `roi_heads`, whose
    regions differ between networks: its heads are asked about a grid of regions.
    """

    def __init__(self, network: Network, images: Tensor) -> None:
        self.network, self.batch, self.images = network, len(images), images
        self.given: dict[str, Tensor] = {}
        self.regions: tuple[Any, Any] | None = None
        self.handles: list[Any] = []

    def __enter__(self) -> _Heads:
        if isinstance(self.network, nn.Module):
            parts = dict(self.network.named_modules())
            for name in ("head", "rpn.head"):
                if name in parts:
                    self.handles.append(parts[name].register_forward_hook(self._hear))
            if "roi_heads" in parts:
                self.handles.append(parts["roi_heads"].register_forward_pre_hook(self._keep))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self.handles:
            handle.remove()

    def rows(self) -> dict[str, Tensor]:
        """Return outputs by name: logits of classes `[B, R, K]`, others `[B, R]`."""
        if self.regions is not None:
            self._ask_regions(*self.regions)
        softmax = self.regions is not None or _has_softmax(self.network)
        found: dict[str, Tensor] = {}
        for name, value in self.given.items():
            if name not in CLASSES:
                found[name] = _some(value.flatten(1))
            elif name == "box_logits" or (softmax and name == "cls_logits"):
                found[name] = _some(value)
            else:  # one yes or no for each class: the logit against 0
                flat = _some(value.flatten(1))
                found[name] = torch.stack([flat, torch.zeros_like(flat)], dim=-1)
        return found

    def _hear(self, module: nn.Module, args: Any, value: Any) -> None:
        if isinstance(value, Mapping):
            self.given |= {str(k): v for k, v in value.items() if isinstance(v, Tensor)}
        elif isinstance(value, tuple) and len(value) == 2:  # a region proposal network's, by level
            for name, levels in zip(("objectness", "proposals"), value, strict=True):
                self.given[name] = torch.cat([level.flatten(1) for level in levels], dim=1)

    def _keep(self, module: nn.Module, args: Any) -> None:
        features, _, sizes, *_ = args
        self.regions = features, sizes

    def _ask_regions(self, features: Any, sizes: Sequence[tuple[int, int]]) -> None:
        parts: Any = self.network
        boxes = [_grid(height, width, self.images) for height, width in sizes]
        for kind in ("box", "mask", "keypoint"):
            pool = getattr(parts.roi_heads, f"{kind}_roi_pool", None)
            if pool is None:
                continue
            regions = getattr(parts.roi_heads, f"{kind}_head")(pool(features, boxes, sizes))
            value = getattr(parts.roi_heads, f"{kind}_predictor")(regions)
            named = zip(("box_logits", "box_places"), value, strict=True) if kind == "box" else (
                (kind, value),
            )  # fmt: skip
            self.given |= {name: one.unflatten(0, (self.batch, -1)) for name, one in named}


def _grid(height: int, width: int, like: Tensor) -> Tensor:
    """Return regions `[GRID * GRID, 4]` that tile an image."""
    steps = torch.arange(GRID, device=like.device, dtype=like.dtype)
    top, left = (axis.flatten() for axis in torch.meshgrid(steps, steps, indexing="ij"))
    corners = torch.stack([left, top, left + 1, top + 1], dim=1) / GRID
    return corners * corners.new_tensor([width, height, width, height])


def _some(value: Tensor) -> Tensor:
    """Return at most ROWS rows of each image, evenly spread over `[B, R, ...]`."""
    count = value.shape[1]
    if count <= ROWS:
        return value
    return value[:, torch.linspace(0, count - 1, ROWS, device=value.device).long()]


def _has_softmax(network: Network) -> bool:
    from torchvision.models.detection.ssd import SSD

    return isinstance(network, SSD)


def _called(network: Network, *args: Any) -> Any:
    try:
        return network(*args)
    except TypeError as error:
        raise UserError(
            _misfit(f"does not take these ({' '.join(str(error).split())[:120]})")
        ) from error


def _is_detection(found: Any) -> bool:
    return isinstance(found, Mapping) and {"boxes", "labels", "scores"} <= found.keys()


def _misfit(what: str) -> str:
    return (
        "the task detection takes a detector as torchvision has them (a list of images and, in "
        "training, of targets; losses in training, boxes, labels and scores in evaluation), the "
        f"network {what}: change network.name or task.name"
    )
