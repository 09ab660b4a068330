"""Networks made ready to run in each of the runtimes."""

from __future__ import annotations

import contextlib
import copy
import io
import platform
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import which

import torch
from torch import Tensor, nn

from gnnrl.errors import UserError, pass_on_shortage
from gnnrl.measurement.runtimes import CUSTOMARY, runtime_of
from gnnrl.registry import imported

Run = Callable[[], object]


def eager(network: nn.Module, images: Tensor, threads: int) -> Run:
    """Return a run of a network as it is."""
    return partial(network, images)


def channels_last(network: nn.Module, images: Tensor, threads: int) -> Run:
    """Return a run of a network whose weights and images are channels-last."""
    changed, images = _in_channels_last(network, images)
    return partial(changed, images)


def compiled(network: nn.Module, images: Tensor, threads: int) -> Run:
    """Return a run of a network compiled for these widths, channels-last."""
    if images.device.type == "cpu" and not any(map(which, ("c++", "g++", "clang++"))):
        raise UserError(
            "the runtime torch_compile needs a C++ compiler, and none is in the PATH: install g++, "
            "or take another runtime"
        )
    changed, images = _in_channels_last(network, images)
    torch._dynamo.reset()  # a network is compiled for its own widths, not for any width
    compiled = torch.compile(changed, dynamic=False)
    compiled(images)
    return partial(compiled, images)


def _in_channels_last(network: nn.Module, images: Tensor) -> tuple[nn.Module, Tensor]:
    if images.ndim != 4:
        return network, images
    network = copy.deepcopy(network).to(memory_format=torch.channels_last)
    return network, images.contiguous(memory_format=torch.channels_last)


def onnx(network: nn.Module, images: Tensor, threads: int) -> Run:
    """Return a run of a network in ONNX Runtime."""
    session = session_of(graph_of(network, images), threads)
    name, pixels = session.get_inputs()[0].name, images.numpy()
    return lambda: session.run(None, {name: pixels})


def graph_of(network: nn.Module, images: Tensor) -> bytes:
    """Return a network as ONNX for one size of batch, in a fraction of a second."""
    file = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (images,), file, dynamo=False)  # type: ignore[arg-type, unused-ignore]
    return file.getvalue()


def session_of(model: bytes, threads: int):  # type: ignore[no-untyped-def]
    """Return an ONNX Runtime session on the processor with so many threads.

    Its threads stop spinning when a run ends: they would take the cores from the next network.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def runs_on(name: str, device: torch.device) -> torch.device:
    """Return where a runtime runs a network that is on a device."""
    return device if runtime_of(name).on_gpu else torch.device("cpu")


def ready(name: str, network: nn.Module, images: Tensor, threads: int) -> Run:
    """Return a call of a network on images, prepared as the runtime wants it.

    Raises `UserError` where the runtime cannot take the network.
    """
    network = network.eval()
    if any(p.device != images.device for p in network.parameters()):
        network = copy.deepcopy(network).to(images.device)  # the caller's stays where it is
    try:
        return imported(runtime_of(name).ready, "runtime")(network, images, threads)
    except UserError:
        raise
    except Exception as error:  # exporters and compilers have dozens of kinds
        pass_on_shortage(error)
        raise UserError(f"{_cannot(name, error)}; take another runtime") from error


def _cannot(name: str, error: Exception) -> str:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return f"the runtime {name} cannot run this network ({reason})"


@torch.no_grad()
def unusable(network: nn.Module, images: Tensor) -> dict[str, str]:
    """Return of each customary runtime why it cannot run a network on images; empty: it can."""
    found = {}
    for name in CUSTOMARY:
        try:
            ready(name, network, images, torch.get_num_threads())()
            found[name] = ""
        except UserError as error:
            found[name] = str(error)
        except Exception as error:  # any that a network raises
            found[name] = _cannot(name, error)
    return found


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
