"""Detection: boxes and their classes, by the interface of torchvision's detectors."""

# B: images   K: classes, the background included   R: rows of one image

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from gnnrl.data.targets import Boxes
from gnnrl.errors import UserError
from gnnrl.tasks.average_precision import AveragePrecision
from gnnrl.tasks.base import Meter, Network, Task
from gnnrl.tasks.comparing import KINDS, angles, divergences, weighted_mean

ROWS = 2048
"""Places of an image at which a head is compared with the dense network's, at most."""

NUMBERS = 512
"""Of a mask or of a keypoint's map that are compared, at most."""

GRID = 4
"""Regions on each side of an image on which the heads of a two-stage detector are compared."""

PLACES = {
    "cls_logits": ("bbox_regression", "bbox_ctrness"),
    "objectness": ("proposals",),
    "box_logits": ("box_places", "mask", "keypoint"),
}
"""Outputs of heads that are logits of classes, and those that place boxes, masks or keypoints."""

Found: TypeAlias = list[dict[str, Any]]
"""For each image what the detector gives, with `heads`: raw outputs by name, logits of classes
`[R, ..., K]` with the background first, others `[R, D]`.  In training it gives no boxes."""


class Detection(Task):
    """Detectors as torchvision has them.

    In training, `network(images, targets)` gives a dict of losses; in evaluation, `network(images)`
    gives a dict for each image: `boxes` [n, 4], `labels` and `scores` [n].  Images are a list,
    class 0 is the background.  The metric is COCO's mean average precision.  Subnets are compared
    with the dense network by what their heads give: logits of classes, and where boxes are.
    """

    metric = "mean_average_precision"
    targets = "boxes"
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
    ) -> tuple[Tensor, Found]:
        """Return the sum of the detector's losses, and what its heads give; no boxes."""
        asked = [
            {"boxes": boxes, "labels": labels}
            for boxes, labels in zip(targets.boxes, targets.labels, strict=True)
        ]
        with _Heads(network, images) as heads:
            losses = _called(network, list(images), asked)
            if not isinstance(losses, Mapping) or not losses:
                raise UserError(_misfit(f"gives {type(losses).__name__} in training"))
            raw = heads.rows()
        found = [{"heads": {k: rows[i] for k, rows in raw.items()}} for i in range(len(images))]
        return torch.stack([loss.float() for loss in losses.values()]).sum(), found

    def distance(self, student: Found, teacher: Found, kind: str, temperature: float) -> Tensor:
        """Return how far heads are from a teacher's, where it sees an object.

        Logits of classes: as distillation names it (Hinton et al. 2015).  Places of boxes: their
        squared distance (Chen et al. 2017, without a bound).  Each place of the image counts by
        the probability that the teacher gives to an object there (Du et al. 2021).
        """
        parts: list[Tensor] = []
        for logits, wanted, places in _compared(student, teacher):
            weights = _objects(wanted)
            parts.append(
                KINDS[kind](
                    logits.flatten(0, -2), wanted.flatten(0, -2), temperature, weights.flatten()
                )
            )
            for one, other in places:
                parts.append(weighted_mean((one - other).square().mean(-1), _anywhere(weights)))
        if not parts:
            raise UserError(
                _misfit("has no heads as those have, so that no teacher can add to its loss")
            )
        return torch.stack(parts).sum()

    def divergences(self, outputs: Found, dense: Found) -> Mapping[str, float]:
        """Compare what the heads give: the first two the logits of classes, the others all.

        Each place of an image counts by the probability that the dense network gives to an object
        there (Du et al. 2021, "feature richness"): nearly all places are background, on which a
        subnet that finds nothing at all agrees.
        """
        found: list[dict[str, float]] = []
        for logits, wanted, places in _compared(outputs, dense):
            logits, wanted = logits.double(), wanted.double()
            weights = _objects(wanted)
            rows = logits.flatten(0, -2), wanted.flatten(0, -2)
            found.append(
                divergences(*rows, weights.flatten())
                | angles(*(x * weights[..., None].sqrt() for x in (logits, wanted)))
            )
            scale = _anywhere(weights)[..., None].sqrt()
            found += [angles(*(x.double() * scale for x in pair)) for pair in places]
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


