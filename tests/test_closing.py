"""What stages say: their help, and the warning about a network that guesses."""

from __future__ import annotations

import importlib

import pytest

from gnnrl.params import STAGE_SECTIONS
from gnnrl.training.evaluate import at_chance
from stages import _cli
from stages.__main__ import STAGES


@pytest.mark.parametrize("name", STAGES)
def test_the_help_names_the_sections_read_and_the_files_written(name):
    stage = getattr(importlib.import_module(f"stages.{name}"), name)
    assert f"sections of params.yaml: {', '.join(STAGE_SECTIONS[name])}. Writes" in stage.__doc__


def test_a_network_within_two_standard_errors_of_guessing_is_warned_about(capsys):
    assert at_chance(0.1, 100, 10) and at_chance(0.02, 100, 10) and not at_chance(0.2, 100, 10)
    _cli.warn_at_chance({"reward_accuracy": 0.1, "reward_images": 100}, 10)
    assert "WARNING: the dense network is right on 10.0 % of 100" in capsys.readouterr().err
    _cli.warn_at_chance({"reward_accuracy": 0.9, "reward_images": 100}, 10)
    assert capsys.readouterr().err == ""
