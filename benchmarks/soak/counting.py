"""Counts of what was tried and what became of it; kept in a file, so that a soak goes on."""

from __future__ import annotations

import csv
import io
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gnnrl.files import atomic_write

SENTENCE = "sentence"
GOOD = (SENTENCE, "harmless", "plan within the budget", "accepted", "equal after the rerun",
        "equal to no workers", "goes on")  # fmt: skip
"""What may become of a trial; everything else is a defect."""
COLUMNS = ("tried", "count", "refused in a sentence", "harmless, valid or equal", "all else")
ORDER = ("kills", "repro", "workers", "damage", "actions", "parameters")  # of parts in a table
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
    def read(cls, path: Path) -> Counts:
        """Return the counts of an earlier soak, which goes on."""
        counts = cls(path)
        counts.take((path,))
        return counts

    def take(self, paths: Sequence[Path]) -> None:
        """Take over what others have counted so far; a lane begins with what was there."""
        for path in paths:
            if not path.exists():
                continue
            for row in csv.DictReader(io.StringIO(path.read_text("utf-8"))):
                key = row["part"], row["tried"], row["outcome"]
                self.found[key] = max(self.found.get(key, 0), int(row["count"]))
                seconds = max(self.seconds.get(row["part"], 0.0), float(row["seconds"]))
                self.seconds[row["part"]] = seconds

    def starting(self, path: Path) -> Counts:
        """Return the same counts, to be written elsewhere."""
        return Counts(path, dict(self.found), dict(self.seconds))

    def write(self) -> None:
        """Write a line for each part, thing tried and outcome."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("part", "tried", "outcome", "count", "seconds"))
        for (part, what, how), count in sorted(self.found.items(), key=_order):
            writer.writerow((part, what, how, count, round(self.seconds.get(part, 0.0))))
        atomic_write(self.path, text.getvalue().encode())

    def of(self, part: str, what: str | None = None) -> int:
        """Return how many trials there were."""
        return sum(n for (p, w, _), n in self.found.items() if p == part and what in (None, w))

    def run(self, part: str, trials: Iterator[Trial], target: int, seconds: float) -> None:
        """Run as many trials as are missing, for so long at most; each starts where it was."""
        until, last = time.monotonic() + seconds, time.monotonic()
        for count, trial in enumerate(itertools.islice(trials, target)):
            if trial.number < self.of(part, trial.what):
                continue  # that one was made by the soak that goes on
            if time.monotonic() > until:
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
        lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        for part, what in dict.fromkeys(
            (p, w) for (p, w, _), _ in sorted(self.found.items(), key=_order)
        ):
            all_, refused = self.of(part, what), self.found.get((part, what, SENTENCE), 0)
            good = sum(self.found.get((part, what, how), 0) for how in GOOD)
            cells = (all_, refused, good - refused, all_ - good)
            lines.append(f"| {what} | {' | '.join(f'{count:,}' for count in cells)} |")
        return "\n".join(lines)


def fill(page: Path, table: str) -> None:
    """Put a table in the place of the one with the same head."""
    lines = page.read_text("utf-8").splitlines()
    head, *_ = table.splitlines()
    begin = lines.index(head)
    end = next((n for n in range(begin, len(lines)) if not lines[n].startswith("|")), len(lines))
    text = "\n".join([*lines[:begin], table, *lines[end:]]) + "\n"
    atomic_write(page, text.encode())


def _order(row: tuple[tuple[str, str, str], int]) -> tuple[int, str]:
    """Sort by part and by what was tried, whichever lane counted it first."""
    (part, what, _), _ = row
    return ORDER.index(part), what
