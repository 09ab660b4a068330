"""The rows of benchmarks/dvc.yaml in one file, and their table.

    cd benchmarks && dvc repro table

Only the cells that benchmarks/params.yaml lists are taken: one that was taken off the list leaves
its folder behind.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import yaml

from benchmarks.pruning_table import table

FOLDER = Path("benchmarks")
AXES = ("network", "budget", "method", "seed")


def keys(cells: dict[str, list[object]]) -> Iterator[str]:
    """Yield the name of every cell, as DVC's matrix makes it."""
    for values in itertools.product(*(cells[axis] for axis in AXES)):
        yield "-".join(map(str, values))


def rows(folder: Path, cells: dict[str, list[object]]) -> pd.DataFrame:
    """Return the rows of all cells that are listed."""
    return pd.concat([pd.read_csv(folder / "cells" / key / "rows.csv") for key in keys(cells)])


def main() -> None:
    cells = yaml.safe_load((FOLDER / "params.yaml").read_text(encoding="utf-8"))["cells"]
    found = rows(FOLDER, cells)
    found.to_csv(FOLDER / "cells.csv", index=False, lineterminator="\n")
    (FOLDER / "cells.md").write_text(f"{table(found, cells['method'][0])}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
