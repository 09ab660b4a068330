"""What once was wrong, as claims of what is right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gnnrl.data.images import Images
from gnnrl.errors import UserError
from gnnrl.pruning.plan import PruningPlan
from tests import stage_runs, tiny
from tests.golden import assemble
from tests.golden.cases import STUDENTS, TRAINING
from tests.golden.world import World, world
from tests.test_matrix import AXES, EVALUATORS, PARAMS, settings

ROW = {axis: values[0] for axis, values in AXES.items()}  # what is plainest of everything


@pytest.fixture
def dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from tiny.alone_with_dense(tmp_path, monkeypatch)


def source(dense: Path) -> tuple[object, ...]:
    return ("--pretrain", dense, "--graph", dense / "graph.json", "--out", dense / "out")


def is_a_sentence(said: str) -> bool:
    return said.count("\n") == 1 and not re.match(r"\w+: \w+(Error|Exception):", said)


def test_a_plan_that_removes_layers_is_compensated_or_refused_in_a_sentence(dense):
    PruningPlan(removed_layers=frozenset({"3"})).save(dense / "plan.json")
    row = {**ROW, "space": "layers", "sequential": "sequential"}
    given = (*source(dense), "--plan", dense / "plan.json")
    code, said = stage_runs.outcome("prune", PARAMS, settings(row), *given)
    assert code == 0 or (is_a_sentence(said) and "compensation" in said), said


@pytest.mark.parametrize("evaluator", [name for name in EVALUATORS if name[0] in "ts"])
def test_a_second_look_that_cannot_be_taken_is_refused_before_the_search(evaluator, dense):
    before = len(tiny.EVALUATED)
    row = {**ROW, "evaluator": evaluator, "rescore": "again"}
    code, said = stage_runs.outcome("search", PARAMS, settings(row), *source(dense))
    assert code == 1 and is_a_sentence(said) and "rescore" in said
    assert len(tiny.EVALUATED) == before


def test_a_search_with_a_second_look_spends_no_more_than_it_may(dense):
    images = (
        "data.reward_images=50",
        "search.reward.statistics=images",
        "search.reward.recalibration_images=100",
        "search.rescore={plans: 8, images: 100}",
        "search.evaluations=6",
    )
    row = {**ROW, "space": "weights", "agent": "random"}  # which always has another plan
    stage_runs.run("search", PARAMS, [*settings(row), *images], *source(dense))
    spent = json.loads((dense / "out" / "metrics.json").read_text())["search"]["evaluations"]
    assert spent <= 6


class Unreadable(Images):
    """Images that cannot be read when a network is trained on them."""

    def batches(self, batch_size, device=None, generator=None, *, augment=False):
        if generator is not None:
            raise UserError("photo.png cannot be read: it is cut short, copy it again")
        return super().batches(batch_size, device, generator, augment=augment)


def with_unreadable(given: World) -> World:
    train = given.train_images
    broken = Unreadable(train.pixels, train.labels, train.transform)
    return World(given.network, given.graph, given.reward_images, broken)


@pytest.mark.parametrize(
    "how",
    [{"training": TRAINING}, {"students": STUDENTS, "reward": "n2n"}],
    ids=["training", "students"],
)
def test_an_error_of_the_input_ends_the_search_and_is_no_bad_plan(how):
    with assemble.settled():
        env = assemble.environment(
            with_unreadable(world()), space="channels", budget={"flops": 0.5}, **how
        )
        with pytest.raises(UserError, match=r"photo\.png cannot be read"):
            env.evaluate([env.space.uniform()])
