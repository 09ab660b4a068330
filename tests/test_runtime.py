from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gnnrl import files, runtime, scratch
from gnnrl.errors import UserError


def test_generators_depend_on_seed_and_purpose_only():
    def draw(seed: int, name: str) -> float:
        return torch.rand(1, generator=runtime.generator(seed, name)).item()

    assert draw(1, "split") == draw(1, "split")
    assert len({draw(1, "split"), draw(2, "split"), draw(1, "order")}) == 3


def test_seed_everything_repeats_the_global_streams():
    runtime.seed_everything(3)
    first = torch.rand(4)
    runtime.seed_everything(3)
    assert torch.equal(first, torch.rand(4))
    torch.use_deterministic_algorithms(False)


def test_a_process_that_keeps_its_memory_gets_no_new_pages_for_large_tensors():
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the GNU C library alone has these options")
    code = """
import resource, torch
from gnnrl.runtime import keep_memory

def anew() -> int:
    for turn in range(20):  # the first ones find their places
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**24)  # 64 MB
        pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return pages * resource.getpagesize()

first = anew()
assert keep_memory()
print(first, anew())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, kept = map(int, found.stdout.split())
    assert first > 2**25 and kept < 2**20


def test_the_device_can_be_set_and_a_wrong_one_is_refused(monkeypatch):
    monkeypatch.setenv("GNNRL_DEVICE", "cpu")
    assert runtime.device() == torch.device("cpu")
    monkeypatch.setenv("GNNRL_DEVICE", "toaster")
    with pytest.raises(UserError, match="toaster"):
        runtime.device()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "below" / "file.bin"
    files.atomic_write(path, b"old")

    def broken(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        files.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_user_paths_are_expanded_and_stand_in_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("IMAGES", "digits")
    assert files.user_path("data/$IMAGES") == tmp_path / "data" / "digits"
    assert files.user_path("/data") == Path("/data")
    with pytest.raises(UserError, match=r"\$NOWHERE_AT_ALL"):
        files.user_path("$NOWHERE_AT_ALL/data")


def test_json_and_csv_are_plain_and_complete(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": 0.1, "a": 2})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": 0.1,\n  "a": 2\n}\n'
    files.write_csv(tmp_path / "a.csv", [{"epoch": 1}, {"epoch": 2, "loss": 0.25}])
    assert (tmp_path / "a.csv").read_bytes() == b"epoch,loss\n1,\n2,0.25\n"


def test_the_content_key_follows_content_not_place(tmp_path):
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
    keys = [scratch.content_key(tmp_path / name, {"seed": 1}) for name in "abc"]
    assert keys[0] == keys[1] != keys[2]
    assert keys[0] != scratch.content_key(tmp_path / "a", {"seed": 2})


def test_a_claim_keeps_its_folder_until_another_run_of_its_kind_has_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path))
    with pytest.raises(RuntimeError), scratch.claim("search", "key") as folder:
        (folder / "state").write_text("half")
        raise RuntimeError
    with scratch.claim("search", "key") as folder:
        assert (folder / "state").read_text() == "half"
    assert (folder / "state").exists()  # DVC may be killed before it has written its lock file
    with scratch.claim("search", "other"):
        assert folder.exists()
    with scratch.claim("train", "third"):
        pass
    assert {path.name for path in (tmp_path / "search").iterdir()} == {"other"}


def test_a_claim_leaves_what_a_killed_run_can_go_on_from_for_a_month(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path))
    for name, age in (("killed", 1), ("abandoned", 40)):
        with pytest.raises(RuntimeError), scratch.claim("search", name) as folder:
            raise RuntimeError
        then = time.time() - age * 24 * 3600
        os.utime(folder, (then, then))
    with scratch.claim("search", "key"):
        pass
    folders = {path.name for path in (tmp_path / "search").iterdir() if path.is_dir()}
    assert folders == {"killed", "key"}


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is no folder"):
        scratch.refuse_unwritable(tmp_path / "file" / "out")
    monkeypatch.setattr(scratch.os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match="cannot be written to"):
        scratch.refuse_unwritable(tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr(scratch, "ROOM", 2**80)
    with pytest.raises(UserError, match="make room"):
        scratch.refuse_unwritable(tmp_path / "out")


def test_scratch_stands_in_the_users_checkout_when_dvc_runs_elsewhere(tmp_path, monkeypatch):
    monkeypatch.delenv("GNNRL_SCRATCH", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert scratch.scratch_root() == tmp_path / ".gnnrl"


def test_a_claim_is_exclusive_and_names_its_holder(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNRL_SCRATCH", str(tmp_path))
    refused = "from gnnrl.scratch import claim\nwith claim('search', 'key'): pass"
    with scratch.claim("search", "key"):
        second = subprocess.run([sys.executable, "-c", refused], capture_output=True, text=True)
    assert f"pid {os.getpid()}" in second.stderr.splitlines()[-1]


def _start_a_child(queue: multiprocessing.Queue, early: bool) -> None:
    code = (
        "import os, sys, time, gnnrl.runtime as r\n"
        "parent, early = map(int, sys.argv[1:])\nprint(1, flush=True)\n"
        "while early and os.getppid() == parent: time.sleep(0.01)\n"
        "r.die_with_parent(parent)\nprint(1, flush=True)\ntime.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(os.getpid()), str(int(early))]
    child = subprocess.Popen(words, stdout=subprocess.PIPE)
    for _ in range(1 if early else 2):
        child.stdout.readline()
    queue.put(child.pid)
    time.sleep(60)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it does nothing")
@pytest.mark.parametrize("early", [False, True], ids=["afterwards", "before it asks for that"])
def test_a_child_dies_with_its_parent_whenever_that_ends(early):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    parent = context.Process(target=_start_a_child, args=(queue, early))
    parent.start()
    child = queue.get(timeout=30)
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    assert _gone(child)


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not _alive(pid)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("after", ["", "; true"], ids=["exec", "a shell between"])
@pytest.mark.parametrize("early", [False, True], ids=["afterwards", "before the stage asks"])
def test_a_stage_ends_with_dvc_under_any_shell(after, early):
    watch = "r.end_with_dvc(); "
    stage = (
        f"import os, sys, time, gnnrl.runtime as r; {'' if early else watch}"
        f"print(os.getpid(), flush=True); sys.stdin.read(); {watch}time.sleep(60)"
    )
    dvc = f"import subprocess; subprocess.run(['sh', '-c', '{{}} -c \"{stage}\"{after}'])"
    parent = subprocess.Popen(
        [sys.executable, "-c", dvc.format(sys.executable)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert early or _gone(child)
    parent.stdin.close()
    assert _gone(child)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_stage_with_a_line_on_how_to_go_on(number):
    code = (
        "import sys, time, typer\nfrom stages import _cli\n"
        "try:\n    with _cli.refusals('search'):\n        print(1, flush=True)\n"
        "        time.sleep(60)\nexcept typer.Exit as end:\n    sys.exit(end.exit_code)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert said == "search: ended by a signal; run the same command again to go on where it was\n"
    assert process.returncode == 128 + number


def test_a_process_that_does_not_end_on_a_signal_is_ended():
    code = (
        "import time, gnnrl.runtime as r\nr.SECONDS_TO_END = 0.2\n"
        "with r.ended_by_signals('run it again'):\n"
        "    try:\n        print(1, flush=True)\n        time.sleep(60)\n"
        "    except r.Ended:\n        time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM and said == "run it again\n"
