"""Looks, patience and the choice of the checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ganlib import GAN, looking, model
from ganlib.errors import RunError
from ganlib.fitting import exhausted
from ganlib.recipes.r3 import r3
from ganlib.training import checkpoint


def fitted(run: Path | None = None, **options: object) -> GAN:
    recipe = r3(network="compact", width=4, latent=8, batch_items=32)
    return GAN(recipe, seed=1).fit("digits", run=run, progress="none", **options)  # type: ignore[arg-type]


def test_patience_is_ten_looks_without_a_better_one() -> None:
    def scores(*values: float) -> list[dict[str, float]]:
        return [{"items": 1, "score": value} for value in values] + [{"items": 2, "other": 0.0}]

    assert not exhausted(scores(5, 3, *[4] * 9))
    assert not exhausted(scores(5, 3, *[4] * 9, 2.9))
    assert exhausted(scores(5, 3, *[4] * 9, 3.0))


def test_a_run_without_a_budget_ends_by_itself_and_stays_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([5.0, 3.0, *[4.0] * 10, 1.0])
    monkeypatch.setattr(looking, "validation_score", lambda *_: next(scores))
    monkeypatch.setattr("ganlib.recipes.r3.GREY", _short())
    first = fitted(tmp_path / "run")
    assert [record["score"] for record in first.history_ if "score" in record] == [5.0, 3.0, *[4.0] * 10]
    again = fitted(tmp_path / "run")
    assert again.history_[-1] == first.history_[-1]


def _short():
    from ganlib.recipes.r3 import Defaults

    return Defaults(4, 32, 2e-3, 2.0, 8, 1000, 6400)


def test_the_best_checkpoint_is_taken_where_the_newest_is_much_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([5.0, 1.0, 0.95, *[2.0] * 22])
    monkeypatch.setattr(looking, "validation_score", lambda *_: next(scores))
    fitted(tmp_path / "run", items=800)
    places = checkpoint.listed(tmp_path / "run/checkpoints")
    facts = {path.name: json.loads((path / "facts.json").read_text())["score"] for path in places}
    assert sorted(facts.values()) == [0.95, 2.0, 2.0]
    best = next(path for path in places if facts[path.name] == 0.95)
    chosen = model.from_run(tmp_path / "run", "cpu").generator.state_dict()
    expected = checkpoint.load(best)[0]["average"]
    assert all(torch.equal(chosen[name], expected[name]) for name in expected)
    (best / "average.safetensors").write_bytes(b"damaged")
    chosen = model.from_run(tmp_path / "run", "cpu").generator.state_dict()
    newest = checkpoint.load(places[-1])[0]["average"]
    assert all(torch.equal(chosen[name], newest[name]) for name in newest)


def test_batch_statistics_are_measured_anew_at_each_look() -> None:
    gan = fitted(items=640)
    generator, sampler = gan.model_.generator, gan.model_.sampler
    latents, labels = sampler.latents(512, seed=1), sampler.labels(512, seed=1)
    grids = generator.linear(generator.condition(latents, labels))
    norm = generator.norms[0].norm
    by_channel = grids.view(-1, norm.num_features)
    torch.testing.assert_close(norm.running_mean, by_channel.mean(0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norm.running_var, by_channel.var(0), rtol=0.05, atol=1e-3)


def test_the_score_is_of_as_many_samples_at_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    original = looking.frechet_distance
    monkeypatch.setattr(looking, "frechet_distance", lambda a, b: counts.append((len(a), len(b))) or original(a, b))
    fitted(items=800)
    assert len(counts) == 25 and set(counts) == {(180, 180)}


def test_other_validation_data_are_refused_on_resuming(tmp_path: Path) -> None:
    fitted(tmp_path / "run", items=64, validation=0.5)
    with pytest.raises(RunError, match="items held out, not these"):
        fitted(tmp_path / "run", items=128, validation=0.1)
    with pytest.raises(RunError, match="begun with its labels"):
        fitted(tmp_path / "run", items=128, validation=0.5, conditional=False)


def test_validation_data_keep_their_own_range() -> None:
    from ganlib.data import load

    digits = load("digits").take(np.arange(200))[:, 0]
    as_bytes = fitted_on(digits, digits[:100])
    as_floats = fitted_on(digits, digits[:100].astype(np.float32) / 255)
    assert as_bytes == pytest.approx(as_floats, rel=1e-3)


def fitted_on(images: np.ndarray, validation: np.ndarray) -> float:
    recipe = r3(network="compact", width=4, latent=8, batch_items=32)
    gan = GAN(recipe, seed=1).fit(images, items=64, validation=validation, progress="none")
    return next(record["score"] for record in reversed(gan.history_) if "score" in record)
