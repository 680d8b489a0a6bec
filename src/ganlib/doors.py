"""What the commands do, once the arguments are read: files and folders around the estimator."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ganlib import model, recipes
from ganlib.assess import assess_files, training_data
from ganlib.data import Data, load, pictures
from ganlib.data.codec import decode
from ganlib.data.prepare import write_shards
from ganlib.data.show import grid, save_animation, save_folder, save_npz, save_png
from ganlib.editing import parsed
from ganlib.errors import MissingError, UsageError, WriteError
from ganlib.evaluation import Evaluation
from ganlib.evaluation.page import save_page
from ganlib.files import explained, write_bytes
from ganlib.gan import GAN
from ganlib.metrics.features import FeatureExtractor
from ganlib.metrics.named import named
from ganlib.picturing import Predicted, predict_files
from ganlib.predicting import Direction, target
from ganlib.progress import say
from ganlib.reading import read_as
from ganlib.remedies import parse
from ganlib.training.run import Run
from ganlib.training.runtime import choose_device
from ganlib.training.team import leave


def fit(
    *,
    data: str,
    out: str,
    recipe: str | None = None,
    recipe_function: str,
    recipe_options: Mapping[str, Any],
    remedies: str | None = None,
    minutes: float | None = None,
    items: int | None = None,
    cpu_seconds: float | None = None,
    seed: int | None = None,
    size: str | None = None,
    validation: str | None = None,
    unconditional: bool = False,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    compile: bool = False,
    threads: int | None = None,
    checkpoint_seconds: float = 60.0,
    json: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train into a run folder; returns what to tell about it."""
    if threads is not None:
        most = 4 * (os.cpu_count() or 1)
        if not 1 <= threads <= most:
            raise UsageError(f"--threads {threads}: accepted are 1 to {most} on this machine")
        torch.set_num_threads(threads)
    if not out:
        raise UsageError("--out is empty; name a run folder")
    function = recipes.find(recipe_function)
    chosen = function(**recipe_options).with_remedies(*(() if remedies is None else parse(remedies)))
    asked = chosen if recipe is not None or chosen != function() else None
    gan = GAN(asked, seed=seed, device=device, precision=precision, compile=compile)
    gan.fit(
        data,
        validation=_share_or_data(validation),
        items=items,
        minutes=minutes,
        cpu_seconds=cpu_seconds,
        run=out,
        conditional=False if unconditional else None,
        size=size_given(size),
        progress="json" if json else "none" if quiet else "auto",
        checkpoint_seconds=checkpoint_seconds,
    )
    if leave() > 0:
        return {}  # the run folder is the first process's
    return show(out, None, None)


def prepare(source: str, out: str, size: str | None, split: str, shard_items: int, json: bool) -> dict[str, Any]:
    """Make shards of a source; returns what to tell about them."""
    if not out:
        raise UsageError("--out is empty; name a folder for the shards")
    for done in write_shards(source, out, size=size_given(size), split=split, shard_items=shard_items):
        say(f"{done:,} items of {source} done", "none" if json else "auto")
    data = load(out)
    return {
        "out": out,
        "items": len(data),
        "kind": data.spec.kind,
        "shape": list(data.spec.shape),
        "classes": len(data.spec.classes),
        "unreadable": len(data.unreadable),
        "first_unreadable": ": ".join(data.unreadable[0]) if data.unreadable else None,
    }


def sample(
    run: str, number: int, out: str, seed: int, labels: str | None, truncation: float | None, device: str
) -> int:
    """Write samples to a folder of PNG files, a .npz, a grid as .png, or a .csv of vectors; returns how many."""
    gan = GAN.load(run, device=device)
    spec, path = gan.model_.setting.spec, Path(out)
    if path.suffix and path.suffix not in (".npz", ".png", ".csv"):
        raise UsageError(f"cannot write {out}; accepted are a folder, .npz, .png (a grid) and, for vectors, .csv")
    if not out or (path.suffix == ".csv") != (spec.kind == "vector" and path.suffix == ".csv"):
        raise UsageError(f"cannot write pictures to {out!r}; accepted are a folder, .npz and .png (a grid)")
    gan.check_draw(number, seed, truncation)
    asked = None if labels is None else gan._class_numbers([part.strip() for part in labels.split(",")])
    parts = gan.model_.sampler.stream(number, seed=seed, labels=asked, truncation=truncation)
    if spec.kind == "vector":
        _write_vectors(path, np.concatenate([decode(spec, part) for part, _ in parts]))
        return number
    known = _labels(gan, number, seed, asked)
    if path.suffix == ".npz":
        save_npz(path, (pictures(spec, part) for part, _ in parts), known, num_items=number)
    elif path.suffix == ".png":
        save_png(path, grid(np.concatenate([pictures(spec, part) for part, _ in parts])))
    else:
        deep = spec.dtype == "uint16" and spec.shape[0] == 1
        made = (
            decode(spec, part).reshape(-1, *spec.shape[1:], 1) if deep else pictures(spec, part) for part, _ in parts
        )
        save_folder(path, (picture for part in made for picture in part), _numbers(known), spec.classes)
    return number


def predict(
    run: str,
    source: str,
    out: str,
    label: str | None,
    direction: Direction | None,
    device: str,
    json: bool,
    *,
    attributes: str | None = None,
) -> Predicted:
    """Write what the generator makes of a picture or a folder of them; returns how many, and which were left out."""
    if not out:
        raise UsageError("--out is empty; name a folder or a .npz file")
    gan = GAN.load(run, device=device)
    asked = None if label is None else gan._class_numbers([label])
    aim = target(gan.model_, direction, asked)
    wish, number = None if attributes is None else parsed(attributes), aim if asked is None else int(asked)
    return predict_files(gan.model_, Path(source), Path(out), number, "none" if json else "auto", wish)


