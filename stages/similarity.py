"""How alike the plans of several searches are, as a matrix: a table and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stages import _cli

app = _cli.app(__doc__)


@app.command()
def similarity(
    plans: Annotated[list[Path], typer.Argument(help="Plans of one network, two or more.")],
    graph: _cli.Graph = Path("artifacts/extract/graph.json"),
    out: Annotated[Path, typer.Option(help="The table to write.")] = Path("similarity.csv"),
    picture: Annotated[Path | None, typer.Option(help="Draw the matrix to this file.")] = None,
) -> None:
    """Compare what plans keep: in how far seeds, criteria or agents choose the same channels.

    A plan is named by its file; by its folder, as far as folders differ, where files have the same
    name; by both where folders repeat, too.
    """
    with _cli.refusals("similarity"):
        from gnnrl.errors import UserError
        from gnnrl.files import atomic_write, write_csv
        from gnnrl.graph.graph import ComputationalGraph
        from gnnrl.pruning.plan import PruningPlan
        from gnnrl.report import drawing
        from gnnrl.report.similarity import by_chance, names_of, rows, similarities

        if len(plans) < 2:
            raise UserError(f"got {len(plans)} plan, expected two or more: name their files")
        read = ComputationalGraph.load(graph)
        loaded = [PruningPlan.load(plan, read.digest) for plan in plans]
        names = names_of(plans)
        found, chance = similarities(read, loaded), by_chance(read, loaded)
        write_csv(out, rows(names, found))
        if picture is not None:
            atomic_write(picture, drawing.png(drawing.draw_matrix(found, names, chance)))
        mean = (found.sum() - len(found)) / (len(found) * (len(found) - 1))
        print(f"similarity: {len(plans)} plans, mean {mean:.3f}, by chance {chance:.3f} -> {out}")


if __name__ == "__main__":
    app()
