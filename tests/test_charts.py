import re
import xml.etree.ElementTree as ET

import pytest

from digitfast.report.charts import (
    HEIGHT,
    WIDTH,
    Axis,
    Line,
    axis_for,
    interval_bar,
    line_chart,
    reliability_chart,
)


def points(svg, kind="polyline"):
    pairs = re.search(rf'<{kind}[^>]*points="([^"]*)"', svg)[1].split()
    return [tuple(map(float, pair.split(","))) for pair in pairs]


def test_a_line_goes_where_its_values_are():
    x, y = Axis("epoch", 0, 10), Axis("loss", 0, 1)
    svg = line_chart("falls", x, y, [Line([(0, 1), (5, 0.5), (10, 0)])])
    (x0, y0), (x1, y1), (x2, y2) = points(svg)
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y1 - y0 == pytest.approx(y2 - y1)
    assert x0 < x1
    assert y0 < y1
    assert ET.fromstring(svg).find("title").text == "falls"


def test_logarithmic():
    values = [1, 0.1, 0.01]
    y = axis_for("loss", values, log=True)
    svg = line_chart("", Axis("", 0, 2), y, [Line(list(enumerate(values)))])
    (_, y0), (_, y1), (_, y2) = points(svg)
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2)
    assert {">1<", ">0.1<", ">0.01<"} <= set(re.findall(">[^<]*<", svg))


@pytest.mark.parametrize("values", [[], [float("nan")], [0.0, 0.0], [1e-9, 1e9], [5, 5],
                                    [float("inf"), 1.0], [-3, 4]])
@pytest.mark.parametrize("log", [False, True])
def test_whatever_the_values_it_is_a_picture(values, log):
    y = axis_for("y", values, log=log)
    x = Axis("x", 0, max(1, len(values)))
    svg = line_chart("t", x, y, [Line(list(enumerate(values)), dots=True)])
    ET.fromstring(svg)
    assert "nan" not in svg and "inf" not in svg
    for value in re.findall(r'(?:cx|x1|x2)="([^"]*)"', svg):
        assert 0 <= float(value) <= WIDTH
    for value in re.findall(r'(?:cy|y1|y2)="([^"]*)"', svg):
        assert 0 <= float(value) <= HEIGHT
    assert 1 <= len(y.ticks()) <= 12


@pytest.mark.parametrize("low, high, least", [
    (0, 1, 0), (0, 1, 1), (0, 3, 0), (0, 30, 1), (0.9931, 0.9959, 0), (50, 100, 0), (0, 500, 1)])
def test_ticks_are_round_and_few(low, high, least):
    ticks = Axis("", low, high, least=least).ticks()
    assert 2 <= len(ticks) <= 8 and low <= ticks[0] and ticks[-1] <= high
    assert all(len(f"{tick:g}") <= 6 for tick in ticks)


def test_reliability_and_intervals():
    svg = reliability_chart("r", [(0.5, 0.5, (0.2, 0.8), 10), (0.95, 1.0, (0.9, 1.0), 1000)])
    dots = [(float(x), float(y), float(r))
            for x, y, r in re.findall(r'cx="(\S+)" cy="(\S+)" r="(\S+)"', svg)]
    ideal = re.search(r'ideal" x1="(\S+)" y1="(\S+)" x2="(\S+)" y2="(\S+)"', svg)
    x1, y1, x2, y2 = map(float, ideal.groups())
    assert dots[0][0] == pytest.approx((x1 + x2) / 2, abs=0.1)  # as sure as right: on the line
    assert dots[0][1] == pytest.approx((y1 + y2) / 2, abs=0.1)
    assert dots[1][2] > dots[0][2]
    ET.fromstring(reliability_chart("none", []))
    bar = interval_bar("b", 0.99, 0.98, 1.0, 0.95, 110)
    assert [float(v) for v in re.findall(r'span" x1="(\S+)" x2="(\S+)"', bar)[0]] == [65, 105]
    assert 'cx="85.0"' in bar


def test_titles_are_escaped():
    y = Axis("", 0, 1, text=lambda value: "<b>")
    svg = line_chart('"<b>', Axis("<b>", 0, 1), y, [])
    assert "<b>" not in svg
    assert ET.fromstring(svg).get("aria-label") == '"<b>'
