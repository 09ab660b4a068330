"""What the stages share: options, parameters, errors as one sentence, results written whole."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import typer

from gnnrl.errors import UserError
from gnnrl.runtime import die_with_parent

ParamsFile = Annotated[Path, typer.Option("--params", help="The file with all parameters.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Override a parameter, outside DVC only (there: `dvc exp run -S`). Repeatable.",
    ),
]
PARAMS = Path("params.yaml")
REFUSED = (ValueError, TypeError, KeyError, OSError)  # bad input; whatever else is a defect


def app(help: str | None) -> typer.Typer:
    """Return a command line without completion and without decoration around errors."""
    return typer.Typer(help=help, add_completion=False, pretty_exceptions_enable=False)


@contextmanager
def stage(name: str, params: Path, overrides: list[str] | None) -> Iterator[SimpleNamespace]:
    """Hand out the sections of stage `name`; whatever is wrong ends in one sentence and exit 1."""
    with refusals(name):
        from gnnrl.params import load_params, without_effect

        if os.environ.get("DVC_STAGE"):
            die_with_parent()
        # threads that wait must not spin: two runs on the same cores would take many times as long
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        sections = load_params(name, params, overrides or ())
        for line in without_effect(sections):
            print(f"{name}: {line}", file=sys.stderr)
        yield sections


@contextmanager
def refusals(name: str) -> Iterator[None]:
    """End with one sentence and exit code 1 if something is wrong with what the user gave.

    GNNRL_TRACEBACK=1 shows where it was raised.
    """
    # torch_geometric asks torch.jit for what the next PyTorch will not have
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    try:
        yield
    except REFUSED as error:
        if os.environ.get("GNNRL_TRACEBACK"):
            traceback.print_exc()
        print(f"{name}: {_sentence(error)}", file=sys.stderr)
        raise typer.Exit(1) from None


def _sentence(error: BaseException) -> str:
    """Return the message on one line, with the kind of error where it is not meant for users."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    line = " ".join(text.split())
    if isinstance(error, UserError) and line:
        return line
    return f"{type(error).__name__}: {line} (GNNRL_TRACEBACK=1 shows where)"


@contextmanager
def results(out: Path, *own: str, settings: SimpleNamespace | None = None) -> Iterator[Path]:
    """Give a folder to write to; when all is written its files replace those in `out`.

    settings: the sections that the stage was handed; they are written as `settings.yaml`, complete.

    If a stage fails or is killed, `out` does not change. Other files in `out` are kept, except
    those of an earlier run that match a pattern of `own` and were not written again.
    """
    from gnnrl.files import write_yaml
    from gnnrl.params import resolved

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as name:
        fresh = Path(name)
        yield fresh
        if settings is not None:
            write_yaml(fresh / "settings.yaml", resolved(vars(settings)))
        written = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
        for path in sorted(written):
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(fresh / path, out / path)
        for old in [path for pattern in own for path in out.glob(pattern)]:
            if old.relative_to(out) not in written:
                old.unlink()


def weights_file(pretrain: Path, weights: str) -> Path:
    """Return the checkpoint of pretraining: initial, final, or the epoch of a snapshot."""
    if weights in ("initial", "final"):
        return pretrain / f"{weights}.safetensors"
    path = pretrain / "snapshots" / f"{weights}.safetensors"
    if not path.exists():
        kept = sorted(int(other.stem) for other in path.parent.glob("*.safetensors"))
        raise UserError(
            f"weights {weights}: there is no snapshot of epoch {weights}, kept are "
            f"{', '.join(map(str, kept)) or 'none'}: add it to pretrain.snapshots"
        )
    return path


def run_key(*parts: object) -> str:
    """Return a digest of what a run depends on: its parts, the user's own code that they name, the
    library's source, its versions."""
    import torch

    import gnnrl
    from gnnrl.registry import own_files
    from gnnrl.runtime import device
    from gnnrl.scratch import content_key

    source = sorted(Path(gnnrl.__file__).parent.rglob("*.py"))
    return content_key(*parts, *own_files(parts), *source, str(torch.__version__), device().type)
