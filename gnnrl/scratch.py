"""Scratch folders outside DVC's outs: what lets a killed run resume."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gnnrl.errors import UserError

LOCK = "lock"


def content_key(*parts: object) -> str:
    """Return a short digest of files (given as Path, folders with all below), bytes and values.

    Values must be JSON; everything that changes the result of a run belongs into its key.
    """
    digest = hashlib.sha256()
    for part in parts:
        for chunk in _content(part):
            digest.update(hashlib.sha256(chunk).digest())
        digest.update(b"|")
    return digest.hexdigest()[:20]


def _content(part: object) -> Iterator[bytes]:
    if isinstance(part, bytes):
        yield part
    elif isinstance(part, Path) and part.is_dir():
        for path in sorted(p for p in part.rglob("*") if p.is_file()):
            yield path.relative_to(part).as_posix().encode()
            yield path.read_bytes()
    elif isinstance(part, Path):
        yield part.read_bytes()
    else:
        yield json.dumps(part, sort_keys=True).encode()


def scratch_root() -> Path:
    """Return $GNNRL_SCRATCH, else .gnnrl in the checkout (the user's, from a queued run too)."""
    chosen = os.environ.get("GNNRL_SCRATCH")
    return Path(chosen or Path(os.environ.get("DVC_ROOT") or ".") / ".gnnrl").absolute()


@contextlib.contextmanager
def claim(kind: str, key: str) -> Iterator[Path]:
    """Hold the scratch folder `kind`/`key` alone; it goes on success and stays on failure."""
    folder = scratch_root() / kind / key
    lock = _lock(folder, kind)
    try:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.close()


def _lock(folder: Path, kind: str) -> IO[str]:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "a+")  # held open as long as the lock
        if not _flock(file):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise UserError(
                f"another process (pid {holder}) is running this {kind}: wait for it or end it "
                f"(lock: {folder / LOCK})"
            )
        if _is_current(file):
            break
        file.close()  # its holder has finished and removed the folder between our open and lock
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _flock(file: IO[str]) -> bool:
    """Try to take the lock; where the system has none (Windows) there is no guard."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_current(file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except FileNotFoundError:
        return False
