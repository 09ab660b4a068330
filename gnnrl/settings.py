"""Settings: their base class, and types of single values that refuse what they are not."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _number(value: Any) -> Any:
    """Refuse what pydantic would turn into a number: yes and no are not 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, got {str(value).lower()}")
    return value


def _switch(value: Any) -> bool:
    """Refuse what pydantic would turn into true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, got {value!r}")
    return value


def _weights(value: Any) -> str:
    """Take an epoch as a number or as text."""
    if not re.fullmatch(r"final|initial|\d+", str(value)) or isinstance(value, bool):
        raise ValueError(f"must be final, initial or the epoch of a snapshot, got {value!r}")
    return str(value)


def one_of(*known: str) -> BeforeValidator:
    """Check a name: one of ours, or `package.module:name` of the user's own code."""

    def check(value: Any) -> str:
        if value in known or re.fullmatch(r"\w+(\.\w+)*:\w+", str(value)):
            return value
        names = ", ".join(known)
        raise ValueError(f"must be one of {names} or package.module:name, got {value!r}")

    return BeforeValidator(check)


# numbers as text are accepted: PyYAML leaves `1e-05`, the form DVC writes, as text
Int = Annotated[int, BeforeValidator(_number)]
Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Switch = Annotated[bool, BeforeValidator(_switch)]

Count = Annotated[Int, Field(ge=1)]
CountOrNone = Annotated[Int, Field(ge=0)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]
Positive = Annotated[Float, Field(gt=0)]
NotNegative = Annotated[Float, Field(ge=0)]
Share = Annotated[Float, Field(gt=0, le=1)]  # a fraction, at least something
Probability = Annotated[Float, Field(ge=0, le=1)]
Sparsity = Annotated[Float, Field(ge=0, lt=1)]
Space = Annotated[str, one_of("channels", "weights", "filters", "layers")]
Encoder = Annotated[str, one_of("plain", "multi_stage")]
REWARD_KINDS = (
    "accuracy",
    "loss",
    "divergence",
    "jensen_shannon",
    "n2n",
    "n2n_constrained",
    "sagemaker",
)
RewardKind = Annotated[str, one_of(*REWARD_KINDS)]
Weights = Annotated[str, BeforeValidator(_weights)]


class Settings(BaseModel):
    """What a user can set of one thing: declared beside the code that uses it, and nowhere else.

    Every field has a type, a range, a default (unless the user must decide it) and below it one
    line of help.  Unknown keys are refused; values are not changed afterwards.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )


Section = Settings
