"""Results of a stage are the earlier ones or the new ones, whenever it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gnnrl.errors import UserError
from gnnrl.files import atomic_write
from gnnrl.outputs import DIGESTS, recover, refuse_changed, replaced

KILLED_AT_EVERY_STEP = """
import os, signal, sys
from pathlib import Path
from gnnrl.outputs import replaced

STEPS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "open")

def write(out, text, names):
    with replaced(out, ("*.dat",)) as folder:
        for name in names:
            (folder / name).write_text(text)

def kill_at(step, out):
    done = 0
    def hook(event, arguments):
        nonlocal done
        if event in STEPS and str(out) in str(arguments[0]):
            done += 1
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

for step in range(1, 1000):
    out = Path(sys.argv[1]) / str(step)
    write(out, "old", ("a", "b.dat"))
    child = os.fork()
    if not child:
        kill_at(step, out)
        write(out, "new", ("a", "c.dat"))
        os._exit(0)
    if not os.waitpid(child, 0)[1]:
        break
"""


WRITTEN_AND_KILLED = """
import os, signal, sys
from gnnrl.files import atomic_write
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
atomic_write(sys.argv[1], b"new")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills")
def test_what_a_kill_leaves_of_a_file_is_removed_when_it_is_written_again(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_bytes(b"old")
    (tmp_path / ".params.yaml.mine.tmp").write_bytes(b"of somebody else")
    subprocess.run([sys.executable, "-c", WRITTEN_AND_KILLED, file])
    assert file.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 3
    atomic_write(file, b"newer")
    assert file.read_bytes() == b"newer"
    assert {path.name for path in tmp_path.iterdir()} == {file.name, ".params.yaml.mine.tmp"}


def contents(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir() if p.name != DIGESTS}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_kill_at_any_step_leaves_the_earlier_results_or_the_new_ones(tmp_path, monkeypatch):
    env = {**os.environ, "GNNRL_SCRATCH": str(tmp_path / "scratch")}
    subprocess.run([sys.executable, "-c", KILLED_AT_EVERY_STEP, tmp_path], env=env, check=True)
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path / "scratch"))
    outs = sorted((p for p in tmp_path.iterdir() if p.name != "scratch"), key=lambda p: int(p.name))
    found = []
    for out in outs:
        recover(out)
        found.append(contents(out))
        for path in out.iterdir():
            refuse_changed(path)
    old, new = {"a": "old", "b.dat": "old"}, {"a": "new", "c.dat": "new"}
    kept = found.count(old)
    assert found == [old] * kept + [new] * (len(found) - kept)
    assert kept >= 8 and len(found) - kept >= 8


def test_results_may_stand_on_another_disk_behind_a_link(tmp_path):
    disk = tmp_path.stat().st_dev
    places = (Path("/dev/shm"), Path(__file__).parent)  # the second where tmp_path is in memory
    others = [p for p in places if os.access(p, os.W_OK) and p.stat().st_dev != disk]
    if not others:
        pytest.skip("there is no other file system that can be written to")
    with tempfile.TemporaryDirectory(dir=others[0]) as there:
        (tmp_path / "out").symlink_to(there)
        with replaced(tmp_path / "out") as folder:
            (folder / "plan.json").write_text("1")
        assert (tmp_path / "out").is_symlink() and contents(Path(there)) == {"plan.json": "1"}


def test_a_changed_or_missing_result_is_refused(tmp_path):
    with replaced(tmp_path / "out") as folder:
        for name in ("history.csv", "metrics.json"):
            (folder / name).write_text("1,2,3\n")
    file, other = (tmp_path / "out" / name for name in ("history.csv", "metrics.json"))
    refuse_changed(file)
    file.write_text("1,2,4\n")
    with pytest.raises(UserError, match="does not match its digest"):
        refuse_changed(file)
    file.unlink()
    with pytest.raises(UserError, match="missing"):
        refuse_changed(file)
    digests = tmp_path / "out" / DIGESTS
    digests.write_text(digests.read_text().replace("a", "b", 1))
    with pytest.raises(UserError, match=DIGESTS):
        refuse_changed(other)
    digests.unlink()
    refuse_changed(other)


def test_results_written_in_two_parts_have_the_digests_of_both(tmp_path):
    for name in ("metrics.json", "subnet.onnx"):
        with replaced(tmp_path) as folder:
            (folder / name).write_text(name)
    for name in ("metrics.json", "subnet.onnx"):
        (tmp_path / name).write_text("other")
        with pytest.raises(UserError, match="does not match"):
            refuse_changed(tmp_path / name)
