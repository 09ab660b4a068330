"""What stages say: their help, and the warning about a network that guesses."""

from __future__ import annotations

import importlib

import pytest

from gnnrl.params import STAGE_SECTIONS
from stages.__main__ import STAGES


@pytest.mark.parametrize("name", STAGES)
def test_the_help_names_the_sections_read_and_the_files_written(name):
    stage = getattr(importlib.import_module(f"stages.{name}"), name)
    assert f"sections of params.yaml: {', '.join(STAGE_SECTIONS[name])}. Writes" in stage.__doc__
