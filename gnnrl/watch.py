"""The figures of a run while it goes on: a growing file of JSON lines, and TensorBoard's files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gnnrl.errors import UserError
from gnnrl.files import atomic_write, user_path
from gnnrl.scratch import scratch_root

VARIABLE = "GNNRL_TENSORBOARD"
FOLDER = "watch"  # below the scratch folder
BOARD = "tensorboard"  # the package


class Watch:
    """Figures of a run by step, each written as soon as it is known.

    They are no results: they stand outside the outs of a stage, and differ in nothing but when
    they were written.  A run that resumes replaces the lines after the step that it goes on from.
    """

    def __init__(self, lines: Path, board: Path | None = None) -> None:
        """lines: the file of JSON lines.  board: a folder for TensorBoard; None: no such files."""
        self.lines, self.board = lines, board
        self._writer: Any = None

    @classmethod
    def of(cls, run: str, key: str) -> Watch:
        """Return the watch of a run; with GNNRL_TENSORBOARD, a folder, it writes event files, too.

        run: what people know it by, such as search-ppo-seed0.  key: a digest of what it depends on.
        """
        name = f"{run.replace('/', '-')}-{key[:8]}"
        chosen = os.environ.get(VARIABLE)
        board = user_path(chosen) / name if chosen else None
        return cls(scratch_root() / FOLDER / f"{name}.jsonl", board)

    def begin(self, done: int = 0) -> None:
        """Start to write; done: the step that a resumed run goes on from."""
        written = self.lines.read_bytes().splitlines() if self.lines.exists() and done else []
        kept = [line for line in written if _step(line) <= done]
        self.lines.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self.lines, b"".join(line + b"\n" for line in kept))
        if self.board is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.board), purge_step=done + 1)

    def add(self, step: int, figures: Mapping[str, Any]) -> None:
        """Write figures of a step; what is not a number stands in the lines only."""
        line = {"step": step} | {name: _plain(value) for name, value in figures.items()}
        with open(self.lines, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._writer is not None:
            for name, value in line.items():
                if isinstance(value, float) and name != "step":
                    self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()


def refuse_no_board() -> None:
    """Raise `UserError` where event files are asked for and TensorBoard is not installed."""
    if os.environ.get(VARIABLE) and find_spec(BOARD) is None:
        raise UserError(
            f"{VARIABLE} is set, but {BOARD} is not installed: pip install -e '.[watch]', or unset "
            "it"
        )


def _plain(value: Any) -> float | str | bool | None:
    """Return a value as JSON has it: numbers as floats, those that are not finite as null."""
    if isinstance(value, str | bool):
        return value
    return float(value) if math.isfinite(value) else None


def _step(line: bytes) -> float:
    """Return the step of a line; infinity where the line is damaged."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, LookupError):
        return float("inf")
