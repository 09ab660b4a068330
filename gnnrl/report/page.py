"""The page of the report as HTML, with everything inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from gnnrl.report.drawing import svg
from gnnrl.report.layers import LayerCost

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Row:
    """One line of the comparison; `unit` is shown behind both figures.

    errors: standard errors of both figures, shown behind them; None: none are known.  factor: how
    many times as fast, where it is not the ratio of the figures; spread: of it, relative.
    """

    what: str
    dense: float
    subnet: float
    unit: str = ""
    digits: int = 0
    errors: tuple[float, float] | None = None
    factor: float | None = None
    spread: float | None = None

    def shown(self, value: float) -> str:
        """Return one of the figures as text."""
        error = ""
        if self.errors is not None:
            error = f" ± {self.errors[value is self.subnet]:.{self.digits}f}"
        return f"{value:,.{self.digits}f}{error}{self.unit}"

    @property
    def share(self) -> float:
        """The subnet's figure divided by the dense network's."""
        return self.subnet / self.dense if self.dense else 1.0

    @property
    def is_speed(self) -> bool:
        """Whether the figures are times, of which the change is a factor of speed."""
        return self.unit == " ms"

    @property
    def bars(self) -> tuple[float, float] | None:
        """Percent of the bars of dense and subnet: speeds for times; none for accuracies."""
        if self.unit == " %" or not (self.dense and self.subnet):
            return None
        share = 1 / self.share if self.is_speed else self.share
        return 100 / max(share, 1.0), 100 * share / max(share, 1.0)

    @property
    def speedup(self) -> float:
        """How many times as fast the subnet is."""
        return 1 / self.share if self.factor is None else self.factor

    @property
    def _error(self) -> str:
        return f" ± {self.spread * self.speedup:.2f}" if self.spread else ""

    @property
    def change(self) -> str:
        """What became of the figure: points, a factor of speed, or the share that is kept."""
        if self.unit == " %":
            return f"{self.subnet - self.dense:+.2f} points".replace("-", MINUS)
        if self.is_speed:
            return f"{self.speedup:.2f}{self._error} × as fast" if self.share else ""
        return f"{100 * self.share:.1f} % kept"


@dataclass(frozen=True)
class Picture:
    """A figure with its file name, its heading and one sentence that says how to read it.

    on_page: whether the page shows it, too; otherwise it is a file only.
    """

    name: str
    heading: str
    sentence: str
    figure: Figure
    on_page: bool = True

    @property
    def svg(self) -> str:
        """The figure as text, to stand within the page."""
        return svg(self.figure)


@dataclass(frozen=True)
class Page:
    """What the page says, from top to bottom.

    facts: short values by name.  steps: what, and its metric.  controls: lines of name, metric,
    reward, gain.  commands: what it does, and the command.  metric: its name, as it is read.
    """

    title: str
    headline: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    steps: Sequence[tuple[str, str]] = ()
    controls: Sequence[Sequence[str]] = ()
    layers: Sequence[LayerCost] = ()
    pictures: Sequence[Picture] = ()
    commands: Sequence[tuple[str, str]] = ()
    metric: str = "accuracy"


def html(page: Page) -> str:
    """Return the page; nothing is loaded from anywhere."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.j2").render(page=page)
