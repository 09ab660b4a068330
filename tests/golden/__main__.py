"""Write `golden.json` anew: `python -m tests.golden`, then `git diff --exit-code tests/golden`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.golden.cases import CASES, result

GOLDEN = Path(__file__).with_name("golden.json")


def main() -> None:
    """Run every case and write what came of it."""
    results = {name: result(name) for name in CASES}
    GOLDEN.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
