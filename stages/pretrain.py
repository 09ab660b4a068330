"""The dense network: initialised, loaded or trained."""

from __future__ import annotations

import sys
from functools import partial
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
        from gnnrl.pretrained import keep, no_better_than_chance, starting_point
        from gnnrl.training.evaluate import accuracy, reward_accuracy
        from gnnrl.training.loop import train
        from gnnrl.watch import Watch

        options = sections.pretrain
        splits = load_data(sections.data, sections.network.input_shape)
        name, shape = sections.network.name, sections.network.input_shape
        given = options.weights, options.sha256
        start = starting_point(name, splits.num_classes, shape, *given, splits.reward_from)
        parts = (start.digest, splits.train.fingerprint(), sections.network.name)
        with _cli.claimed("pretrain", *parts, options.model_dump(mode="json")) as scratch:
            network = start.restore()
            training = train(
                network,
                splits.train,
                options.recipe,
                seed=options.seed,
                snapshots=options.snapshots,
                each_epoch=partial(reward_accuracy, splits.reward),
                scratch=scratch,
                visible=Watch.of(f"pretrain-{name}-seed{options.seed}", scratch.name),
            )
            reached = accuracy(network, splits.reward)
            figures = {"reward_accuracy": reached, **splits.figures()}
            with _cli.results(out, "snapshots/*.safetensors", settings=sections) as folder:
                keep(folder, start, network, training)
                write_csv(folder / "history.csv", training.history)
                write_json(folder / "metrics.json", {"pretrain": figures})
        _cli.right("pretrain", figures, splits.reward, out / "final.safetensors", training)
        if warning := no_better_than_chance(reached, splits.reward.labels):
            print(f"pretrain: {warning}", file=sys.stderr)


if __name__ == "__main__":
    app()
