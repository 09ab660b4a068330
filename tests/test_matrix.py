"""Spaces, agents, evaluators and what follows them, in pairs: each works or is refused at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from gnnrl.checkpoint import Checkpoint
from gnnrl.graph.cost import cost
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.plan import PruningPlan
from tests import stage_runs, tiny
from tests.pairwise import Pair, Row, pairs_of, pairwise, with_pair

PARAMS = Path(__file__).parents[1] / "params.yaml"
FRACTION = 0.6  # of the dense network that may stay
BUDGETS = {"channels": "flops", "weights": "parameters", "layers": "parameters"}
RECIPE = (
    "{epochs: 1, batch_size: 40, learning_rate: 0.02, momentum: 0.9, nesterov: true, "
    "weight_decay: 0.0, schedule: constant, milestones: [], warmup_epochs: 0, "
    "label_smoothing: 0.0, augment: false, bf16: false, channels_last: false}"
)
SHORT = "{epochs: 0.5, batch_size: 40, learning_rate: 0.02, momentum: 0.9, weight_decay: 0.0}"
TEACHER = "{alpha: 0.5, temperature: 4.0, kind: kl}"
EVALUATORS: Mapping[str, tuple[str, ...]] = {
    "one-shot": (),
    "racing": ("search.reward.race=20",),
    "training": (f"search.reward.training={SHORT}", "search.evaluations=4"),
    "students": (
        f"search.students={{recipe: {RECIPE}, distillation: {TEACHER}, ease_in: 5, keep: 1}}",
        "search.evaluations=4",
    ),
}
AGENTS: Mapping[str, tuple[str, ...]] = {
    "ppo": (),
    "ddpg": ("search.ddpg.warmup=2",),
    "reinforce": (
        "search.plackett_luce={learning_rate: 0.002, table_learning_rate: 0.05, ent_coef: 0.0, "
        "max_grad_norm: 1.0, credit: true, credit_decay: 0.995, freeze_encoder: false}",
    ),
    "a3c": (
        "search.a3c={learning_rate: 0.005, gamma: 1.0, gae_lambda: 1.0, ent_coef: 0.001, "
        "vf_coef: 0.5, max_grad_norm: 0.5, initial_action: 0.7, initial_std: 0.7, "
        "max_staleness: 8, freeze_encoder: false}",
    ),
    "annealing": (
        "search.swaps={acceptance: 0.3, cooling: 0.9, moved: 0.1, patience: 4, reheat: 0.5, "
        "learned: true}",
    ),
    "evolution": (),
    "evopress": (),
    "sensitivity": (),
    "solver": ("search.prior=reconstruction",),
    "random": (),
    "uniform": (),
    "snip": (),
}
AXES = {
    "space": ("channels", "weights", "layers", "filters"),
    "agent": tuple(AGENTS),
    "evaluator": tuple(EVALUATORS),
    "gram": ("none", "gram"),
    "sequential": ("none", "sequential"),
    "rescore": ("once", "again"),
}


def pair(**values: str) -> Pair:
    return frozenset(values.items())


REFUSED: Mapping[Pair, str] = {
    **{
        pair(space="filters", agent=name): "filters"
        for name in (
            "ppo",
            "ddpg",
            "a3c",
            "evolution",
            "evopress",
            "sensitivity",
            "solver",
            "uniform",
        )
    },
    **{
        pair(space=name, agent="snip"): "ranks filters"
        for name in ("channels", "weights", "layers")
    },
    **{pair(space=name, agent="sensitivity"): "sensitivity" for name in ("weights", "layers")},
    **{pair(space=name, agent="solver"): "has a prior" for name in ("weights", "layers")},
    pair(space="layers", agent="evopress"): "evopress",
    **{pair(evaluator=name, rescore="again"): "rescore" for name in ("training", "students")},
}
"""Pairs that do not go together, and what the sentence must hold."""

NOT_TOGETHER = set(REFUSED)
GOOD = pairwise(AXES, NOT_TOGETHER)
QUICK = 8  # rows that are run every time: the first ones hold the most pairs


def settings(row: Row) -> list[str]:
    """The row as parameters."""
    budgets = {"flops": "null", "parameters": "null", "latency": "null", "sparsity": "null"}
    budgets[BUDGETS.get(row["space"], "sparsity")] = str(FRACTION)
    written = ", ".join(f"{key}: {value}" for key, value in budgets.items())
    return [
        *tiny.SETTINGS,
        f"search.space={row['space']}",
        f"search.budget={{{written}}}",
        f"search.agent={row['agent']}",
        *AGENTS[row["agent"]],
        *EVALUATORS[row["evaluator"]],
        f"search.reward.compensation={row['gram']}",
        f"prune.compensation={row['sequential']}",
        *(["search.rescore={plans: 2, images: 40}"] if row["rescore"] == "again" else []),
        *(["search.evaluations=8"] if row["agent"] == "sensitivity" else []),  # it looks first
    ]


def name_of(row: Row) -> str:
    return "-".join(row.values())


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the dense network and its graph."""
    folder = tmp_path_factory.mktemp("dense")
    tiny.write_dense(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNNRL_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
        for name in ("DVC_STAGE", "DVC_ROOT"):
            patch.delenv(name, raising=False)
        yield folder
    torch.use_deterministic_algorithms(False)


def searched_and_pruned(row: Row, dense: Path, out: Path) -> None:
    """Run both stages, and look at the plan and the subnet."""
    source = ("--pretrain", dense, "--graph", dense / "graph.json")
    before = len(tiny.EVALUATED)
    stage_runs.run("search", PARAMS, settings(row), *source, "--out", out)
    assert len(tiny.EVALUATED) > before
    plan = PruningPlan.load(out / "plan.json")
    assert_on_budget(ComputationalGraph.load(dense / "graph.json"), plan, row["space"])
    given = (*source, "--plan", out / "plan.json", "--out", out)
    stage_runs.run("prune", PARAMS, settings(row), *given)
    subnet = Checkpoint.load(out / "subnet.safetensors", trust=True).restore()
    answer = subnet(torch.zeros(2, *tiny.SHAPE))
    assert answer.shape == (2, tiny.CLASSES) and bool(torch.isfinite(answer).all())


def assert_on_budget(graph: ComputationalGraph, plan: PruningPlan, space: str) -> None:
    if space == "filters":
        kept = kept_units(graph, plan.kept)
        assert kept.sum() == round((1 - FRACTION) * len(kept))
        return
    whole, left = (getattr(c, BUDGETS[space]) for c in (cost(graph), cost(graph, plan)))
    assert left <= FRACTION * whole


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=name_of(row), marks=[pytest.mark.slow] if place >= QUICK else [])
        for place, row in enumerate(GOOD)
    ],
)
def test_what_goes_together_ends_in_a_subnet_within_the_budget(row, dense, tmp_path):
    searched_and_pruned(row, dense, tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        pytest.param(
            with_pair(AXES, refused, NOT_TOGETHER),
            said,
            id="-".join(sorted(value for _, value in refused)),
        )
        for refused, said in REFUSED.items()
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_evaluated(
    row, said, dense, tmp_path
):
    before = len(tiny.EVALUATED)
    source = ("--pretrain", dense, "--graph", dense / "graph.json")
    code, written = stage_runs.outcome("search", PARAMS, settings(row), *source, "--out", tmp_path)
    *warnings, sentence = written.splitlines()
    assert all("has no effect" in warning for warning in warnings)
    assert code == 1 and said in sentence
    assert not re.match(r"search: \w+(Error|Exception):", sentence)
    assert len(tiny.EVALUATED) == before and not list(tmp_path.iterdir())


def test_every_pair_is_run_or_known_not_to_go_together():
    every = {p for row in pairwise(AXES) for p in pairs_of(row)}
    assert every == {p for row in GOOD for p in pairs_of(row)} | NOT_TOGETHER
    assert len(GOOD) <= 50
