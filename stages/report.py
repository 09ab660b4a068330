"""The page about the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stages import _cli

app = _cli.app(__doc__)


@app.command()
@_cli.described
def report(
    artifacts: Annotated[Path, typer.Option(help="Folder of the results of all stages.")] = Path(
        "artifacts"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("artifacts/report"),
    params: _cli.ParamsFile = _cli.PARAMS,
    overrides: _cli.Overrides = None,
) -> None:
    """Write one self-contained page, and its pictures as files."""
    with _cli.stage("report", params, overrides, out) as sections:
        from gnnrl.files import atomic_write, write_csv, write_json
        from gnnrl.report import contents, drawing, summary
        from gnnrl.report.run import read_run

        run = read_run(artifacts)
        pictures = contents.pictures(run, sections.report.dpi)
        text = contents.render(sections.report.title, run, pictures)
        with _cli.results(out, settings=sections) as folder:
            for picture in pictures:
                atomic_write(folder / f"{picture.name}.png", drawing.png(picture.figure))
            atomic_write(folder / "report.html", text.encode())
            write_json(folder / "summary.json", summary.summary(run))
            write_json(folder / "speed.json", summary.speed(run))
            for name, rows in summary.tables(run).items():
                write_csv(folder / f"{name}.csv", rows)
        _cli.closing("report", contents.headline(run), out / "report.html")


if __name__ == "__main__":
    app()
