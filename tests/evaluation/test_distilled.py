"""Students: trained with a teacher, scored alike in any order and process; failures say why."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from gnnrl.checkpoint import Checkpoint
from gnnrl.data.augmentations import AUGMENTATIONS
from gnnrl.data.images import Images
from gnnrl.data.transform import Transform
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.evaluation.budget_penalty import PUNISHED, Constraint
from gnnrl.evaluation.distilled import Students
from gnnrl.evaluation.rewards import Measured, RewardSettings, n2n, sagemaker
from gnnrl.evaluation.student_store import StudentStore, folder_of, kept_student, refuse_failure
from gnnrl.evaluation.training_settings import StudentSettings
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import Cost, cost
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.search.spaces.layers import LayerSpace
from gnnrl.tracing.check import BATCHES
from gnnrl.training.loop import train
from gnnrl.training.recipe import TrainingRecipe

NAME, SHAPE = "sagemaker_5block", (3, 8, 8)
SHORT = TrainingRecipe(epochs=1, batch_size=16, learning_rate=0.02, augment=True)
PLAN = PruningPlan(removed_layers=frozenset({"blocks.2.conv1", "blocks.2.bn2"}))
OTHER = PruningPlan(removed_layers=frozenset({"blocks.4.conv2"}))
NOT_SMALLER = PruningPlan(removed_layers=frozenset({"relu"}))


def images(count: int, seed: int) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, *SHAPE), generator=generator, dtype=torch.uint8)
    transform = Transform((0.5,) * 3, (0.25,) * 3, AUGMENTATIONS["crop_flip"])
    return Images(pixels, torch.arange(count) % 10, transform)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    network = build_network(NAME, 10, SHAPE)
    train(network, images(20, 2), TrainingRecipe(epochs=4, batch_size=10, learning_rate=0.02))
    return network.eval()  # it knows some of the reward images


def students(network: nn.Module, recipe=SHORT, kind: str = "n2n", **options) -> Students:
    surgeon = Surgeon(network, extract(network, torch.zeros(1, *SHAPE)))
    settings, reward = StudentSettings(recipe=recipe), RewardSettings(kind=kind, batch_size=256)
    return Students(surgeon, images(48, 1), images(20, 2), settings, reward, **options)


@pytest.mark.slow
def test_equal_plans_get_equal_evaluations_in_any_order_and_process(network):
    first = students(network)([PLAN, OTHER])
    second = students(network)([OTHER, PLAN])[::-1]
    sent = pickle.loads(pickle.dumps(students(network)))([PLAN, OTHER])
    assert first == second == sent
    assert first[0].status == "ok"
    assert first[0].details["x_factor"] == pytest.approx(
        cost(students(network).graph).parameters / first[0].parameters
    )


def test_what_the_teacher_says_is_computed_once(network):
    sizes = []
    handle = network.register_forward_hook(lambda *given: sizes.append(len(given[-1])))
    try:
        evaluate = students(network)
        evaluate([PLAN])
        once = [size for size in sizes if size not in BATCHES]  # those compare what was traced
        evaluate([OTHER])
    finally:
        handle.remove()
    assert len(once) == 1 + 3  # the reward images, and three batches of one epoch
    assert [size for size in sizes if size not in BATCHES] == once


def test_a_student_inherits_what_remains(network):
    student = students(network, SHORT.changed(epochs=0)).taught(PLAN)
    state = network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in student.state_dict().items())


def test_one_that_is_not_smaller_is_not_even_trained(network):
    found = students(network).evaluate(NOT_SMALLER)
    assert (found.reward, found.status) == (PUNISHED, "not smaller")


def test_one_that_diverges_gets_minus_one(network):
    wild = SHORT.changed(epochs=3, learning_rate=1e9)
    found = students(network, wild).evaluate(PLAN)
    assert (found.reward, found.status, found.cost) == (PUNISHED, "diverged", 1.0)


def test_one_that_cannot_be_built_gets_minus_one(network):
    found = students(network).evaluate(PruningPlan(removed_layers=frozenset({"conv"})))
    assert found.reward == PUNISHED
    assert found.status.startswith("cannot be built: part 'conv' cannot be removed")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory"),
        (RuntimeError("can't allocate memory: you tried to allocate 9 bytes"), "out of memory"),
        (MemoryError(), "out of memory"),
        (RuntimeError("sizes do not match"), "cannot be trained: sizes do not match"),
    ],
)
def test_what_stops_the_training_is_the_status(network, monkeypatch, error, status):
    def fail(*parts: object, **settings: object) -> None:
        raise error

    monkeypatch.setattr("gnnrl.evaluation.distilled.train", fail)
    found = students(network).evaluate(PLAN)
    assert (found.reward, found.status) == (PUNISHED, status)


def seen(accuracy: float, parameters_kept: float) -> Measured:
    return Measured(accuracy, 0.0, 0.0, 0.0, 0.81, 1.0, parameters_kept)


def test_rewards_are_those_of_the_paper_and_of_the_example():
    # the example's best: 5.7 times smaller, 0.71 before and 0.80 after fine-tuning, teacher 0.81
    assert n2n(seen(0.71, 1 / 5.7)) == pytest.approx(0.850, abs=5e-4)
    assert n2n(seen(0.80, 1 / 5.7)) == pytest.approx(0.957, abs=5e-4)
    assert sagemaker(seen(0.71, 1 / 5.7)) == pytest.approx(0.615, abs=5e-4)


def test_a_student_over_the_budget_is_punished_more_and_more(network):
    limit = Budget(parameters=0.5)
    evaluate = students(network, kind="n2n_constrained", budget=limit)
    found = evaluate.evaluate(PLAN)
    assert (found.reward, found.status) == (PUNISHED, "over budget")
    free = students(network).evaluate(PLAN).reward
    eased = [evaluate.shaped_reward(found, updates) for updates in (0, 5, 10, 15, 40)]
    assert free > 0
    assert eased[0] == pytest.approx(free)
    assert eased == sorted(eased, reverse=True)
    assert eased[1] == pytest.approx((2 / 3) ** 4 * (1 + free) - 1)
    assert eased[3] == eased[4] == PUNISHED


def test_a_student_below_the_accuracy_asked_for_is_punished_more_and_more():
    dense = Cost(100, 100)
    asked = Constraint(Budget(parameters=0.8), dense, 10, 0.9, at_least=0.85)
    assert asked.broken(Cost(50, 81), 0.9) == "over budget"
    assert asked.broken(Cost(50, 50), 0.84) == "below the accuracy"
    assert asked.broken(Cost(50, 50), 0.85) == ""
    found = Evaluation(PUNISHED, 0.84, 50, 50, "below the accuracy")
    assert asked.relaxed(found, 0) == pytest.approx(0.75 * 0.84 / 0.9)
    assert asked.relaxed(found, 10) == PUNISHED


def test_only_the_student_of_the_plan_goes_on(network, tmp_path):
    dense = Checkpoint.of(network, NAME, 10, SHAPE)
    evaluate = students(network, store=StudentStore(tmp_path / "students", keep=1, dense=dense))
    evaluate([PLAN])
    student = kept_student(tmp_path, dense, PLAN)
    assert student.plans == (PLAN.to_json(),)
    with pytest.raises(UserError, match=r"this plan is none of them: take the search's"):
        kept_student(tmp_path, dense, OTHER)
    (tmp_path / "students" / folder_of(PLAN.digest)).rename(
        tmp_path / "students" / folder_of(OTHER.digest)
    )
    with pytest.raises(UserError, match="it is the student of another plan"):
        kept_student(tmp_path, dense, OTHER)


def test_the_student_of_the_best_plan_is_kept_beside_better_controls(network, tmp_path):
    dense = Checkpoint.of(network, NAME, 10, SHAPE)
    evaluate = students(network, store=StudentStore(tmp_path / "students", keep=1, dense=dense))
    found = {plan: evaluate([plan])[0].reward for plan in (PLAN, OTHER)}
    worse, better = sorted(found, key=found.__getitem__)
    first = evaluate.taught(worse).state_dict()
    with pytest.raises(UserError, match="this plan is none of them"):
        kept_student(tmp_path, dense, worse)
    for _ in range(2):  # a search that was killed at its end holds it again
        evaluate.hold(worse, found[worse])
    held = kept_student(tmp_path, dense, worse).restore().state_dict()
    assert all(torch.equal(held[name], value) for name, value in first.items())
    assert evaluate.store.names() == [folder_of(better.digest), folder_of(worse.digest)]
    evaluate.hold(NOT_SMALLER, PUNISHED)
    assert len(evaluate.store.names()) == 2, "a student that failed is none to keep"


def test_a_constraint_needs_something_that_can_be_counted():
    with pytest.raises(UserError, match="needs a budget of parameters or flops"):
        Constraint(Budget(latency=0.5), cost(extract(build_network(NAME, 10, SHAPE),
                   torch.zeros(1, *SHAPE))), 15, 0.9)  # fmt: skip


def test_the_best_students_are_kept_whatever_the_order(network, tmp_path):
    dense = Checkpoint.of(network, NAME, 10, SHAPE)
    rewards = {"a" * 64: 0.1, "b" * 64: 0.5, "c" * 64: 0.3, "d" * 64: 0.5}
    for order in (list(rewards), list(rewards)[::-1]):
        store = StudentStore(tmp_path / order[0][0], 2, dense)
        for digest in order:
            store.add(digest, rewards[digest], dense)
        assert store.names() == ["b" * 16, "d" * 16]
        assert sorted(p.name for p in store.folder.iterdir()) == store.names()


def test_a_kept_student_is_what_was_scored(network, tmp_path):
    dense = Checkpoint.of(network, NAME, 10, SHAPE)
    store = StudentStore(tmp_path / "students", keep=5, dense=dense)
    evaluate = students(network, store=store)
    found = evaluate([PLAN])[0]
    folder = tmp_path / "students" / found.details["dir"]
    kept = Checkpoint.load(folder / "student.safetensors").restore()
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(kept(x), evaluate.taught(PLAN)(x))
    rows = [found.row(), Evaluation(0.9, details={"x_factor": 2.0, "dir": "gone"}).row()]
    table = store.table(rows)
    assert [row["dir"] for row in table] == ["", found.details["dir"]]
    assert {"reward", "x_factor", "accuracy", "dir"} <= set(table[0])


def test_a_search_in_which_nothing_worked_says_why():
    rows = [{"status": "diverged"}, {"status": "diverged"}, {"status": "over budget"}]
    with pytest.raises(UserError, match=r"none of 3 plans could be scored \(diverged: 2, over"):
        refuse_failure(rows)


def test_every_plan_of_the_space_can_be_a_student(network):
    evaluate = students(network)
    space = LayerSpace(evaluate.graph)
    plan = space.sample(torch.Generator().manual_seed(3))
    assert evaluate.evaluate(plan).details["x_factor"] >= 1


def test_weights_that_a_plan_set_to_zero_stay_zero(network):
    student = students(network).taught(PruningPlan(weight_sparsity={"blocks.4.conv2": 0.5}))
    weight = student.get_parameter("blocks.4.conv2.weight")
    assert float((weight == 0).double().mean()) == pytest.approx(0.5)
