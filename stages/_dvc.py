"""What DVC and Git know of experiments, asked by their commands."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any


def shown(file: str | None) -> Any:
    """Return what `dvc exp show --json` prints: from a file, standard input (-), or DVC itself."""
    from gnnrl.errors import UserError

    text = ""
    if file not in (None, "-"):
        text = Path(str(file)).read_text(encoding="utf-8")
    elif file == "-" or not sys.stdin.isatty():
        text = sys.stdin.read()
    if not text.strip() and file is None:
        command = [sys.executable, "-m", "dvc", "exp", "show", "--json"]
        text = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
    try:
        return json.loads(text)
    except ValueError:
        source = "DVC" if file is None else file
        raise UserError(
            f"{source} gave no JSON ({text[:40].strip()!r}): expected what `dvc exp show --json` "
            "prints"
        ) from None


class Lineage:
    """Which figures of a revision are its own."""

    def computed(self, revision: str, path: str) -> bool:
        """Whether a revision computed a file itself; true where Git does not know it."""
        lock, own = self._read(revision)
        from gnnrl.report.lineage import stage_of

        stage = stage_of(path, lock)
        return own is None or stage is None or stage in own

    @cache  # noqa: B019  (one object for one command)
    def _read(self, revision: str) -> tuple[Any, set[str] | None]:
        import yaml

        from gnnrl.report.lineage import cached_listing, own_stages

        texts = [self._file(revision, name) for name in ("dvc.lock", "params.yaml")]
        if None in texts:
            print(f"table: it is not known which figures of {revision} are its own; all are shown",
                  file=sys.stderr)  # fmt: skip
            return None, None
        lock, params = (yaml.safe_load(text or "") for text in texts)
        return lock, own_stages(lock, params, cached_listing)

    def _file(self, revision: str, name: str) -> str | None:
        if revision == "workspace":
            return Path(name).read_text(encoding="utf-8") if Path(name).exists() else None
        command = ["git", "show", f"{revision}:./{name}"]
        found = subprocess.run(command, capture_output=True, text=True)
        return None if found.returncode else found.stdout
