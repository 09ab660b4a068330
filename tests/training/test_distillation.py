from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gnnrl.errors import UserError
from gnnrl.tasks.comparing import KINDS, kl
from gnnrl.training.distillation import Distillation


@pytest.fixture
def logits():
    return torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_like_its_teacher_has_nothing_to_learn_from_it(kind, logits):
    student, teacher = logits
    assert KINDS[kind](teacher, teacher, 4.0) == pytest.approx(0, abs=1e-12)
    assert KINDS[kind](student, teacher, 4.0) > 1e-4


def test_kl_is_the_divergence_times_the_squared_temperature(logits):
    student, teacher = ((row / 3).softmax(1) for row in logits)
    by_hand = 9 * (teacher * (teacher / student).log()).sum(1).mean()
    torch.testing.assert_close(kl(*logits, 3.0), by_hand)


def test_hot_kl_has_the_gradient_of_matched_logits(logits):
    """Hinton et al. 2015, Eq. 4: for high temperatures both match centred logits."""
    student, teacher = (row - row.mean(1, keepdim=True) for row in logits)
    student.requires_grad_()
    kl(student, teacher, 1e4).backward()
    torch.testing.assert_close(
        student.grad, (student - teacher).detach() / student.numel(), rtol=1e-3, atol=1e-6
    )


def test_alpha_mixes_teacher_and_labels(logits):
    student, teacher = logits
    hard = F.cross_entropy(student, torch.zeros(6, dtype=torch.long))
    soft = kl(student, teacher, 4.0)

    def loss(alpha: float) -> torch.Tensor:
        return Distillation(nn.Identity(), alpha=alpha).loss(student, teacher, hard)

    torch.testing.assert_close(loss(0.0), hard)
    torch.testing.assert_close(loss(1.0), soft)
    torch.testing.assert_close(loss(0.3), 0.3 * soft + 0.7 * hard)


@pytest.mark.parametrize("wrong", [{"kind": "l1"}, {"alpha": 1.5}, {"temperature": 0.0}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(UserError, match=str(next(iter(wrong.values())))):
        Distillation(nn.Identity(), **wrong)
