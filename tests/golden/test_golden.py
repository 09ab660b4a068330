"""Searches give today what they gave when `golden.json` was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden.cases import CASES, result

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))
RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""Processors round differently; what hangs on single bits stands under `bytes` and is compared by
`git diff` alone, after `python -m tests.golden`."""


def differences(now: Any, then: Any, where: str) -> list[str]:
    """Say where two results differ: texts and whole numbers exactly, others within tolerance."""
    if isinstance(then, dict) and isinstance(now, dict) and now.keys() == then.keys():
        parts = [(now[key], then[key], f"{where}.{key}") for key in then if key != "bytes"]
    elif isinstance(then, list) and isinstance(now, list) and len(now) == len(then):
        parts = [(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(now, then, strict=True))]
    elif isinstance(then, float) and isinstance(now, int | float):
        close = abs(now - then) <= ABSOLUTE + RELATIVE * abs(then)
        return [] if close else [f"{where}: {now!r}, was {then!r}"]
    else:
        return [] if now == then else [f"{where}: {now!r}, was {then!r}"]
    return [line for part in parts for line in differences(*part)]


def test_every_case_is_pinned():
    assert set(GOLDEN) == set(CASES), "run python -m tests.golden"


@pytest.mark.parametrize("name", CASES)
def test_the_result_is_what_it_was(name):
    found = differences(result(name), GOLDEN[name], name)
    assert not found, "\n".join(found)


def test_another_number_is_noticed_and_another_rounding_is_not():
    assert not differences({"a": [1.0, 2], "bytes": "x"}, {"a": [1.00001, 2], "bytes": "y"}, "")
    assert differences({"a": [1.0, 2]}, {"a": [1.001, 2]}, "a") == ["a.a[0]: 1.0, was 1.001"]
    assert differences(["x"], ["y"], "") and differences([1], [1, 2], "")
    assert differences({"a": 1}, {"b": 1}, "")
