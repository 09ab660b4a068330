"""Scratch folders outside DVC's outs: what lets a killed run resume."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from gnnrl.errors import UserError

FINISHED = "finished"  # a file in the folder of a run that has ended well
DAYS = 30.0  # after which the folder of a killed run is removed
ROOM = 32 * 2**20  # bytes that a run must find free
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
        if not part.is_file():
            raise UserError(f"there is no file {part}: correct the setting that names it")
        yield part.read_bytes()
    else:
        yield json.dumps(part, sort_keys=True).encode()


def scratch_root() -> Path:
    """Return $GNNRL_SCRATCH, else .gnnrl in the checkout (the user's, from a queued run too)."""
    chosen = os.environ.get("GNNRL_SCRATCH")
    return Path(chosen or Path(os.environ.get("DVC_ROOT") or ".") / ".gnnrl").absolute()


@contextlib.contextmanager
def claim(kind: str, key: str) -> Iterator[Path]:
    """Hold the scratch folder `kind`/`key` alone. It is kept, so that a run whose results are lost
    between its end and DVC's lock file need not be paid for twice.

    Success removes the folders of other finished runs of that kind, and what nobody has touched
    for `DAYS`. Raises `UserError` where another process holds the folder, with that process's id.
    """
    folder = scratch_root() / kind / key
    refuse_unwritable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(f"{folder}.lock"), folder / "pid"
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
        (folder / FINISHED).touch()
        for other in folder.parent.iterdir():
            if other.is_dir() and other != folder:
                _remove_if_done(other)
        with contextlib.suppress(OSError):  # Windows keeps a file that is open
            os.unlink(lock.lock_file)  # still locked: who waits for this very file tries again
    finally:
        lock.release()


def _remove_if_done(folder: Path) -> None:
    """Remove a folder that nobody holds, if its run has ended or is long abandoned."""
    old = time.time() - folder.stat().st_mtime > DAYS * 24 * 3600
    if not (old or (folder / FINISHED).exists()):
        return
    lock = FileLock(f"{folder}.lock")
    with contextlib.suppress(Timeout, OSError):
        lock.acquire(timeout=0)
        shutil.rmtree(folder, ignore_errors=True)
        os.unlink(lock.lock_file)
        lock.release()


def refuse_unwritable(folder: Path) -> None:
    """Raise `UserError` where a folder cannot be made or written to, or its disk is full."""
    above = next(p for p in (folder, *folder.absolute().parents) if p.exists() or p.is_symlink())
    if not above.is_dir():
        raise UserError(f"{above} is no folder: move it, or write to another place than {folder}")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{above} cannot be written to: change its rights or name another folder")
    if (free := shutil.disk_usage(above).free) < ROOM:
        raise UserError(
            f"the disk of {above} has {free // 2**20} MB left, expected {ROOM // 2**20}: make room"
        )


@dataclass(frozen=True)
class Kept:
    """What is kept in the scratch folder: a run's folder, or a file that runs share.

    name: below the scratch folder.  size: in bytes.  days: since it was last written to.
    state: finished, running, "can go on" or "kept".
    """

    name: str
    size: int
    days: float
    state: str


def kept_runs() -> list[Kept]:
    """Return what the scratch folder holds, by kind and age, locks left out."""
    root = scratch_root()
    found = []
    for path in sorted(root.glob("*/*")):
        if path.suffix == ".lock":
            continue
        files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
        times = [p.stat().st_mtime for p in files] or [path.stat().st_mtime]
        name = path.relative_to(root).as_posix()
        size, days = sum(p.stat().st_size for p in files), (time.time() - max(times)) / 86400
        found.append(Kept(name, size, days, _state(path)))
    return sorted(found, key=lambda kept: (kept.name.partition("/")[0], -kept.days))


def _state(path: Path) -> str:
    """Return what is true of a folder or file: finished, running, or what it is good for."""
    if not (path / "pid").exists():
        return "kept"
    lock = FileLock(f"{path}.lock")
    try:
        with lock.acquire(timeout=0):
            with contextlib.suppress(OSError):
                os.unlink(lock.lock_file)  # nobody holds it: leave no file behind
            return "finished" if (path / FINISHED).exists() else "can go on"
    except Timeout:
        return "running"


def remove_run(kept: Kept) -> bool:
    """Remove what is kept unless a process holds it; return whether it is gone."""
    path = scratch_root() / kept.name
    lock = FileLock(f"{path}.lock")
    with contextlib.suppress(Timeout, OSError), lock.acquire(timeout=0):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        os.unlink(lock.lock_file)
    return not path.exists()
