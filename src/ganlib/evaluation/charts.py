"""Plots as SVG text, drawn in the colours of the page, so that they suit light and dark and stay sharp in print."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from ganlib.metrics.report import Score

WIDTH, HEIGHT, MARGIN = 420, 300, 58
SERIES = ("var(--accent)", "var(--second)", "var(--third)")

Curve = tuple[Sequence[float], Sequence[float]]


def reach_chart(points: Mapping[str, tuple[Score, Score]]) -> str:
    """Recall over precision, of samples and of real data, with their intervals, in a unit square."""
    drawn = [_axes("precision: samples among real items", "recall: real items among samples", (0, 1), (0, 1))]
    for below, ((name, (across, up)), colour) in enumerate(zip(points.items(), SERIES, strict=False)):
        if across.value is None or up.value is None:
            continue
        x, y = _x(across.value, (0, 1)), _y(up.value, (0, 1))
        for low, high, flat in ((across.low, across.high, True), (up.low, up.high, False)):
            if low is not None and high is not None:
                ends = (_x(low, (0, 1)), y, _x(high, (0, 1)), y) if flat else (x, _y(low, (0, 1)), x, _y(high, (0, 1)))
                drawn.append(_line(ends, colour, 2))
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{colour}"/>')
        side, anchor = (-10, "end") if across.value > 0.7 else (10, "start")
        drawn.append(_text(x + side, y + (18 if below else -8), name, anchor))
    return _svg(drawn, "Precision and recall of the samples and of real data")


def line_chart(curves: Mapping[str, Curve], across: str, up: str) -> str:
    """Curves over a common axis; points that are not finite break a line."""
    xs = [x for items, _ in curves.values() for x in items]
    ys = sorted(y for _, values in curves.values() for y in values if math.isfinite(y))
    if not xs or not ys:
        return ""
    # The first, wild values of a loss would flatten all that follows.
    least, most = ys[len(ys) // 100], ys[-1 - len(ys) // 50]
    wide, high = (min(xs), max(max(xs), min(xs) + 1)), (least, most if most > least else least + 1)
    drawn = [_axes(across, up, wide, high)]
    for number, (name, (items, values)) in enumerate(curves.items()):
        colour = SERIES[number % len(SERIES)]
        path, pen = [], "M"
        for item, value in zip(items, values, strict=True):
            if not math.isfinite(value):
                pen = "M"
                continue
            path.append(f"{pen}{_x(item, wide):.1f} {_y(min(max(value, least), most), high):.1f}")
            pen = "L"
        drawn.append(f'<path d="{" ".join(path)}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        drawn.append(f'<rect x="{WIDTH - 130}" y="{10 + 18 * number}" width="12" height="4" fill="{colour}"/>')
        drawn.append(_text(WIDTH - 112, 16 + 18 * number, name))
    return _svg(drawn, up)


def _svg(parts: Sequence[str], title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _x(value: float, ends: tuple[float, float]) -> float:
    return MARGIN + (WIDTH - MARGIN - 12) * (value - ends[0]) / (ends[1] - ends[0])


def _y(value: float, ends: tuple[float, float]) -> float:
    return HEIGHT - MARGIN - (HEIGHT - MARGIN - 12) * (value - ends[0]) / (ends[1] - ends[0])


def _axes(across: str, up: str, wide: tuple[float, float], high: tuple[float, float]) -> str:
    parts = []
    for step in range(5):
        share = step / 4
        x_value, y_value = wide[0] + share * (wide[1] - wide[0]), high[0] + share * (high[1] - high[0])
        x, y = _x(x_value, wide), _y(y_value, high)
        parts.append(_line((x, 12, x, HEIGHT - MARGIN), "var(--line)", 1))
        parts.append(_line((MARGIN, y, WIDTH - 12, y), "var(--line)", 1))
        parts.append(_text(x, HEIGHT - MARGIN + 16, _short(x_value), "middle"))
        parts.append(_text(MARGIN - 6, y + 4, _short(y_value), "end"))
    parts.append(_text((WIDTH + MARGIN) / 2, HEIGHT - 8, across, "middle"))
    parts.append(f'<g transform="translate(12 {(HEIGHT - MARGIN) / 2}) rotate(-90)">{_text(0, 0, up, "middle")}</g>')
    return "".join(parts)


def _line(ends: tuple[float, float, float, float], colour: str, width: float) -> str:
    x1, y1, x2, y2 = ends
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _short(value: float) -> str:
    value = float(f"{value:.3g}")
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}" if abs(value) >= 100 else f"{value:.2g}"
