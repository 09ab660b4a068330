"""The subnet, trained."""

from __future__ import annotations

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
        from gnnrl.training.distillation import Distillation, Objective
        from gnnrl.training.evaluate import RewardScore
        from gnnrl.training.loop import train as fit

        options, task, trust = sections.train, sections.task.build(), sections.network.name
        own, dense = (Checkpoint.load(path, trust) for path in (subnet, teacher))
        own.refuse_other(dense)
        splits = load_data(sections.data, own.input_shape, task.targets)
        taught = Distillation(dense.restore(), settings=options.distillation)
        score = RewardScore(task, splits.reward, taught.teacher)
        parts = (own.digest, dense.digest, splits.train.fingerprint(), own.name, sections.task.name)
        with _cli.claimed("train", *parts, options.model_dump(mode="json")) as scratch:
            network = own.restore()
            training = fit(
                network,
                splits.train,
                options.recipe,
                seed=options.seed,
                objective=Objective(task, taught),
                each_epoch=score.each_epoch,
                zeros=zero_masks(network, own.input_shape, own.plans, own.opaque),
                scratch=scratch,
                visible=_cli.watched("train", trust, options.seed, scratch),
            )
            figures = {score.name: (reached := score(network))}
            with _cli.results(out, settings=sections) as folder:
                own.following(network).save(folder / "subnet.safetensors")
                write_csv(folder / "history.csv", training.history)
                write_json(folder / "metrics.json", {"train": figures})
        _cli.right("train", score, reached, out / "subnet.safetensors", training)


if __name__ == "__main__":
    app()
