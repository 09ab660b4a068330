"""A sweep of experiments as one table, with the figures that each experiment computed itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stages import _cli, _dvc

app = _cli.app(__doc__)


@app.command()
def table(
    file: Annotated[
        str | None, typer.Argument(help="What `dvc exp show --json` printed; -: standard input.")
    ] = None,
    lines: Annotated[
        str | None,
        typer.Option(help="Parameters that make a line each, with commas; else all that differ."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="A parameter whose values make a column each.")
    ] = None,
    value: Annotated[
        str | None, typer.Option(help="The figures, with commas; one where --columns is given.")
    ] = None,
    percent: Annotated[bool, typer.Option(help="With --columns: times 100.")] = False,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the first figure against flops kept to this file.")
    ] = None,
) -> None:
    """Print a Markdown table of mean and standard deviation over seeds, and paired tests.

    Without FILE it asks `dvc exp show`. Figures that an experiment shows but did not compute, since
    DVC repeats those of its parent, are left out.
    """
    with _cli.refusals("table"):
        from gnnrl.files import atomic_write
        from gnnrl.report import drawing, sweep

        rows = sweep.experiments(_dvc.shown(file), _dvc.Lineage().computed)
        differ, _ = sweep.varying(rows)
        wanted = differ if lines is None else lines.split(",")
        figures = [] if value is None else value.split(",")
        first = next(iter(figures or sweep.figures_of(rows)), "evaluate.accuracy")
        if columns is not None:
            wanted = [name for name in wanted if name != columns]
            print(sweep.table(rows, wanted, columns, first, percent))
        else:
            print(sweep.comparison(rows, wanted, figures))
        if picture is not None:
            points = sweep.points(rows, wanted, first)
            atomic_write(picture, drawing.png(drawing.draw_points(points, first)))


if __name__ == "__main__":
    app()
