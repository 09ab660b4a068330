"""What a run stands on: the device, seeds, and how it ends."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gnnrl.errors import UserError, first_line

if TYPE_CHECKING:
    import torch
    from torch import nn


def device() -> torch.device:
    """CUDA where there is one, else the CPU; the environment variable GNNRL_DEVICE overrides."""
    import torch

    wanted = os.environ.get("GNNRL_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"GNNRL_DEVICE={wanted} cannot be used here ({first_line(error)}); unset it or set it "
            "to cpu"
        ) from error
    return torch.device(wanted)


def device_of(network: nn.Module) -> torch.device:
    """Return the device that a network's first parameter is on, the CPU if it has none."""
    import torch

    first = next(network.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def has_bfloat16() -> bool:
    """Whether the device computes in bfloat16; a processor that emulates it is many times slower.

    Of a processor under Linux it is read in /proc/cpuinfo; others count as without.
    """
    import torch

    if device().type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    return not flags.isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))


TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # options of mallopt in the GNU C library
PADDED = 2**26


def keep_memory() -> bool:
    """Let this process keep the memory that it frees; return whether its C library can be told.

    The GNU C library gives blocks of 32 MB and more back to the system at once, and the next tensor
    of that size gets every page anew, 4 KB at a time: two thirds of what MobileNet v2 takes for 32
    images of 224x224 in PyTorch.  Allocators of a GPU and of ONNX Runtime keep theirs anyway.
    """
    try:
        change = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False  # another C library
    return all((change(MMAP_MAX, 0), change(TRIM_THRESHOLD, -1), change(TOP_PAD, PADDED)))


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


# --- the end


SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish", "ash", "busybox"}
SECONDS_TO_END = 4.0  # that a process has between the request to end and its end
SECONDS_TO_LOOK = 0.5  # between two looks at whether DVC still runs


class Ended(BaseException):
    """A signal asked for the end; `code` is the exit code that says which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


@contextlib.contextmanager
def ended_by_signals(last: str = "") -> Iterator[None]:
    """Let SIGINT and SIGTERM raise `Ended` in the block and end the process within seconds.

    last: what is said where the block takes too long and the process is ended for it.
    A second signal ends it at once. Without effect outside the main thread.
    """
    numbers: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        numbers = ()

    def end(number: int, frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)
        threading.Thread(target=_end_soon, args=(128 + number, last), daemon=True).start()
        raise Ended(number)

    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_soon(code: int, last: str = "") -> None:
    time.sleep(SECONDS_TO_END)
    if last:
        print(last, file=sys.stderr, flush=True)
    os._exit(code)


def end_with_dvc() -> None:
    """End this process when the DVC that started it ends, through a shell or not (Linux, macOS).

    DVC does not pass signals on: without this a killed `dvc repro` leaves its stage running. DVC
    may have ended already, while Python started here.
    """
    if sys.platform == "win32":
        return
    dvc = _starter()

    def watch() -> None:
        while dvc is not None and _starter() == dvc:
            time.sleep(SECONDS_TO_LOOK)
        os.kill(os.getpid(), signal.SIGTERM)
        _end_soon(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _starter() -> int | None:
    """Return the process that started this one, shells left out; None where it has ended.

    Then init or another process that collects what is left has taken its place: one of another
    session, or, in a container, of another group.
    """
    pid = os.getppid()
    while (found := _process(pid))[0] in SHELLS:
        pid = found[1]
    of = os.getpgid if pid == 1 else os.getsid
    try:
        return pid if pid and of(pid) == of(0) else None
    except OSError:  # it is gone, or nobody may ask
        return None


def _process(pid: int) -> tuple[str, int]:
    """Return the name of a process and the id of the one that started it."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", 0
    before, _, after = text.rpartition(")")
    return before.partition("(")[2], int(after.split()[1])


def die_with_parent(parent: int) -> None:
    """End this process when the one that started it ends (Linux; elsewhere nothing happens).

    parent: its id, as it knows it itself: it may have ended before this is called.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
