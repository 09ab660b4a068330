"""Every setting has one home: a class beside the code, with type, range, default and help."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, TypeAdapter

from gnnrl.data.settings import DataRecipe
from gnnrl.errors import UserError
from gnnrl.settings import Settings
from gnnrl.training.recipe import TrainingRecipe

ROOT = Path(__file__).parents[1]


def declared() -> list[type[Settings]]:
    """Return every settings class of the library."""
    for path in sorted((ROOT / "gnnrl").rglob("*.py")):
        if "Settings)" in path.read_text(encoding="utf-8"):
            module = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
            importlib.import_module(module)
    found, left = set(), [Settings]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        found.add(kind)
    return sorted((k for k in found if k.__module__.startswith("gnnrl") and k is not Settings),
                  key=lambda kind: kind.__qualname__)  # fmt: skip


DECLARED = declared()


def test_no_two_classes_declare_the_same_settings():
    fields = [frozenset(kind.__annotations__) for kind in DECLARED if kind.__annotations__]
    assert len(DECLARED) >= 20
    assert len(set(fields)) == len(fields)


def test_only_settings_declare_what_a_user_can_set():
    """No dataclass and no other model of the library repeats the fields of a settings class."""
    settings = {frozenset(kind.model_fields) for kind in DECLARED}
    for path in sorted((ROOT / "gnnrl").rglob("*.py")):
        module = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        if "@dataclass" in path.read_text(encoding="utf-8"):
            for kind in vars(importlib.import_module(module)).values():
                fields = frozenset(getattr(kind, "__dataclass_fields__", ()))
                assert len(fields) < 3 or fields not in settings, kind
    assert {kind for kind in BaseModel.__subclasses__() if kind.__module__[:5] == "gnnrl"} == {
        Settings
    }


@pytest.mark.parametrize("kind", DECLARED, ids=lambda kind: kind.__qualname__)
def test_every_field_has_help_and_a_default_that_is_valid(kind):
    for name, field in kind.model_fields.items():
        assert field.description, name
        if not field.is_required():
            kept = TypeAdapter(Annotated[(field.annotation, "", *field.metadata)])
            assert kept.validate_python(field.default) == field.default, name


def test_a_bad_value_in_python_is_one_sentence():
    with pytest.raises(UserError, match=r"^TrainingRecipe: 'epochs' must be at least 0, got -1$"):
        TrainingRecipe(epochs=-1)
    with pytest.raises(UserError, match=r"unknown key 'epoch'; did you mean 'epochs'"):
        TrainingRecipe(epoch=1)
    with pytest.raises(UserError, match="'momentum' must be less than 1"):
        TrainingRecipe().changed(momentum=2)


def test_settings_are_given_in_order_or_by_name():
    assert DataRecipe("digits", reward_images=10) == DataRecipe(name="digits", reward_images=10)


def test_settings_travel_to_other_processes():
    recipe = TrainingRecipe(epochs=3, milestones=(1, 2))
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert TypeAdapter(TrainingRecipe).validate_python(recipe.model_dump(mode="json")) == recipe
