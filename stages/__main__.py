"""All stages under one command: `python -m stages --help`."""

from __future__ import annotations

import importlib

import typer

STAGES = ("pretrain", "extract", "search", "prune", "train", "evaluate", "report")

COMMANDS = (
    *(*STAGES, "compress", "preset", "latency", "schedule"),
    *("table", "similarity", "queue", "workers", "clean"),
)
"""The stages, and the commands outside the pipeline."""

app = typer.Typer(
    help="From images to a smaller, trained network, stage by stage.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def add_stages() -> None:
    """Make each stage, and each command outside the pipeline, a command of the same name."""
    for name in COMMANDS:
        app.command(name)(getattr(importlib.import_module(f"stages.{name}"), name))


if __name__ == "__main__":
    add_stages()
    app(prog_name="python -m stages")
