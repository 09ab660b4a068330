"""What calibration images tell of removing channels, kept for the next search of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnnrl.pruning.compensation.elimination import Moments
from gnnrl.pruning.compensation.linear_maps import folded, readers
from gnnrl.pruning.compensation.moments import Calibration, collect, reconstruction
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import generator
from gnnrl.scratch import content_key
from gnnrl.sealed import read_or_set_aside, tensors_digest, write_state

KEPT = 3  # calibrations on disk; one of ResNet-18 takes 0.4 GB


@dataclass(frozen=True)
class Reconstruction:
    """What calibration images tell of removing channels: moments, importance, residual curves."""

    calibration: Calibration
    importance: Importance
    curves: Mapping[str, Tensor]


def reconstruct(
    surgeon: Surgeon, images: Tensor, seed: int, cache: Path | None = None
) -> Reconstruction:
    """Measure on calibration images `[n, C, H, W]` what removing channels costs.

    cache: folder where it is kept for the same network, images, seed and code; then bars are shown.
    """
    visible = cache is not None
    path = None if cache is None else cache / f"{_key(surgeon, images, seed)}.pt"
    if path is not None and (kept := read_or_set_aside(path)) is not None:
        print("calibration: taken from an earlier search of this network", flush=True)
        path.touch()
        return _restored(surgeon, kept)
    rng = generator(seed, "calibration")
    calibration = collect(surgeon.analysis, images, generator=rng, visible=visible)
    found = reconstruction(surgeon.network, surgeon.analysis, calibration, visible)
    result = Reconstruction(calibration, *found)
    if path is not None:
        write_state(path, _state(result))
        for old in sorted(path.parent.glob("*.pt"), key=lambda p: p.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
    return result


def _key(surgeon: Surgeon, images: Tensor, seed: int) -> str:
    """Return a digest of all that the calibration depends on."""
    code = sorted((Path(__file__).parents[1] / "pruning").rglob("*.py"))
    network = tensors_digest(surgeon.network.state_dict())
    pixels = tensors_digest({"images": images})
    versions = str(torch.__version__), images.device.type
    return content_key(network, surgeon.graph.digest, pixels, seed, *versions, *code)


def _state(found: Reconstruction) -> dict[str, Any]:
    moments = found.calibration.moments
    return {
        "forward_images": found.calibration.forward_images,
        "second": {layer: m.second for layer, m in moments.items()},
        "metric": {layer: m.metric for layer, m in moments.items()},
        "importance": dict(found.importance),
        "curves": dict(found.curves),
    }


def _restored(surgeon: Surgeon, state: Mapping[str, Any]) -> Reconstruction:
    layers = tuple(readers(surgeon.analysis))
    moments = {
        reader.layer: Moments(
            state["second"][reader.layer],
            folded(surgeon.analysis.traced, reader).cpu(),
            state["metric"][reader.layer],
        )
        for reader in layers
    }
    calibration = Calibration(layers, moments, state["forward_images"])
    return Reconstruction(calibration, Importance(state["importance"]), state["curves"])
