"""params.yaml is checked before anything runs, and what is wrong is said in one sentence."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from gnnrl.agents.settings import PPOSettings
from gnnrl.errors import UserError
from gnnrl.files import read_yaml
from gnnrl.graph.resources import RESOURCES
from gnnrl.params import STAGE_SECTIONS, check, load_params, resolved
from gnnrl.search.settings import BudgetSettings
from tests import stage_runs

ROOT = Path(__file__).parents[1]


@pytest.fixture
def values() -> dict[str, Any]:
    return read_yaml(ROOT / "params.yaml")


def put(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy with one key set."""
    changed = copy.deepcopy(values)
    *parents, last = path.split(".")
    section = changed
    for name in parents:
        section = section.setdefault(name, {})
    section[last] = value
    return changed


def without(values: dict[str, Any], path: str) -> dict[str, Any]:
    """Return a copy with one key removed."""
    changed = copy.deepcopy(values)
    *parents, last = path.split(".")
    section = changed
    for name in parents:
        section = section[name]
    del section[last]
    return changed


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("search.sead", "unknown key 'search.sead'; did you mean 'search.seed'?"),
        ("serach", "unknown key 'serach'; did you mean 'search'?"),
        ("search.ppo.lerning_rate", "did you mean 'search.ppo.learning_rate'?"),
        ("train.recipe.epoch", "did you mean 'train.recipe.epochs'?"),
    ],
)
def test_a_misspelt_key_is_named_with_the_one_that_was_meant(values, key, said):
    with pytest.raises(UserError, match="unknown key") as caught:
        check(put(values, key, 1))
    assert said in str(caught.value)


def test_a_misspelt_key_is_named_even_where_the_right_one_is_missing(values):
    values["search"]["sead"] = values["search"].pop("seed")
    with pytest.raises(UserError, match=r"unknown key 'search.sead'"):
        check(values)


def test_an_absent_section_or_key_has_its_default(values):
    assert check(without(values, "prune")).prune == check({}).prune
    assert check(without(values, "train.recipe.epochs")).train.recipe.epochs == 10
    assert check({}).search.agent_parameters()["clip_range"] == 0.3


@pytest.mark.parametrize("agent", ["ppo", "ddpg", "reinforce", "a3c", "annealing", "evolution"])
def test_the_agent_is_changed_by_one_key(values, agent):
    search = check(put(values, "search.agent", agent)).search
    assert search.agent_parameters() and not search.without_effect
    assert set(search.resolved()[agent]) <= set(search.agent_parameters())


