"""The page as HTML."""

from __future__ import annotations

from gnnrl.report.drawing import draw_training
from gnnrl.report.page import Page, Picture, Row, html


def test_what_users_wrote_is_text_and_not_html():
    picture = Picture("a", "<b>1</b>", "x & y", draw_training({"dense": [0.5]}, 40))
    found = html(
        Page(
            '<script>alert("1")</script>', "<u>", [Row("<i>", 1, 1)], ["a < b"], pictures=[picture]
        )
    )
    assert (
        "<script>" not in found
        and "<b>1" not in found
        and "<i>" not in found
        and "<u>" not in found
    )
    assert "&lt;script&gt;" in found and "a &lt; b" in found and "x &amp; y" in found


def test_a_change_is_a_share_points_or_a_factor_of_speed():
    assert Row("flops", 2e6, 5e5).change == "25.0 % kept"
    assert Row("accuracy", 90, 88.5, unit=" %").change == "\N{MINUS SIGN}1.50 points"
    assert Row("latency", 4.0, 2.0, unit=" ms").change == "2.00 × as fast"
    assert Row("flops", 0, 0).change == "100.0 % kept"


def test_the_bars_of_a_latency_show_speed_and_accuracies_have_none():
    assert Row("flops", 200, 50).bars == (100.0, 25.0)
    assert Row("bytes", 100, 200).bars == (50.0, 100.0)
    assert Row("latency", 4.0, 2.0, unit=" ms").bars == (50.0, 100.0)
    assert Row("accuracy", 90, 80, unit=" %").bars is None
    found = html(Page("run", "half", [Row("flops", 200, 50), Row("accuracy", 90, 80, unit=" %")]))
    assert found.count('class="bar"') == 2
    assert 'style="width:25.0%"' in found and ">200</td>" in found and ">90 %</td>" in found