def evaluate(
    samples: str,
    reals: str,
    *,
    train: str | None,
    features: str | None,
    number: int,
    size: str | None,
    seed: int,
    truncation: float | None,
    out: str | None,
    device: str,
) -> tuple[Evaluation, Path]:
    """Evaluate a run, a model or files of samples, and write the page and its JSON; returns both."""
    path, sides = Path(samples), size_given(size)
    is_run = (path / "run.json").is_file()
    page = Path(out) if out is not None else path / "evaluation.html" if is_run else Path("evaluation.html")
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"--out {out}: give the name of a page that ends in .html; its figures come beside it as .json"
        )
    with explained(page):  # before minutes of work
        page.parent.mkdir(parents=True, exist_ok=True)
    if page.is_dir() or not os.access(page.parent, os.W_OK):
        raise WriteError(f"cannot write {page}; choose another --out")
    if number < 2 or seed < 0:
        raise UsageError(f"--number {number} --seed {seed}: accepted are at least 2 samples and a seed of 0 or more")
    if not (is_run or path.suffix == ".gan"):
        if truncation is not None:
            raise UsageError(
                f"--truncation {truncation}: {samples} are samples already; it is for a run or a .gan file"
            )
        held_out = load(reals, size=sides)
        extractor = None if features is None else _extractor(features, held_out, device)
        found = assess_files(
            samples, held_out, train=train, size=sides, num_items=number, extractor=extractor, seed=seed
        )
        save_page(found, page, title=f"Evaluation of {samples}")
        return found, page
    gan = GAN.load(samples, device=device)
    held_out = read_as(gan.model_.recipe.material, reals, None, sides or gan.model_.setting.size)
    known: object = train
    if train is None and is_run:
        known, why = training_data(path)
        if why:
            say(f"copies cannot be looked for: {why}", "auto")
    found = gan.evaluate(
        held_out,
        train=known,
        num_items=number,
        extractor=None if features is None else _extractor(features, held_out, device),
        seed=seed,
        truncation=truncation,
    )
    records = Run.read(path).records() if is_run else ()
    save_page(found, page, title=f"Evaluation of {samples}", records=records)
    return found, page


def _extractor(name: str, held_out: Data, device: str) -> FeatureExtractor:
    channels = held_out.spec.shape[0]
    if held_out.spec.kind != "image":
        raise UsageError(f"--features {name}: vectors are compared by their columns; leave it out")
    return named(name, channels=channels, device=choose_device(device))


def show(run: str, grid_out: str | None, animation_out: str | None) -> dict[str, Any]:
    """Where a run is; its newest grid and the animation of its grids copied where asked for."""
    opened = Run.read(run)
    facts, records = opened.read_facts("recipe.json"), opened.records()
    chosen, setting, _ = model.from_json(facts, run)
    grids = sorted(opened.samples.glob("*.png"))
    scores = [record for record in records if record.get("score") is not None]
    if (grid_out or animation_out) and not grids:
        raise MissingError(f"{run} has no sample grids yet; train it first: ganlib fit DATA --out {run}")
    if grid_out:
        write_bytes(Path(grid_out), grids[-1].read_bytes())
    if animation_out:
        from PIL import Image

        save_animation(animation_out, (np.asarray(Image.open(path).convert("RGB")) for path in grids), milliseconds=300)
    times = (
        (opened.folder / "timing.jsonl").read_text().splitlines() if (opened.folder / "timing.jsonl").exists() else []
    )
    asked = "--attributes NAME=VALUE " if chosen.material == "attributes" else ""
    return {
        "out": str(run),
        "recipe": facts["recipe"]["name"],
        "data": opened.read_facts("data.json")["source"],
        "items": max((int(record["items"] or 0) for record in records), default=0),
        "seconds": json.loads(times[-1])["seconds"] if times else 0.0,
        "score": scores[-1]["score"] if scores else None,
        "best_score": min((record["score"] for record in scores), default=None),  # type: ignore[type-var]
        "grid": str(grids[-1]) if grids else None,
        "plot": str(opened.folder / "losses.png"),
        "then": f"draw more: ganlib sample {run} -n 100 --out samples/"
        if chosen.plan(setting).task.draws
        else f"make pictures of pictures: ganlib predict {run} PICTURES {asked}--out made/",
    }


def _labels(gan: GAN, number: int, seed: int, asked: torch.Tensor | None) -> np.ndarray | None:
    if not gan.model_.label_share:
        return None
    return gan.labels(number, seed=seed) if asked is None else asked[torch.arange(number) % len(asked)].numpy()


def _numbers(labels: np.ndarray | None) -> Iterator[int] | None:
    return None if labels is None else (int(label) for label in labels)


def _write_vectors(path: Path, rows: np.ndarray) -> None:
    buffer = io.BytesIO()
    if path.suffix == ".csv":
        text = io.StringIO()
        csv.writer(text).writerows(rows.tolist())
        buffer.write(text.getvalue().encode())
    elif path.suffix == ".npz":
        np.savez(buffer, items=rows)
    else:
        raise UsageError(f"cannot write vectors to {path}; give a .csv or .npz file")
    write_bytes(path, buffer.getvalue())


def _share_or_data(validation: str | None) -> float | str | None:
    if validation is None:
        return None
    try:
        return float(validation)
    except ValueError:
        return validation


def size_given(size: str | None) -> tuple[int, int] | int | None:
    """64, or 64x96 as height x width."""
    if size is None:
        return None
    sides = size.lower().split("x")
    if not all(side.isdigit() for side in sides) or len(sides) > 2:
        raise UsageError(f"--size {size}: give one number, or HEIGHTxWIDTH such as 64x96")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))
