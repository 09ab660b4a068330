"""What the report shows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gnnrl.settings import Int, Settings


class ReportSettings(Settings):
    """The title of the page and the resolution of its pictures."""

    title: str = "A pruned network"
    """Of the page."""
    dpi: Annotated[Int, Field(ge=20, le=1200)] = 110
    """Resolution of the pictures, in dots per inch."""
