"""A search that is watched: lines, figures, agents that are kept, an early end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from gnnrl.search.watched import Watched
from gnnrl.watch import Watch
from tests.search.test_loop import Pruning, run

PATTERNS = {  # docs/experiments.md
    "episodes": r"search: episodes (\d+),",
    "reward:min": r"reward min (\S+) mean",
    "reward:mean": r" mean (\S+) max",
    "reward:max": r" max (\S+),",
    "reward:best": r", best (\S+)",
}


def watched(folder: Path, every: int | None = None) -> Watched:
    return Watched(Watch(folder / "lines.jsonl"), folder / "agents", every)


def test_every_batch_prints_a_line_that_the_documented_patterns_read(tmp_path, capsys):
    found = run(evaluations=20, progress=Watched())
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(found.history) > 1
    rewards = [row["reward"] for row in found.evaluations]
    read = {name: re.search(pattern, printed[0]) for name, pattern in PATTERNS.items()}
    values = {name: float(match.group(1)) for name, match in read.items() if match}
    batch = rewards[1 : int(values["episodes"])]
    assert values["reward:min"] == pytest.approx(min(batch), rel=1e-5)
    assert values["reward:max"] == pytest.approx(max(batch), rel=1e-5)
    assert values["reward:mean"] == pytest.approx(sum(batch) / len(batch), rel=1e-5)
    assert values["reward:best"] == pytest.approx(max(rewards[:9]), rel=1e-5)
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text()
    assert all(pattern in page for pattern in PATTERNS.values())


def test_silence_is_kept_where_it_is_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("GNNRL_PROGRESS", "0")
    run(evaluations=12, progress=Watched())
    assert not capsys.readouterr().out


def test_figures_of_episodes_and_updates_are_written_and_change_nothing(tmp_path):
    alone, seen = run(evaluations=20), run(evaluations=20, progress=watched(tmp_path))
    assert alone.evaluations == seen.evaluations and alone.history == seen.history
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    episodes = [line for line in lines if "episode/reward" in line]
    assert [line["episode/reward"] for line in episodes] == [r["reward"] for r in seen.evaluations]
    updates = [line for line in lines if "update/reward_min" in line]
    assert [line["step"] for line in updates] == [row["episodes"] for row in seen.history]
    assert [line["update/reward"] for line in updates] == [row["reward"] for row in seen.history]


def test_a_search_ends_when_its_target_is_reached():
    whole = run(evaluations=60)
    env = Pruning()
    env.reward_threshold = sorted(row["reward"] for row in whole.evaluations[:17])[-1]
    early = run(evaluations=60, env=env)
    assert early.reward >= env.reward_threshold
    assert len(early.evaluations) < len(whole.evaluations)
    assert early.evaluations[:9] == whole.evaluations[:9]
    env.reward_threshold = 1e9
    assert run(evaluations=60, env=env).evaluations == whole.evaluations


def test_agents_are_kept_every_so_many_updates(tmp_path):
    found = run("ppo", evaluations=50, progress=watched(tmp_path, every=2))
    kept = sorted(path.stem for path in (tmp_path / "agents").iterdir())
    assert kept == [f"{count:06d}" for count in range(2, len(found.history) + 1, 2)]
    assert len(kept) >= 2
    first, last = (_weights(tmp_path / "agents" / f"{name}.pt") for name in (kept[0], kept[-1]))
    assert not torch.equal(first, last)


def _weights(path: Path) -> torch.Tensor:
    """Return all numbers of a kept agent."""
    from gnnrl.sealed import read_state

    def tensors(value):
        if isinstance(value, torch.Tensor):
            yield value.double().flatten()
        elif isinstance(value, dict):
            for each in value.values():
                yield from tensors(each)

    return torch.cat(list(tensors(read_state(path))))
