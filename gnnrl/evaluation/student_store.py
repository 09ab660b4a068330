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
from gnnrl.pruning.plan import PruningPlan

STUDENT, REWARD = "student.safetensors", "reward.json"
STUDENTS = "students"
"""Folder of the best students in the results of a search."""


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
        name = self.put(digest, reward, checkpoint)
        for other in self.names()[self.keep :]:
            shutil.rmtree(self.folder / other, ignore_errors=True)
        return name

    def put(self, digest: str, reward: float, checkpoint: Checkpoint) -> str:
        """Keep a student, whatever its reward; return the name of its folder."""
        name = folder_of(digest)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self.folder) as made:
            fresh = Path(made) / name
            fresh.mkdir()
            checkpoint.save(fresh / STUDENT)
            (fresh / REWARD).write_text(json.dumps(reward))
            if not (self.folder / name).exists():
                os.replace(fresh, self.folder / name)
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


def folder_of(digest: str) -> str:
    """Return the name of the folder of a plan's student."""
    return digest[:16]


def kept_student(results: Path, dense: Checkpoint, plan: PruningPlan) -> Checkpoint:
    """Return the trained student of a plan from the results of the search that found it.

    Raises `UserError` where it was not kept, and where it is none of the dense network.
    """
    path = results / STUDENTS / folder_of(plan.digest) / STUDENT
    if not path.is_file():
        raise UserError(
            f"{path}: only the students of the search's best plans are kept, and this plan is none "
            "of them: take the search's plan.json, or set prune.weights to final"
        )
    student = Checkpoint.load(path, dense.name)
    student.refuse_other(dense)
    if student.plans != (*dense.plans, plan.to_json()):
        raise UserError(f"{path}: it is the student of another plan: search again")
    return student


def refuse_failure(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise `UserError` where every plan of a search failed."""
    if rows and not any(row["status"] in ("ok", "stopped") for row in rows):
        reasons = Counter(row["status"] for row in rows)
        said = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common(3))
        raise UserError(
            f"none of {len(rows)} plans could be scored ({said}): allow more in search.budget, "
            "train more gently in search.students, or lower search.reward.at_least"
        )
