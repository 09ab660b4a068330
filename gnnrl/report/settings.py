"""What the report looks like."""

from __future__ import annotations

from gnnrl.settings import Count, Settings


class ReportSettings(Settings):
    """The title of the page and the resolution of its pictures."""

    title: str = "A pruned network"
    """Of the page."""
    dpi: Count = 110
    """Resolution of the pictures, in dots per inch."""
