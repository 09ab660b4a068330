"""The page as HTML."""

from __future__ import annotations

from gnnrl.report.page import Gain, Picture, Row, page


def test_what_users_wrote_is_text_and_not_html():
    picture = Picture("a", "<b>1</b>", "x & y", b"png")
    found = page('<script>alert("1")</script>', ["a < b"], [Row("<i>", 1, 1)], [picture])
    assert "<script>" not in found and "<b>1" not in found and "<i>" not in found
    assert "&lt;script&gt;" in found and "a &lt; b" in found and "x &amp; y" in found


def test_a_change_is_a_share_points_or_a_factor_of_speed():
    assert Row("flops", 2e6, 5e5).change == "25.0 % kept"
    assert Row("accuracy", 90, 88.5, unit=" %").change == "-1.50 points"
    assert Row("latency", 4.0, 2.0, unit=" ms").change == "2.00 × as fast"
    assert Row("flops", 0, 0).change == "100.0 % kept"


def test_bars_show_what_is_kept_and_points_have_none():
    rows = [Row("flops", 200, 50), Row("bytes", 100, 130), Row("accuracy", 90, 80, unit=" %")]
    found = page("run", [], rows, [])
    assert found.count('class="bar"') == 2
    assert 'style="width:25.0%"' in found and 'style="width:100.0%"' in found
    assert "<td>200</td><td>50</td>" in found and "<td>90 %</td>" in found


def test_the_gain_over_each_control_stands_in_a_table_of_its_own():
    rows = [Gain("uniform", -0.5, 62.0, 0.25, 14.0), Gain("allocation", -0.2, 71.5, -0.05, None)]
    found = page("run", [], [], [], rows)
    assert "<th>uniform</th><td>-0.5</td><td>62.00 %</td><td>+0.25</td><td>14 evaluations" in found
    assert "<td>-0.05</td><td>never</td>" in found
    assert "What the search gained" not in page("run", [], [], [])
