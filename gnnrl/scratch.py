"""Scratch folders outside DVC's outs: what lets a killed run resume."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from gnnrl.errors import UserError

PATIENCE = 0.2  # seconds: a holder that is just removing its lock lets the next one in


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
    """Hold the scratch folder `kind`/`key` alone; remove it on success, leave it on failure.

    Raises `UserError` where another process holds it, with that process's id.
    """
    folder = scratch_root() / kind / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder.with_name(f"{key}.lock")), folder / "pid"
    try:
        lock.acquire(timeout=PATIENCE, poll_interval=PATIENCE / 4)
    except Timeout:
        pid = holder.read_text(encoding="utf-8") if holder.exists() else "unknown"
        raise UserError(
            f"another process (pid {pid}) is running this {kind}: wait for it or end it "
            f"(lock: {lock.lock_file})"
        ) from None
    try:
        folder.mkdir(exist_ok=True)
        holder.write_text(str(os.getpid()), encoding="utf-8")
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # Windows keeps a file that is open
            os.unlink(lock.lock_file)  # still locked: who waits for this very file tries again
    finally:
        lock.release()
