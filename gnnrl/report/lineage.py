"""Which figures of an experiment are its own.

DVC shows the figures of its parent for stages that an experiment did not run.  `dvc.lock` of the
experiment knows better: it holds the parameters and the inputs that each stage last ran with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Listing = Callable[[str], Mapping[str, str] | None]
"""From the hash of a folder to the hashes of its files by path; None where it is not known."""

CACHE = Path(".dvc/cache/files/md5")


def own_stages(lock: Any, params: Mapping[str, Any], listing: Listing) -> set[str]:
    """Return the stages that ran with these parameters, on what the stages before them wrote.

    lock: content of dvc.lock.  params: content of params.yaml, both of the same experiment.
    """
    entries: Mapping[str, Any] = (lock or {}).get("stages", {})
    written = {out["path"]: name for name, entry in entries.items() for out in entry["outs"]}
    known: dict[str, bool] = {}

    def own(name: str) -> bool:
        if name not in known:
            entry = entries[name]
            ran_with = entry.get("params", {}).get("params.yaml", {})
            known[name] = _plain(ran_with) == _plain({key: params.get(key) for key in ran_with})
            known[name] = known[name] and all(read(dep) for dep in entry["deps"])
        return known[name]

    def read(dep: Mapping[str, Any]) -> bool:
        """Whether a dep is what its stage wrote; what no stage writes cannot be old."""
        parents = [dep["path"], *(str(path) for path in Path(dep["path"]).parents)]
        out = next((path for path in parents if path in written), None)
        if out is None:
            return True
        (wrote,) = (o["md5"] for o in entries[written[out]]["outs"] if o["path"] == out)
        if out != dep["path"]:
            files = listing(wrote)
            wrote = "" if files is None else files.get(dep["path"].removeprefix(f"{out}/"), "")
        return bool(wrote == dep["md5"]) and own(written[out])

    return {name for name in entries if own(name)}


def stage_of(path: str, lock: Any) -> str | None:
    """Return the stage that wrote the file at `path`; None where none did."""
    for name, entry in (lock or {}).get("stages", {}).items():
        if any(path == out["path"] or path.startswith(f"{out['path']}/") for out in entry["outs"]):
            return str(name)
    return None


def cached_listing(digest: str) -> Mapping[str, str] | None:
    """Return the files of a folder in DVC's cache."""
    path = CACHE / digest[:2] / digest[2:]
    try:
        return {file["relpath"]: file["md5"] for file in json.loads(path.read_text())}
    except (OSError, ValueError):
        return None


def _plain(value: Any) -> Any:
    """Return parameters so that equal ones are equal, however DVC and YAML write numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    try:
        return value if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return value
