"""What every space asks of an action."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gnnrl.errors import UserError


def numbers(action: ArrayLike, size: int, what: str) -> np.ndarray:
    """Return an action as float64 `[size]`; raise `UserError` for another shape, NaN or infinity.

    what: what its entries are called, such as "keep ratios".
    """
    values = np.asarray(action, dtype=np.float64)
    if values.shape != (size,):
        raise UserError(f"an action has {size} {what}, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise UserError(f"an action has {size} finite {what}, got NaN or infinity")
    return values
