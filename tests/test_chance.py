"""A dense network that has learnt nothing is named before a search is spent on it."""

from __future__ import annotations

import pytest
import torch

from gnnrl.pretrained import no_better_than_chance

LABELS = torch.tensor([0] * 50 + [1] * 25 + [2] * 25)


@pytest.mark.parametrize("accuracy", [0.1, 0.5, 0.59])
def test_no_better_than_the_commonest_class(accuracy):
    assert "guessing the commonest class on 0.500" in no_better_than_chance(accuracy, LABELS)


@pytest.mark.parametrize("accuracy", [0.61, 0.9])
def test_better_than_the_commonest_class(accuracy):
    assert no_better_than_chance(accuracy, LABELS) == ""
