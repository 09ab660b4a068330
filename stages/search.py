"""The search for what to keep."""

from __future__ import annotations

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
    """Search the graph for the best plan within the budget; a killed search goes on."""
    with _cli.stage("search", params, overrides) as sections:
        from gnnrl.calibration import labelled_images
        from gnnrl.checkpoint import Checkpoint
        from gnnrl.data.load import DataRecipe, load_data
        from gnnrl.graph.graph import ComputationalGraph
        from gnnrl.runtime import claim, device, seed_everything, user_path
        from gnnrl.search import loop, task
        from gnnrl.search.agents.build import build_agent
        from gnnrl.search.agents.transfer import adopt
        from gnnrl.search.rescoring import price, rescored

        options = sections.search
        seed_everything(options.seed)
        checkpoint = Checkpoint.load(_cli.weights_file(pretrain, options.weights))
        initial = None
        if options.criterion == "magnitude_sign":
            initial = Checkpoint.load(pretrain / "initial.safetensors").restore()
        splits = load_data(DataRecipe(**dict(sections.data)), checkpoint.input_shape)
        env = task.pruning_task(
            checkpoint.restore(),
            ComputationalGraph.load(graph),
            splits.reward,
            splits.train,
            seed=options.seed,
            initial=initial,
            dense=checkpoint,
            **options.task_parameters(),
        )
        agent = build_agent(options.agent, env, seed=options.seed, **options.agent_parameters())
        if options.agent_from is not None:
            adopt(agent, user_path(options.agent_from))
        images = splits.reward.fingerprint(), splits.train.fingerprint()
        files = [
            graph,
            *(user_path(name) for name in (options.latency_table, options.agent_from) if name),
        ]
        settings = checkpoint.name, options.model_dump(mode="json")
        key = _cli.run_key(checkpoint.digest, *images, *files, *settings)
        with claim("search", key) as journal:
            if before := task.evaluated_before(journal):
                print(f"search goes on after {before} evaluated plans", flush=True)
            if options.students is not None:
                env.evaluate.keep_in(journal / "students")
            again = options.rescore
            found = loop.search(
                env,
                agent,
                evaluations=options.evaluations - (0 if again is None else price(**dict(again))),
                batch=options.batch,
                seed=options.seed,
                leaders=1 if again is None else again.plans,
                journal=journal,
                progress=True,
            )
            if again is not None:
                more = labelled_images(splits.train, again.images, options.seed, device())
                found = rescored(found, env.evaluate, *more)
            with _cli.results(out, "students/*/*.safetensors") as folder:
                task.save(folder, env, found)


if __name__ == "__main__":
    app()
