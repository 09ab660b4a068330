"""Masks of single weights as text: eight weights a byte, compressed, in base64."""

from __future__ import annotations

import base64
import binascii
import zlib

import numpy as np

from gnnrl.errors import UserError


def packed(kept: np.ndarray) -> str:
    """Return a mask, bool, as text; its shape is not in it."""
    return base64.b64encode(zlib.compress(np.packbits(kept.ravel()).tobytes(), 9)).decode()


def unpacked(layer: str, text: str, size: int) -> np.ndarray:
    """Return the mask of a layer as bool `[size]`; `UserError` where it is not one of that size."""
    try:
        read = zlib.decompressobj()
        bits = read.decompress(base64.b64decode(text, validate=True), size // 8 + 2)
    except (binascii.Error, zlib.error, ValueError):
        bits = b""
    if len(bits) != -(-size // 8):
        raise UserError(
            f"the mask of layer {layer!r} is not one of its {size} weights; it is a plan of "
            "another network, or its layer also loses channels"
        )
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=size).astype(bool)
