"""Ridge regression with the best penalty, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV

from gnnrl.agents.ridge import ridge

PENALTIES = 10.0 ** torch.arange(-4, 4, dtype=torch.float64)


@pytest.mark.parametrize(("rows", "columns"), [(8, 60), (90, 60), (200, 30)])
@pytest.mark.parametrize("noise", [0.0, 0.5, 5.0])
def test_slopes_are_those_of_scikit_learn(rows, columns, noise):
    generator = torch.Generator().manual_seed(rows)
    features, errors, true = (
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in ((rows, columns), (rows,), (columns,))
    )
    targets = features @ true + noise * errors + 3.0
    weights = 0.9 ** torch.arange(rows, dtype=torch.float64)
    slopes, centre, mean = ridge(features, targets, weights, PENALTIES)
    theirs = RidgeCV(alphas=PENALTIES.numpy()).fit(
        features.numpy(), targets.numpy(), sample_weight=(weights / weights.sum()).numpy()
    )
    np.testing.assert_allclose(slopes, theirs.coef_, atol=1e-6)
    assert float(mean - centre @ slopes) == pytest.approx(theirs.intercept_, abs=1e-6)


def test_one_row_gives_its_target_and_no_slopes():
    one = torch.ones(1, 3, dtype=torch.float64)
    slopes, _, mean = ridge(one, 4 * one[:, 0], one[:, 0], PENALTIES)
    assert slopes.abs().max() == 0 and mean == 4
