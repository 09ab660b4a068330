"""Queue workers for the GPUs of a machine, tried with devices that are not there."""

from __future__ import annotations

import os
import stat
import sys

import pytest
from typer.testing import CliRunner

from stages import _dvc, workers

PAIR = ["CUDA_VISIBLE_DEVICES=2 OMP_NUM_THREADS=4", "CUDA_VISIBLE_DEVICES=5 OMP_NUM_THREADS=4"]


def printed(*words: str) -> list[str]:
    result = CliRunner().invoke(workers.app, list(words))
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


def test_every_visible_gpu_gets_a_worker_and_its_share_of_the_cores(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert printed("--cpus", "8", "--show") == [
        f"{settings} dvc queue start -j {number}" for number, settings in enumerate(PAIR, 1)
    ]


def test_several_workers_share_a_gpu_and_each_has_a_thread_at_least(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    lines = printed("--cpus", "2", "--each", "2", "--show")
    assert [line.split()[0][-1] for line in lines] == ["0", "0", "1", "1"]
    assert all("OMP_NUM_THREADS=1 " in line for line in lines)


@pytest.mark.parametrize("devices", ["", "-1"])
def test_without_a_gpu_there_is_one_worker_with_all_cores(devices, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert printed("--cpus", "6", "--show") == ["OMP_NUM_THREADS=6 dvc queue start -j 1"]


def test_dvc_is_called_with_the_settings_of_each_worker_and_awaited(tmp_path, monkeypatch):
    """A DVC of two lines writes down what it was asked, and has a queue that gets empty."""
    fake, said = tmp_path / "python", tmp_path / "said"
    fake.write_text(
        f'#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS $*" >> {said}\n'
        f'[ "$4" = status ] && [ $(grep -c status {said}) -lt 2 ] && echo "ab12  -  Running"\n'
        'echo "cd34  -  Failed"\n'
    )
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setattr(_dvc.time, "sleep", lambda seconds: None)
    assert printed("--cpus", "8", "--wait")[-1].startswith(
        "workers: the queue is empty, 1 experiments failed"
    )
    threads = os.environ.get("OMP_NUM_THREADS", "")
    assert said.read_text().splitlines() == [
        "2 4 -m dvc queue start -j 1",
        "5 4 -m dvc queue start -j 2",
        f"2,5 {threads} -m dvc queue status",
        f"2,5 {threads} -m dvc queue status",
    ]
