"""Presets: overlays of a few lines over one base file, and what they become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gnnrl.errors import UserError
from gnnrl.files import read_yaml
from gnnrl.params.load import check, put, resolved
from gnnrl.registry import hint

FOLDER = Path("experiments")
BASE = "base"

HEADER = """\
# {title}
# Written by `python -m stages.preset {name}`; edit it as you like. An absent key has its default;
# artifacts/STAGE/settings.yaml shows all that a stage ran with. To try other values:
#   dvc exp run -S search.agent=ddpg
#   dvc exp run -S +search.ppo.learning_rate=0.002    (a plus sign: the key is not in this file)
# A data set, network, space, agent, encoder, importance or reward may be your own:
# package.module:name (docs/extending.md).
"""


def names(folder: Path = FOLDER) -> list[str]:
    """Return the names of the presets."""
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem != BASE)


def title(name: str, folder: Path = FOLDER) -> str:
    """Return the line that describes a preset: the first one of its file."""
    return _file(name, folder).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def preset(name: str, overrides: Sequence[str] = (), folder: Path = FOLDER) -> dict[str, Any]:
    """Return the values of a preset: the base, over it the overlay, over it `section.key=value`.

    Raises `UserError` for an unknown name or key.
    """
    overlay = _file(name, folder)
    values = merged(read_yaml(folder / f"{BASE}.yaml"), read_yaml(overlay))
    for override in overrides:
        put(values, override)
    check(values, f"preset {name}")
    return values


def merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the keys of `overlay` in their place, section by section."""
    values = dict(base)
    for key, value in overlay.items():
        old = values.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        values[key] = merged(dict(old or {}), value) if both else value
    return values


def text(name: str, values: Mapping[str, Any], folder: Path = FOLDER) -> str:
    """Return the file of a preset's values, with the help of every key after it."""
    lines = _lines(values, check(values), 0)
    return HEADER.format(title=title(name, folder), name=name) + "\n".join([*lines, ""])


def differences(path: Path, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for every setting that the file at `path` has otherwise; absent keys count."""
    if not path.exists():
        return
    try:
        before = _flat(resolved(dict(check(read_yaml(path)))))
    except UserError as error:
        yield f"no differences to {path} are shown: {error}"
        return
    after = _flat(resolved(dict(check(values))))
    for key in {**before, **after}:
        if before.get(key) != after.get(key):
            yield f"{key}: {_shown(before.get(key))} -> {_shown(after.get(key))}"


def is_one(path: Path, folder: Path = FOLDER) -> bool:
    """Whether the file at `path` holds the settings of a preset, however it is written."""
    try:
        given = resolved(dict(check(read_yaml(path))))
    except UserError:
        return False
    return any(given == resolved(dict(check(preset(name, (), folder)))) for name in names(folder))


def _file(name: str, folder: Path) -> Path:
    path = folder / f"{name}.yaml"
    if name not in names(folder):
        known = names(folder)
        near = hint(name, known, f"known are {', '.join(known) or 'none'}")
        raise UserError(f"there is no preset {name!r} in {folder}; {near}")
    return path


def _lines(values: Mapping[str, Any], settings: Any, depth: int) -> Iterator[str]:
    """Yield YAML; settings: what the values became, which knows the help of its keys."""
    fields = getattr(type(settings), "model_fields", {})
    for key, value in values.items():
        help = " ".join((fields[key].description or "").split()) if key in fields else ""
        comment = f"  # {help.rstrip('.')}" if help else ""
        indent = "  " * depth
        if isinstance(value, Mapping) and value:
            yield from [""] * (depth == 0)
            yield f"{indent}{key}:{comment}"
            yield from _lines(value, getattr(settings, key, None), depth + 1)
        else:
            line = f"{indent}{key}: {_shown(value)}"
            yield f"{line:<26}{comment}".rstrip()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        deeper = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{key}.") if deeper else {f"{prefix}{key}": value}
    return flat


def _shown(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).splitlines()[0]
