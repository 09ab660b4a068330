from __future__ import annotations

import pytest

from gnnrl.errors import UserError
from gnnrl.training.recipe import SCHEDULES, TrainingRecipe


def rates(**wishes: object) -> list[float]:
    recipe = TrainingRecipe(**{"epochs": 10, "learning_rate": 1.0, **wishes})
    return [recipe.learning_rate_at(i / 10) for i in range(101)]


def test_cosine_falls_from_the_learning_rate_to_zero():
    course = rates(schedule="cosine")
    assert course[0] == 1.0 and course[50] == pytest.approx(0.5) and course[-1] == pytest.approx(0)
    assert course == sorted(course, reverse=True)


def test_step_divides_by_ten_at_each_milestone():
    course = rates(schedule="step", milestones=(3, 6))
    assert course[29] == 1.0
    assert course[30] == course[59] == pytest.approx(0.1)
    assert course[60] == course[100] == pytest.approx(0.01)


def test_one_cycle_rises_to_the_learning_rate_and_falls():
    course = rates(schedule="one_cycle")
    top = course.index(max(course))
    assert course[0] == pytest.approx(0.04) and course[top] == pytest.approx(1.0) and top == 30
    assert course[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_from_zero_before_any_schedule(schedule):
    course = rates(schedule=schedule, warmup_epochs=2)
    assert course[0] == 0 and course[10] == pytest.approx(0.5)
    assert all(0 <= rate <= 1 for rate in course)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"schedule": "cosin"}, "must be one of constant, .*, got 'cosin'"),
        ({"epochs": -1}, "'epochs' must be at least 0, got -1"),
        ({"batch_size": 0}, "'batch_size' must be at least 1, got 0"),
        ({"warmup_epochs": 11}, "11 warmup_epochs, expected at most its 10 epochs"),
        ({"momentum": 0.0}, "nesterov, which needs a momentum above 0"),
        ({"learning_rate": float("nan")}, "'learning_rate' must be a number, got nan"),
    ],
)
def test_nonsense_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        rates(**wrong)
