"""A sweep of experiments as one table: mean and standard deviation over whatever is not named."""

# an experiment is a row: its parameters, its figures and its name

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from gnnrl.errors import UserError

FINISHED = ("success", None)
PARAMETERS = "parameters"
"""Key of a table's attributes: the columns that are parameters."""
FIGURES = ("evaluate.flops_kept", "speed", "gain", "search.reward")
"""Shown behind the task's metric, unless others are asked for."""
METRIC = "evaluate.metric"
"""Holds the name of the task's metric where it is not accuracy."""

Computed = Callable[[str, str], bool]
"""Whether a revision has computed the file of figures at a path itself."""


def experiments(shown: Any, computed: Computed = lambda revision, path: True) -> pd.DataFrame:
    """Return a row per experiment of `dvc exp show --json`: parameters, metrics and `name`.

    Experiments that failed or wait are left out, and so are files of figures that an experiment
    has not computed: DVC shows those of its parent for them.
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
    found = [(state, name) for state, name in found if state.get("data")]
    if not found:
        found = [(state, "workspace") for state in shown[:1] if state.get("data")]
    if not found:
        raise UserError("there is no finished experiment; run `dvc queue start`, or add -A or -n 9")
    parameters, rows = [], []
    for state, name in found:
        given = _flat((state["data"].get("params") or {}).values())
        files = (state["data"].get("metrics") or {}).items()
        own = [file for path, file in files if computed(state.get("rev", "workspace"), path)]
        parameters += [key for key in given if key not in parameters]
        rows.append({"name": name, **_flat(own), **given})  # some figures are named like settings
    table = pd.DataFrame(rows, dtype=object)
    table.attrs[PARAMETERS] = parameters
    return table


def _flat(files: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for flat in (pd.json_normalize(file.get("data") or {}) for file in files):
        row |= {str(key): flat[key].iloc[0] for key in flat}
    return row


def varying(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return which parameters differ between experiments: those that are no seeds, and seeds."""
    found = [key for key in rows.attrs[PARAMETERS] if rows[key].map(str).nunique() > 1]
    seeds = [key for key in found if key.rpartition(".")[2] == "seed"]
    return [key for key in found if key not in seeds], seeds


def comparison(rows: pd.DataFrame, lines: Sequence[str], figures: Sequence[str] = ()) -> str:
    """Return Markdown: a line for each setting, with mean ± standard deviation of the figures.

    lines: the parameters that differ, without seeds.  Below the table stands, for each figure that
    several seeds have, a paired t-test of every setting against the first one with the best mean.
    """
    shown = list(figures) or figures_of(rows)
    _refuse_unknown(rows, [*lines, *shown])
    keys = [rows[key].map(str) for key in lines] or [rows["name"].map(str)]
    groups = {key if isinstance(key, tuple) else (key,): part for key, part in rows.groupby(keys)}
    order = sorted(groups, key=lambda line: [_order(key) for key in line])
    cells = [
        [*line, *(_known_spread(groups[line][key]) for key in shown), str(len(groups[line]))]
        for line in order
    ]
    named = [_short(key, [*lines, *shown]) for key in (*(lines or ["name"]), *shown)]
    tests = [text for key in shown for text in paired(rows, groups, key)]
    return "\n".join([markdown([*named, "n"], cells), *([""] if tests else []), *tests])


def figures_of(rows: pd.DataFrame) -> list[str]:
    """Return the figures that are shown unless others are asked for, as far as they are there."""
    own = rows[METRIC].dropna().unique() if METRIC in rows else ()
    wanted = [*(f"evaluate.{metric}" for metric in ("accuracy", *own)), *FIGURES]
    return [key for key in wanted if key in rows and rows[key].notna().any()]


