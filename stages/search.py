"""The search for what to keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from stages import _cli

app = _cli.app(__doc__)


@app.command()
def search(
    pretrain: Annotated[Path, typer.Option(help="Folder of the dense checkpoints.")] = Path(
        "artifacts/pretrain"
    ),
    graph: Annotated[Path, typer.Option(help="The network's graph.")] = Path(
        "artifacts/extract/graph.json"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("artifacts/search"),
    params: _cli.ParamsFile = _cli.PARAMS,
    overrides: _cli.Overrides = None,
) -> None:
    """Search the graph for the best plan within the budget; a killed search continues."""
    with _cli.stage("search", params, overrides) as sections:
        from gnnrl.checkpoint import Checkpoint
        from gnnrl.data.calibration import labelled_images
        from gnnrl.data.load import load_data
        from gnnrl.files import user_path
        from gnnrl.graph.graph import ComputationalGraph
        from gnnrl.runtime import device, seed_everything
        from gnnrl.scratch import claim
        from gnnrl.search import loop, results
        from gnnrl.search.parallel.ray import ray_workers
        from gnnrl.search.parallel.workers import RaySettings
        from gnnrl.search.recipe import SearchRecipe
        from gnnrl.search.rescoring import price, rescored

        options = sections.search
        seed_everything(options.seed)
        checkpoint = Checkpoint.load(_cli.weights_file(pretrain, options.weights))
        initial = None
        if options.criterion == "magnitude_sign":
            initial = Checkpoint.load(pretrain / "initial.safetensors")
        splits = load_data(sections.data, checkpoint.input_shape)
        recipe = SearchRecipe(
            checkpoint,
            ComputationalGraph.load(graph),
            splits.reward,
            splits.train,
            options.seed,
            options.task_parameters(),
            options.agent,
            options.agent_parameters(),
            agent_from=user_path(options.agent_from) if options.agent_from else None,
            initial=initial,
        )
        images = splits.reward.fingerprint(), splits.train.fingerprint()
        files = [
            graph,
            *(user_path(name) for name in (options.latency_table, options.agent_from) if name),
        ]
        given = checkpoint.name, options.resolved()
        key = _cli.run_key(checkpoint.digest, *images, *files, *given)
        with claim("search", key) as journal:
            if before := results.evaluated_before(journal):
                print(f"search goes on after {before} evaluated plans", flush=True)
            if options.students is not None:
                recipe = replace(recipe, students=journal / "students")
            env = recipe.env()
            again = options.rescore
            settings = None if options.ray is None else RaySettings(**dict(options.ray))
            with ray_workers(recipe, settings) as workers:
                found = loop.search(
                    env,
                    recipe.agent(env),
                    evaluations=options.evaluations
                    - (0 if again is None else price(**dict(again))),
                    batch=options.batch,
                    seed=options.seed,
                    leaders=1 if again is None else again.plans,
                    journal=journal,
                    progress=True,
                    workers=workers,
                )
            if again is not None:
                more = labelled_images(splits.train, again.images, options.seed, device())
                found = rescored(found, env.evaluate, *more)
            with _cli.results(out, "students/*/*.safetensors", settings=sections) as folder:
                results.save(folder, env, found)


if __name__ == "__main__":
    app()
