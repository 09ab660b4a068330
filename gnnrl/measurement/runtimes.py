"""What runs a network where its speed counts, by name: PyTorch in three ways, and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from gnnrl.errors import UserError
from gnnrl.registry import hint


@dataclass(frozen=True)
class Runtime:
    """ready: where a function is that makes a call from a network, its images and a thread number.

    on_gpu: whether it follows the network to a GPU.  needs: modules that have to be installed, by
    `extra` of this package.  fused: operations that take no time behind a convolution.  alone: the
    runtime in which single operations are timed for it.  copies: of an operation with weights that
    are then timed in one call, so that what a call costs, waking threads above all, counts less.
    """

    ready: str
    on_gpu: bool = True
    needs: tuple[str, ...] = ()
    extra: str = ""
    fused: tuple[str, ...] = ()
    alone: str = ""
    copies: int = 1


FUSED = ("norm", "activation")

RUNTIMES: Mapping[str, Runtime] = {
    "torch": Runtime("gnnrl.measurement.running:eager"),
    "torch_channels_last": Runtime("gnnrl.measurement.running:channels_last"),
    "torch_compile": Runtime(
        "gnnrl.measurement.running:compiled", fused=FUSED, alone="torch_channels_last"
    ),
    "onnxruntime": Runtime(
        "gnnrl.measurement.running:onnx",
        on_gpu=False,
        needs=("onnx", "onnxruntime"),
        extra="onnx",
        fused=FUSED,
        copies=4,
    ),
}
"""By name: PyTorch as it is, in the memory format channels-last, compiled; ONNX Runtime."""

CUSTOMARY = ("torch", "onnxruntime")
"""In which a subnet is used as `evaluate` writes it; one measures a speed in those that can run."""


def runtime_of(name: str) -> Runtime:
    """Return a runtime; raise `UserError` where it is not known or not installed."""
    if name not in RUNTIMES:
        known = f"known are {', '.join(RUNTIMES)}"
        raise UserError(f"there is no runtime {name!r}; {hint(name, RUNTIMES, known)}")
    found = RUNTIMES[name]
    missing = [module for module in found.needs if find_spec(module) is None]
    if missing:
        raise UserError(
            f"the runtime {name} is not installed ({missing[0]} is missing): "
            f"pip install 'gnnrl-pipeline[{found.extra}]', or take another runtime"
        )
    return found
