"""What a search writes down, so that one that was killed ends as if it had not been."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.files import atomic_write, write_torch

EVALUATIONS = "evaluations.jsonl"
STATE = "search.pt"


class Journal:
    """A folder with every evaluation as soon as it is known, and the state after every update.

    A kill costs at most the evaluation that was running: the episodes of the unfinished batch are
    played again from the last state, and their evaluations are found here.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """settings: what the search was called with; a folder of another search is refused."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.settings = folder, settings
        self._known = self._read()

    def known(self, digest: str) -> Evaluation | None:
        """Return the evaluation of a plan written down earlier, by this run or one killed."""
        return self._known.get(digest)

    def add(self, digest: str, evaluation: Evaluation) -> None:
        """Write an evaluation down; it is on the disk when this returns."""
        line = json.dumps({"plan": digest, **evaluation.row()})
        with open(self.folder / EVALUATIONS, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
        self._known[digest] = evaluation

    def _read(self) -> dict[str, Evaluation]:
        path = self.folder / EVALUATIONS
        if not path.exists():
            return {}
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # the last line was being written when the search was killed
            atomic_write(path, whole.encode())
        rows = [json.loads(line) for line in whole.splitlines()]
        return {row.pop("plan"): Evaluation.from_row(row) for row in rows}

    def save(self, state: dict[str, Any]) -> None:
        """Write the state whole or not at all."""
        write_torch(self.folder / STATE, {"settings": self.settings, **state})

    def load(self) -> dict[str, Any] | None:
        """Return the last state, None where there is none."""
        path = self.folder / STATE
        if not path.exists():
            return None
        state = torch.load(path, weights_only=True)
        written = state.pop("settings")
        if written != self.settings:
            raise UserError(
                f"the journal {self.folder} is of another search: {written}, got {self.settings} "
                "(remove the folder to start anew)"
            )
        return state
