"""The evaluator: a plan's reward is that of the cut network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch.nn import functional as F

from gnnrl.errors import UserError
from gnnrl.evaluation.base import Decided
from gnnrl.evaluation.one_shot import OneShot
from gnnrl.evaluation.reusable_subnet import Slot
from gnnrl.evaluation.rewards import RewardSettings
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.batch_norm import recalibrate
from gnnrl.pruning.importance import l1
from gnnrl.pruning.surgery import Surgeon, prune
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.tasks.comparing import jensen_shannon

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(40, 3, 32, 32, generator=GENERATOR)
LABELS = torch.randint(0, 10, (40,), generator=GENERATOR)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_network("resnet20")
    recalibrate(network, [IMAGES])
    return network.eval()


@pytest.fixture(scope="module")
def space(network) -> ChannelSpace:
    graph = extract(network, IMAGES[:1])
    return ChannelSpace(graph, l1(network, graph), 0.5)


def evaluator(network, space, recalibration=None, **settings) -> OneShot:
    settings = RewardSettings(**{"kind": "accuracy", "statistics": "batch", **settings})
    surgeon = Surgeon(network, space.graph)
    return OneShot(surgeon, IMAGES, LABELS, settings, recalibration=recalibration)


@pytest.mark.parametrize(
    "name",
    ["resnet20", "mobilenet_v1", pytest.param("shufflenet_v2", marks=pytest.mark.slow)],
)
def test_a_slot_is_the_cut_network_for_plan_after_plan(name):
    torch.manual_seed(0)
    network = build_network(name).eval()
    graph = extract(network, IMAGES[:1])
    space = ChannelSpace(graph, l1(network, graph), 0.4)
    slot, generator = Slot(Surgeon(network, graph)), torch.Generator().manual_seed(0)
    for _ in range(3):
        plan = space.sample(generator)
        expected = prune(network, graph, plan).eval()(IMAGES[:2])
        assert torch.equal(slot.fill(plan).eval()(IMAGES[:2]), expected)


def test_without_new_statistics_the_figures_are_those_of_the_cut_network(network, space):
    plan = space.uniform()
    logits = prune(network, space.graph, plan).eval()(IMAGES).detach()
    found = evaluator(network, space, statistics="kept", kind="loss").evaluate(plan)
    assert found.reward == pytest.approx(-float(F.cross_entropy(logits, LABELS)), rel=1e-4)
    assert found.accuracy == pytest.approx(float((logits.argmax(1) == LABELS).float().mean()))
    assert found.flops == cost(space.graph, plan).flops


def test_batch_statistics_are_those_of_recalibration_on_the_same_batch(network, space):
    plan = space.uniform()
    subnet = prune(network, space.graph, plan)
    subnet.eval()
    for module in subnet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train()
    expected = subnet(IMAGES)
    found = evaluator(network, space).outputs(plan)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("reward", ["divergence", "jensen_shannon"])
def test_the_dense_network_diverges_from_itself_by_nothing(network, space, reward):
    whole = ChannelSpace(space.graph, l1(network, space.graph), 1.0).uniform()
    found = evaluator(network, space, statistics="kept", kind=reward).evaluate(whole)
    assert found.reward == pytest.approx(0.0, abs=1e-6)


def test_jensen_shannon_agrees_with_scipy_and_is_symmetric():
    generator = torch.Generator().manual_seed(4)
    p, q = torch.randn(2, 5, 10, generator=generator, dtype=torch.float64).log_softmax(2)
    distance = jensenshannon(p.exp().numpy(), q.exp().numpy(), axis=1)  # its square root
    assert jensen_shannon(p, q) == pytest.approx(float((distance**2).mean()))
    assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p))


def test_a_confidently_wrong_image_counts_for_ln_2_and_no_more():
    right, wrong = torch.tensor([[50.0, -50.0]]), torch.tensor([[-5000.0, 5000.0]])
    found = jensen_shannon(right.double().log_softmax(1), wrong.double().log_softmax(1))
    assert found == pytest.approx(np.log(2.0))


def test_equal_plans_get_equal_evaluations_in_any_order(network, space):
    generator = torch.Generator().manual_seed(1)
    plans = [space.sample(generator) for _ in range(3)]
    evaluate = evaluator(network, space)
    assert evaluate(plans) == evaluate(plans[::-1])[::-1]


def test_bfloat16_ranks_plans_alike(network, space):
    generator = torch.Generator().manual_seed(2)
    plans = [space.sample(generator) for _ in range(8)]
    rewards = [
        [e.reward for e in evaluator(network, space, kind="loss", precision=precision)(plans)]
        for precision in ("float32", "bfloat16")
    ]
    assert np.corrcoef(rewards)[0, 1] > 0.95


@pytest.mark.parametrize("statistics", ["matched", "batch"])
def test_with_statistics_of_all_images_folding_changes_nothing(network, space, statistics):
    generator = torch.Generator().manual_seed(3)
    plain = evaluator(network, space, statistics=statistics)
    folded = evaluator(network, space, statistics=statistics, statistics_images=len(IMAGES))
    for plan in (space.sample(generator), space.uniform()):
        expected = plain.outputs(plan)
        torch.testing.assert_close(folded.outputs(plan), expected, rtol=1e-3, atol=1e-3)


def test_statistics_of_a_few_images_serve_all_in_whatever_parts_they_pass(network, space):
    options = {"statistics": "matched", "statistics_images": 12, "kind": "loss"}
    whole, parts = (evaluator(network, space, batch_size=n, **options) for n in (40, 13))
    generator = torch.Generator().manual_seed(1)
    plans = [space.sample(generator) for _ in range(3)]
    assert whole(plans) == whole(plans[::-1])[::-1]
    for plan in plans:
        torch.testing.assert_close(whole.outputs(plan), parts.outputs(plan), rtol=1e-3, atol=1e-3)
    assert whole.cost == pytest.approx(40 / 500)  # none of them passes twice
    one = evaluator(network, space, statistics="matched", kind="loss").outputs(plans[0])
    assert not torch.allclose(one, whole.outputs(plans[0]), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("statistics", ["kept", "images"])
def test_only_statistics_of_reward_images_come_from_the_first_of_them(statistics):
    with pytest.raises(UserError, match=r"statistics_images 8, but .*: set .* to 0, or"):
        RewardSettings(statistics=statistics, statistics_images=8)


def test_images_for_recalibration_belong_to_their_statistics(network, space):
    for statistics, images in (("images", None), ("batch", IMAGES[:10])):
        with pytest.raises(UserError, match=f"reward.statistics {statistics}: images for recalib"):
            evaluator(network, space, images, statistics=statistics)


def test_a_plan_with_its_units_is_the_plan(network, space):
    evaluate, action = evaluator(network, space), np.linspace(0.2, 0.9, space.size)
    decided = space.decide(action)
    assert decided.plan == space.plan(action)
    np.testing.assert_array_equal(decided.units, Decided(decided.plan).units_of(space.graph))
    assert evaluate([decided]) == evaluate([decided.plan])


def test_on_other_images_it_scores_as_one_made_for_them(network, space):
    plan, made = space.uniform(), evaluator(network, space, statistics="matched", kind="loss")
    other = OneShot(made.surgeon, IMAGES[:15], LABELS[:15], made.settings)
    assert made.on(IMAGES[:15], LABELS[:15])([plan]) == other([plan])


def test_costs_are_counted_in_evaluation_equivalents(network, space):
    assert evaluator(network, space).cost == pytest.approx(40 / 500)
    assert evaluator(network, space, IMAGES[:10], statistics="images").cost == pytest.approx(
        50 / 500
    )


def test_a_network_that_gives_no_finite_numbers_gets_a_reason(space):
    network = build_network("resnet20").eval()
    network.linear.bias.data.fill_(float("inf"))
    found = evaluator(network, space, statistics="kept").evaluate(space.uniform())
    assert found.status == "not finite"
    assert found.reward < -10


@pytest.mark.parametrize("options", [{"kind": "acuracy"}, {"statistics": "old"}])
def test_unknown_settings_are_refused(network, space, options):
    with pytest.raises(UserError, match=r"'(kind|statistics)' must be one of .*'(acuracy|old)'"):
        evaluator(network, space, **options)


def test_precision_auto_is_what_the_processor_has(monkeypatch):
    for has, chosen in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("gnnrl.evaluation.rewards.has_bfloat16", lambda has=has: has)
        assert RewardSettings(precision="auto").precision == chosen
        assert RewardSettings().precision == "float32"