def test_settings_of_an_agent_that_is_not_chosen_have_no_effect(values):
    ours = check(put(values, "search.ddpg", {"tau": 0.5}))
    assert ours.search.without_effect == ["ddpg"]
    assert resolved(dict(ours)) == resolved(dict(check(values)))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("search.evaluations", "ten", "must be a whole number, got 'ten'"),
        ("search.seed", 1.5, "must be a whole number, got 1.5"),
        ("search.seed", True, "must be a number, got true"),
        ("search.seed", -1, "must be at least 0, got -1"),
        ("search.ppo.learning_rate", "fast", "must be a number, got 'fast'"),
        ("search.ppo.learning_rate", float("nan"), "must be a number, got nan"),
        ("search.ppo.learning_rate", 0, "must be greater than 0, got 0"),
        (
            "search.space",
            "chanels",
            "or package.module:name, got 'chanels'",
        ),
        ("search.weights", "last", "must be final, initial or the epoch of a snapshot"),
        ("search", [1], "must be a mapping of keys, got [1]"),
        ("data", None, "must be a mapping of keys, got null"),
        ("data.root", 5, "must be a text, got 5"),
        ("network.input_shape", [3, 32], "has too few entries, got [3, 32]"),
        ("extract.protect", "conv1", "must be a list, got 'conv1'"),
        ("pretrain.recipe.nesterov", "on", "must be true or false, got 'on'"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(values, key, value, said):
    with pytest.raises(UserError) as caught:
        check(put(values, key, value))
    assert key in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("budget", [0, -0.5, 1.01, "half", True])
def test_a_budget_outside_of_0_to_1_is_refused(values, budget):
    with pytest.raises(UserError, match=r"'search.budget.flops' must be"):
        check(put(values, "search.budget.flops", budget))


def test_a_budget_is_given(values):
    with pytest.raises(UserError, match=r"a budget names flops.* got none; give one of them"):
        check(put(values, "search.budget.flops", None))
    with pytest.raises(UserError, match=r"alone, got flops, sparsity; set the others to null"):
        check(put(values, "search.budget.sparsity", 0.5))


@pytest.mark.parametrize(
    ("key", "value"),
    [("search.space", "layers"), ("search.budgets", [0.4]), ("search.prior", "bottleneck")],
)
def test_a_budget_of_two_resources_is_met_by_the_space_channels_alone(values, key, value):
    both = put(values, "search.budget.parameters", 0.5)
    assert check(both).search.budget.budget().shares == (("flops", 0.5), ("parameters", 0.5))
    with pytest.raises(UserError, match=r"of the flops and 0\.5 of the parameters, which only"):
        check(put(both, key, value))


@pytest.mark.parametrize(("text", "number"), [("1e-05", 1e-5), ("2e-3", 2e-3), ("1E-4", 1e-4)])
def test_numbers_arrive_which_pyyaml_leaves_as_text(values, text, number, tmp_path):
    loaded = yaml.safe_load(f"x: {text}")["x"]
    assert isinstance(loaded, str), "PyYAML has learnt YAML 1.2"
    params = check(put(values, "search.ppo.learning_rate", loaded))
    assert params.search.ppo.learning_rate == number


def test_settings_of_agents_that_are_absent_take_their_defaults(values):
    search = check(values).search
    assert search.ppo is None
    assert search.agent_parameters() == {
        **dict(PPOSettings()), "encoder": search.encoder, "policy": search.policy,
        **dict(search.gnn)
    }  # fmt: skip


def test_the_former_names_of_ranking_agents_are_kept(values):
    values = put(values, "search.space", "filters")
    values = put(values, "search.budget", {"sparsity": 0.5})
    former = check(put(values, "search.agent", "snip_shuffled")).search
    now = {"agent": "ranking", "importance": "snip", "ranking": {"shuffled": True}}
    for key, value in now.items():
        values = put(values, f"search.{key}", value)
    assert former == check(values).search
    assert former.agent_parameters() == {"shuffled": True}


def test_what_a_result_does_not_depend_on_does_not_change_the_identity_of_a_search(values):
    search = check(values).search
    for key, value in {"ray": {"workers": 3}, "ddpg": {"warmup": 5}}.items():
        assert check(put(values, f"search.{key}", value)).search.resolved() == search.resolved()
    other = check(put(values, "search.ppo.gamma", 0.5)).search
    assert other.resolved() != search.resolved()


@pytest.mark.parametrize("how", ["students", "training"])
def test_what_cannot_be_scored_again_is_known_before_the_search(values, how):
    trained = {"search.students": {"recipe": {"epochs": 1}}, "search.reward.training": {}}
    values = put(values, "search.rescore", {"plans": 2, "images": 100})
    where = "search.students" if how == "students" else "search.reward.training"
    with pytest.raises(UserError, match=r"has 'rescore', but .* take 'search.rescore' out"):
        check(put(values, where, trained[where]))


def test_an_agent_of_ones_own_gets_its_own_settings(values):
    values = put(values, "search.agent", "package.module:build")
    params = check(put(values, "search.own", {"depth": 3}))
    assert params.search.agent_parameters() == {"depth": 3}


def test_reward_images_must_be_new_to_a_network_that_comes_trained(values):
    foreign = put(values, "pretrain.weights", "weights/resnet20.th")
    with pytest.raises(UserError, match=r"'data.reward_from' is train"):
        check(foreign)
    check(put(foreign, "data.reward_from", "test"))
    check(put(values, "pretrain.weights", "artifacts/train/subnet.safetensors"))


def test_snapshots_of_epochs_that_there_are_not_are_known_before_the_training(values):
    with pytest.raises(UserError, match=r"'pretrain.snapshots' names epoch 1, but .* is 0"):
        check(put(values, "pretrain.recipe.epochs", 0))


def test_a_search_can_name_every_budget():
    assert set(BudgetSettings.model_fields) == set(RESOURCES)


def test_a_stage_is_handed_its_own_sections_only():
    sections = load_params("search", ROOT / "params.yaml")
    assert set(vars(sections)) == set(STAGE_SECTIONS["search"])
    assert set(STAGE_SECTIONS["search"]) == {"data", "network", "search", "task"}


def test_a_slip_in_a_late_section_fails_in_the_first_stage(values, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(put(values, "report.titel", "x")))
    with pytest.raises(UserError, match=r"did you mean 'report.title'"):
        load_params("pretrain", path)


def test_an_override_replaces_one_value():
    sections = load_params(
        "search", ROOT / "params.yaml", ["search.seed=7", "search.budget.flops=1e-1"]
    )
    assert (sections.search.seed, sections.search.budget.flops) == (7, 0.1)


@pytest.mark.parametrize("override", ["search.seed", "seed=3", ".seed=3", "search.=3"])
def test_an_override_without_key_or_value_is_refused(override):
    with pytest.raises(UserError, match=r"--set wants section.key=value"):
        load_params("search", ROOT / "params.yaml", [override])


def test_an_override_of_an_unknown_key_is_refused():
    with pytest.raises(UserError, match=r"did you mean 'search.seed'"):
        load_params("search", ROOT / "params.yaml", ["search.sead=1"])


def test_overrides_are_refused_within_dvc(monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "search")
    with pytest.raises(UserError, match="dvc exp run -S"):
        load_params("search", ROOT / "params.yaml", ["search.seed=1"])


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [1", "is not YAML"), ("- 1\n- 2", "mapping of sections"), ("", "mapping of sections")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, said):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["data: {seed: 1}\ndata: {}", "data:\n  seed: 1\n  seed: 2"])
def test_a_key_that_stands_twice_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"params.yaml: the key '(data|seed)' .* twice: keep one"):
        read_yaml(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*nothing\.yaml"):
        read_yaml(tmp_path / "nothing.yaml")


def test_a_constrained_reward_is_for_students(values):
    with pytest.raises(UserError, match=r"n2n_constrained, which students are eased into: add"):
        check(put(values, "search.reward.kind", "n2n_constrained"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"statistics_images": -1}, "must be at least 0, got -1"),
        ({"statistics_images": 64, "statistics": "kept"}, "64, but the statistics kept, which"),
        ({"statistics_images": 64, "statistics": "images"}, "set 'statistics_images' to 0, or"),
        ({"statistics_images": 200, "batch_size": 100}, "expected at most the batch_size 100"),
        ({"statistics_images": 301}, "is 301, expected at most the 300 of 'data.reward_images'"),
    ],
)
def test_statistics_come_from_reward_images_that_are_there(values, changed, said):
    for key, value in changed.items():
        values = put(values, f"search.reward.{key}", value)
    with pytest.raises(UserError) as caught:
        check(values)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_students_have_the_settings_of_their_section():
    students = check(read_yaml(stage_runs.preset("n2n-cifar10"))).search.students
    how = students.distillation
    assert (how.weight, how.temperature, how.kind, students.recipe.epochs) == (100.0, 3.0, "mse", 5)


