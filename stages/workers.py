"""Queue workers for all GPUs of this machine: `dvc exp run --queue`, then this."""

from __future__ import annotations

from typing import Annotated

import typer

from stages import _cli

app = _cli.app(__doc__)


@app.command()
def workers(
    each: Annotated[int, typer.Option(min=1, help="Workers for each GPU.")] = 1,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="Cores to divide; else those this process may use.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the queue is empty.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the commands only.")] = False,
) -> None:
    """Start DVC's queue workers: one for each visible GPU, each with its share of the cores.

    CUDA_VISIBLE_DEVICES says which GPUs are used; without a GPU there is one worker.
    """
    with _cli.refusals("workers"):
        from stages import _dvc

        plan = _dvc.workers(_dvc.visible_devices(), each, cpus or _dvc.usable_cores())
        for number, settings in enumerate(plan, 1):
            words = " ".join(f"{name}={value}" for name, value in settings.items())
            print(f"{words} dvc queue start -j {number}", flush=True)
            if not show:  # -j counts those that run: each call adds one, with its own settings
                _dvc.run("queue", "start", "-j", str(number), settings=settings)
        if wait and not show:
            left = _dvc.wait_for_the_queue()
            print(f"workers: the queue is empty, {left} experiments failed")


if __name__ == "__main__":
    app()
