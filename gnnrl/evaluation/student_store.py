"""The best students of a search, on disk."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnnrl.checkpoint import Checkpoint
from gnnrl.errors import UserError

STUDENT, REWARD = "student.safetensors", "reward.json"


@dataclass(frozen=True)
class StudentStore:
    """A folder with a folder for each of the best students; several processes may add to it.

    Which ones are kept depends on their rewards only, not on the order in which they come.
    dense: the network that they are subnets of.
    """

    folder: Path
    keep: int
    dense: Checkpoint

    def add(self, digest: str, reward: float, checkpoint: Checkpoint) -> str:
        """Keep a student, if it is one of the best; return the name of its folder."""
        name = digest[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self.folder) as made:
            fresh = Path(made) / name
            fresh.mkdir()
            checkpoint.save(fresh / STUDENT)
            (fresh / REWARD).write_text(json.dumps(reward))
            if not (self.folder / name).exists():
                os.replace(fresh, self.folder / name)
        for other in self.names()[self.keep :]:
            shutil.rmtree(self.folder / other, ignore_errors=True)
        return name

    def names(self) -> list[str]:
        """Folders of the students that are kept, the best first."""
        rewards = dict(self._rewards(self.folder.glob(f"*/{REWARD}")))
        return sorted(rewards, key=lambda name: (-rewards[name], name))

    def table(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of a search by reward, the best first.

        `dir` names the folders that are kept, and is empty for all others.
        """
        kept = set(self.names())
        ordered = sorted(rows, key=lambda row: -row["reward"])
        return [{**row, "dir": row["dir"] if row.get("dir") in kept else ""} for row in ordered]

    def publish(self, out: Path) -> None:
        """Copy what is kept to another folder."""
        for name in self.names():
            (out / name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name / STUDENT, out / name / STUDENT)

    @staticmethod
    def _rewards(paths: Iterable[Path]) -> Iterator[tuple[str, float]]:
        for path in paths:
            if path.parent.name.startswith("."):
                continue
            try:
                yield path.parent.name, float(json.loads(path.read_text()))
            except (FileNotFoundError, ValueError):  # another process is removing it
                continue


def refuse_failure(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise `UserError` where every plan of a search failed."""
    if rows and not any(row["status"] in ("ok", "stopped") for row in rows):
        reasons = Counter(row["status"] for row in rows)
        said = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common(3))
        raise UserError(
            f"none of {len(rows)} plans could be scored ({said}): allow more in search.budget, or "
            "train more gently in search.students"
        )
