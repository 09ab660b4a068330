"""One table of a sweep: mean and standard deviation, from what DVC shows of its experiments."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stages import _cli

app = _cli.app(__doc__)


@app.command()
def table(
    file: Annotated[
        str, typer.Argument(help="What `dvc exp show --json` printed; -: standard input.")
    ] = "-",
    lines: Annotated[str, typer.Option(help="Parameters that make a line each, with commas.")] = (
        "search.agent,search.weights"
    ),
    columns: Annotated[str, typer.Option(help="The parameter of the columns.")] = (
        "search.budget.sparsity"
    ),
    value: Annotated[str, typer.Option(help="The figure.")] = "evaluate.accuracy",
    percent: Annotated[bool, typer.Option(help="Times a hundred.")] = True,
) -> None:
    """Print a Markdown table; seeds, and all else that is not named, are averaged over.

    dvc exp show --json | python -m stages.table
    """
    with _cli.refusals("table"):
        import json
        from pathlib import Path

        from gnnrl.report import sweep

        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        rows = sweep.experiments(json.loads(text))
        print(sweep.table(rows, lines.split(","), columns, value, percent))


if __name__ == "__main__":
    app()
