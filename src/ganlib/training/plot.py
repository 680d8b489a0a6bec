"""The picture of a log over the items seen: adversarial terms, other terms, validation score, signs of health."""

import io
import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

# Okabe and Ito's colours, which most colour-blind people can tell apart; the yellow is too pale for lines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
_MAX_POINTS = 600  # more than the picture has columns to show

Curve = tuple[list[float], list[float]]


def losses_png(records: Sequence[Mapping[str, float | int | None]]) -> bytes:
    """A PNG of all the numbers in `records`, well under 300 kB; no global state of pyplot is touched."""
    names = sorted({name for record in records for name in record if name != "items"})
    adversarial = [name for name in names if "adversarial" in name]
    signs = [name for name in names if name.startswith("health/")]
    others = [name for name in names if name not in adversarial and name not in signs and name != "score"]
    panels = [("Adversarial terms", adversarial), ("Penalties and other terms", others)]
    panels += [("Validation score", ["score"])] if "score" in names else []
    panels += [("Signs of health", signs)]
    panels = [(title, members) for title, members in panels if members]
    figure = Figure(figsize=(9.0, 0.7 + 2.5 * max(len(panels), 1)), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(max(len(panels), 1), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, members) in zip(all_axes, panels, strict=False):
        _draw(axes, title, {name: _curve(records, name) for name in members})
    all_axes[-1].set_xlabel("items seen")
    all_axes[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _curve(records: Sequence[Mapping[str, float | int | None]], name: str) -> Curve:
    """Items and values; a value that is not finite breaks the line."""
    found = [(record["items"], record[name]) for record in records if record.get(name) is not None]
    points = [(float(items), float(value)) for items, value in found if items is not None and value is not None]
    return [items for items, _ in points], [value if math.isfinite(value) else math.nan for _, value in points]


def _draw(axes: Axes, title: str, curves: Mapping[str, Curve]) -> None:
    """One panel: each curve as it is, faint, and its mean over a fortieth of the run, strong."""
    for number, (name, (items, values)) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = "-" if number < len(_COLOURS) else "--"
        window = len(values) // 40
        every = math.ceil(len(values) / _MAX_POINTS)
        if window > 1:
            axes.plot(items[::every], values[::every], color=colour, alpha=0.22, linewidth=0.8)
        smooth = _means(values, window, every) if window > 1 else values
        marker = "o" if len(values) <= 40 else None
        axes.plot(items[::every], smooth, dash, color=colour, linewidth=1.7, marker=marker, ms=3.5, label=name)
    finite = [value for _, values in curves.values() for value in values if not math.isnan(value)]
    if finite and min(finite) > 0 and max(finite) > 50 * min(finite):
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    if title == "Validation score" and finite:
        items, values = curves["score"]
        best = min((value, items) for items, value in zip(items, values, strict=True) if not math.isnan(value))
        axes.plot(best[1], best[0], "o", color=_COLOURS[1], ms=7, label=f"best: {best[0]:.4g}", zorder=3)
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color="#222222")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False, fontsize=9, handlelength=1.4)
    axes.grid(color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors="#555555", labelsize=9, length=0, which="both")
    axes.margins(x=0.01)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#BBBBBB")


def _means(values: Sequence[float], window: int, every: int) -> list[float]:
    """The mean of the finite ones among the last `window` values, at each `every`-th place; NaN where there is none."""
    means = []
    for end in range(1, len(values) + 1, every):
        recent = [value for value in values[max(0, end - window) : end] if not math.isnan(value)]
        means.append(sum(recent) / len(recent) if recent else math.nan)
    return means
