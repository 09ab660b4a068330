"""The subnet, trained."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from stages import _cli

app = _cli.app(__doc__)


@app.command()
@_cli.described
def train(
    subnet: _cli.Subnet = Path("artifacts/prune/subnet.safetensors"),
    teacher: _cli.Dense = Path("artifacts/pretrain/final.safetensors"),
    out: _cli.Out = Path("artifacts/train"),
    params: _cli.ParamsFile = _cli.PARAMS,
    overrides: _cli.Overrides = None,
) -> None:
    """Train the subnet, with the dense network as teacher if asked for."""
    with _cli.stage("train", params, overrides, out) as sections:
        from gnnrl.checkpoint import Checkpoint
        from gnnrl.data.load import load_data
        from gnnrl.files import write_csv, write_json
        from gnnrl.pruning.sparsity import zero_masks
        from gnnrl.training.distillation import Distillation
        from gnnrl.training.evaluate import accuracy, reward_accuracy
        from gnnrl.training.loop import train as fit

        options, trust = sections.train, sections.network.name
        checkpoint, dense = (Checkpoint.load(path, trust) for path in (subnet, teacher))
        checkpoint.refuse_other(dense)
        splits = load_data(sections.data, checkpoint.input_shape)
        taught = Distillation(dense.restore(), settings=options.distillation)
        parts = (checkpoint.digest, dense.digest, splits.train.fingerprint(), checkpoint.name)
        with _cli.claimed("train", *parts, options.model_dump(mode="json")) as scratch:
            network, own = checkpoint.restore(), checkpoint
            training = fit(
                network,
                splits.train,
                options.recipe,
                seed=options.seed,
                distillation=taught if taught.active else None,
                each_epoch=partial(reward_accuracy, splits.reward),
                zeros=zero_masks(network, own.input_shape, own.plans, own.opaque),
                scratch=scratch,
                visible=True,
            )
            figures = {"reward_accuracy": accuracy(network, splits.reward)}
            with _cli.results(out, settings=sections) as folder:
                checkpoint.following(network).save(folder / "subnet.safetensors")
                write_csv(folder / "history.csv", training.history)
                write_json(folder / "metrics.json", {"train": figures})
        _cli.right("train", figures, splits.reward, out / "subnet.safetensors", training)


if __name__ == "__main__":
    app()
