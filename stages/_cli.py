"""What the stages share: options, parameters, errors as one sentence, results written whole."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gnnrl.errors import UserError, out_of_memory
from gnnrl.runtime import Ended, end_with_dvc, ended_by_signals, keep_memory, seed_everything

if TYPE_CHECKING:
    from gnnrl.watch import Watch

ParamsFile = Annotated[Path, typer.Option("--params", help="The file with all parameters.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Override a parameter, outside DVC only (there: `dvc exp run -S`). Repeatable.",
    ),
]
Out = Annotated[Path, typer.Option(help="Folder of the results.")]
Pretrain = Annotated[Path, typer.Option(help="Folder of the dense checkpoints.")]
Dense = Annotated[Path, typer.Option(help="Checkpoint of the dense network.")]
Subnet = Annotated[Path, typer.Option(help="Checkpoint of the subnet.")]
Graph = Annotated[Path, typer.Option(help="The network's graph.")]
Plan = Annotated[Path, typer.Option(help="What to keep; beside it the search's students.")]
Front = Annotated[
    float | None,
    typer.Option(
        help="Instead of a search: the plan for this budget, by search.budgets of the last."
    ),
]
PARAMS = Path("params.yaml")
BEGUN = "run the same command again"


def goes_on() -> str:
    """Return what to do to go on where a run was: the exact command, as far as it is known."""
    program, *words = sys.argv
    again = BEGUN
    if os.environ.get("DVC_EXP_NAME"):
        again = "queue or run the experiment again with the same values"
    elif os.environ.get("DVC_STAGE"):
        again = "run `dvc repro` again"
    elif Path(program).parent.name == "stages":
        module = "stages" if Path(program).stem == "__main__" else f"stages.{Path(program).stem}"
        again = f"run `{shlex.join(['python', '-m', module, *words])}`"
    return f"{again} to go on where it was"


READS_AND_WRITES = {
    "pretrain": (
        "data, network, task, pretrain",
        "initial.safetensors, final.safetensors, snapshots",
    ),
    "extract": ("network, extract", "graph.json, coverage.json, graph.png"),
    "search": ("data, network, task, search", "plan.json, agent.pt, evaluations.csv, history.csv"),
    "prune": ("data, network, task, prune", "subnet.safetensors"),
    "train": ("data, network, task, train", "subnet.safetensors, history.csv"),
    "evaluate": ("data, network, task, evaluate", "latency.json, subnet.onnx, subnet.pt2"),
    "report": ("report", "report.html, pictures, summary.json, speed.json, tables for plots"),
}
"""Sections of params.yaml and files of each stage, for its help."""


def described(stage: Callable[..., None]) -> Callable[..., None]:
    """Add to the help of a stage which sections it reads and which files it writes."""
    sections, files = READS_AND_WRITES[stage.__name__]
    stage.__doc__ = (
        f"{stage.__doc__}\n\nReads these sections of params.yaml: {sections}. Writes {files}, its "
        "metrics and settings."
    )
    return stage


def app(help: str | None) -> typer.Typer:
    """Return a command line without completion and without decoration around errors."""
    return typer.Typer(help=help, add_completion=False, pretty_exceptions_enable=False)


@contextmanager
def stage(
    name: str, params: Path, overrides: list[str] | None, out: Path, timed: bool = False
) -> Iterator[SimpleNamespace]:
    """Hand out the sections of stage `name`, once it is clear that `out` can be written to.

    The seed of the stage, where it has one, seeds everything.  timed: it measures how fast
    networks are, with threads as users have them.
    """
    with refusals(name):
        if os.environ.get("DVC_STAGE"):
            end_with_dvc()
        from gnnrl.outputs import recover
        from gnnrl.params import load_params, without_effect
        from gnnrl.scratch import refuse_unwritable
        from gnnrl.watch import refuse_no_board

        if not timed:
            # threads that wait must not spin: two runs on the same cores would take many times as
            # long; but waking them takes longer than a layer of a small network
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        keep_memory()
        sections = load_params(name, params, overrides or ())
        refuse_unwritable(out)
        refuse_no_board()
        recover(out)
        for line in without_effect(sections):
            print(f"{name}: {line}", file=sys.stderr)
        if (seed := getattr(getattr(sections, name, None), "seed", None)) is not None:
            seed_everything(seed)
        yield sections


@contextmanager
def refusals(name: str) -> Iterator[None]:
    """End with one sentence and exit code 1 if anything is wrong, with a line on how to go on
    after a signal.

    GNNRL_TRACEBACK=1 shows where it was raised.
    """
    # torch_geometric asks torch.jit for what the next PyTorch will not have
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    last = f"{name}: ended by a signal; {goes_on()}"
    try:
        with ended_by_signals(last):
            yield
    except Ended as ended:
        print(last, file=sys.stderr)
        raise typer.Exit(ended.code) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if os.environ.get("GNNRL_TRACEBACK"):
            traceback.print_exc()
        print(f"{name}: {_sentence(error)}", file=sys.stderr)
        raise typer.Exit(1) from None


MEMORY = "there is not enough memory: lower the batch sizes or the number of images"
NESTED = "a file is nested too deeply, or the network has too many parts in each other"


def _sentence(error: Exception) -> str:
    """Return the message on one line, with the kind of error where it is not meant for users."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    line = " ".join(text.split())
    if isinstance(error, UserError) and line:
        return line
    remedy = MEMORY if out_of_memory(error) else NESTED if isinstance(error, RecursionError) else ""
    if remedy:
        return f"{remedy} ({type(error).__name__}; GNNRL_TRACEBACK=1 shows where)"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({line}): make room; {goes_on()}"
    return f"{type(error).__name__}: {line[:500]} (GNNRL_TRACEBACK=1 shows where)"


