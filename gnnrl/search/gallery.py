"""The best students of a search, on disk."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gnnrl.checkpoint import Checkpoint

STUDENT, REWARD = "student.safetensors", "reward.json"


@dataclass(frozen=True)
class Gallery:
    """A folder with a folder for each of the best students; several processes may add to it.

    Which ones stay depends on their rewards only, not on the order in which they come.
    """

    folder: Path
    keep: int

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

    def publish(self, out: Path) -> None:
        """Copy what is kept to another folder."""
        for name in self.names():
            (out / name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name / STUDENT, out / name / STUDENT)

    @staticmethod
    def _rewards(paths: Iterable[Path]) -> Iterable[tuple[str, float]]:
        for path in paths:
            if path.parent.name.startswith("."):
                continue
            try:
                yield path.parent.name, float(json.loads(path.read_text()))
            except (FileNotFoundError, ValueError):  # another process is removing it
                continue
