"""The dense network: initialised, loaded or trained."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from stages import _cli

app = _cli.app(__doc__)

AT_CHANCE = (
    "WARNING: the dense network is right on {:.1f} % of {} reward images, no better than guessing: "
    "check data.mean and data.std, network.input_shape, the order of the class folders and the "
    "weights before you go on"
)


@app.command()
def pretrain(
    out: _cli.Out = Path("artifacts/pretrain"),
    params: _cli.ParamsFile = _cli.PARAMS,
    overrides: _cli.Overrides = None,
) -> None:
    """Train the dense network, or take it as its weights are.

    Reads the sections data, network and pretrain. Writes initial.safetensors, final.safetensors,
    snapshots, history.csv, metrics.json and settings.yaml.
    """
    with _cli.stage("pretrain", params, overrides, out) as sections:
        from gnnrl.data.load import load_data
        from gnnrl.files import write_csv, write_json
        from gnnrl.pretraining import keep, starting_point
        from gnnrl.training.evaluate import accuracy, at_chance, reward_accuracy
        from gnnrl.training.loop import train

        options = sections.pretrain
        splits = load_data(sections.data, sections.network.input_shape)
        start = starting_point(sections.network, options, splits.num_classes, splits.reward_from)
        settings = sections.network.name, options.model_dump(mode="json")
        images = splits.train.fingerprint()
        with _cli.claimed("pretrain", start.digest, images, *settings) as scratch:
            network = start.restore()
            training = train(
                network,
                splits.train,
                options.recipe,
                seed=options.seed,
                snapshots=options.snapshots,
                each_epoch=partial(reward_accuracy, splits.reward),
                scratch=scratch,
                visible=True,
            )
            figures = {
                "reward_accuracy": accuracy(network, splits.reward),
                "reward_images": len(splits.reward),
                "reward_images_from": splits.reward_from,
                "train_images": len(splits.train),
            }
            with _cli.results(out, "snapshots/*.safetensors", settings=sections) as folder:
                keep(folder, start, network, training)
                write_csv(folder / "history.csv", training.history)
                write_json(folder / "metrics.json", {"pretrain": figures})
        reached, count = figures["reward_accuracy"], len(splits.reward)
        _cli.closing(
            "pretrain",
            f"{sections.network.name}, {len(training.history)} epochs, right on "
            f"{100 * reached:.2f} % of {count} reward images",
            out / "final.safetensors",
        )
        if at_chance(reached, count, splits.num_classes):
            print(AT_CHANCE.format(100 * reached, count), file=sys.stderr)


if __name__ == "__main__":
    app()
