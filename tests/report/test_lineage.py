"""Whose figures DVC shows: those of an experiment, or of its parent."""

from __future__ import annotations

import copy

import pytest

from gnnrl.report.lineage import own_stages, stage_of

PARAMS = {
    "data": {"seed": 0},
    "search": {"seed": 1, "rate": "1e-05"},
    "train": {"recipe": {"learning_rate": 0.1}},
}


def entry(sections, deps, outs):
    return {
        "deps": [{"path": path, "md5": md5} for path, md5 in deps.items()],
        "params": {"params.yaml": {name: copy.deepcopy(PARAMS[name]) for name in sections}},
        "outs": [{"path": path, "md5": md5} for path, md5 in outs.items()],
    }


@pytest.fixture
def lock():
    """Search -> train -> evaluate; the search writes a folder, of which training reads a file."""
    train = {"gnnrl/training": "code", "artifacts/search/plan.json": "plan"}
    return {
        "stages": {
            "evaluate": entry(["data"], {"artifacts/train": "t"}, {"artifacts/e/m.json": "e"}),
            "search": entry(["data", "search"], {"gnnrl/search": "x"}, {"artifacts/search": "s"}),
            "train": entry(["data", "train"], train, {"artifacts/train": "t"}),
        }
    }


def listing(digest):
    return {"s": {"plan.json": "plan", "history.csv": "h"}}.get(digest)


def test_stages_that_ran_with_the_parameters_on_what_was_written_are_its_own(lock):
    assert own_stages(lock, PARAMS, listing) == {"search", "train", "evaluate"}


def test_numbers_are_equal_however_they_are_written(lock):
    given = {**PARAMS, "search": {"seed": 1.0, "rate": 0.00001}}
    assert "search" in own_stages(lock, given, listing)


def test_after_another_search_alone_the_other_figures_are_the_parents(lock):
    lock["stages"]["search"]["params"]["params.yaml"]["search"]["seed"] = 2
    lock["stages"]["search"]["outs"][0]["md5"] = "other"
    params = {**PARAMS, "search": {**PARAMS["search"], "seed": 2}}
    other = {"other": {"plan.json": "another plan"}}
    assert own_stages(lock, params, other.get) == {"search"}


def test_a_search_that_found_the_same_plan_leaves_the_other_figures_valid(lock):
    lock["stages"]["search"]["outs"][0]["md5"] = "other"
    other = {"other": {"plan.json": "plan"}}
    assert own_stages(lock, PARAMS, other.get) == {"search", "train", "evaluate"}


def test_a_stage_whose_parameters_changed_but_did_not_run_is_not_its_own(lock):
    params = {**PARAMS, "train": {"recipe": {"learning_rate": 0.2}}}
    assert own_stages(lock, params, listing) == {"search"}


def test_a_folder_that_the_cache_does_not_hold_proves_nothing(lock):
    assert own_stages(lock, PARAMS, {}.get) == {"search"}


def test_a_file_belongs_to_the_stage_that_wrote_it_or_its_folder(lock):
    assert stage_of("artifacts/e/m.json", lock) == "evaluate"
    assert stage_of("artifacts/search/metrics.json", lock) == "search"
    assert stage_of("README.md", lock) is None
    assert own_stages(None, PARAMS, listing) == set()
