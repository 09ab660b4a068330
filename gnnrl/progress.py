"""How a long run stands: rate, best so far, time left."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Counts steps and shows how it stands: rate, best so far, time left."""

    def __init__(self, total: int, done: int, show: Callable[[Progress], None]) -> None:
        self.total, self.done, self.show = total, done, show
        self.first, self.started, self.best = done, time.monotonic(), ""

    def advance(self, steps: int = 1, best: float | None = None) -> None:
        """Say that `steps` more are done, and the best figure so far."""
        self.done += steps
        self.best = self.best if best is None else f"best {best:.4f}"
        self.show(self)

    @property
    def rate(self) -> float:
        """Steps per second of this run (without those a resumed run began with)."""
        return (self.done - self.first) / max(time.monotonic() - self.started, 1e-9)


@contextlib.contextmanager
def progress(
    description: str, total: int, *, done: int = 0, visible: bool = True
) -> Iterator[Progress]:
    """Show a bar on a terminal; elsewhere nothing, or with GNNRL_PROGRESS=1 a line now and then.

    done: steps that a resumed run already has behind it.  GNNRL_PROGRESS=0 silences everything.
    """
    wish = os.environ.get("GNNRL_PROGRESS", "")
    if not visible or wish == "0" or not (wish or sys.stderr.isatty()):
        yield Progress(total, done, lambda state: None)
    elif sys.stderr.isatty():
        with _bar(description, total, done) as show:
            yield Progress(total, done, show)
    else:
        yield Progress(total, done, _lines(description))


def _lines(description: str) -> Callable[[Progress], None]:
    spoken = time.monotonic()

    def show(state: Progress) -> None:
        nonlocal spoken
        now = time.monotonic()
        if now - spoken < SECONDS_BETWEEN_LINES and state.done < state.total:
            return
        spoken = now
        left = (state.total - state.done) / max(state.rate, 1e-9)
        figures = f"{state.rate:.2f}/s {state.best} {left:.0f} s left"
        print(f"{description}: {state.done}/{state.total} {figures}", file=sys.stderr, flush=True)

    return show


@contextlib.contextmanager
def _bar(description: str, total: int, done: int) -> Iterator[Callable[[Progress], None]]:
    from rich import progress as rich
    from rich.console import Console

    columns = "{task.description}", "{task.fields[rate]}", "{task.fields[best]}"
    name, rate, best = (rich.TextColumn(text) for text in columns)
    shown = (
        name,
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rate,
        best,
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*shown, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(description, total=total, completed=done, rate="", best="")
        yield lambda state: bars.update(
            task, completed=state.done, rate=f"{state.rate:.2f}/s", best=state.best
        )
