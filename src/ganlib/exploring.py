"""What the commands do that look into the latent space of a trained model, once the arguments are read."""

import io
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ganlib.core import Spec
from ganlib.data import encode, pictures
from ganlib.data.show import grid, save_animation, save_png
from ganlib.editing import check_edits, parsed
from ganlib.editing import way as on_the_way
from ganlib.errors import DataError, UsageError, WriteError
from ganlib.files import explained, write_bytes, write_json
from ganlib.fitting import Progress
from ganlib.gan import GAN
from ganlib.latents import directions as finding
from ganlib.latents.mix import mixed
from ganlib.latents.project import Projected, Search, maps_for, project
from ganlib.latents.space import Kind, Space, Styles, items_at, picture_space, random_points
from ganlib.latents.walk import closed_walk
from ganlib.picturing import picture_files, pixels_of, told
from ganlib.progress import Style, shown

ANIMATIONS = (".gif", ".webp", ".apng")
FRAME_PIXELS = 256
LEAST_SECONDS = 0.02
"""Of a frame: viewers show quicker ones slowly."""

RATE_STEPS = 20
"""After which the speed is known well enough to be told."""

COLUMNS = 7
MOST_DEVIATIONS = 3.0
CELL_PIXELS = 64


def interpolate_into(
    run: str,
    out: str,
    *,
    steps: int,
    keys: int,
    seed: int,
    label: str | None,
    truncation: float | None,
    seconds: float,
    device: str,
) -> dict[str, Any]:
    """Write a closed walk as an animation or, as .png, a row of pictures for each leg; returns what to tell of it."""
    path = Path(out)
    _check_walk(path, keys * steps, seconds)
    gan, space = _opened(run, device)
    gan.check_draw(1, seed, truncation)
    walks = []
    for number in _classes(gan, label) or [None]:
        one = None if number is None else torch.tensor([number])
        points, condition = closed_walk(space, keys, steps, seed=seed, label=one, truncation=truncation)
        walks.append(_shown(gan, items_at(space, points, condition)))
    _save_walks(path, walks, steps, seconds)
    return {"out": out, "pictures": keys * steps, "space": space.kind}


def animate_into(
    run: str, source: str, out: str, *, way: str, steps: int, seconds: float, device: str
) -> dict[str, Any]:
    """Write pictures on a way of attributes, side by side; returns what to tell."""
    path, stops = Path(out), [parsed(stop) for stop in way.split(";") if stop.strip()]
    _check_walk(path, (len(stops) + 1) * steps, seconds)
    gan = GAN.load(run, device=device)
    check_edits(gan.model_)
    _, items = _read(gan, Path(source))
    walks = []
    for item in items:
        vectors = on_the_way(gan.model_, item, stops, steps)
        walks.append(_shown(gan, gan.model_.sampler.transformed(item.expand(len(vectors), -1, -1, -1), vectors)))
    _save_walks(path, walks, steps, seconds)
    return {"out": out, "frames": len(walks[0]), "pictures": len(walks)}


def _check_walk(path: Path, frames: int, seconds: float) -> None:
    if path.suffix.lower() not in (*ANIMATIONS, ".png"):
        raise UsageError(
            f"cannot write a walk to {str(path)!r}; accepted are {', '.join(ANIMATIONS)} and .png (its pictures)"
        )
    if seconds < LEAST_SECONDS * frames and path.suffix != ".png":
        raise UsageError(
            f"{frames} frames in {seconds:g} seconds: each takes {LEAST_SECONDS} at least; give more seconds, or "
            "fewer steps or keys"
        )


def _save_walks(path: Path, walks: Sequence[np.ndarray], steps: int, seconds: float) -> None:
    """Walks of as many frames side by side, as an animation, or as a picture of all frames."""
    if path.suffix.lower() == ".png":
        save_png(path, grid(np.concatenate(walks), columns=steps))
        return
    beside = np.stack(walks, 1)
    scale = max(1, round(FRAME_PIXELS / max(beside.shape[2], beside.shape[3] * len(walks))))
    frames = (grid(frame, columns=len(walks), scale=scale) for frame in beside)
    save_animation(path, frames, milliseconds=round(100 * seconds / len(beside)) * 10)


