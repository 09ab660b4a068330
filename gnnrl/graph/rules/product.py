"""Products of tensors that are summed over shared axes: matmul, einsum, attention.

Every axis of every operand has a letter, as in einsum.  Channels on an axis that several operands
have are kept or removed together, whether the axis is summed over (the width of queries and keys)
or runs along (heads); those on an axis of one operand are carried to the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from torch import fx

from gnnrl.graph.rules.base import argument, tensors_read
from gnnrl.graph.rules.flow import Flow, Layout, Product, shape_of
from gnnrl.graph.rules.reshape import layout_of, meet

Operand = tuple[fx.Node, str]
"""A tensor and a letter for each of its axes."""


def matmul(flow: Flow, node: fx.Node) -> None:
    """`a @ b`, leading axes broadcast."""
    second = "mat2" if "mat2" in node.kwargs else "other"
    a, b = (argument(node, i, name) for i, name in enumerate(("input", second)))
    if min(len(shape_of(a)), len(shape_of(b))) < 2:
        flow.refuse(node, "it multiplies by a vector")
    operands = [(a, _lead(a) + "ik"), (b, _lead(b) + "kj")]
    _product(flow, node, operands, _lead(node) + "ij", [_lead(node) + "ikj"])


def einsum(flow: Flow, node: fx.Node) -> None:
    """An equation of two operands with a letter for every axis."""
    equation, operands = node.args[0], tensors_read(node)
    if not isinstance(equation, str) or "..." in equation or "->" not in equation:
        flow.refuse(node, "it does not name every axis of what it reads and gives")
    read, made = str(equation).replace(" ", "").split("->")
    letters = read.split(",")
    if len(operands) != 2 or any(len(set(part)) < len(part) for part in letters):
        flow.refuse(node, "it is not a product of two different tensors without diagonals")
    used = ["".join(sorted(set("".join(letters))))]
    _product(flow, node, list(zip(operands, letters, strict=True)), made, used)


def attention(flow: Flow, node: fx.Node) -> None:
    """`F.scaled_dot_product_attention`; its scale stays that of the dense width."""
    q, k, v = (argument(node, i, name) for i, name in enumerate(("query", "key", "value")))
    mask, lead = argument(node, 3, "attn_mask"), _lead(q)
    operands = [(q, lead + "id"), (k, lead + "jd"), (v, lead + "je")]
    if mask is not None:
        operands.append((mask, (lead + "ij")[-len(shape_of(mask)) :]))
    repeats: dict[fx.Node, int] = {}
    if argument(node, 7, "enable_gqa", False):
        repeats = {x: shape_of(q)[-3] // shape_of(x)[-3] for x in (k, v)}
    used = [lead + "ijd", lead + "ije"]
    _product(flow, node, operands, lead + "ie", used, whole="ij", repeats=repeats)
    on_width = [layout_of(flow, x) for x in (q, k)]
    if any(found and found.axis == len(shape_of(q)) - 1 for found in on_width):
        if argument(node, 6, "scale") is None:
            node.update_kwarg("scale", shape_of(q)[-1] ** -0.5)


def _lead(node: fx.Node) -> str:
    """Letters of all axes but the last two, aligned on the right."""
    return "ABCDEFGH"[10 - len(shape_of(node)) :]


def _product(
    flow: Flow,
    node: fx.Node,
    operands: Sequence[Operand],
    made: str,
    used: Sequence[str],
    whole: str = "",
    repeats: Mapping[fx.Node, int] | None = None,
) -> None:
    """made: letters of the result.  used: those of each multiplication, for its cost.  whole:
    axes that something looks along.  repeats: of an operand's third last axis (heads of keys
    that several heads of queries share)."""
    repeats = repeats or {}
    sizes: dict[str, int] = {}
    for read, letters in operands:
        for letter, size in zip(letters, shape_of(read), strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    carried: dict[str, np.ndarray] = {}
    kept: set[str] = set()
    for read, letters in operands:
        layout = layout_of(flow, read)
        if layout is None:
            continue
        labels, letter = layout.labels, letters[layout.axis]
        if layout.axis == len(letters) - 3:
            labels = np.repeat(labels, repeats.get(read, 1))
        if letter in whole or len(labels) < sizes[letter]:
            flow.couplings.pin(labels)
        else:
            flow.couplings.couple(carried.setdefault(letter, labels), labels)
    for letter, labels in carried.items():
        axes = [(read, letters.index(letter)) for read, letters in operands if letter in letters]
        met = [(read, axis) for read, axis in axes if shape_of(read)[axis] > 1]
        for read, axis in met:
            layout = layout_of(flow, read)
            if (layout is None or layout.axis != axis) and not meet(flow, read, axis, labels):
                kept.add(letter)
        if letter not in made and len(met) < 2:
            kept.add(letter)
    free = [letter for letter in carried if letter in made and letter not in kept]
    for letter in (*free[1:], *kept):
        flow.couplings.pin(carried.pop(letter))
    flow.layouts[node] = Layout(made.index(free[0]), carried[free[0]]) if free else None
    products: list[Product] = []
    for letters in used:
        count = flow.per_image(node, math.prod(sizes[letter] for letter in letters))
        varying = [carried[letter] for letter in letters if letter in carried]
        each = count // len(varying[0]) if varying else count
        products.append(Product(each, varying[0] if varying else None))
    flow.products[node] = tuple(products)
