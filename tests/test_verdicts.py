"""The rules of the verdicts at and beside their limits, and the plots read back from their SVG."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from ganlib.evaluation import charts
from ganlib.evaluation.charts import line_chart, reach_chart
from ganlib.evaluation.result import Verdict
from ganlib.evaluation.verdicts import (
    Limits,
    compared,
    copies_verdict,
    ratio_verdict,
    recognised_verdict,
    share_verdict,
    too_few,
    worst,
)
from ganlib.metrics.report import Score

LIMITS = Limits()


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (Score(0.8, 0.7, 0.9, 1.0), "PASS"),  # the whole interval must fall short
        (Score(0.8, 0.7, 0.89, 1.0), "WARN"),
        (Score(0.5, 0.4, 0.7, 1.0), "WARN"),
        (Score(0.5, 0.4, 0.69, 1.0), "FAIL"),
        (Score(0.45, 0.4, 0.46, 0.5), "PASS"),  # it is the ratio that counts
        (Score(0.3, 0.2, 0.34, 0.5), "FAIL"),
        (Score(1.4, 1.2, 1.6, 1.0), "PASS"),
        (Score(0.69, real_baseline=1.0), "FAIL"),  # without an interval the value
        (Score(0.0, 0.0, 0.0, 1.0), "FAIL"),
        (Score(0.9, 0.8, 0.95), "NOT MEASURED"),
        (Score(0.9, 0.8, 0.95, 0.0), "NOT MEASURED"),
        (Score(None, real_baseline=1.0), "NOT MEASURED"),
    ],
)
def test_a_ratio_fails_where_even_the_upper_bound_falls_short(score: Score, verdict: str) -> None:
    assert ratio_verdict(score, warn=0.9, fail=0.7) == verdict


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (Score(0.5, 0.05, 0.9), "PASS"),
        (Score(0.5, 0.06, 0.9), "WARN"),
        (Score(0.5, 0.25, 0.9), "WARN"),
        (Score(0.5, 0.26, 0.9), "FAIL"),
        (Score(0.3), "FAIL"),
        (Score(0.0, 0.0, 0.1), "PASS"),
        (Score(0.3, 0.0, 0.6), "PASS"),  # a lower bound of 0 is one
        (Score(None), "NOT MEASURED"),
    ],
)
def test_a_share_fails_where_even_the_lower_bound_is_too_much(score: Score, verdict: str) -> None:
    assert share_verdict(score, warn=0.05, fail=0.25) == verdict


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (Score(0.015, 0.006, 0.03), "FAIL"),
        (Score(0.015, 0.005, 0.03), "WARN"),  # the lower bound must exceed a third of the limit
        (Score(0.0149, 0.01, 0.03), "WARN"),
        (Score(0.005, 0.0001, 0.03), "WARN"),
        (Score(0.0049, 0.0001, 0.03), "PASS"),
        (Score(0.3, 0.0, 0.6), "PASS"),  # may be chance
        (Score(0.3), "PASS"),
        (Score(None), "NOT MEASURED"),
    ],
)
def test_copies_are_judged_by_the_estimate_where_chance_is_ruled_out(score: Score, verdict: str) -> None:
    assert copies_verdict(score, Limits(copies_warn=0.005, copies_fail=0.015)) == verdict


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (Score(0.95, 0.9, 0.99), "PASS"),
        (Score(0.94, 0.9, 0.97), "WARN"),
        (Score(0.6, 0.56, 0.64), "WARN"),
        (Score(0.6, 0.55, 0.65), "PASS"),
        (Score(0.4, 0.3, 0.5), "PASS"),
        (Score(0.99), "NOT MEASURED"),
        (Score(None), "NOT MEASURED"),
    ],
)
def test_a_detector_that_finds_some_of_the_samples_is_a_warning(score: Score, verdict: str) -> None:
    assert recognised_verdict(score, Limits(recognised=0.95)) == verdict


def test_the_worst_verdict_counts_and_names_who_gave_it() -> None:
    given: dict[str, Verdict] = {"a": "PASS", "b": "WARN", "c": "FAIL", "d": "NOT MEASURED", "e": "FAIL"}
    assert worst(given) == ("FAIL", ["c", "e"])
    assert worst({name: given[name] for name in "abd"}) == ("WARN", ["b"])
    assert worst({name: given[name] for name in "ad"}) == ("PASS", ["a"])
    assert worst({"d": "NOT MEASURED"}) == ("NOT MEASURED", ["d"])
    assert worst({}) == ("NOT MEASURED", [])


def test_every_limit_of_a_warning_is_milder_than_that_of_a_failure() -> None:
    assert LIMITS.quality_fail < LIMITS.quality_warn and LIMITS.coverage_fail < LIMITS.coverage_warn
    for name in ("missed", "duplicates", "copies", "found"):
        assert getattr(LIMITS, f"{name}_warn") < getattr(LIMITS, f"{name}_fail")


def test_figures_are_told_beside_those_of_real_data() -> None:
    scores = {"recall": Score(0.412, real_baseline=0.9), "coverage": Score(0.5, real_baseline=0.954)}
    assert compared(scores, ["coverage", "recall"]) == "coverage 0.50 beside 0.95, recall 0.41 beside 0.90"
    assert too_few(50, 7, "samples") == Score(None, note="needs at least 50 samples, has 7")


def drawn(chart: str) -> ElementTree.Element:
    """The plot, whose parser refuses what is not well formed."""
    found = ElementTree.fromstring(chart)
    for element in found.iter():
        for name in ("cx", "cy", "x", "y", "x1", "x2", "y1", "y2"):
            place = element.get(name)
            limit = charts.WIDTH if "x" in name else charts.HEIGHT
            assert place is None or 0 <= float(place) <= limit, (element.tag, name, place)
    return found


def texts(chart: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in chart.iter("text")]


def scale(chart: ElementTree.Element) -> tuple[tuple[float, float], tuple[float, float]]:
    """The corners of the plot: left and right, bottom and top."""
    lines = [{key: float(line.get(key, "nan")) for key in ("x1", "x2", "y1", "y2")} for line in chart.iter("line")]
    grid = (
        [line for line in lines if line["x1"] == line["x2"]][:5],
        [line for line in lines if line["y1"] == line["y2"]][:5],
    )
    return (grid[0][0]["x1"], grid[0][-1]["x1"]), (grid[1][0]["y1"], grid[1][-1]["y1"])


def test_the_reach_chart_puts_points_and_intervals_where_their_numbers_say() -> None:
    points = {
        "samples": (Score(0.25, 0.2, 0.3), Score(0.5, 0.4, 0.75)),
        "real": (Score(1.0), Score(0.9)),
        "gone": (Score(None), Score(0.3, 0.1, 0.4)),
    }
    chart = drawn(reach_chart(points))
    (left, right), (bottom, top) = scale(chart)
    circles = [(float(each.get("cx", "")), float(each.get("cy", ""))) for each in chart.iter("circle")]
    expected = [(0.25, 0.5), (1.0, 0.9)]
    assert len(circles) == 2
    for (x, y), (across, up) in zip(circles, expected, strict=True):
        assert (x - left) / (right - left) == pytest.approx(across, abs=1e-3)
        assert (y - bottom) / (top - bottom) == pytest.approx(up, abs=1e-3)
    bars = [line for line in chart.iter("line") if line.get("stroke") != "var(--line)"]
    assert len(bars) == 2  # none for what has no interval
    ends = [(float(bars[0].get(key, "")) - left) / (right - left) for key in ("x1", "x2")]
    assert ends == pytest.approx([0.2, 0.3], abs=1e-3)
    ends = [(float(bars[1].get(key, "")) - bottom) / (top - bottom) for key in ("y1", "y2")]
    assert ends == pytest.approx([0.4, 0.75], abs=1e-3)
    assert {"samples", "real"} <= set(texts(chart)) and "gone" not in texts(chart)


def paths(chart: ElementTree.Element) -> list[list[tuple[str, float, float]]]:
    step = re.compile(r"([ML])(\S+) (\S+)")
    return [[(pen, float(x), float(y)) for pen, x, y in step.findall(path.get("d", ""))] for path in chart.iter("path")]


def test_a_line_chart_runs_through_its_points_and_breaks_where_a_value_is_not_finite() -> None:
    items = [0.0, 100.0, 200.0, 300.0, 400.0]
    chart = drawn(line_chart({"a": (items, [1.0, 3.0, math.nan, 2.0, 5.0])}, "items", "loss"))
    (left, right), (bottom, top) = scale(chart)
    (path,) = paths(chart)
    assert [pen for pen, _, _ in path] == ["M", "L", "M", "L"]
    assert [(x - left) / (right - left) for _, x, _ in path] == pytest.approx([0, 0.25, 0.75, 1], abs=1e-3)
    assert [1 + 4 * (y - bottom) / (top - bottom) for _, _, y in path] == pytest.approx([1, 3, 2, 5], abs=1e-2)
    assert {"items", "loss", "a", "0", "100", "400", "1", "5"} <= set(texts(chart))


def test_the_wild_values_of_a_start_do_not_flatten_the_rest() -> None:
    values = [1e6, 1e5, *(2 + math.sin(i / 5) for i in range(198))]
    chart = drawn(line_chart({"loss": (list(range(200)), values)}, "items", "loss"))
    ((_, first), *_), ys = (path[0][1:] for path in paths(chart)), [y for _, _, y in paths(chart)[0]]
    (_, _), (bottom, top) = scale(chart)
    assert first == top and len(ys) == 200
    assert min(ys[2:]) < top + 5 and max(ys[2:]) > bottom - 5


def test_charts_of_nothing_of_one_point_and_of_a_level_line() -> None:
    assert line_chart({}, "x", "y") == line_chart({"a": ([], [])}, "x", "y") == ""
    assert line_chart({"a": ([1.0], [math.nan])}, "x", "y") == ""
    for items, values in (([5.0], [2.0]), ([1.0, 2.0], [3.0, 3.0]), ([7.0, 7.0], [1.0, 2.0])):
        assert len(paths(drawn(line_chart({"a": (items, values)}, "x", "y")))[0]) == len(items)
    assert drawn(line_chart({str(i): ([0.0, 1.0], [0.0, float(i)]) for i in range(5)}, "x", "y")) is not None
    assert drawn(reach_chart({})) is not None


def test_every_string_is_escaped() -> None:
    evil = "<script>\"&'"
    for chart in (
        reach_chart({evil: (Score(0.5), Score(0.5))}),
        line_chart({evil: ([0.0, 1.0], [0.0, 1.0])}, evil, evil),
    ):
        assert "<script" not in chart and evil in texts(drawn(chart))
    assert drawn(line_chart({"a": ([0.0, 1.0], [0.0, 1.0])}, "x", evil)).get("aria-label") == evil


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"),
        (0.25, "0.25"),
        (1.0, "1"),
        (75.0, "75"),
        (125.0, "125"),
        (-375.0, "-375"),
        (999.9, "1k"),
        (1250.0, "1.25k"),
        (-2e6, "-2M"),
        (999_999.0, "1M"),
        (3e9, "3G"),
        (0.001, "0.001"),
    ],
)
def test_ticks_are_told_without_exponents(value: float, said: str) -> None:
    chart = drawn(line_chart({"a": ([0.0, 1.0], [value, value + max(1.0, abs(value))])}, "x", "y"))
    assert said in texts(chart)
