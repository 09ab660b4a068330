"""The page of the report as HTML, with everything inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2


@dataclass(frozen=True)
class Row:
    """One line of the comparison; `unit` is shown behind both figures."""

    what: str
    dense: float
    subnet: float
    unit: str = ""
    digits: int = 0

    def shown(self, value: float) -> str:
        """Return one of the figures as text."""
        return f"{value:,.{self.digits}f}{self.unit}"

    @property
    def share(self) -> float:
        """The subnet's figure divided by the dense network's."""
        return self.subnet / self.dense if self.dense else 1.0

    @property
    def change(self) -> str:
        """What became of the figure: points, a factor of speed, or the share that is kept."""
        if self.unit == " %":
            return f"{self.subnet - self.dense:+.2f} points"
        if self.unit == " ms":
            return f"{1 / self.share:.2f} × as fast" if self.share else ""
        return f"{100 * self.share:.1f} % kept"


@dataclass(frozen=True)
class Picture:
    """A PNG with its file name, its heading and one sentence that says how to read it."""

    name: str
    heading: str
    sentence: str
    png: bytes

    @property
    def encoded(self) -> str:
        """The PNG as text, to stand within the page."""
        return base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Gain:
    """The plan that was found against a control, a plan that needs no search.

    reward, accuracy (in %): of the control, on the reward images.  gain: of the search over its
    reward.  after: evaluations spent when the search was first better; None: it never was.
    """

    control: str
    reward: float
    accuracy: float
    gain: float
    after: float | None


def page(
    title: str,
    notes: Sequence[str],
    rows: Sequence[Row],
    pictures: Sequence[Picture],
    gains: Sequence[Gain] = (),
) -> str:
    """Return the page; nothing is loaded from anywhere."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.get_template("page.html.j2")
    given = {"notes": notes, "rows": rows, "pictures": pictures, "gains": gains}
    return template.render(title=title, **given)
