"""A sweep of experiments as one table: mean and standard deviation over whatever is not named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from gnnrl.errors import UserError

FINISHED = ("success", None)


def experiments(shown: Any) -> pd.DataFrame:
    """Return a row per experiment of `dvc exp show --json`: parameters, metrics and `name`.

    Experiments that failed or wait are left out: DVC shows the metrics of their parent for them.
    Where there is no experiment at all, the workspace is the one row.
    """
    if not isinstance(shown, list) or not all(isinstance(state, Mapping) for state in shown):
        raise UserError("this is not what `dvc exp show --json` prints: expected a list of commits")
    found = [
        (experiment["revs"][0], experiment.get("name"))
        for state in shown
        for experiment in state.get("experiments") or ()
        if (experiment.get("executor") or {}).get("state") in FINISHED and experiment.get("revs")
    ]
    rows = [_row(state["data"], name) for state, name in found if state.get("data")]
    if not rows:
        rows = [_row(state["data"], "workspace") for state in shown[:1] if state.get("data")]
    if not rows:
        raise UserError("there is no finished experiment; run `dvc queue start`, or add -A or -n 9")
    return pd.DataFrame(rows, dtype=object)


def _row(data: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    files = [file for kind in ("params", "metrics") for file in (data.get(kind) or {}).values()]
    row: dict[str, Any] = {"name": name}
    for flat in (pd.json_normalize(file.get("data") or {}) for file in files):
        row |= {str(key): flat[key].iloc[0] for key in flat}
    return row


def table(
    rows: pd.DataFrame, lines: Sequence[str], columns: str, value: str, percent: bool = False
) -> str:
    """Return Markdown: a line for each value of the keys `lines`, a column for each of `columns`.

    A cell holds mean ± standard deviation of `value` and the number of experiments.
    """
    for key in (*lines, columns, value):
        if key not in rows:
            known = sorted(rows)
            near = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
            raise UserError(f"no experiment has {key!r}; {_known(near or known)}")
    rows = rows[pd.to_numeric(rows[value], errors="coerce").notna()]
    keys = [rows[key].map(str) for key in (*lines, columns)]
    cells = rows[value].astype(float).groupby(keys).agg(_cell, percent=percent)
    across = sorted(keys[-1].unique(), key=_order)
    down = sorted(set(zip(*keys[:-1], strict=True)), key=lambda line: [_order(key) for key in line])
    head = [*lines, *(f"{columns.rpartition('.')[2]} {column}" for column in across)]
    return markdown(head, [[*line, *(cells.get((*line, c), "") for c in across)] for line in down])


def _cell(numbers: pd.Series, percent: bool) -> str:
    scaled, digits = (100 * numbers, 2) if percent else (numbers, 4)
    spread = f" ± {scaled.std():.{digits}f}" if len(numbers) > 1 else ""
    return f"{scaled.mean():.{digits}f}{spread} ({len(numbers)})"


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown from the texts of its cells."""
    every = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in every)


def _order(text: str) -> tuple[int, float, str]:
    """Numbers in their order, then texts."""
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text


def _known(names: Sequence[str]) -> str:
    some = ", ".join(names[:12])
    return f"known are {some}{' …' if len(names) > 12 else ''}"
