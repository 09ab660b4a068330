"""What a run stands on: the device, seeds, files written whole, scratch folders."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from gnnrl.errors import UserError

if TYPE_CHECKING:
    import torch

LOCK = "lock"


# --- device and randomness


def device() -> torch.device:
    """CUDA where there is one, else the CPU; the environment variable GNNRL_DEVICE overrides."""
    import torch

    wanted = os.environ.get("GNNRL_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"GNNRL_DEVICE={wanted} cannot be used here ({reason}); unset it or set it to cpu"
        ) from error
    return torch.device(wanted)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch and ask PyTorch for deterministic algorithms.

    Operations without a deterministic CUDA kernel warn instead of ending the run.
    """
    import numpy as np
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def generator(seed: int, name: str) -> torch.Generator:
    """Return a CPU generator of its own for one purpose, derived from the run's seed."""
    import torch

    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


# --- files


def atomic_write(path: str | Path, data: bytes) -> None:
    """Write all of `data` or nothing: a killed run leaves the old file as it was."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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


def write_csv(path: str | Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write one line per row below a header of all columns, in order of first appearance."""
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue().encode())


# --- scratch: what lets a killed run go on, outside DVC's outs


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


def die_with_parent() -> None:
    """End this process when the one that started it ends (Linux; elsewhere nothing happens).

    DVC does not pass signals on: without this a killed `dvc repro` leaves its stage running.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    parent = os.getppid()
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the request stood
        os.kill(os.getpid(), signal.SIGTERM)
