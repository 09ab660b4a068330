"""The pipeline of the pretrained agent's zoo: a clone can run it, and what ships is its result."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gnnrl.agents.pretrained import SHIPPED
from gnnrl.sealed import read_state
from zoo.samples import BUDGETS, MODES, SAMPLES

ROOT = Path(__file__).parents[1]


def test_the_agent_that_ships_is_the_one_that_the_pipeline_made():
    lock = yaml.safe_load((ROOT / "zoo" / "dvc.lock").read_text(encoding="utf-8"))
    (made,) = lock["stages"]["learn"]["outs"]
    assert made["md5"] == hashlib.md5(SHIPPED.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the Git checkout")
def test_dvc_trains_a_network_of_the_zoo_and_tries_plans_of_it(tmp_path):
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    zoo = tmp_path / "clone" / "zoo"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    dvc = [sys.executable, "-m", "dvc", "repro", "samples@digits-plain_3"]
    subprocess.run(dvc, cwd=zoo, env=env, check=True)
    tried = read_state(zoo / "artifacts" / "digits" / "plain_3" / "samples.pt")
    assert set(tried) == set(MODES)
    for mode in MODES:
        rewards = tried[mode]["rewards"]
        assert rewards.shape == (len(BUDGETS), SAMPLES + 1)
        assert bool((rewards <= 0).all()) and bool((rewards.std(1) > 0).all())
