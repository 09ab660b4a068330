"""The parameters of a run, as they stand in params.yaml."""

from gnnrl.params.load import (
    STAGE_SECTIONS,
    Params,
    check,
    load_params,
    refuse_absent,
    resolved,
    without_effect,
)

__all__ = [
    "STAGE_SECTIONS",
    "Params",
    "check",
    "load_params",
    "refuse_absent",
    "resolved",
    "without_effect",
]
