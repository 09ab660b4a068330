"""A sweep of experiments as one table: mean and standard deviation over whatever is not named."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gnnrl.errors import UserError

FINISHED = ("success", None)


def experiments(shown: Any) -> list[dict[str, Any]]:
    """Flat rows of what `dvc exp show --json` prints: parameters, metrics, `name`.

    Experiments that failed or wait are left out: DVC shows the metrics of their parent for them.
    Where there is no experiment at all, the workspace is the one row.
    """
    if not isinstance(shown, list) or not all(isinstance(state, Mapping) for state in shown):
        raise UserError("this is not what `dvc exp show --json` prints: expected a list of commits")
    rows = []
    for state in shown:
        for experiment in state.get("experiments") or ():
            executor = experiment.get("executor") or {}
            revisions = experiment.get("revs") or ()
            if executor.get("state") in FINISHED and revisions:
                rows += _row(revisions[0], experiment.get("name"))
    if not rows:
        rows = [row for state in shown[:1] for row in _row(state, "workspace")]
    if not rows:
        raise UserError("there is no finished experiment; run `dvc queue start`, or add -A or -n 9")
    return rows


def _row(state: Mapping[str, Any], name: Any) -> Iterator[dict[str, Any]]:
    data = state.get("data")
    if not data:
        return
    row: dict[str, Any] = {"name": name}
    for kind in ("params", "metrics"):
        for file in (data.get(kind) or {}).values():
            row.update(_flat(file.get("data") or {}))
    yield row


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def table(
    rows: Iterable[Mapping[str, Any]],
    lines: Sequence[str],
    columns: str,
    value: str,
    percent: bool = False,
) -> str:
    """Markdown: a line for each value of the keys `lines`, a column for each of `columns`.

    A cell holds mean ± standard deviation of `value` and the number of experiments.
    """
    rows = list(rows)
    for key in (*lines, columns, value):
        if not any(key in row for row in rows):
            known = sorted({name for row in rows for name in row})
            near = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
            raise UserError(f"no experiment has {key!r}; {_known(near or known)}")
    cells: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in rows:
        number = row.get(value)
        if isinstance(number, int | float):
            line = tuple(str(row.get(key)) for key in lines)
            cells.setdefault(line, {}).setdefault(str(row.get(columns)), []).append(float(number))
    across = sorted({column for line in cells.values() for column in line}, key=_order)
    head = [*lines, *(f"{columns.rpartition('.')[2]} {column}" for column in across)]
    text = [_line(head), _line(["---"] * len(head))]
    for line in sorted(cells, key=lambda key: [_order(part) for part in key]):
        found = [_cell(cells[line].get(column, []), percent) for column in across]
        text.append(_line([*line, *found]))
    return "\n".join(text)


def _cell(numbers: Sequence[float], percent: bool) -> str:
    if not numbers:
        return ""
    factor, digits = (100.0, 2) if percent else (1.0, 4)
    mean = factor * statistics.fmean(numbers)
    if len(numbers) == 1:
        return f"{mean:.{digits}f} (1)"
    spread = factor * statistics.stdev(numbers)
    return f"{mean:.{digits}f} ± {spread:.{digits}f} ({len(numbers)})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _order(text: str) -> tuple[int, float, str]:
    """Numbers in their order, then texts."""
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text


def _known(names: Sequence[str]) -> str:
    some = ", ".join(names[:12])
    return f"known are {some}{' …' if len(names) > 12 else ''}"
