"""The pipeline in a folder of its own; its stages are forks of this process, which can be killed.

A fork has PyTorch loaded already, so that a stage starts at once and most kills meet its work.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import gnnrl
from gnnrl.files import read_json, write_json
from gnnrl.runtime import die_with_parent
from gnnrl.scratch import content_key
from gnnrl.search.journal import EVALUATIONS

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "network.name=basic_cnn_eighth",
    "network.input_shape=[1, 19, 19]",
    "data.name=digits",
    "data.reward_images=100",
    "pretrain.recipe.epochs=1",
    "pretrain.snapshots=[]",
    "search.evaluations=4",
    "search.batch=4",
    "search.calibration_images=256",
    "prune.recalibration_images=128",
    "train.recipe.epochs=2",
    "evaluate.latency_rounds=1",
    "evaluate.latency_batches=[1]",
    "evaluate.latency_runtimes=[torch]",
    "report.dpi=40",
)
PATIENCE = 300.0  # seconds after which a stage hangs, where no others want the cores
STEPS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "open")  # events of Python's audit
TIMED = ("latency.json", "report.html")


def slowness() -> float:
    """Return by how much longer things take here, as more processes run than there are cores."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@dataclass
class Running:
    """A stage that runs."""

    pid: int
    said: Path

    def runs(self) -> bool:
        """Whether it has not ended; it is not collected by asking."""
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is None

    def listens(self) -> bool:
        """Whether it has taken over SIGTERM, as a stage does before anything else."""
        path = Path(f"/proc/{self.pid}/status")
        caught = next(x for x in path.read_text().splitlines() if x.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """Return its exit code, negative for a signal; None where it takes longer, and is ended."""
        until = time.monotonic() + seconds * slowness()
        while True:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return None
            time.sleep(0.01)

    def text(self) -> str:
        """Return what it said."""
        return self.said.read_text(encoding="utf-8", errors="replace")


class Pipeline:
    """The stages, the results of an undisturbed run, and what that run took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.artifacts, self.scratch = folder / "artifacts", folder / "scratch"
        self.notes = folder / "undisturbed.json"
        made = self.artifacts
        graph, dense = made / "extract" / "graph.json", made / "pretrain" / "final.safetensors"
        self.words: dict[str, tuple[object, ...]] = {
            "pretrain": (),
            "extract": ("--network", dense),
            "search": ("--pretrain", made / "pretrain", "--graph", graph),
            "prune": (
                *("--pretrain", made / "pretrain", "--graph", graph),
                *("--plan", made / "search" / "plan.json"),
            ),
            "train": ("--subnet", made / "prune" / "subnet.safetensors", "--teacher", dense),
            "evaluate": ("--dense", dense, "--subnet", made / "train" / "subnet.safetensors"),
            "report": ("--artifacts", made),
        }
        self.seconds: dict[str, float] = {}
        self.steps: dict[str, int] = {}
        self.evaluations = 0

    def undisturbed(self) -> None:
        """Run all stages once, and note what each takes: seconds, and changes of files.

        An earlier run of the same code in this folder is taken instead.
        """
        load()
        files = [*sorted(ROOT.glob("gnnrl/**/*.py")), *sorted(ROOT.glob("stages/*.py"))]
        code = content_key(*files, ROOT / "params.yaml", SETTINGS)
        before = read_json(self.notes) if self.notes.exists() else {}
        if before.pop("code", None) == code:
            self.seconds, self.steps = before["seconds"], before["steps"]
            self.evaluations = before["evaluations"]
            load(before["imports"])
            return
        for old in (self.artifacts, self.scratch):
            shutil.rmtree(old, ignore_errors=True)
        for stage in self.words:
            since = time.monotonic()
            running = self.start(stage, self.artifacts / stage, self.scratch)
            if running.wait():
                raise SystemExit(f"{stage} fails undisturbed: {running.text()}")
            self.seconds[stage] = time.monotonic() - since
            self.steps[stage] = int(noted(self.artifacts / stage, "steps"))
            load(noted(self.artifacts / stage, "imports").split())
        self.evaluations = begun(self.artifacts / "search")
        found = {"seconds": self.seconds, "steps": self.steps, "evaluations": self.evaluations}
        imports = sorted(name for name in sys.modules if not name.startswith("__"))
        write_json(self.notes, {"code": code, **found, "imports": imports})

    def copied(self, folder: Path) -> Pipeline:
        """Return a copy whose files may be changed while stages read these here."""
        shutil.rmtree(folder, ignore_errors=True)
        copy = Pipeline(folder)
        shutil.copytree(self.artifacts, copy.artifacts)
        shutil.copytree(self.scratch, copy.scratch)
        return copy

    def start(self, stage: str, out: Path, scratch: Path, die_at: int = 0) -> Running:
        """Start a stage. die_at: at which change of a file it kills itself; 0: at none."""
        notes = _notes(out)
        notes.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        parent = os.getpid()
        before = set(sys.modules)
        running = Running(os.fork(), notes / "said")
        if running.pid:
            return running
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            die_with_parent(parent)
            os.environ |= {"GNNRL_SCRATCH": str(scratch), "GNNRL_PROGRESS": "0"}
            os.environ["OMP_NUM_THREADS"] = "1"
            os.chdir(ROOT)
            said = os.open(running.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            watch_files((str(out), str(scratch)), notes / "steps", die_at)
            watch_evaluations(notes / "begun")
            words = [*map(str, self.words[stage]), "--out", str(out)]
            for setting in SETTINGS:
                words += ["--set", setting]
            importlib.import_module(f"stages.{stage}").app(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException as error:
            print(f"Traceback: {type(error).__name__}: {error}", flush=True)
        finally:
            (notes / "imports").write_text(" ".join(set(sys.modules) - before), encoding="utf-8")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def same(self, stage: str, out: Path) -> bool:
        """Whether results are those of the undisturbed run, but for times."""
        return contents(out) == contents(self.artifacts / stage)


def load(names: Iterable[str] = ()) -> None:
    """Import all of the library, and what stages imported while they ran, for the forks."""
    for module in pkgutil.walk_packages(gnnrl.__path__, "gnnrl."):
        importlib.import_module(module.name)
    for name in names:
        with contextlib.suppress(Exception):  # parts of packages that are no modules of their own
            importlib.import_module(name)


def watch_files(folders: tuple[str, ...], notes: Path, die_at: int) -> None:
    """Count how often a file below the folders is opened, moved or removed; die at one of them."""
    counts = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    done = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal done
        if event in STEPS and str(arguments[0]).startswith(folders):
            done += 1
            os.pwrite(counts, str(done).encode(), 0)
            if done == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def watch_evaluations(notes: Path) -> None:
    """Write a line for every evaluation that begins: what a kill costs is seen by them."""
    from gnnrl.evaluation.one_shot import OneShot

    evaluate: Callable[..., object] = OneShot.evaluate

    def evaluate_noted(self: OneShot, plan: object) -> object:
        with open(notes, "a", encoding="utf-8") as file:
            file.write("1\n")
        return evaluate(self, plan)

    OneShot.evaluate = evaluate_noted  # type: ignore[method-assign, assignment]


def _notes(out: Path) -> Path:
    return out.parent / f"notes-{out.name}"


def noted(out: Path, what: str) -> str:
    """Return what a stage noted of itself."""
    path = _notes(out) / what
    return path.read_text(encoding="utf-8") if path.exists() else "0"


def begun(out: Path) -> int:
    """Return how many evaluations have begun, in all runs of a stage."""
    return noted(out, "begun").count("1")


def written(scratch: Path) -> list[bytes]:
    """Return the lines of all journals."""
    return [line for path in scratch.rglob(EVALUATIONS) for line in path.read_bytes().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files but those with times."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in TIMED]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def left_behind(*folders: Path) -> list[Path]:
    """Return temporary files and folders."""
    found = [path for folder in folders for path in folder.rglob("*")]
    return [p for p in found if p.name in (".new", ".ready") or p.name.endswith((".tmp", ".part"))]
