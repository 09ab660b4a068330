"""The dense network: initialised, loaded or trained."""

from __future__ import annotations

import sys
from pathlib import Path

from stages import _cli

app = _cli.app(__doc__)


@app.command()
@_cli.described
def pretrain(
    out: _cli.Out = Path("artifacts/pretrain"),
    params: _cli.ParamsFile = _cli.PARAMS,
    overrides: _cli.Overrides = None,
) -> None:
    """Train the dense network, or take it as its weights are."""
    with _cli.stage("pretrain", params, overrides, out) as sections:
        from gnnrl.data.load import load_data
        from gnnrl.files import write_csv, write_json
        from gnnrl.pretrained import dense_checkpoint, keep, no_better_than_chance
        from gnnrl.tasks.check import refuse_misfit
        from gnnrl.training.distillation import Objective
        from gnnrl.training.evaluate import RewardScore
        from gnnrl.training.loop import train

        options, task = sections.pretrain, sections.task.build()
        splits = load_data(sections.data, sections.network.input_shape, task.targets)
        start = dense_checkpoint(sections.network, options, splits)
        score, names = RewardScore(task, splits.reward), (sections.network.name, sections.task.name)
        parts = (start.digest, splits.train.fingerprint(), *names)
        with _cli.claimed("pretrain", *parts, options.model_dump(mode="json")) as scratch:
            network = start.restore()
            refuse_misfit(task, network, splits.reward)
            training = train(
                network,
                splits.train,
                options.recipe,
                seed=options.seed,
                objective=Objective(task),
                snapshots=options.snapshots,
                each_epoch=score.each_epoch,
                scratch=scratch,
                visible=_cli.watched("pretrain", sections.network.name, options.seed, scratch),
            )
            figures = {score.name: (reached := score(network)), **splits.figures()}
            with _cli.results(out, "snapshots/*.safetensors", settings=sections) as folder:
                keep(folder, start, network, training)
                write_csv(folder / "history.csv", training.history)
                write_json(folder / "metrics.json", {"pretrain": figures})
        _cli.right("pretrain", score, reached, out / "final.safetensors", training)
        if warning := no_better_than_chance(reached, splits.reward.labels, task.metric):
            print(f"pretrain: {warning}", file=sys.stderr)


if __name__ == "__main__":
    app()
