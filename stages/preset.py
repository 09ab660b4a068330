"""Presets: published runs, each in one command."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from stages import _cli

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
        write(name, overrides or (), params, force)


def write(name: str, overrides: Sequence[str], params: Path, force: bool) -> None:
    """Show what a preset changes and write it to a file whose content is saved, or with `force`."""
    from gnnrl.errors import UserError
    from gnnrl.files import atomic_write
    from gnnrl.params import presets

    values = presets.preset(name, overrides)
    for line in presets.differences(params, values):
        print(line)
    if params.exists() and not force and not _saved(params):
        raise UserError(
            f"{params} has changes that are neither committed nor a preset's: commit or --force"
        )
    atomic_write(params, presets.text(name, values).encode())
    print(f"wrote {params}: {presets.title(name)}")


def _saved(params: Path) -> bool:
    """Whether the file is as Git has it; where Git does not know, whether it is a preset."""
    from gnnrl.params import presets

    command = ["git", "-C", str(params.parent), "status", "--porcelain", "--", params.name]
    try:
        status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        status = "no Git"
    return not status or presets.is_one(params)


if __name__ == "__main__":
    app()
