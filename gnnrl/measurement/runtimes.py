"""What runs a network where its speed counts: PyTorch in three ways, and ONNX Runtime."""

from __future__ import annotations

import contextlib
import copy
import io
import platform
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import torch
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.registry import hint

Run = Callable[[], object]


@dataclass(frozen=True)
class Runtime:
    """ready: makes a call from a network, its images and a number of threads.

    on_gpu: whether it follows the network to a GPU.  needs: modules that have to be installed, by
    `extra` of this package.  fused: operations that take no time behind a convolution.  alone: the
    runtime in which single operations are timed for it.
    """

    ready: Callable[[nn.Module, Tensor, int], Run]
    on_gpu: bool = True
    needs: tuple[str, ...] = ()
    extra: str = ""
    fused: tuple[str, ...] = ()
    alone: str = ""


def _eager(network: nn.Module, images: Tensor, threads: int) -> Run:
    return partial(network, images)


def _channels_last(network: nn.Module, images: Tensor, threads: int) -> Run:
    network, images = _in_channels_last(network, images)
    return partial(network, images)


def _compiled(network: nn.Module, images: Tensor, threads: int) -> Run:
    if images.device.type == "cpu" and not any(map(which, ("c++", "g++", "clang++"))):
        raise UserError(
            "the runtime torch_compile needs a C++ compiler, and none is in the PATH: install g++, "
            "or take another runtime"
        )
    network, images = _in_channels_last(network, images)
    torch._dynamo.reset()  # a network is compiled for its own widths, not for any width
    compiled = torch.compile(network, dynamic=False)
    compiled(images)
    return partial(compiled, images)


def _in_channels_last(network: nn.Module, images: Tensor) -> tuple[nn.Module, Tensor]:
    if images.ndim != 4:
        return network, images
    network = copy.deepcopy(network).to(memory_format=torch.channels_last)
    return network, images.contiguous(memory_format=torch.channels_last)


def _onnx(network: nn.Module, images: Tensor, threads: int) -> Run:
    session = session_of(graph_of(network, images), threads)
    name, pixels = session.get_inputs()[0].name, images.numpy()
    return lambda: session.run(None, {name: pixels})


def graph_of(network: nn.Module, images: Tensor) -> bytes:
    """Return a network as ONNX for one size of batch, in a fraction of a second."""
    file = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (images,), file, dynamo=False)  # type: ignore[arg-type]
    return file.getvalue()


def session_of(model: bytes, threads: int):  # type: ignore[no-untyped-def]
    """Return an ONNX Runtime session on the processor with so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


FUSED = ("norm", "activation")

RUNTIMES: Mapping[str, Runtime] = {
    "torch": Runtime(_eager),
    "torch_channels_last": Runtime(_channels_last),
    "torch_compile": Runtime(_compiled, fused=FUSED, alone="torch_channels_last"),
    "onnxruntime": Runtime(
        _onnx, on_gpu=False, needs=("onnx", "onnxruntime"), extra="onnx", fused=FUSED
    ),
}
"""By name: PyTorch as it is, in the memory format channels-last, compiled; ONNX Runtime."""


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


def device_of(name: str, device: torch.device) -> torch.device:
    """Return where a runtime runs a network that is on a device."""
    return device if runtime_of(name).on_gpu else torch.device("cpu")


def ready(name: str, network: nn.Module, images: Tensor, threads: int) -> Run:
    """Return a call of a network on images, prepared as the runtime wants it.

    Raises `UserError` where the runtime cannot take the network.
    """
    network = network.to(images.device).eval()
    try:
        return runtime_of(name).ready(network, images, threads)
    except UserError:
        raise
    except Exception as error:  # exporters and compilers have dozens of kinds
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"the runtime {name} cannot run this network ({reason}); take another runtime"
        ) from error


def machine_of(device: torch.device) -> str:
    """Return what a device is called, such as the model of the processor."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
