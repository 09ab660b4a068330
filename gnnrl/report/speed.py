"""What the page says about speed: what was measured, where, and whether the budget was met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gnnrl.report.page import Row
from gnnrl.report.run import Run


@dataclass(frozen=True)
class Speed:
    """Dense network and subnet in one runtime with one size of batch.

    dense, subnet: median milliseconds.  speedup: median of their ratios.  spread: of that ratio.
    """

    runtime: str
    batch: str
    dense: float
    subnet: float
    speedup: float
    spread: float

    @property
    def images(self) -> str:
        """How many images, in words."""
        return "one image" if self.batch == "1" else f"{self.batch} images"


def speeds(run: Run) -> list[Speed]:
    """Return what was measured, in the order of the settings."""
    return list(_speeds(run.latency or {}))


def _speeds(latency: Mapping[str, Any]) -> Iterator[Speed]:
    for runtime, sizes in latency.get("runtimes", {}).items():
        for batch, both in sizes.items():
            dense, subnet = (both[name]["milliseconds"] for name in ("dense", "subnet"))
            gain = both["speedup"]
            yield Speed(runtime, batch, dense, subnet, gain["median"], gain["spread"])


def rows(run: Run) -> list[Row]:
    """Return the lines of the comparison, the runtime named where there are several."""
    found = speeds(run)
    several = len({speed.runtime for speed in found}) > 1
    return [
        Row(
            f"latency of {speed.images}{f', {speed.runtime}' if several else ''}",
            speed.dense,
            speed.subnet,
            unit=" ms",
            digits=2,
            factor=speed.speedup,
            spread=speed.spread,
        )
        for speed in found
    ]


def budgeted(run: Run) -> Speed | None:
    """Return what the budget of latency is about: the table's runtime and batch, else the first."""
    found = speeds(run)
    if run.table is not None:
        like = (run.table.runtime, str(run.table.batch_size))
        found = [s for s in found if (s.runtime, s.batch) == like] or found
    return found[0] if found else None


def notes(run: Run) -> list[str]:
    """Say how latency was measured, where the table is from, and whether the budget was missed."""
    if run.latency is None:
        return []
    measured = run.latency
    said = [
        "Latency: median of {rounds} rounds in turn on {device}, threads: {threads}, "
        "PyTorch {torch}. The bars of latency show speed: longer is faster. ± is the interquartile "
        "range of the ratio of both networks, round by round.".format_map(measured)
    ]
    said += [*measured.get("warnings", ()), *_elsewhere(run), *_missed(run)]
    for name, found in run.int8.items():
        times = ", ".join(
            f"{time['milliseconds']:.2f} ms at batch {size}"
            for size, time in found["milliseconds"].items()
        )
        said.append(
            f"Exported file, {name}: {found['metric']} {100 * found[found['metric']]:.2f} %, "
            f"{found['bytes'] / 1000:,.1f} kB, {times} in ONNX Runtime."
        )
    return said


def _elsewhere(run: Run) -> Iterator[str]:
    """Say where the latency table differs from what was measured, and that it is a noisy one."""
    if run.table is None or run.latency is None:
        return
    table, here = run.table, run.latency["device"]
    if noise := table.noise(run.latency["noisy_above"]):
        yield noise
    made = f"{table.device} {table.machine}".strip()
    like = [(speed.runtime, speed.batch) for speed in speeds(run)]
    if made != here:
        yield f"The budget is of a latency table made on {made}; measured here: {here}."
    if table.threads != run.latency["threads"]:
        yield (
            f"The latency table is for {table.threads} threads; measured here: "
            f"{run.latency['threads']}."
        )
    if (table.runtime, str(table.batch_size)) not in like:
        yield (
            f"The budget is of {table.runtime} with {table.batch_size} images, which was not "
            "measured here: add them to evaluate.latency_runtimes and evaluate.latency_batches."
        )


def _missed(run: Run) -> Iterator[str]:
    """Say where the measured speed misses the budget by more than its spread."""
    asked, speed = run.search.get("budget", {}).get("latency"), budgeted(run)
    if asked is None or speed is None:
        return
    reached = 1 / speed.speedup if speed.speedup else 1.0
    if abs(reached - asked) > speed.spread * reached:
        how = "over the budget" if reached > asked else "less than was asked for"
        yield (
            f"Budget missed: the measured latency is {reached:.3f} of the dense network's "
            f"({speed.runtime}, {speed.images}), {how} ({asked:g}) by more than the spread "
            f"({speed.spread * reached:.3f})."
        )
