"""Drawings are data: geometry follows the numbers, names stay text, bytes repeat."""

import re
import xml.etree.ElementTree as ET

import pytest

from clearinghouse.report.charts import all_charts, demography
from clearinghouse.report.charts_market import auc_chart, prices_chart, records_chart, roc_chart
from clearinghouse.report.drawing import MAX_ROWS

SHAPES = [
    {},
    {"n_sources": 60, "n_developers": 9},
    {"n_developers": 1, "gap_reason": "too small", "undetermined": True},
    {"hostile": True},
]


def every(report):
    return [chart for section in all_charts(report).values() for chart in section]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_chart_is_one_well_formed_svg_in_page_colours(sample, shape):
    charts = every(sample(**shape))
    assert len(charts) >= 10
    assert len({chart.name for chart in charts}) == len(charts)
    for chart in charts:
        root = ET.fromstring(chart.svg)
        assert root.tag == "svg"
        assert root.get("viewBox", "").startswith("0 0 460 ")
        tags = "".join(re.findall(r"<[^>]*>", chart.svg))
        assert not re.search(r"#[0-9a-f]{6}", tags)  # no colour that ignores the page
        assert "font-family" not in tags
        assert "http" not in tags
        assert "nan" not in tags.lower()


def test_ids_are_unique_over_all_charts_and_references_resolve(sample):
    page = "".join(chart.svg for chart in every(sample()))
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids)) > 0
    used = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', page)
    assert {a or b for a, b in used} <= set(ids)


def test_the_same_report_gives_the_same_bytes(sample):
    first, second = every(sample()), every(sample())
    assert [chart.svg for chart in first] == [chart.svg for chart in second]


def bars(chart):
    """Widths of the filled rectangles, in drawing order."""
    widths = []
    for path in ET.fromstring(chart.svg).iter("path"):
        if "fill: var(--blue)" in path.get("style", ""):
            xs = [float(x) for x in re.findall(r"[ML] (\S+) \S+", path.get("d", ""))]
            widths.append(max(xs) - min(xs))
    return widths


def test_bar_widths_are_proportional_to_records(sample):
    report = sample(n_sources=7)
    chart = records_chart(report)
    assert chart is not None
    quotas = sorted((q for q in report["clearing"]["quotas"].values() if q), reverse=True)
    widths = bars(chart)
    assert len(widths) == len(quotas)
    for width, quota in zip(widths, quotas, strict=True):
        assert width / widths[0] == pytest.approx(quota / quotas[0], abs=1e-4)


def texts(chart):
    return ["".join(node.itertext()) for node in ET.fromstring(chart.svg).iter("text")]


def test_sixty_sources_become_twenty_rows_that_still_add_up(sample):
    report = sample(n_sources=60)
    chart = records_chart(report)
    assert chart is not None
    assert len(bars(chart)) == MAX_ROWS
    quotas = report["clearing"]["quotas"]
    sold = sorted((q for q in quotas.values() if q), reverse=True)
    rest = sold[MAX_ROWS - 1 :]
    assert f"{len(rest)} others" in texts(chart)
    assert str(sum(rest)) in texts(chart)
    idle = sum(1 for quota in quotas.values() if not quota)
    assert f"{idle} sources sold nothing" in chart.summary


def test_names_are_text_whatever_they_hold(sample):
    report = sample()
    name = 'a$<b&"c$ \\frac{#010201'
    report["clearing"]["quotas"] = {name: 10, "病院 京都": 5}
    chart = records_chart(report)
    assert chart is not None
    shown = texts(chart)
    assert any(text.startswith('a$<b&"c$') for text in shown)
    assert "病院 京都" in shown
    assert name.split()[0] in chart.summary


def test_a_placeholder_colour_in_a_name_stays_a_name(sample):
    report = sample()
    report["clearing"]["quotas"] = {"#010201": 10}
    chart = records_chart(report)
    assert chart is not None
    assert "#010201" in texts(chart)


def test_levels_beyond_the_limit_are_summed(sample):
    report = sample()
    n = 50
    report["subgroups"] = {
        "site": [
            {"level": f"v{i}", "target": 1 / n, "delivered": 1 / n, "available": None}
            for i in range(n)
        ]
    }
    (chart,) = demography(report)
    assert f"{n - MAX_ROWS + 1} others" in texts(chart)
    assert f"target {100 * (n - MAX_ROWS + 1) / n:.0f}%" in chart.summary


def test_noise_cannot_push_a_curve_out_of_the_frame(sample):
    report = sample(n_developers=1)
    report["roc"] = {"logistic": [[-0.2, 0.0], [0.4, 1.3], [1.1, float("nan")], [1.2, 1.0]]}
    chart = roc_chart(report)
    assert chart is not None
    report["roc"] = {"logistic": [[0.0, 0.0], [0.4, 1.0], [1.0, 1.0]]}
    clipped = roc_chart(report)
    assert clipped is not None
    assert chart.svg == clipped.svg


def test_nothing_to_draw_is_no_chart():
    assert every({}) == []
    assert every({"match": None, "subgroups": [], "scores": 3, "roc": {"x": None}}) == []
    assert prices_chart({"values": {"a": {"price": None}}}) is None
    assert auc_chart({"scores": [{"developer": "x", "auc": None}]}) is None