def _compared(
    outputs: Found, others: Found
) -> Iterator[tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]]:
    """Yield logits of classes `[B, R, ..., K]` of both, and what is placed by both `[B, R, D]`."""

    def pair(name: str) -> tuple[Tensor, Tensor]:
        one, other = (torch.stack([image["heads"][name] for image in x]) for x in (outputs, others))
        return one, other

    for name, places in PLACES.items():
        if others and name in others[0]["heads"]:
            yield *pair(name), [pair(place) for place in places if place in others[0]["heads"]]


def _objects(logits: Tensor) -> Tensor:
    """Return the probability of anything but the background, by logits `[..., K]`."""
    return logits.detach().softmax(-1)[..., 1:].sum(-1)


def _anywhere(weights: Tensor) -> Tensor:
    """Return one weight for each place, `[B, R]`, of those for each class, or as they are."""
    return weights if weights.ndim == 2 else weights.amax(-1)


class _Heads:
    """Listens to the heads of a detector while it runs.

    A detector of one stage has a `head`, one of two stages `rpn.head` and `roi_heads`, whose
    regions differ between networks: its heads are asked about a grid of regions.
    """

    def __init__(self, network: Network, images: Tensor) -> None:
        self.network: Any = _detector(network)
        self.batch, self.images = len(images), images
        self.given: dict[str, Tensor] = {}
        self.regions: tuple[Any, Any] | None = None
        self.handles: list[Any] = []

    def __enter__(self) -> _Heads:
        for name in ("head", "rpn"):
            part = getattr(self.network, name, None)
            if isinstance(part, nn.Module):
                heads: nn.Module = getattr(part, "head", part)
                self.handles.append(heads.register_forward_hook(self._hear))
        if hasattr(self.network, "roi_heads"):
            handle = self.network.roi_heads.register_forward_pre_hook(self._keep)
            self.handles.append(handle)
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
        """Return outputs by name: logits of classes `[B, R, ..., K]`, others `[B, R, D]`."""
        if self.regions is not None:
            self._ask_regions(*self.regions)
        softmax = self.regions is not None or _has_softmax(self.network)
        found: dict[str, Tensor] = {}
        for name, value in self.given.items():
            if name not in PLACES:
                found[name] = _some(_some(value, ROWS).flatten(2), NUMBERS, 2)
            elif name == "box_logits" or (softmax and name == "cls_logits"):
                found[name] = _some(value, ROWS)
            else:  # one yes or no for each class: the logit against 0
                some = _some(value, ROWS)
                found[name] = torch.stack([torch.zeros_like(some), some], dim=-1)
        return found

    def _hear(self, module: nn.Module, args: Any, value: Any) -> None:
        if isinstance(value, Mapping):
            self.given |= {str(k): v for k, v in value.items() if isinstance(v, Tensor)}
        elif isinstance(value, tuple) and len(value) == 2:  # a region proposal network's, by level
            logits, places = value
            self.given["objectness"] = torch.cat([level.flatten(1) for level in logits], dim=1)
            boxes = [x.unflatten(1, (-1, 4)).movedim(2, -1).flatten(1, -2) for x in places]
            self.given["proposals"] = torch.cat(boxes, dim=1)

    def _keep(self, module: nn.Module, args: Any) -> None:
        features, _, sizes, *_ = args
        self.regions = features, sizes

    def _ask_regions(self, features: Any, sizes: Sequence[tuple[int, int]]) -> None:
        boxes = [_grid(height, width, self.images) for height, width in sizes]
        for kind in ("box", "mask", "keypoint"):
            pool = getattr(self.network.roi_heads, f"{kind}_roi_pool", None)
            if pool is None:
                continue
            regions = getattr(self.network.roi_heads, f"{kind}_head")(pool(features, boxes, sizes))
            value = getattr(self.network.roi_heads, f"{kind}_predictor")(regions)
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


def _some(value: Tensor, most: int, axis: int = 1) -> Tensor:
    """Return at most so many entries along an axis, evenly spread."""
    count = value.shape[axis]
    if count <= most:
        return value
    index = torch.linspace(0, count - 1, most, device=value.device).long()
    return value.index_select(axis, index)


def _detector(network: Network) -> Any:
    """Return the module that has the heads, which others may be wrapped around."""
    parts = network.modules() if isinstance(network, nn.Module) else ()
    return next((m for m in parts if hasattr(m, "head") or hasattr(m, "roi_heads")), None)


def _has_softmax(network: Any) -> bool:
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
