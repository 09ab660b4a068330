"""The scratch folder: what killed and finished runs have left there, listed or removed."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import _cli

app = _cli.app(__doc__)


@app.command()
def clean(
    everything: Annotated[
        bool, typer.Option("--all", help="Remove also what could go on or be used again.")
    ] = False,
    only_list: Annotated[bool, typer.Option("--list", help="Remove nothing.")] = False,
) -> None:
    """Remove the folders of finished runs from .gnnrl (or $GNNRL_SCRATCH) and say what is left.

    Runs that were killed, cached calibrations and the figures of runs are kept without --all; what
    a running process holds is always kept.
    """
    with _cli.refusals("clean"):
        from gnnrl.scratch import kept_runs, remove_run, scratch_root

        freed = 0
        for run in kept_runs():
            wanted = not only_list and (run.state == "finished" or everything)
            gone = wanted and remove_run(run)
            freed += run.size if gone else 0
            print(
                f"{run.name:<42}{run.size / 2**20:>9.1f} MB {run.days:>6.1f} days  "
                f"{'removed' if gone else run.state}"
            )
        _cli.closing("clean", f"{freed / 2**20:.1f} MB removed", scratch_root())


if __name__ == "__main__":
    app()
