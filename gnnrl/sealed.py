"""Artifacts that hold a digest of their content: a file that was changed is refused."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnnrl.errors import UserError, first_line
from gnnrl.files import atomic_write

FORMAT = 2
"""Of the files that are written; files of format 1 have no digest and are read without."""
SEAL = b"gnnrl-sha256:"  # in the comment at the end of the zip file that torch.save writes
CHANGED = "its content does not match its digest: it was changed or damaged after it was written"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON content with the number of its format and its SHA-256."""
    content = {"format": FORMAT, **content}
    return {**content, "sha256": _digest(content)}


def opened(content: Any) -> dict[str, Any]:
    """Return what `sealed` was given; content without a format is taken as it is.

    Raises `UserError` where the digest differs or a newer version wrote it.
    """
    if not isinstance(content, dict):
        raise UserError(f"expected an object with keys, got {type(content).__name__}")
    content = dict(content)
    if "format" not in content and "sha256" not in content:
        return content
    seal = content.pop("sha256", None)
    refuse_newer(content.get("format"))
    if content["format"] >= 2 and seal != _digest(content):
        raise UserError(CHANGED)
    del content["format"]
    return content


def refuse_newer(written: Any) -> None:
    """Raise `UserError` where a file has a format that this version does not know."""
    if type(written) is not int or written < 1:
        raise UserError(f"its format is {written!r}, expected a number from 1 to {FORMAT}")
    if written > FORMAT:
        raise UserError(
            f"a newer version wrote it (format {written}, this one reads up to {FORMAT}): "
            "update gnnrl"
        )


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def tensors_digest(state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of tensors with their names, kinds and shapes."""
    import torch

    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def write_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers and containers with `torch.save`; equal states give equal bytes."""
    import torch

    buffer = io.BytesIO()  # a file's name would stand in its bytes
    torch.save(_independent(state), buffer)
    data = buffer.getvalue()
    comment = SEAL + hashlib.sha256(data).hexdigest().encode()
    atomic_write(path, data[:-2] + struct.pack("<H", len(comment)) + comment)


def read_state(path: str | Path) -> Any:
    """Return what `write_state` wrote. Nothing in it is executed.

    A file without a digest, of an earlier version, is read as it is. Raises `UserError` for
    anything that is damaged; FileNotFoundError where there is none.
    """
    import torch

    data = Path(path).read_bytes()
    plain, seal, digest = data.rpartition(SEAL)
    if seal and digest.decode("latin-1") != hashlib.sha256(plain[:-2] + b"\0\0").hexdigest():
        raise UserError(CHANGED)
    try:
        refuse_compressed(io.BytesIO(data))
        with warnings.catch_warnings():  # of pickles that torch did not write
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and zip have their own exceptions for damage
        reason = f"{type(error).__name__}: {first_line(error)[:120]}"
        raise UserError(f"it cannot be read ({reason})") from error


def read_or_set_aside(path: Path) -> dict[str, Any] | None:
    """Return a state; None where there is none, or one that is damaged: it gets another name, and
    a line says so."""
    try:
        state = read_state(path)
        if isinstance(state, dict):
            return state
        reason = f"it holds {type(state).__name__}"
    except FileNotFoundError:
        return None
    except UserError as error:
        reason = str(error)
    print(f"{set_aside(path)}: set aside and started without, as {reason}", flush=True)
    return None


def set_aside(path: Path) -> Path:
    """Give a damaged file another name; return it."""
    return path.replace(path.with_name(f"{path.name}.damaged"))


def refuse_compressed(file: Any) -> None:
    """Raise `UserError` for a zip file with compressed parts: torch.save writes none, and a small
    file could unpack to more than the memory holds."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as parts:
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
                raise UserError("its parts are compressed, which torch.save never does")
    if hasattr(file, "seek"):
        file.seek(0)


def _independent(value: Any) -> Any:
    """Return an equal value in which nothing is shared: sharing would show in the bytes."""
    if isinstance(value, Mapping):
        return {_independent(key): _independent(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_independent(item) for item in value)
    if isinstance(value, str):
        return sys.intern(str(value))
    return value.detach().clone() if hasattr(value, "detach") else value
