"""Counts of what was tried and what became of it; kept in a file, so that a soak goes on."""

from __future__ import annotations

import csv
import io
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gnnrl.files import atomic_write

GOOD = ("sentence", "harmless", "plan within the budget", "accepted", "equal after the rerun",
        "equal to no workers", "goes on")  # fmt: skip
"""What may become of a trial; everything else is a defect."""
EACH = 500  # trials after which quick ones are written down


@dataclass(frozen=True)
class Trial:
    """One thing to try. number: which of its kind, from which its random numbers are drawn."""

    what: str
    number: int
    run: Callable[[], str]


@dataclass
class Counts:
    """How often what became of what; written to `path` as it grows."""

    path: Path
    found: dict[tuple[str, str, str], int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, parts: tuple[str, ...]) -> Counts:
        """Return the counts of an earlier soak, of the parts that are to go on."""
        counts = cls(path)
        rows = csv.DictReader(io.StringIO(path.read_text("utf-8"))) if path.exists() else ()
        for row in rows:
            if row["part"] in parts:
                counts.found[row["part"], row["tried"], row["outcome"]] = int(row["count"])
                counts.seconds[row["part"]] = float(row["seconds"])
        return counts

    def write(self) -> None:
        """Write a line for each part, thing tried and outcome."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("part", "tried", "outcome", "count", "seconds"))
        for (part, what, how), count in self.found.items():
            writer.writerow((part, what, how, count, round(self.seconds.get(part, 0.0))))
        atomic_write(self.path, text.getvalue().encode())

    def of(self, part: str, what: str | None = None) -> int:
        """Return how many trials there were."""
        return sum(n for (p, w, _), n in self.found.items() if p == part and what in (None, w))

    def run(self, part: str, trials: Iterator[Trial], target: int, seconds: float) -> None:
        """Run as many trials as are missing, for so long at most; each starts where it was."""
        until, last = time.monotonic() + seconds, time.monotonic()
        for count in itertools.count(self.of(part)):
            if count >= target or time.monotonic() > until:
                break
            trial = next(trials, None)
            while trial is not None and trial.number < self.of(part, trial.what):
                trial = next(trials, None)  # that one was made by the soak that goes on
            if trial is None:
                break
            how = trial.run()
            key = part, trial.what, how
            self.found[key] = self.found.get(key, 0) + 1
            if how not in GOOD:
                print(f"{trial.what} {trial.number}: {how}", file=sys.stderr, flush=True)
            now = time.monotonic()
            self.seconds[part] = self.seconds.get(part, 0.0) + now - last
            if now - last > 0.5 or count % EACH == 0:
                self.write()
            last = now
        self.write()

    @property
    def defects(self) -> int:
        """How many trials went wrong."""
        return sum(count for (_, _, how), count in self.found.items() if how not in GOOD)

    def table(self) -> str:
        """Return a Markdown table: a line for each thing tried."""
        kinds = list(dict.fromkeys(how for _, _, how in self.found))
        lines = ["| tried | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
        for part, what in dict.fromkeys((part, what) for part, what, _ in self.found):
            cells = (f"{self.found.get((part, what, how), 0):,}" for how in kinds)
            lines.append(f"| {what} | " + " | ".join(cells) + " |")
        return "\n".join(lines)
