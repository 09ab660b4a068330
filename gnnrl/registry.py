"""Things by name: ours from a table, the user's own as `package.module:name`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gnnrl.errors import UserError


def named(name: str, table: Mapping[str, Any], what: str) -> Any:
    """Return the entry of `table`, or what `package.module:name` of the user's own code names.

    table: an entry that is a text is itself `package.module:name`, so that a table is read, and
    names are checked, without importing what stands behind them.
    what: one word for messages, such as "reward".  Raises `UserError` for an unknown name, with
    those that are like it.
    """
    if is_own(name):
        return imported(name, what)
    if name not in table:
        raise UserError(f"there is no {what} {name!r}; {hint(name, table)}")
    entry = table[name]
    return imported(entry, what) if isinstance(entry, str) else entry


def is_own(name: str) -> bool:
    """Whether a name is of the user's own code: `package.module:name`."""
    return ":" in name


def hint(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Say which known names are like the wrong one; where none is, all of them or `otherwise`."""
    known = list(known)
    close = difflib.get_close_matches(name, known)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return otherwise or f"known are {', '.join(known)} and package.module:name of your own"


def imported(path: str, what: str) -> Callable[..., Any]:
    """Return the function or class that `package.module:name` names."""
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"cannot import {module_name!r} for the {what} {path!r} ({error}): is it installed, "
            "or below the folder you run in?"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        near = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
        raise UserError(
            f"module {module_name!r} has no function or class {attribute!r} ({what} {path!r}); "
            f"{hint(attribute, near, 'expected package.module:name')}"
        )
    return found


def call(function: Callable[..., Any], name: str, **offered: Any) -> Any:
    """Call a function with those of the arguments offered that it takes (`**` takes all)."""
    try:
        signature = inspect.signature(function)
        taken = signature.parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
            offered = {key: offered[key] for key in offered if key in signature.parameters}
        signature.bind(**offered)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{name} cannot be called ({error}): it is offered {', '.join(offered)}"
        ) from error
    return function(**offered)


def takes(function: Callable[..., Any], argument: str) -> bool:
    """Whether a function or class names this argument."""
    try:
        return argument in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def own_files(values: Any) -> list[Path]:
    """Return the files of the user's own code that parameters name: results depend on them."""
    return sorted({file for path in _own_names(values) for file in _file(path)})


def _own_names(values: Any) -> Iterator[str]:
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, list | tuple):
        for value in values:
            yield from _own_names(value)
    elif isinstance(values, str) and is_own(values):
        yield values


def _file(path: str) -> Iterator[Path]:
    """The file of a module; nothing for texts with a colon that name none, such as addresses."""
    try:
        spec = importlib.util.find_spec(path.partition(":")[0])
    except (ImportError, ValueError):
        return
    if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
        yield Path(spec.origin)
