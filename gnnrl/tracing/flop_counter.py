"""PyTorch's counter of flops, and what PyTorch runs in a way that its counter does not see."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode


def _attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> int:
    """Flops of attention: queries `[..., H, S, E]`, keys `[..., T, E]`, values `[..., T, F]`.

    PyTorch's own formula (2.11 and older) refuses groups of heads that share keys, and counts
    nothing on the processor.
    """
    return 2 * query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


_attention._get_raw = True  # type: ignore[attr-defined]  # it is given tensors, not their shapes
KERNELS = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
FORMULAS = {getattr(torch.ops.aten, f"_scaled_dot_product_{name}"): _attention for name in KERNELS}


class FlopCounter(FlopCounterMode):
    """Within: counts flops, two for each multiply-accumulate.

    PyTorch runs `torch.einsum` as an elementwise product where every axis that it sums over has
    length one, and counts nothing.  Here it counts as `torch.matmul` does, so that heads of width
    one cost half of heads of width two in whatever code attention is written.
    """

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=FORMULAS)
        self._elementwise = _ElementwiseEinsums()

    def __enter__(self) -> FlopCounter:
        super().__enter__()
        self._elementwise.products = 0
        self._elementwise.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._elementwise.__exit__(*raised)
        super().__exit__(*raised)

    def get_total_flops(self) -> int:
        """Return what was counted so far."""
        return super().get_total_flops() + 2 * self._elementwise.products


class _ElementwiseEinsums(TorchFunctionMode):
    """Within: counts the multiplications of einsums that sum over no axis longer than one."""

    products = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one function of PyTorch."""
        if func is torch.einsum and len(args) == 3 and isinstance(args[0], str):
            self.products += _products(args[0].replace(" ", ""), args[1:])
        return func(*args, **(kwargs or {}))


def _products(equation: str, operands: tuple[Any, ...]) -> int:
    """Multiplications of an equation of two operands that PyTorch runs elementwise; else 0."""
    read, _, made = equation.partition("->")
    if "." in read or read.count(",") != 1 or not made:
        return 0
    sizes: dict[str, int] = {}
    for letters, operand in zip(read.split(","), operands, strict=True):
        for letter, size in zip(letters, operand.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    summed = set.intersection(*map(set, read.split(","))) - set(made)
    if any(sizes[letter] > 1 for letter in summed):
        return 0
    return math.prod(sizes.values())
