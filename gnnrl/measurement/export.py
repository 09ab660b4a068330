"""A network as an ONNX file, proven against PyTorch in onnxruntime."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gnnrl.data.splits import Splits
from gnnrl.errors import UserError, pass_on_shortage
from gnnrl.measurement import int8
from gnnrl.measurement.settings import EvaluateSettings
from gnnrl.sealed import sealed
from gnnrl.shapes import Shape
from gnnrl.tasks.base import Task
from gnnrl.tasks.nested import tensors
from gnnrl.tracing.programs import programs

TOLERANCE = 1e-4
"""Largest difference between PyTorch and onnxruntime, as a fraction of the largest logit (of 1
where all are smaller)."""

LOADING = """\
without this library (images: float32 [n, *{shape}], pixels in [0, 1], then minus mean, over std):
  torch.export.load("{folder}/subnet.pt2").module()(images)
  onnxruntime.InferenceSession("{folder}/subnet.onnx").run(None, {{"images": images.numpy()}})"""
"""How the exported files are used."""


def onnx_bytes(
    network: nn.Module, input_shape: tuple[int, ...], about: Mapping[str, Any] | None = None
) -> bytes:
    """Return a network of images as ONNX; all else as in `onnx_of`."""
    # two images: the exporter takes a batch of one for a constant
    images = torch.rand(2, *input_shape, generator=torch.Generator().manual_seed(0))
    return onnx_of(network, {"images": images}, about)


def onnx_of(
    network: nn.Module, inputs: Mapping[str, Tensor], about: Mapping[str, Any] | None = None
) -> bytes:
    """Return the network as ONNX with a free batch size, the same bytes for the same network.

    inputs: examples `[N, ...]` with N of at least two, in the order in which the network takes
    them; the names are those of the file.  about: what the file says of itself in its metadata, as
    JSON: mean, std, classes.  Raises `UserError` where it cannot be exported, and where onnxruntime
    does not compute what PyTorch does.
    """
    require_onnx()
    network = network.cpu().eval()
    try:
        model = _exported(network, inputs)
    except Exception as error:  # the exporter has dozens of kinds
        pass_on_shortage(error)
        raise UserError(
            f"the network cannot be exported to ONNX ({_first_cause(error)})"
        ) from error
    _strip(model)
    for key, value in (about or {}).items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    data = model.SerializeToString(deterministic=True)
    difference = onnx_difference(network, data, *inputs.values())
    if not difference <= TOLERANCE:  # so that NaN is refused
        raise UserError(
            f"the exported network differs from PyTorch by {difference:.2e} of its largest logit "
            f"in onnxruntime, expected at most {TOLERANCE:.0e}: its figures are written, the file "
            "is not"
        )
    return data


def program_bytes(
    network: nn.Module, input_shape: tuple[int, ...], about: Mapping[str, Any] | None = None
) -> bytes:
    """Return the network as a file of `torch.export` with a free batch size.

    about: as in `onnx_bytes`, a file `about.json` inside. Raises `UserError` where PyTorch cannot
    export the network.
    """
    network, images, buffer = network.cpu().eval(), torch.zeros(2, *input_shape), io.BytesIO()
    try:
        with _quiet(), torch.no_grad():
            batch = torch.export.Dim("batch")
            program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
            for node in program.graph.nodes:
                node.meta.pop("from_node", None)  # holds addresses in memory
            extra = {"about.json": json.dumps(about or {})}
            torch.export.save(program, buffer, extra_files=extra)
    except Exception as error:  # the exporter has dozens of kinds
        pass_on_shortage(error)
        raise UserError(
            f"the network cannot be exported by torch.export ({_first_cause(error)})"
        ) from error
    return buffer.getvalue()


def files_of(
    network: nn.Module, input_shape: Shape, splits: Splits, settings: EvaluateSettings, task: Task
) -> dict[str, bytes]:
    """Return the content of the exported files by name; they say what images they want.

    With `settings.int8` the last step is a quantised network, and what it costs and gains.
    """
    transform = splits.test.transform
    about = {"mean": transform.mean, "std": transform.std, "classes": splits.classes}
    found: dict[str, bytes] = {}
    for name, (part, shape) in parts_of(network, input_shape).items():
        file = "subnet" if not found else f"subnet.{name}"
        found[f"{file}.pt2"] = program_bytes(part, shape, about)
        found[f"{file}.onnx"] = onnx_bytes(part, shape, about)
    if settings.int8:
        if len(found) > 2:
            raise UserError(
                "evaluate.int8 quantises a network that is one program, and this one is exported "
                "in several: set it to false"
            )
        quantised = int8.quantised(found["subnet.onnx"], splits.reward)
        both = {"float32": found["subnet.onnx"], "int8": quantised}
        figures = sealed(int8.figures(both, splits.test, settings, task))
        text = json.dumps(figures, indent=2, sort_keys=True)
        found |= {"subnet_int8.onnx": quantised, "int8.json": f"{text}\n".encode()}
    return found


def parts_of(
    network: nn.Module, input_shape: Shape
) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Return what can be exported of a network by name, each with the shape of its input, which
    need not be an image.

    That is the network, or, of one whose own code is no graph (a detector), what computes: from
    images to what its heads give; then from regions to theirs.  Raises `UserError` for none.
    """
    found = programs(network.cpu().eval(), torch.zeros(2, *input_shape))
    if not found:
        raise UserError(f"nothing of {type(network).__name__} can be exported as a program")
    return {name: (part, tuple(x.shape[1:])) for name, (part, x) in found.items()}


@torch.inference_mode()
def onnx_difference(network: nn.Module, data: bytes, *inputs: Tensor) -> float:
    """Return the largest difference between onnxruntime and PyTorch, relative as in `TOLERANCE`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    found = session.run(None, {k: v.numpy() for k, v in zip(names, inputs, strict=True)})
    difference, largest = 0.0, 1.0
    for ours, other in zip(tensors(network(*inputs)), found, strict=True):
        apart = (torch.from_numpy(other).double() - ours.double()).abs().max()
        difference = float(torch.maximum(apart, apart.new_tensor(difference)))  # keeps NaN
        largest = max(largest, float(ours.abs().max()))
    return difference / largest


def require_onnx() -> None:
    """Raise `UserError` where a package is missing that the export to ONNX needs."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the export needs {error.name}: pip install 'gnnrl-pipeline[onnx]'"
        ) from error


def _first_cause(error: BaseException) -> str:
    """Return what went wrong first: exporters wrap it in errors that speak of themselves."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _exported(network: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    images = tuple(inputs.values())
    with torch.no_grad():
        given = tensors(network(*images))
    names = ["logits"] if len(given) == 1 else [f"output{i}" for i in range(len(given))]
    with _quiet():
        program = torch.onnx.export(
            network,
            images,
            dynamo=True,
            input_names=list(inputs),
            output_names=names,
            dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in images),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _strip(model: Any) -> None:
    """Remove what the exporter notes on the side: stack traces with paths of this machine."""
    model.ClearField("metadata_props")
    for part in (model.graph, *model.functions):
        part.ClearField("metadata_props")
        for field in ("node", "input", "output", "initializer", "value_info"):
            for item in getattr(part, field, ()):
                if hasattr(item, "metadata_props"):
                    item.ClearField("metadata_props")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks on itself."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
