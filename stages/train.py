"""The subnet, trained."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stages import _cli

app = _cli.app(__doc__)


@app.command()
def train(
    subnet: Annotated[Path, typer.Option(help="Checkpoint of the cut network.")] = Path(
        "artifacts/prune/subnet.safetensors"
    ),
    teacher: Annotated[Path, typer.Option(help="Checkpoint of the dense network.")] = Path(
        "artifacts/pretrain/final.safetensors"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("artifacts/train"),
    params: _cli.ParamsFile = _cli.PARAMS,
    overrides: _cli.Overrides = None,
) -> None:
    """Train the subnet, with the dense network as teacher if asked for.

    Reads the sections data, network and train. Writes subnet.safetensors, history.csv,
    metrics.json and settings.yaml.
    """
    with _cli.stage("train", params, overrides, out) as sections:
        from gnnrl.checkpoint import Checkpoint
        from gnnrl.data.load import load_data
        from gnnrl.files import write_csv, write_json
        from gnnrl.pruning.sparsity import zero_masks
        from gnnrl.runtime import seed_everything
        from gnnrl.scratch import claim
        from gnnrl.training.distillation import Distillation
        from gnnrl.training.evaluate import accuracy, reward_accuracy
        from gnnrl.training.loop import train as fit

        options = sections.train
        trust = sections.network.name
        checkpoint, dense = Checkpoint.load(subnet, trust), Checkpoint.load(teacher, trust)
        checkpoint.refuse_other(dense)
        splits = load_data(sections.data, checkpoint.input_shape)
        seed_everything(options.seed)
        taught = Distillation(dense.restore(), settings=options.distillation)
        images = splits.train.fingerprint()
        settings = checkpoint.name, options.model_dump(mode="json")
        key = _cli.run_key(checkpoint.digest, dense.digest, images, *settings)
        with claim("train", key) as scratch:
            network = checkpoint.restore()
            training = fit(
                network,
                splits.train,
                options.recipe,
                seed=options.seed,
                distillation=taught if taught.active else None,
                each_epoch=partial(reward_accuracy, splits.reward),
                zeros=zero_masks(
                    network, checkpoint.input_shape, checkpoint.plans, checkpoint.opaque
                ),
                scratch=scratch,
                visible=True,
            )
            figures = {"reward_accuracy": accuracy(network, splits.reward)}
            with _cli.results(out, settings=sections) as folder:
                checkpoint.following(network).save(folder / "subnet.safetensors")
                write_csv(folder / "history.csv", training.history)
                write_json(folder / "metrics.json", {"train": figures})
        _cli.closing(
            "train",
            f"{len(training.history)} epochs, right on {100 * figures['reward_accuracy']:.2f} % of "
            f"{len(splits.reward)} reward images",
            out / "subnet.safetensors",
        )


if __name__ == "__main__":
    app()
