"""What a network returns: a tensor, or tensors in tuples, lists and mappings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn


def tensors(outputs: Any) -> list[Tensor]:
    """Return the tensors of an output, in order; whatever else is in it is left out.

    The fields of an object, such as a dataclass, count as entries; those of modules do not.
    """
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if isinstance(outputs, list | tuple | set):
        return [tensor for part in outputs for tensor in tensors(part)]
    if isinstance(outputs, nn.Module | type | FunctionType):
        return []
    return tensors(vars(outputs)) if hasattr(outputs, "__dict__") else []


def finite(outputs: Any) -> Tensor:
    """Return whether all numbers of an output are finite, a bool tensor without axes."""
    found = [tensor.isfinite().all() for tensor in tensors(outputs)]
    return torch.stack(found).all() if found else torch.tensor(True)


def mapped(change: Callable[[Tensor], Tensor], outputs: Any) -> Any:
    """Return an output with every tensor changed."""
    if isinstance(outputs, Tensor):
        return change(outputs)
    if isinstance(outputs, Mapping):
        return {key: mapped(change, part) for key, part in outputs.items()}
    if isinstance(outputs, list | tuple):
        return type(outputs)(mapped(change, part) for part in outputs)
    return outputs


def taken(outputs: Any, indices: Tensor) -> Any:
    """Return the output of these images only; lists hold an entry for each image."""
    if isinstance(outputs, list):
        return [outputs[i] for i in indices.tolist()]
    if isinstance(outputs, Mapping):
        return {key: taken(part, indices) for key, part in outputs.items()}
    if isinstance(outputs, tuple):
        return tuple(taken(part, indices) for part in outputs)
    return outputs[indices]


def joined(parts: Sequence[Any]) -> Any:
    """Return the outputs of several batches as the output of one.

    Tensors are joined along the images; lists, which hold an entry for each image, end to end;
    tuples and mappings entry by entry.
    """
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts)).float()
    if isinstance(first, Mapping):
        return {key: joined([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(joined(group) for group in zip(*parts, strict=True))
    return [entry for part in parts for entry in part]