def test_layers_are_not_for_agents_that_rank_filters(values):
    layers = put(put(values, "search.space", "layers"), "search.agent", "snip")
    with pytest.raises(
        UserError, match="which ranks filters or single weights, but the space layers"
    ):
        check(layers)


def test_a_reward_that_does_not_score_what_prune_ships_is_said(tmp_path, capsys):
    def said(**reward: str) -> str:
        path = tmp_path / "params.yaml"
        values = {"prune": {"compensation": "sequential"}, "search": {"reward": reward}}
        path.write_text(yaml.safe_dump(values))
        load_params("search", path)
        return capsys.readouterr().err

    assert "search: 'prune.compensation' is sequential, but the reward scores subnets" in said()
    assert said(kind="jensen_shannon", compensation="gram") == ""


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("extract.protect", [""], "must be a name, got ''"),
        ("network.name", " ", "must be a name, got ' '"),
        ("pretrain.weights", "", "must be a name, got ''"),
        ("pretrain.recipe.momentum", 1, "must be less than 1, got 1"),
        ("train.recipe.label_smoothing", 1.0, "must be less than 1, got 1.0"),
        ("data.std", [1e-300, 1, 1], "must be at least 0.001, got 1e-300"),
        ("data.mean", [1e300, 0, 0], "must be a number from -1e9 to 1e9, got 1e+300"),
        ("data.mean", [127.5, 0, 0], "must be at most 1, got 127.5"),
        ("search.reward.race", 300, "expected less than the 300 of 'data.reward_images'"),
        ("search.rescore", {"plans": 96, "images": 500}, "'rescore' alone asks for 96"),
    ],
)
def test_extremes_with_which_no_run_makes_sense_are_refused(values, key, value, said):
    with pytest.raises(UserError) as caught:
        check(put(values, key, value))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [[], {}, ["ppo"], 3])
@pytest.mark.parametrize("key", ["search.agent", "search.space", "search.reward.kind"])
def test_a_name_that_is_no_text_is_refused(key, value, values):
    with pytest.raises(UserError, match=key):
        check(put(values, key, value))


