"""Train a scheduler on small job graphs and measure it on held-out ones: the second discipline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages import _cli

if TYPE_CHECKING:
    from gnnrl.scheduling.settings import Schedule
    from gnnrl.search.loop import SearchResult

PARAMS = Path("examples/scheduling/params.yaml")
OUTPUT = Path("artifacts/schedule")

app = _cli.app(__doc__)


@app.command()
def schedule(
    params: Annotated[Path, typer.Option(help="The file with the section `schedule`.")] = PARAMS,
    output: Annotated[Path, typer.Option(help="The folder to write to.")] = OUTPUT,
    journal: Annotated[Path | None, typer.Option(help="Folder of a killed training.")] = None,
) -> None:
    """Train the scheduler and compare it with FIFO, critical path, HEFT and the optimum."""
    with _cli.refusals("schedule"):
        from gnnrl.scheduling.report import write_results
        from gnnrl.scheduling.settings import load_settings

        settings = load_settings(params)
        result = train(settings, journal=journal, progress=True)
        for line in write_results(output, settings, result.agent, result.history):
            print(line)


def train(
    settings: Schedule, *, journal: Path | None = None, progress: bool = False
) -> SearchResult:
    """Learn from `episodes` job graphs, each seen once."""
    from gnnrl.scheduling.train import build_agent, build_env
    from gnnrl.search.loop import search

    env = build_env(settings)
    return search(
        env,
        build_agent(settings, env),
        evaluations=settings.episodes,
        batch=settings.batch,
        seed=settings.seed,
        journal=journal,
        progress=progress,
    )


if __name__ == "__main__":
    app()