def project_into(
    run: str,
    source: str,
    out: str,
    *,
    label: str | None,
    kind: Kind,
    search: Search,
    device: str,
    progress: Style,
) -> dict[str, Any]:
    """Write the projection of a picture or of each in a folder; returns the content of ``project.json``."""
    gan, space = _opened(run, device, kind)
    one = None if label is None else _one_class(gan, label, 0)
    names, reals = _read(gan, Path(source))
    folder = _folder(out)
    labels = None if one is None else one.expand(len(names))
    found: list[Projected] = []

    def events() -> Iterator[Progress]:
        started, steps, total = time.monotonic(), 0, len(names) * search.num_steps
        for each in project(space, reals, labels, search):
            if each is not None:
                _save_projected(gan, space, folder / names[len(found)], reals[len(found)], each)
                found.append(each)
                continue
            if steps == 0:
                started = time.monotonic()  # without the random latents, which come first
            steps, seconds = steps + 1, time.monotonic() - started
            yield Progress(steps, total, seconds, steps / seconds if steps > RATE_STEPS and seconds > 0 else None)

    for _ in shown(events(), progress, "project", "steps"):
        pass
    facts = {
        "model": run,
        "recipe": gan.model_.recipe.name,
        "space": space.kind,
        "features": maps_for(reals.shape[1]).name,
        **asdict(search),
        "pictures": [_told(gan, name, each) for name, each in zip(names, found, strict=True)],
    }
    write_json(folder / "project.json", facts)
    return facts


def directions_into(
    run: str, out: str, *, number: int, method: finding.Method, seed: int, label: str | None, device: str
) -> dict[str, Any]:
    """Write ``directions.png``, a row of pictures for each direction, and ``directions.npz``; returns what to tell."""
    gan, space = _opened(run, device)
    gan.check_draw(1, seed, None)
    folder, one = _folder(out), _one_class(gan, label, seed)
    found = finding.directions(space, number, method, seed=seed, label=one)
    point = random_points(space, 1, seed, one)[0][0].cpu()
    points = finding.moved(found, point, torch.linspace(-MOST_DEVIATIONS, MOST_DEVIATIONS, COLUMNS)).flatten(0, 1)
    made = _shown(gan, items_at(space, points, None if one is None else one.expand(len(points))))
    save_png(folder / "directions.png", grid(made, columns=COLUMNS, scale=_scale(gan)))
    arrays = {"vectors": found.vectors, "deviations": found.deviations, "strengths": found.strengths, "point": point}
    _save_arrays(folder / "directions.npz", {name: tensor.numpy() for name, tensor in arrays.items()})
    return {
        "out": out,
        "method": method,
        "space": space.kind,
        "directions": len(found.vectors),
        "class": None if one is None else gan.model_.setting.spec.classes[int(one)],
        "strengths": [round(float(each), 4) for each in found.strengths],
    }