def paired(rows: pd.DataFrame, groups: Mapping[tuple[str, ...], pd.DataFrame], figure: str) -> list:
    """Return a sentence for each setting that shares at least two seeds with the best one."""
    from scipy import stats

    _, seeds = varying(rows)
    numbers = {
        line: pd.to_numeric(part.set_index(seeds)[figure], errors="coerce").dropna()
        for line, part in groups.items()
        if seeds
    }
    numbers = {line: part[~part.index.duplicated()] for line, part in numbers.items() if len(part)}
    if not numbers:
        return []
    best = max(numbers, key=lambda line: numbers[line].mean())
    said = []
    for line, part in numbers.items():
        both = pd.concat([part, numbers[best]], axis=1, join="inner").to_numpy(float)
        gaps = both[:, 0] - both[:, 1]
        if line == best or len(gaps) < 2 or not gaps.std() > 0:
            continue
        p = stats.ttest_rel(both[:, 0], both[:, 1]).pvalue
        gap = round(gaps.mean(), 4) + 0.0  # not minus zero
        said.append(
            f"{figure}: {', '.join(line)} against {', '.join(best)} {gap:+.4f} ± "
            f"{gaps.std(ddof=1):.4f} over {len(gaps)} seeds, p = {p:.2g} (paired t-test)"
        )
    return said


def points(
    rows: pd.DataFrame, lines: Sequence[str], figure: str
) -> dict[str, list[tuple[float, float]]]:
    """Return flops kept and a figure of every experiment, by what its setting is called."""
    cost = "evaluate.flops_kept" if "evaluate.flops_kept" in rows else "search.flops_kept"
    _refuse_unknown(rows, [*lines, figure, cost])
    found: dict[str, list[tuple[float, float]]] = {}
    for _, row in rows[rows[figure].notna() & rows[cost].notna()].iterrows():
        name = ", ".join(f"{_short(key, lines)} {row[key]}" for key in lines) or str(row["name"])
        found.setdefault(name, []).append((float(row[cost]), float(row[figure])))
    if not found:
        raise UserError(f"no experiment has computed {figure} and {cost}: there is nothing to draw")
    return found


def _known_spread(numbers: pd.Series) -> str:
    """Return mean ± standard deviation, with the number of values where some are missing."""
    there = pd.to_numeric(numbers, errors="coerce").dropna()
    return spread(there) + (f" ({len(there)})" if 0 < len(there) < len(numbers) else "")


def _short(key: str, keys: Sequence[str]) -> str:
    """Return the end of a name, as much of it as no other name ends with."""
    parts = key.split(".")
    ends = [".".join(parts[at:]) for at in reversed(range(len(parts)))]
    alone = (e for e in ends if sum(k == e or k.endswith(f".{e}") for k in keys) <= 1)
    return next(alone, key)


def table(
    rows: pd.DataFrame, lines: Sequence[str], columns: str, value: str, percent: bool = False
) -> str:
    """Return Markdown: a line for each value of the keys `lines`, a column for each of `columns`.

    A cell holds mean ± standard deviation of `value` and the number of experiments.
    """
    _refuse_unknown(rows, [*lines, columns, value])
    rows = rows[pd.to_numeric(rows[value], errors="coerce").notna()]
    keys = [rows[key].map(str) for key in (*lines, columns)]
    cells = rows[value].astype(float).groupby(keys).agg(_cell, percent=percent)
    across = sorted(keys[-1].unique(), key=_order)
    down = sorted(set(zip(*keys[:-1], strict=True)), key=lambda line: [_order(key) for key in line])
    head = [*lines, *(f"{columns.rpartition('.')[2]} {column}" for column in across)]
    return markdown(head, [[*line, *(cells.get((*line, c), "") for c in across)] for line in down])


def _refuse_unknown(rows: pd.DataFrame, keys: Iterable[str]) -> None:
    for key in keys:
        if key not in rows:
            known = sorted(rows)
            near = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
            raise UserError(f"no experiment has {key!r}; {_known(near or known)}")


def _cell(numbers: pd.Series, percent: bool) -> str:
    said = spread(100 * numbers, 2) if percent else spread(numbers)
    return f"{said} ({len(numbers)})"


def spread(numbers: pd.Series, digits: int = 4, ddof: int = 1) -> str:
    """Return mean ± standard deviation, the latter where there are several numbers."""
    if not len(numbers):
        return ""
    deviation = f" ± {numbers.std(ddof=ddof):.{digits}f}" if len(numbers) > 1 else ""
    return f"{numbers.mean():.{digits}f}{deviation}"


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
