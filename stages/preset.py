"""Presets: published runs, each in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stages import _cli, _own

app = _cli.app(__doc__)


@app.command()
def preset(
    name: Annotated[str | None, typer.Argument(help="The preset; none: list them.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a value. Repeatable."),
    ] = None,
    params: Annotated[Path, typer.Option(help="The file to write.")] = _cli.PARAMS,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is not saved.")] = False,
) -> None:
    """Show what a preset changes and write it to params.yaml."""
    with _cli.refusals("preset"):
        from gnnrl.params import presets

        if name is None:
            for known in presets.names():
                print(f"{known:<32}{presets.title(known)}")
            return
        _own.write(name, overrides or (), params, force)


if __name__ == "__main__":
    app()