@contextmanager
def results(out: Path, *own: str, settings: SimpleNamespace | None = None) -> Iterator[Path]:
    """Give a folder to write to; when all is written its files replace those in `out` (`replaced`).

    settings: the sections that the stage was handed; they are written as `settings.yaml`, complete.
    own: patterns of files of an earlier run that are removed where they are not written again.
    """
    from gnnrl.files import write_yaml
    from gnnrl.outputs import replaced
    from gnnrl.params import resolved

    with replaced(out, own) as fresh:
        yield fresh
        if settings is not None:
            write_yaml(fresh / "settings.yaml", resolved(vars(settings)))


def closing(name: str, text: str, *files: Path) -> None:
    """Print what a stage did, with its figures, and where the results are."""
    where = ", ".join(str(file) for file in files)
    print(f"{name}: {text} -> {where}", flush=True)


def right(name: str, score: Any, reached: float, file: Path, training: Any = None) -> None:
    """Print the closing line of a stage that leaves a network.

    score: what measured it on reward images, and `reached` there.
    """
    from gnnrl.tasks.base import spoken

    done = "" if training is None else f"{len(training.history)} epochs, "
    metric, figure, images = score.task.metric, f"{100 * reached:.2f} %", len(score.images)
    if metric == "accuracy":
        said = f"right on {figure} of {images} reward images"
    else:
        said = f"{spoken(metric)} {figure} on {images} reward images"
    closing(name, f"{done}{said}", file)


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


@contextmanager
def claimed(name: str, *parts: object) -> Iterator[Path]:
    """Hold the scratch folder of a run of stage `name` that depends on these parts."""
    from gnnrl.scratch import claim

    with claim(name, run_key(*parts)) as scratch:
        yield scratch


def watched(name: str, what: str, seed: int, scratch: Path) -> Watch:
    """Return what writes down the figures of a run while it goes on.

    what: the agent or network, so that people know the run by it.  scratch: its claimed folder.
    """
    from gnnrl.watch import Watch

    return Watch.of(f"{name}-{what}-seed{seed}", scratch.name)


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
