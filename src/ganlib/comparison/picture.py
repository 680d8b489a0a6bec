"""A comparison as one picture: samples side by side, and the score on the way over time and over items."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter

# Okabe and Ito's colours, which most colour-blind people can tell apart; the yellow is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
DASHES = ("-", "--", ":", "-.")
MAX_COLUMNS = 5
PANEL_INCHES, CHART_INCHES = 2.5, 3.4


@dataclass(frozen=True, eq=False)
class Panel:
    """A grid of samples with the name above it and a line below; None in the place of a grid that there is not."""

    name: str
    below: str
    picture: UInt8[np.ndarray, "height width channels"] | None


Curve = Mapping[str, Sequence[float]]
"""Equally long ``items``, ``seconds`` and ``score``."""


def comparison_png(panels: Sequence[Panel], curves: Mapping[str, Curve], *, unit: str = "seconds") -> bytes:
    """A PNG of all panels, five in a row, above the curves; `unit` is what the seconds are called."""
    columns = max(min(MAX_COLUMNS, len(panels)), 1)
    rows = max(math.ceil(len(panels) / columns), 1)
    drawn = {name: curve for name, curve in curves.items() if len(curve["score"])}
    height = rows * (PANEL_INCHES + 0.55) + (CHART_INCHES if drawn else 0.0)
    wide = max(columns * PANEL_INCHES, 9.0)
    figure = Figure(figsize=(wide, height), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    ratios = [rows * (PANEL_INCHES + 0.55), CHART_INCHES] if drawn else [1.0]
    parts = figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    grids = parts[0].subplots(rows, columns, squeeze=False).ravel()
    for axes in grids:
        axes.set_axis_off()
    colours = {name: _colour(number) for number, name in enumerate(drawn)}
    for axes, panel in zip(grids, panels, strict=False):
        _draw_panel(axes, panel, colours.get(panel.name, "black"))
    if drawn:
        axes_of_time, axes_of_items = parts[1].subplots(1, 2, sharey=True)
        _draw_curves(axes_of_time, drawn, "seconds", unit)
        _draw_curves(axes_of_items, drawn, "items", "items seen")
        axes_of_time.set_ylabel("validation score, lower is better")
        handles, names = axes_of_items.get_legend_handles_labels()
        parts[1].legend(handles, names, loc="outside right upper", frameon=False, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", bbox_inches="tight", pad_inches=0.1)
    return content.getvalue()


def _draw_panel(axes: Axes, panel: Panel, colour: str) -> None:
    if panel.picture is None:
        axes.text(0.5, 0.5, "no samples", ha="center", va="center", fontsize=9, color="#888888")
    else:
        shown = panel.picture
        axes.imshow(shown[..., 0] if shown.shape[-1] == 1 else shown, cmap="gray", vmin=0, vmax=255)
    axes.set_title(f"{panel.name}\n", fontsize=10, fontweight="bold", color=colour)
    axes.text(0.5, 1.02, panel.below, transform=axes.transAxes, ha="center", va="bottom", fontsize=8, color="#444444")


def _draw_curves(axes: Axes, curves: Mapping[str, Curve], across: str, label: str) -> None:
    highest = lowest = math.nan
    for number, (name, curve) in enumerate(curves.items()):
        colour, dash = _colour(number), DASHES[number // len(COLOURS) % len(DASHES)]
        values = [value if math.isfinite(value) and value > 0 else math.nan for value in curve["score"]]
        axes.plot(curve[across], values, dash, color=colour, linewidth=1.5, marker="o", markersize=2.5, label=name)
        finite = [value for value in values if math.isfinite(value)]
        highest, lowest = (
            np.fmax(highest, max(finite, default=math.nan)),
            np.fmin(lowest, min(finite, default=math.nan)),
        )
    if highest > 3 * lowest:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""))
    axes.set_xlim(left=0)
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
