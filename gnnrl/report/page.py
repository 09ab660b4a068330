"""The page of the report as HTML, with everything inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the comparison; `unit` is shown behind both figures."""

    what: str
    dense: float
    subnet: float
    unit: str = ""
    digits: int = 0


@dataclass(frozen=True)
class Picture:
    """A PNG with its file name, its heading and one sentence that says how to read it."""

    name: str
    heading: str
    sentence: str
    png: bytes


def page(title: str, notes: Sequence[str], rows: Sequence[Row], pictures: Sequence[Picture]) -> str:
    """Return the page."""
    return PAGE.format(
        title=html.escape(title),
        style=STYLE,
        notes="\n".join(f"<p>{html.escape(note)}</p>" for note in notes),
        rows="\n".join(_row(row) for row in rows),
        pictures="\n".join(_picture(picture) for picture in pictures),
    )


def _row(row: Row) -> str:
    share = row.subnet / row.dense if row.dense else 1.0
    bar = f'<div class="bar"><i style="width:{min(100.0, 100 * share):.1f}%"></i></div>'
    if row.unit == " %":
        change, bar = f"{row.subnet - row.dense:+.2f} points", ""
    elif row.unit == " ms":
        change = f"{1 / share:.2f} × as fast" if share else ""
    else:
        change = f"{100 * share:.1f} % kept"
    dense, subnet = (f"{value:,.{row.digits}f}{row.unit}" for value in (row.dense, row.subnet))
    return (
        f"<tr><th>{html.escape(row.what)}</th><td>{dense}</td><td>{subnet}</td>"
        f"<td>{change}{bar}</td></tr>"
    )


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    heading = html.escape(picture.heading)
    return (
        f"<h2>{heading}</h2><p>{html.escape(picture.sentence)}</p>"
        f'<img alt="{heading}" src="data:image/png;base64,{data}">'
    )


STYLE = """
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.5rem 4rem; color: #1f2933;
  background: #ffffff; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .2rem; }
p { color: #52606d; margin: .2rem 0 .8rem; max-width: 46rem; }
table { border-collapse: collapse; width: 100%; margin: 1.4rem 0 .6rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .8rem; border-bottom: 1px solid #e4e7eb; text-align: right;
  vertical-align: top; } th:first-child { text-align: left; font-weight: 500; padding-left: 0; }
thead th { color: #66727f; font-size: .85rem; font-weight: 600; }
.bar { background: #e4e7eb; border-radius: 3px; height: 6px; margin: .35rem 0 0 auto;
  width: 9rem; } .bar i { background: #2166ac; border-radius: 3px; display: block; height: 6px; }
img { max-width: 100%; display: block; }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{notes}
<table>
<thead><tr><th></th><th>dense</th><th>subnet</th><th>change</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
{pictures}
</body>
</html>
"""
