"""Slips are refused by the first stage in one sentence, before PyTorch is even imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SLIPS = {
    "agent": (["search.agent=pp0"], r"'search\.agent' .*did you mean ppo\?"),
    "importance": (["search.importance=fpmg"], r"'search\.importance' .*did you mean fpgm\?"),
    "prior": (["search.prior=reconstructed"], r"'search\.prior' must be one of"),
    "reward": (["search.reward.kind=acuracy"], r"'search\.reward\.kind' .*did you mean accuracy\?"),
    "augmentation": (
        ["data.augmentation=flip"],
        r"'data\.augmentation' .*did you mean crop_flip\?",
    ),
    "table": (
        ["search.budget.latency=0.5", "search.latency_table=no/table.json"],
        r"'search\.latency_table': there is no file no/table\.json",
    ),
    "saved agent": (
        ["search.agent_from=no/agent.pt"],
        r"'search\.agent_from': there is no file no/agent\.pt",
    ),
    "weights": (
        ["pretrain.weights=no/such.pth", "data.reward_from=test"],
        r"'pretrain\.weights': there is no file no/such\.pth",
    ),
    "latency": (["search.budget.latency=0.5"], r"'search\.budget\.latency' needs a table"),
    "one class": (
        ["data.name=image_folder", "data.root={place}/one"],
        r"holds one class \('cat'\)",
    ),
    "no class": (["data.name=image_folder", "data.root={place}/none"], r"has no folders in it"),
    "out": ([], r"file is no folder"),
}

TRY = """
import contextlib, io, json, sys
from stages.pretrain import app
answers = {}
for name, arguments in json.loads(sys.stdin.read()).items():
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = app(arguments, standalone_mode=False)
    answers[name] = [code, said.getvalue()]
heavy = {"torch", "torch_geometric", "torchvision"} & set(sys.modules)
print(json.dumps({"answers": answers, "heavy": sorted(heavy)}))
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """What pretrain says to each slip, and what was imported when it had said it all."""
    place = tmp_path_factory.mktemp("slips")
    for split in ("train", "test"):
        (place / "one" / split / "cat").mkdir(parents=True)
        (place / "none" / split).mkdir(parents=True)
    (place / "file").touch()
    calls = {}
    for name, (values, _) in SLIPS.items():
        out = place / ("file/out" if name == "out" else "out")
        options = [word for value in values for word in ("--set", value.format(place=place))]
        calls[name] = ["--out", str(out), *options]
    done = subprocess.run(
        [sys.executable, "-c", TRY], input=json.dumps(calls), capture_output=True, text=True,
        cwd=ROOT, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_refused_in_one_sentence(name, tried):
    code, said = tried["answers"][name]
    assert code == 1
    assert said.count("\n") == 1
    assert re.search(SLIPS[name][1], said), said


def test_pytorch_is_imported_once_all_is_checked(tried):
    assert tried["heavy"] == []