def mix_into(
    run: str,
    out: str,
    *,
    rows: int,
    columns: int,
    first_fine: int | None,
    seed: int,
    label: str | None,
    truncation: float | None,
    device: str,
) -> dict[str, Any]:
    """Write a sheet: pictures down the side lend their coarse styles, those along the top their fine ones."""
    if Path(out).suffix.lower() != ".png" or rows < 1 or columns < 1:
        raise UsageError(f"--out {out!r} --rows {rows} --columns {columns}: accepted are a .png, 1 row and 1 column up")
    gan, space = _opened(run, device, "styles")
    assert isinstance(space, Styles)
    gan.check_draw(rows + columns, seed, truncation)
    one = _one_class(gan, label, seed)
    points, condition = random_points(space, rows + columns, seed, one, truncation)
    parents = items_at(space, points, condition)
    stages = space.network.num_stages
    first = max(1, stages // 2) if first_fine is None else first_fine
    pairs = None if one is None else one.expand(rows * columns)
    made = mixed(space, points[:rows], points[rows:], first, pairs)
    sheet = torch.cat([torch.ones_like(parents[:1]), parents[rows:]])
    for parent, row in zip(parents[:rows], made, strict=True):
        sheet = torch.cat([sheet, parent[None], row])
    save_png(Path(out), grid(_shown(gan, sheet), columns=columns + 1, scale=_scale(gan)))
    return {"out": out, "stages": stages, "first_fine": first, "pictures": rows * columns}


def _opened(run: str, device: str, kind: Kind = "auto") -> tuple[GAN, Space]:
    gan = GAN.load(run, device=device)
    return gan, picture_space(gan.model_, kind)


def _classes(gan: GAN, label: str | None) -> list[int]:
    numbers = None if label is None else gan._class_numbers([part.strip() for part in label.split(",")])
    return [] if numbers is None else numbers.tolist()


def _one_class(gan: GAN, label: str | None, seed: int) -> Tensor | None:
    """The class that is asked for, or that of the first item of the seed; None where there are no classes."""
    chosen = _classes(gan, label)
    if len(chosen) > 1:
        raise UsageError(f"--label {label}: give one class, or leave it out")
    if chosen:
        return torch.tensor(chosen)
    return gan.model_.sampler.labels(1, seed) if gan.model_.label_share else None


def _shown(gan: GAN, items: Tensor) -> np.ndarray:
    return pictures(gan.model_.setting.spec, items)


def _scale(gan: GAN) -> int:
    return max(1, round(CELL_PIXELS / max(gan.model_.setting.spec.shape[1:])))


def _folder(out: str) -> Path:
    """A folder that can be written to, made if need be: before the work, not after it."""
    if not out:
        raise UsageError("--out is empty; name a folder")
    folder = Path(out)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise WriteError(f"cannot write into {folder}; choose another --out")
    return folder


def _read(gan: GAN, source: Path) -> tuple[list[str], Tensor]:
    """Names without ending, and the pictures, cut and resized to the size that the model makes."""
    channels, height, width = gan.model_.setting.spec.shape
    files, problems = picture_files(source, channels)
    arrays = []
    for file in files:
        try:
            arrays.append(pixels_of(file.path, channels, (height, width)))
        except DataError as error:
            problems.append((str(file.path), str(error)))
        if problems:
            raise DataError(f"{told(problems)}; mend it or leave it out")
    return [file.stem for file in files], encode(Spec("image", (channels, height, width)), np.stack(arrays))


def _save_projected(gan: GAN, space: Space, base: Path, real: Tensor, found: Projected) -> None:
    """``NAME.png``, the picture and beside it its projection; ``NAME.npz``, the point and its class."""
    both = _shown(gan, torch.stack([real, found.item]))
    save_png(base.with_name(base.name + ".png"), grid(both, columns=2, scale=_scale(gan)))
    point = found.point
    if isinstance(space, Styles) and space.per_stage:
        point = point.unflatten(0, (space.network.num_stages, -1))
    label = {} if found.label is None else {"label": np.int64(found.label)}
    _save_arrays(base.with_name(base.name + ".npz"), {space.kind: point.numpy(), **label})


def _told(gan: GAN, name: str, found: Projected) -> dict[str, Any]:
    told: dict[str, Any] = {"name": name}
    if found.label is not None:
        told["label"] = gan.model_.setting.spec.classes[found.label]
    for key, distance in (("projection", found.found), ("best_random", found.best_random), ("mean", found.mean)):
        told[key] = {
            "psnr": round(distance.psnr, 3) if math.isfinite(distance.psnr) else None,
            "features": round(distance.features, 5),
        }
    return told


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray | np.generic]) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_bytes(path, content.getvalue())
