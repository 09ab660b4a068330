"""The folder of a stage's results: replaced as one, with the digest of every file in it.

    out/.new      a run writes here
    out/.ready    the same folder once all is written: from this renaming on the new results count
    out/FILE      where the files of .ready are moved, digests.json last

A run that is killed before the renaming leaves the earlier results, one that is killed after it
leaves the new ones, partly in .ready: the next run moves the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from gnnrl.errors import UserError
from gnnrl.files import read_json, sync_folder, write_json
from gnnrl.scratch import content_key, scratch_root
from gnnrl.sealed import CHANGED, opened, sealed

DIGESTS = "digests.json"
NEW, READY = ".new", ".ready"
TIMED = ("latency.json", "int8.json", "report.html", "speed.json")
"""They differ from run to run: they would make digests differ."""
OUTDATED = ".outdated"  # in them: the files of the earlier results that go


@contextlib.contextmanager
def replaced(out: Path, own: tuple[str, ...] = ()) -> Iterator[Path]:
    """Give a folder to write to; when all is written its files replace those in `out`.

    If the block fails or is killed, `out` keeps what it had. Other files in `out` are kept, except
    those of an earlier run that match a pattern of `own` and were not written again. `digests.json`
    holds the SHA-256 of all files that were written so, except those with times.
    """
    there, fresh = out.exists(), out / NEW
    with _lock(out):
        _recover(out)
        fresh.mkdir(parents=True)
        try:
            yield fresh
            _note(out, fresh, own)
            os.replace(fresh, out / READY)
            sync_folder(out)
            there = True
            _move(out)
        finally:
            shutil.rmtree(fresh if there else out, ignore_errors=True)


def recover(out: Path) -> None:
    """Finish a replacement that a kill interrupted; remove what a killed run had not finished."""
    if (out / NEW).exists() or (out / READY).exists():
        with _lock(out):
            _recover(out)


def refuse_changed(path: Path) -> None:
    """Raise `UserError` where a result is not what its stage wrote, by the digests beside it.

    Results without digests, of an earlier version or made by hand, are taken as they are.
    """
    digests = path.parent / DIGESTS
    if not digests.exists():
        return
    try:
        expected = _digests(path.parent).get(path.name)
    except UserError as error:
        raise UserError(f"{digests}: {error}") from None
    if expected is not None and (not path.is_file() or _digest(path) != expected):
        wrong = CHANGED if path.is_file() else "the file is missing"
        raise UserError(f"{wrong}, or its stage was ended while it replaced its results")


def _recover(out: Path) -> None:
    if (out / READY).exists():
        _move(out)
    shutil.rmtree(out / NEW, ignore_errors=True)


def _note(out: Path, fresh: Path, own: tuple[str, ...]) -> None:
    """Write beside the new files their digests, and which of the old ones they replace."""
    written = {_name(path, fresh): path for path in _files(fresh)}
    matching = {_name(path, out) for pattern in own for path in out.glob(pattern)}
    outdated = {name for name in matching - set(written) if not name.startswith(NEW)}
    try:
        before = _digests(out)
    except (UserError, OSError):
        before = {}
    kept = {n: d for n, d in before.items() if n not in outdated and (out / n).is_file()}
    (fresh / OUTDATED).write_text("".join(f"{name}\n" for name in sorted(outdated)), "utf-8")
    new = {name: _digest(path) for name, path in written.items() if name not in TIMED}
    write_json(fresh / DIGESTS, sealed({"files": dict(sorted((kept | new).items()))}))


def _move(out: Path) -> None:
    """Move all files of `.ready`; done again after a kill it comes to the same."""
    ready = out / READY
    names = (ready / OUTDATED).read_text("utf-8") if (ready / OUTDATED).exists() else ""
    for name in names.splitlines():
        (out / name).unlink(missing_ok=True)
    files = {path for path in _files(ready) if path.name not in (OUTDATED, DIGESTS)}
    for path in (*sorted(files), ready / DIGESTS):
        if path.exists():
            target = out / path.relative_to(ready)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    sync_folder(out)
    shutil.rmtree(ready, ignore_errors=True)


def _lock(out: Path) -> FileLock:
    locks = scratch_root() / "results"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{content_key(str(out.absolute()))}.lock")


def _digests(folder: Path) -> dict[str, str]:
    files = opened(read_json(folder / DIGESTS)).get("files")
    if not isinstance(files, dict):
        raise UserError("it holds no digests of files")
    return files


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        found = hashlib.sha256()
        while part := file.read(2**20):
            found.update(part)
    return found.hexdigest()
