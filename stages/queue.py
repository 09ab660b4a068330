"""Many experiments by one command, with numbered names: NAME-1, NAME-2 ..."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import _cli

app = _cli.app(__doc__)


@app.command()
def queue(
    name: Annotated[str, typer.Argument(help="What the experiments are called.")],
    values: Annotated[
        list[str],
        typer.Option("-S", "--set-param", metavar="SECTION.KEY=VALUE[,VALUE...]", help="As DVC."),
    ],
    first: Annotated[int, typer.Option(min=1, help="The first number.")] = 1,
    show: Annotated[bool, typer.Option("--show", help="Print the experiments only.")] = False,
) -> None:
    """Queue one experiment of DVC for every combination of values; `dvc queue start` runs them.

    The last key named changes fastest, so that numbers can be told.
    """
    with _cli.refusals("queue"):
        from stages import _dvc

        every = _dvc.combinations(values)
        width = len(str(first + len(every) - 1))
        for number, chosen in enumerate(every, first):
            numbered = f"{name}-{number:0{width}}"
            print(f"{numbered}: {' '.join(chosen)}", flush=True)
            if not show:
                words = [word for value in chosen for word in ("-S", value)]
                _dvc.run("exp", "run", "--queue", "-n", numbered, *words)


if __name__ == "__main__":
    app()