@pytest.mark.parametrize("text", ["[", "{", "@", "%", "'", "1: 2: 3"])
def test_an_override_that_is_no_yaml_is_refused(text):
    with pytest.raises(UserError, match=r"--set report\.title=.*not YAML"):
        load_params("report", ROOT / "params.yaml", [f"report.title={text}"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("report.dpi", 100_000),
        ("report.dpi", 1),
        ("search.gnn.layers", 10**9),
        ("search.gnn.hidden", 10**9),
        ("search.multiple", 10**30),
        ("network.input_shape", [3, 10**5, 10**5]),
        ("train.recipe.learning_rate", 1e300),
        ("data.mean", [1e300, 0.0, 0.0]),
    ],
)
def test_numbers_that_explode_are_refused(key, value, values):
    with pytest.raises(UserError, match=f"{key}.*must be (at|a number)"):
        check(put(values, key, value))


def test_a_student_is_taken_only_where_the_search_keeps_it_and_is_not_repaired():
    goes_on = {"prune": {"weights": "student"}}
    with pytest.raises(UserError, match=r"'prune.weights' is student, but the search keeps"):
        check(goes_on)
    with pytest.raises(UserError, match="the search keeps no students"):
        check({**goes_on, "search": {"students": {"keep": 0}}})
    assert check({**goes_on, "search": {"students": {}}}).prune.goes_on
    repaired = {"weights": "student", "compensation": "gram"}
    with pytest.raises(UserError, match="trained already, and the compensation gram"):
        check({"prune": repaired, "search": {"students": {}}})


def test_kernels_are_decided_in_the_space_layers_only():
    with pytest.raises(UserError, match="has kernels, whose sizes the space layers decides, but"):
        check({"search": {"kernels": True}})
    assert check({"search": {"kernels": True, "space": "layers"}}).search.kernels
    with pytest.raises(UserError, match="has kernels and a budget of latency"):
        check(
            {
                "search": {
                    "kernels": True,
                    "space": "layers",
                    "budget": {"flops": None, "latency": 0.5},
                    "latency_table": "latency.json",
                }
            }
        )


@pytest.mark.parametrize("search", [{"budgets": [0.3]}, {"evaluations": 0}])
def test_the_student_of_a_plan_is_asked_for_only_where_it_is_kept(search):
    given = {"search": {"students": {"recipe": {"epochs": 1}}, **search}}
    given["prune"] = {"weights": "student"}
    with pytest.raises(UserError, match="does not keep the student of every plan"):
        check(given)


def test_a_budget_is_a_fraction_or_a_number_of_what_is_counted():
    assert check({"search": {"budget": {"flops": 20_000_000}}}).search.budget.flops == 2e7
    with pytest.raises(UserError, match="a fraction in"):
        check({"search": {"budget": {"flops": 1.5}}})
    with pytest.raises(UserError, match="must be at most 1, got 20"):
        check({"search": {"budget": {"latency": 20}}})


@pytest.mark.parametrize(
    "search, said",
    [
        ({"reward": {"kind": "fewest_flops"}}, "finds the smallest subnet of at least an accuracy"),
        ({"reward": {"at_least": 0.9}}, "has at_least 0.9, but the kind loss"),
        ({"reward": {"kind": "fewest_flops", "at_least": 90}}, "must be at most 1, got 90"),
        (
            {"reward": {"kind": "fewest_flops", "at_least": 0.9}, "space": "joint"},
            "need not use up the budget: set 'search.space' to channels or layers",
        ),
        (
            {"reward": {"kind": "fewest_flops", "at_least": 0.9}, "budgets": [0.3]},
            "'search.budgets' to",
        ),
        (
            {
                "reward": {"kind": "fewest_flops", "at_least": 0.9},
                "budget": {"flops": 0.5, "parameters": 0.5},
            },
            "give one budget alone",
        ),
        (
            {"reward": {"kind": "fewest_flops", "at_least": 0.9, "race": 50}},
            "a race, which stops plans by their loss",
        ),
        (
            {
                "reward": {"kind": "fewest_flops", "at_least": 0.9},
                "rescore": {"plans": 2, "images": 100},
            },
            "has 'rescore' and the reward fewest_flops",
        ),
    ],
)
def test_the_smallest_subnet_needs_an_accuracy_and_a_space_in_which_plans_can_be_small(
    search, said
):
    with pytest.raises(UserError, match=said):
        check({"search": search})
