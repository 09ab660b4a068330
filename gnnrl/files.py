"""Files: written whole or not at all, and found where the user means them."""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from gnnrl.errors import UserError

LARGEST_JSON = 64 * 2**20  # bytes; the graph of a network of a thousand layers takes about one


def atomic_write(path: str | Path, data: bytes) -> None:
    """Write all of `data` or nothing: a killed run leaves the old file as it was, and a part beside
    it, which the next writing of the file removes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove the parts that killed runs left of a file."""
    if os.name != "posix":  # elsewhere a process cannot be asked whether it is there
        return
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        pid = part.name.split(".")[-2]
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            part.unlink(missing_ok=True)
        except (ValueError, OverflowError, PermissionError):
            continue


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can (Windows cannot)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def user_path(text: str | Path) -> Path:
    """Return the file or folder a user means: ~ and variables expanded, below the checkout.

    Within a queued experiment, which runs in a copy, that is the checkout it was queued in.
    """
    expanded = os.path.expandvars(os.path.expanduser(text))
    if "$" in expanded:
        raise UserError(f"the path {text} names an environment variable that is not set: set it")
    return Path(os.environ.get("DVC_ROOT") or ".") / expanded


def write_json(path: str | Path, value: object) -> None:
    """Write JSON; the same value gives the same bytes."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    atomic_write(path, f"{text}\n".encode())


def read_json(path: str | Path) -> Any:
    """Return what a JSON file holds.

    Raises FileNotFoundError where there is none, and `UserError` for a file of more than 64 MB,
    a key that stands twice, NaN, infinity, and lists in lists without end.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.stat().st_size > LARGEST_JSON:
        raise UserError(f"it has more than {LARGEST_JSON // 2**20} MB")
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"it is no text ({error})") from error


def parse_json(text: str) -> Any:
    """Return what JSON text holds, under the same conditions as `read_json`."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError as error:
        raise UserError("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise UserError(f"it is not JSON ({error})") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise UserError(f"its key {twice!r} stands twice")
    return found


def _no_number(name: str) -> Any:
    raise UserError(f"it holds {name}, which is no finite number")


def write_csv(path: str | Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write one line per row below a header of all columns, in order of first appearance."""
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue().encode())


def write_yaml(path: str | Path, value: object) -> None:
    """Write YAML; the same value gives the same bytes."""
    atomic_write(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode())


class _EachKeyOnce(yaml.SafeLoader):
    """Refuses a key that stands twice, of which PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                mark = key.start_mark
                raise UserError(
                    f"{mark.name}: the key {key.value!r} in line {mark.line + 1} stands there "
                    "twice: keep one"
                )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file."""
    try:
        with path.open(encoding="utf-8") as file:
            values = yaml.load(file, _EachKeyOnce)
    except FileNotFoundError as error:
        raise UserError(
            f"there is no {path}: run from the project's root or name it with --params"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold a mapping of sections, got {type(values).__name__}")
    return values
