"""Settings: their base class, the types of their values, and what is said about a wrong one."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from gnnrl.errors import UserError
from gnnrl.registry import hint, is_own


def _number(value: Any) -> Any:
    """Refuse what pydantic would turn into a number: yes and no are not 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, got {str(value).lower()}")
    return value


def _no_giant(value: float) -> float:
    if abs(value) > 1e9:
        raise ValueError(f"must be a number from -1e9 to 1e9, got {value}")
    return value


def _share_or_count(value: float) -> float:
    if not (0 < value <= 1 or (value > 1 and value == int(value))):
        raise ValueError(f"must be a fraction in (0, 1] or a whole number above 1, got {value:g}")
    return value


def _switch(value: Any) -> bool:
    """Refuse what pydantic would turn into true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, got {value!r}")
    return value


def _name(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError(f"must be a name, got {value!r}: leave it out")
    return value


def _weights(value: Any) -> str:
    """Take an epoch as a number or as text."""
    if not re.fullmatch(r"final|initial|\d+", str(value)) or isinstance(value, bool):
        raise ValueError(f"must be final, initial or the epoch of a snapshot, got {value!r}")
    return str(value)


def _or_student(value: Any) -> str:
    """Take those of the best student, too."""
    return STUDENT if value == STUDENT else _weights(value)


def name_in(table: str) -> BeforeValidator:
    """Check a name: a key of a registry, or `package.module:name` of the user's own code.

    table: `package.module:NAME` of the registry, which is imported only where a name is given.
    """

    def check(name: Any) -> Any:
        known = () if isinstance(name, str) and is_own(name) else _imported(table)
        if known and (not isinstance(name, str) or name not in known):
            names = ", ".join(known)
            near = f"; {hint(name, known, ' ')}" if isinstance(name, str) else ""
            raise ValueError(
                f"must be one of {names} or package.module:name, got {name!r}{near.rstrip('; ')}"
            )
        return name

    return BeforeValidator(check)


def part(path: str) -> BeforeValidator:
    """Check a part of the settings against a class that is imported only where the part is given.

    path: `package.module:Class`.  A stage then neither imports nor depends on rooms that its
    results do not depend on, although it checks the settings of all stages.
    """
    return BeforeValidator(
        lambda values: None if values is None else _imported(path).model_validate(values)
    )


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


# numbers as text are accepted: PyYAML leaves `1e-05`, the form DVC writes, as text
Int = Annotated[int, BeforeValidator(_number)]
Float = Annotated[
    float, BeforeValidator(_number), Field(allow_inf_nan=False), AfterValidator(_no_giant)
]
Switch = Annotated[bool, BeforeValidator(_switch)]

Count = Annotated[Int, Field(ge=1, le=10**9)]
CountOrNone = Annotated[Int, Field(ge=0, le=10**9)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]
Positive = Annotated[Float, Field(gt=0)]
NotNegative = Annotated[Float, Field(ge=0)]
Share = Annotated[Float, Field(gt=0, le=1)]  # a fraction, at least something
ShareOrCount = Annotated[Float, AfterValidator(_share_or_count)]
Probability = Annotated[Float, Field(ge=0, le=1)]
BelowOne = Annotated[Float, Field(ge=0, lt=1)]  # a fraction, not all
Name = Annotated[str, AfterValidator(_name)]  # of a layer, file, address: not nothing
Weights = Annotated[str, BeforeValidator(_weights)]
STUDENT = "student"  # weights of the subnet that a search has trained
WeightsOrStudent = Annotated[str, BeforeValidator(_or_student)]

Own = TypeVar("Own", bound="Settings")


class Settings(BaseModel):
    """What a user can set of one thing: declared next to the code that uses it, and only there.

    Every field has a type, a range, a default (unless the user must decide it) and below it one
    line of help.  Unknown keys are refused; values are not changed afterwards.  Whatever is wrong
    is a `UserError` of one sentence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def __init__(self, *values: Any, **named: Any) -> None:
        """Take values in the order of the fields, or by name."""
        given = dict(zip(type(self).model_fields, values, strict=False)) | named
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise UserError(f"{type(self).__name__}: {sentence(error)}") from None

    # parts of other settings are validated without a call: the whole says what is wrong, and where
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, values: Any) -> Any:
        for key in values if isinstance(values, Mapping) else ():
            if key not in cls.model_fields:
                context = {"key": str(key), "known": list(cls.model_fields)}
                raise PydanticCustomError("unknown", "{key}", context)
        return values

    def changed(self: Own, **values: Any) -> Own:
        """Return the same settings but for these values, which are checked."""
        return type(self)(**{**dict(self), **values})


def checked(kind: type[Own], values: Any, source: str) -> Own:
    """Return `values` as settings, or raise one sentence about the first thing that is wrong.

    source: where they stand, for the message.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{source}: {sentence(error)}") from None


def sentence(error: ValidationError, *where: int | str) -> str:
    """Say what is wrong: the key, what was expected, what was given.

    where: the key that the settings stand under.
    """
    # a misspelt key may be the cause of the rest
    found = sorted(error.errors(), key=lambda e: e["type"] != "unknown")[0]
    place = (*where, *found["loc"])
    path = ".".join(map(str, place))
    kind, got, context = found["type"], found["input"], found.get("ctx", {})
    if kind == "unknown":
        return _unknown([str(name) for name in place], context["key"], context["known"])
    if kind == "missing" and isinstance(place[-1], int):
        return f"'{path.rpartition('.')[0]}' has too few entries, got {got!r}"
    if kind == "missing":
        return f"'{path}' is missing: add it, it has no default"
    if kind == "value_error" and isinstance(context["error"], ValidationError):
        return sentence(context["error"], *place)  # of a `part`
    if kind == "value_error":
        return f"'{path}' {context['error']}" if path else str(context["error"])
    return f"'{path}' must be {_expected(kind, found['msg'], context)}, got {_shown(got)}"


def _unknown(where: Sequence[str], key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    meant = f"did you mean '{'.'.join([*where, *near])}'?" if near else ""
    return f"unknown key '{'.'.join([*where, key])}'; {meant or 'known here: ' + ', '.join(known)}"


def _shown(value: Any) -> str:
    """Return a value as it stands in YAML, shortened."""
    plain = value is None or isinstance(value, bool)
    text = {None: "null", True: "true", False: "false"}[value] if plain else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _expected(kind: str, message: str, context: Mapping[str, Any]) -> str:
    bounds = {"greater_than": "greater than {gt:g}", "greater_than_equal": "at least {ge:g}"}
    bounds |= {"less_than": "less than {lt:g}", "less_than_equal": "at most {le:g}"}
    if kind in bounds:
        return bounds[kind].format(**context)
    if kind == "literal_error":
        return f"one of {context['expected']}"
    if kind.startswith("int_"):
        return "a whole number"
    if kind.startswith("float_") or kind == "finite_number":
        return "a number"
    names = {"string_type": "a text", "bool_type": "true or false", "tuple_type": "a list"}
    names |= {"model_type": "a mapping of keys", "model_attributes_type": "a mapping of keys"}
    return names.get(kind, message.removeprefix("Input should be "))
