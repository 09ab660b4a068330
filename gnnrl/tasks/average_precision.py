"""COCO's mean average precision, by its reference implementation (pycocotools)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from gnnrl.data.targets import Boxes
from gnnrl.tasks.base import Meter

MOST = 100
"""Boxes of an image that count."""


class AveragePrecision(Meter):
    """Mean over classes, and over overlaps of 0.5, 0.55 … 0.95, of the average precision.

    At most 100 boxes of an image count, the best first (Lin et al. 2014).
    """

    def __init__(self) -> None:
        self._images = 0
        self._found: list[np.ndarray] = []
        self._wanted: list[dict[str, Any]] = []

    def add(
        self,
        outputs: Sequence[Mapping[str, Tensor]],
        targets: Boxes,
        dense: Any = None,
        share: float = 1.0,
    ) -> None:
        """Add the boxes of a batch; detectors give none in training."""
        if outputs and "boxes" not in outputs[0]:
            return
        for one, boxes, labels in zip(outputs, targets.boxes, targets.labels, strict=True):
            self._images += 1
            for box, label in zip(_corner_and_size(boxes), labels.tolist(), strict=True):
                self._wanted.append(
                    {
                        "id": len(self._wanted) + 1,
                        "image_id": self._images,
                        "category_id": label,
                        "bbox": box.tolist(),
                        "area": float(box[2] * box[3]),
                        "iscrowd": 0,
                    }
                )
            columns = np.c_[one["scores"].cpu().double(), one["labels"].cpu()]
            number = np.full((len(columns), 1), self._images)
            self._found.append(np.hstack([number, _corner_and_size(one["boxes"]), columns]))

    def merge(self, summed: Callable[[Tensor], Tensor]) -> None:
        """Add nothing: in training, where processes share the images, detectors give no boxes."""

    def value(self) -> float:
        """Return the metric; NaN where no box was to be found."""
        if not self._wanted:
            return float("nan")
        found = np.concatenate(self._found)
        found = found[np.isfinite(found).all(1)]
        if not len(found):
            return 0.0
        with contextlib.redirect_stdout(io.StringIO()):
            return self._measured(found)

    def _measured(self, found: np.ndarray) -> float:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        wanted = COCO()
        labels = sorted({row["category_id"] for row in self._wanted})
        wanted.dataset = {
            "info": {},
            "images": [{"id": i + 1} for i in range(self._images)],
            "annotations": self._wanted,
            "categories": [{"id": label} for label in labels],
        }
        wanted.createIndex()
        measured = COCOeval(wanted, wanted.loadRes(found), "bbox")
        # boxes of all sizes, and no other figures that COCO knows
        measured.params.areaRng, measured.params.areaRngLbl = [[0, 1e10]], ["all"]
        measured.params.maxDets = [MOST]
        measured.evaluate()
        measured.accumulate()
        precision = measured.eval["precision"]
        return float(precision[precision > -1].mean())


def _corner_and_size(boxes: Tensor) -> np.ndarray:
    """Return left, top, width, height of boxes `[n, 4]`."""
    rows = boxes.detach().cpu().double().numpy().reshape(-1, 4)
    return np.hstack([rows[:, :2], rows[:, 2:] - rows[:, :2]])
