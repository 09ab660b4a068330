"""What a search writes down, so that one that was killed ends as if it had not been."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.files import atomic_write
from gnnrl.sealed import opened, read_or_set_aside, sealed, set_aside, write_state

EVALUATIONS = "evaluations.jsonl"
STATE = "search.pt"
AGENTS = "agents"  # a folder


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
        line = json.dumps(sealed({"plan": digest, **evaluation.row()}))
        with open(self.folder / EVALUATIONS, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
        self._known[digest] = evaluation

    def _read(self) -> dict[str, Evaluation]:
        """Return the evaluations that are whole; where others stand, set the file aside."""
        path = self.folder / EVALUATIONS
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
        *written, tail = lines
        known = {line: found for line in written if (found := _evaluation(line)) is not None}
        if tail:  # was being written when the search was killed
            print(f"{path}: the last line is cut short and left out", flush=True)
        if len(known) < len(written):
            aside = set_aside(path)
            print(
                f"{aside}: {len(written) - len(known)} damaged lines are left out; the search "
                f"goes on from the {len(known)} others",
                flush=True,
            )
        if tail or len(known) < len(written):
            atomic_write(path, b"".join(line + b"\n" for line in known))
        return dict(known.values())

    def save(self, state: dict[str, Any]) -> None:
        """Write the state whole or not at all."""
        write_state(self.folder / STATE, {"settings": self.settings, **state})

    def load(self) -> dict[str, Any] | None:
        """Return the last state; None where there is none, or a damaged one, which is set aside:
        the evaluations are enough to come to it again."""
        state = read_or_set_aside(self.folder / STATE)
        if state is None:
            return None
        written = state.pop("settings", None)
        if written != self.settings:
            raise UserError(
                f"the journal {self.folder} is of another search: {written}, got {self.settings} "
                "(remove the folder to start anew)"
            )
        return state


def _evaluation(line: bytes) -> tuple[str, Evaluation] | None:
    """Return a line's plan and evaluation, None where it is damaged."""
    try:
        row = opened(json.loads(line))
        return str(row.pop("plan")), Evaluation.from_row(row)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
