"""An evaluation as one HTML page: no scripts, nothing loaded from elsewhere, every word of the user's escaped."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from ganlib.data.show import grid
from ganlib.evaluation.charts import Curve, line_chart, reach_chart
from ganlib.evaluation.explained import EXPLAINED
from ganlib.evaluation.result import QUESTIONS, Answer, Evaluation
from ganlib.files import write_bytes
from ganlib.metrics.report import Score

MARKS = {"PASS": "✓", "WARN": "!", "FAIL": "✕", "NOT MEASURED": "–"}
MAX_SIDE = 192
Records = Sequence[Mapping[str, float | int | None]]


def save_page(evaluation: Evaluation, path: Path, *, title: str, records: Records = ()) -> None:
    """Write the page, and the figures as JSON beside it. Raises :class:`ganlib.errors.WriteError`.

    `records` is the log of the training, for the learning curves.
    """
    write_bytes(path, page(evaluation, title=title, records=records).encode())
    write_bytes(path.with_suffix(".json"), (evaluation.to_json() + "\n").encode())


def page(evaluation: Evaluation, *, title: str, records: Records = ()) -> str:
    """The page as text."""
    style = resources.files("ganlib.evaluation").joinpath("page.css").read_text(encoding="utf-8")
    protocol = evaluation.protocol
    about = f"{protocol['n_fake']:,} samples against {protocol['n_reference']:,} held-out items"
    sections = "".join(_section(name, answer, evaluation) for name, answer in evaluation.answers().items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{escape(title)}</h1><p>{escape(about)}; features: {escape(str(protocol["extractor"]))}</p></header>
<main>
<nav class="cards">{"".join(_card(name, answer) for name, answer in evaluation.answers().items())}</nav>
{_samples(evaluation)}
{sections}
{_curves(records)}
{_protocol(evaluation)}
</main>
</body>
</html>
"""


def _card(name: str, answer: Answer) -> str:
    return (
        f'<a class="card {_css(answer)}" href="#{name}"><span class="verdict">{MARKS[answer.verdict]} '
        f"{answer.verdict}</span><strong>{escape(QUESTIONS[name])}</strong><span>{escape(answer.reason)}</span></a>"
    )


def _css(answer: Answer) -> str:
    return answer.verdict.lower().replace(" ", "-")


def _samples(evaluation: Evaluation) -> str:
    shown = evaluation.exhibits
    if not len(shown.samples):
        return ""
    both = _figure(shown.samples, "Samples, drawn at random", 8) + _figure(shown.reals, "Real items, held out", 8)
    return f'<section><h2>What it draws</h2><div class="pair">{both}</div></section>'


def _section(name: str, answer: Answer, evaluation: Evaluation) -> str:
    exhibits = {"good": _of_quality, "covered": _of_coverage, "copied": _of_copies}.get(name)
    rows = "".join(_row(key, score) for key, score in answer.scores.items())
    head = "<tr><th>figure</th><th>value</th><th>95&nbsp;% interval</th><th>real data</th><th>what it says</th></tr>"
    table = f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>' if rows else ""
    return (
        f'<section id="{name}"><h2>{escape(QUESTIONS[name])} <span class="verdict {_css(answer)}">'
        f"{MARKS[answer.verdict]} {answer.verdict}</span></h2><p>{escape(answer.reason)}</p>"
        f"{exhibits(evaluation) if exhibits else ''}{table}</section>"
    )


def _row(name: str, score: Score) -> str:
    value, interval, baseline, note = score.cells()
    told = EXPLAINED.get(name) or EXPLAINED.get(name.rsplit("_", 1)[0], "")
    words = f"{told} ({note})" if told and note else told or note
    cells = f'<th scope="row">{escape(name.replace("_", " "))}</th>'
    cells += "".join(f'<td class="number">{escape(cell)}</td>' for cell in (value, interval, baseline))
    return f"<tr>{cells}<td>{escape(words)}</td></tr>"


def _of_quality(evaluation: Evaluation) -> str:
    worst = evaluation.exhibits.worst
    return _figure(worst, "Samples that lie far from all real items", 12) if len(worst) else ""


def _of_coverage(evaluation: Evaluation) -> str:
    scores, shown = evaluation.scores(), evaluation.exhibits
    made = []
    if (across := scores.get("precision")) and (up := scores.get("recall")):
        real = Score(across.real_baseline), Score(up.real_baseline)
        made.append(f"<figure>{reach_chart({'samples': (across, up), 'real data': real})}</figure>")
    for pictures, what, (ours, real) in (
        (shown.missed, "Real items from regions that are missed", shown.missed_shares),
        (shown.overdrawn, "Samples from regions that are overdrawn", shown.overdrawn_shares),
    ):
        if len(pictures):
            made.append(_figure(pictures, f"{what}: {ours:.1%} of the samples, {real:.1%} of the real items", 8))
    return f'<div class="pair">{"".join(made)}</div>' if made else ""


def _of_copies(evaluation: Evaluation) -> str:
    """Each sample above its nearest training item, closest first."""
    shown = evaluation.exhibits
    if not len(shown.neighbours):
        return ""
    pairs = "".join(
        f"<figure>{_img(shown.neighbours[2 * number : 2 * number + 2], 1, 'a sample above its nearest training item')}"
        f"<figcaption>{distance:.2g}</figcaption></figure>"
        for number, distance in enumerate(shown.neighbour_distances)
    )
    return (
        "<h3>The closest pairs: a sample, and below it the nearest training item</h3>"
        '<p class="small">The number is their distance over that of a copy: at 1 and less they are closer than '
        f'all but one in a thousand held-out items is to any training item.</p><div class="strip">{pairs}</div>'
    )


def _figure(pictures: np.ndarray, caption: str, columns: int) -> str:
    image = _img(pictures, min(columns, len(pictures)), caption)
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _img(pictures: np.ndarray, columns: int, words: str) -> str:
    step = -(-max(pictures.shape[1:3]) // MAX_SIDE)  # a sheet of photographs in full would be hundreds of megabytes
    sheet = grid(pictures[:, ::step, ::step], columns, scale=max(1, 56 // pictures.shape[2]))
    content = io.BytesIO()
    Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet).save(content, "PNG", optimize=True)
    data = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{data}">'


def _curves(records: Records) -> str:
    panels = {
        "losses": ["discriminator/adversarial", "generator/adversarial"],
        "score during training (lower is better)": ["score"],
    }
    charts = []
    for label, names in panels.items():
        curves = {name: curve for name in names if (curve := _curve(records, name))[0]}
        if curves:
            charts.append(f"<figure>{line_chart(curves, 'items seen', label)}</figure>")
    return f'<section><h2>How it was learned</h2><div class="pair">{"".join(charts)}</div></section>' if charts else ""


def _curve(records: Records, name: str) -> Curve:
    points = [
        (float(record["items"] or 0), float(value)) for record in records if (value := record.get(name)) is not None
    ]
    thinned = points[:: max(1, len(points) // 400)]
    return [items for items, _ in thinned], [value for _, value in thinned]


def _protocol(evaluation: Evaluation) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name.replace("_", " "))}</th><td>{escape(str(value))}</td></tr>'
        for name, value in evaluation.protocol.items()
    )
    return (
        "<section><h2>How it was measured</h2><p>Figures compare only with figures of the same protocol. "
        '"Real data" is what as many fresh real items score in the place of the samples.</p>'
        f'<div class="scroll"><table><tbody>{rows}</tbody></table></div></section>'
    )
