"""Dense network against subnet, on test images that no other stage reads."""

from __future__ import annotations

import sys
from pathlib import Path

from stages import _cli

app = _cli.app(__doc__)


@app.command()
@_cli.described
def evaluate(
    dense: _cli.Dense = Path("artifacts/pretrain/final.safetensors"),
    subnet: _cli.Subnet = Path("artifacts/train/subnet.safetensors"),
    out: _cli.Out = Path("artifacts/evaluate"),
    params: _cli.ParamsFile = _cli.PARAMS,
    overrides: _cli.Overrides = None,
) -> None:
    """Measure accuracy, costs and latency of both, and export the subnet."""
    with _cli.stage("evaluate", params, overrides, out, timed=True) as sections:
        from gnnrl.checkpoint import Checkpoint
        from gnnrl.data.load import load_data
        from gnnrl.files import atomic_write, write_json
        from gnnrl.measurement import comparison
        from gnnrl.measurement.export import LOADING, files_of, require_onnx
        from gnnrl.runtime import device

        require_onnx()
        options, task = sections.evaluate, sections.task.build()
        files = {"dense": dense, "subnet": subnet}
        trust = sections.network.name
        checkpoints = {name: Checkpoint.load(path, trust) for name, path in files.items()}
        checkpoints["subnet"].refuse_other(checkpoints["dense"])
        shape = checkpoints["subnet"].input_shape
        splits = load_data(sections.data, shape, task.targets)
        networks = {name: c.restore().to(device()) for name, c in checkpoints.items()}
        opaque = checkpoints["subnet"].opaque
        size = options.batch_size
        figures = comparison.figures(networks, files, shape, splits.test, size, opaque, task)
        figures |= comparison.on_all_test_images(networks["dense"], splits, size, task)
        figures |= {"test_images": len(splits.test), "reward_images_from": splits.reward_from}
        latency = comparison.latency(networks, shape, options)
        sys.stderr.writelines(f"evaluate: {line}\n" for line in latency["warnings"])
        own = ("subnet*.onnx", "subnet*.pt2", "int8.json")
        with _cli.results(out, *own, settings=sections) as folder:
            write_json(folder / "metrics.json", {"evaluate": figures})
            write_json(folder / "latency.json", latency)
        _cli.closing("evaluate", comparison.sentence(figures, latency), out / "metrics.json")
        exported = files_of(networks["subnet"], shape, splits, options, task)  # it may fail
        with _cli.results(out) as folder:
            for name, data in exported.items():
                atomic_write(folder / name, data)
        print(LOADING.format(folder=out, shape=tuple(shape)))


if __name__ == "__main__":
    app()
