"""How a long run stands: steps done, rate, best figure so far, time left."""

from __future__ import annotations

import os
import sys

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0


class Progress(tqdm):
    """A bar on a terminal that disappears when it is closed."""

    disable: bool
    monitor_interval = 0  # no monitoring thread: every step reads the clock

    def advance(self, steps: int = 1, best: float | None = None) -> None:
        """Say that `steps` more are done, and the best figure so far."""
        if best is not None:
            self.set_postfix_str(f"best {best:.4f}", refresh=False)
        if self.disable:  # tqdm counts only what it shows
            self.n += steps
        self.update(steps)

    @property
    def done(self) -> int:
        """Steps that are done, with those before this run."""
        return self.n


class Lines(Progress):
    """A line now and then, and one at the end, for a log."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write one line (tqdm's parameters; there is only one place to write it to)."""
        print(self, file=self.fp, flush=True)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.disable = self.disable or kind is not None  # an error has a message of its own
        self.close()

    def close(self) -> None:
        """Write how far it came, unless it failed before its first step."""
        if not self.disable and (self.n > self.initial or self.n >= self.total):
            self.display()
        self.disable = True


def progress(description: str, total: int, *, done: int = 0, visible: bool = True) -> Progress:
    """Return a context manager that shows a bar on a terminal, elsewhere a line every 30 s.

    done: steps that a resumed run has already behind it.  Of no steps nothing is shown;
    GNNRL_PROGRESS=0 silences everything.
    """
    terminal = sys.stderr.isatty()
    shown, pause = (Progress, 0.1) if terminal else (Lines, SECONDS_BETWEEN_LINES)
    return shown(
        desc=description,
        total=total,
        initial=done,
        disable=not visible or total == 0 or os.environ.get("GNNRL_PROGRESS") == "0",
        file=sys.stderr,
        leave=False,
        dynamic_ncols=True,
        delay=0.0 if terminal else pause,
        mininterval=pause,
        miniters=1,
        bar_format=None
        if terminal
        else "{desc}: {n_fmt}/{total_fmt} {rate_fmt} {remaining} left{postfix}",
    )
