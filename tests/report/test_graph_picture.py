"""The graph as a picture."""

from __future__ import annotations

import io

import pytest

from gnnrl.report.graph_picture import draw
from tests.dense import dense


@pytest.mark.parametrize("name", ["resnet20", "basic_cnn"])
def test_the_picture_is_a_png_and_the_same_for_the_same_graph(name):
    from PIL import Image

    _, graph = dense(name)
    picture = draw(graph, dpi=40)
    image = Image.open(io.BytesIO(picture))
    assert image.format == "PNG"
    assert len(image.convert("RGB").getcolors(10**6)) > 5  # boxes in the colours of their groups
    assert draw(graph, dpi=40) == picture
