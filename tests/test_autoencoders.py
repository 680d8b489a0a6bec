"""Autoencoders: which loss trains which part, that they learn, and predict from end to end."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ganlib import GAN
from ganlib.cli import main
from ganlib.core import Draws
from ganlib.data import load
from ganlib.errors import DataError, UsageError
from ganlib.losses import NonSaturating
from ganlib.networks.autoencoder import (
    AdversarialAutoencoder,
    Autoencoder,
    Decoder,
    Encoder,
    SimilarityDiscriminator,
    VariationalAutoencoder,
)
from ganlib.networks.mlp import MLPDiscriminator
from ganlib.recipes import find
from ganlib.tasks.encode import Resemble


@pytest.mark.parametrize("shape", [(5,), (1, 8, 8), (3, 32, 32), (4, 20, 28)])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_codes_and_items_have_their_shapes(shape: tuple[int, ...], num_classes: int):
    labels = torch.tensor([0, 2]) if num_classes else None
    items = torch.randn(2, *shape)
    code = Encoder(shape, num_outputs=6, width=8, num_classes=num_classes)(items, labels)
    assert code.shape == (2, 6)
    assert Decoder(shape, latent=6, width=8, num_classes=num_classes)(code, labels).shape == (2, *shape)


def test_samples_of_an_autoencoder_have_the_mean_and_covariance_of_its_codes():
    network = Autoencoder((2,), latent=2, width=1)
    network.moment.copy_(torch.tensor([1.0, -2.0]))
    covariance = torch.tensor([[2.0, 0.6], [0.6, 0.5]])
    network.second_moment.copy_(covariance + torch.outer(network.moment, network.moment))
    torch.testing.assert_close(network.factor() @ network.factor().T, covariance)
    network.decoder = nn.Identity()  # type: ignore[assignment]
    network.decoder.forward = lambda code, labels: code  # type: ignore[method-assign]
    codes = network(torch.randn(50_000, 2, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(codes.mean(0), network.moment, atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(codes.T), covariance, atol=0.05, rtol=0)


def test_the_moments_of_an_autoencoder_follow_its_codes():
    torch.manual_seed(0)
    network, items = Autoencoder((5,), latent=3, width=2), torch.randn(400, 5)
    for _ in range(400):
        network(torch.zeros(400, 3), items=items)
    with torch.no_grad():
        codes = network.encoder(items)
    torch.testing.assert_close(network.moment, codes.mean(0), atol=1e-3, rtol=0.01)
    covariance = network.factor() @ network.factor().T
    torch.testing.assert_close(covariance, torch.cov(codes.T, correction=0), atol=1e-3, rtol=0.02)


def test_a_variational_code_is_its_mean_plus_deviation_times_noise():
    torch.manual_seed(0)
    network, items, noise = VariationalAutoencoder((5,), latent=3, width=2), torch.randn(4, 5), torch.randn(4, 3)
    made = network(noise, items=items)
    torch.testing.assert_close(made.items, network(made.mean + (made.log_variance / 2).exp() * noise))


def gradients(network: nn.Module) -> list[Tensor]:
    found = [
        torch.zeros_like(weight) if weight.grad is None else weight.grad.clone() for weight in network.parameters()
    ]
    network.zero_grad()
    return found


def test_each_loss_of_a_vae_gan_trains_the_part_that_it_is_for():
    torch.manual_seed(0)
    gamma, items = 0.3, torch.rand(6, 5)
    network = AdversarialAutoencoder((5,), latent=3, width=1, gamma=gamma)
    judge = SimilarityDiscriminator(MLPDiscriminator((5,), widths=(8, 8)), 5)
    task = Resemble(lambda: network, lambda: judge, 3)
    batch = task.draw({"real": items}, Draws(torch.Generator().manual_seed(0)))
    pair = task.pair(network, batch)
    real, fake = judge(pair.real), judge(pair.fake)
    terms = task.generator_terms(pair, real, fake)
    adversarial = torch.stack([NonSaturating().generator(None, logits) for logits in fake.logits]).mean()
    (adversarial + gamma * terms["similarity"] + terms["divergence"]).backward()
    made = gradients(network.encoder), gradients(network.decoder)

    mean, log_variance = network.encoder(items).chunk(2, 1)
    code = mean + (log_variance / 2).exp() * batch["latent"]
    decoded, drawn = torch.tanh(network.decoder(code)), torch.tanh(network.decoder(batch["prior"]))
    plain = judge.judge
    wanted = plain(items).features[0].detach()
    scale = wanted.var(0, correction=0).mean() + 0.01 * wanted.square().mean()
    distance = (plain(decoded).features[0] - wanted).square().sum(1).mean() / scale
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
    logits = plain(decoded).logits[0], plain(drawn).logits[0]
    looks_real = 0.5 * (nn.functional.softplus(-logits[0]).mean() + nn.functional.softplus(-logits[1]).mean())
    (0.5 * distance / 5 + divergence / 5).backward(retain_graph=True)
    of_encoder = gradients(network.encoder)
    network.zero_grad()
    (gamma * 0.5 * distance / 5 + looks_real).backward()
    of_decoder = gradients(network.decoder)
    for ours, expected in zip([*made[0], *made[1]], [*of_encoder, *of_decoder], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)
    assert any(bool((gradient != 0).any()) for gradient in of_encoder)


def test_a_plain_item_is_judged_like_three_equal_views():
    torch.manual_seed(0)
    judge, items = SimilarityDiscriminator(MLPDiscriminator((5,), widths=(8,), num_classes=3), 5), torch.rand(6, 5)
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    plain, views = judge(items, labels), judge(torch.cat([items] * 3, 1), labels)
    for ours, wanted in zip(plain.logits + plain.features, views.logits + views.features, strict=True):
        torch.testing.assert_close(ours, wanted)


def fitted(name: str, items: int, run: Path | None = None, **options: Any) -> GAN:
    recipe = find(name)(width=8, latent=8, batch_items=32)
    return GAN(recipe, seed=1).fit("digits", items=items, run=run, progress="none", **options)


@pytest.mark.parametrize("name", ["autoencoder", "vae", "vae_gan"])
def test_reconstructions_come_near_to_held_out_items(name: str):
    gan = fitted(name, 6400, validation=0.2)
    digits, labels = load("digits"), load("digits").labels
    assert labels is not None
    held_out = digits.take(np.arange(100))[:, 0]
    again = gan.predict(held_out, labels[:100])
    assert again.shape == held_out.shape and again.dtype == held_out.dtype
    errors = [float(((made.astype(float) - held_out) ** 2).mean()) for made in (again, held_out.mean(0)[None])]
    assert errors[0] < 0.9 * errors[1], "nearer than the mean picture is"


@pytest.fixture(scope="module")
def model() -> GAN:
    return fitted("vae", 320, conditional=False)


def test_an_autoencoder_predicts_from_pictures_and_from_latents_and_survives_a_file(model: GAN, tmp_path: Path):
    pictures = load("digits").take(np.arange(70))[:, 0]
    again = model.predict(pictures)
    assert np.array_equal(model.predict(pictures[:1]), again[:1]), "one is made as it is among many"
    assert np.array_equal(model.predict(model.latents(3)), model.sample(3))
    assert len(model.interpolate(4)) == 4
    model.save(tmp_path / "vae.gan")
    loaded = GAN.load(tmp_path / "vae.gan")
    assert np.array_equal(loaded.predict(pictures), again) and np.array_equal(loaded.sample(5), model.sample(5))


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose reconstructions follow the class, in a file."""
    gan = fitted("vae", 640)
    torch.manual_seed(0)
    for weight in gan.model_.generator.parameters():
        weight.data += 0.2 * torch.randn_like(weight)
    gan.save(path := tmp_path_factory.mktemp("classes") / "vae.gan")
    return path


def written(folder: Path, array: np.ndarray, names: list[str]) -> Path:
    for picture, name in zip(array, names, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / name)
    return folder


def test_the_command_takes_the_class_of_all_pictures_or_of_each_from_its_folder(of_classes: Path, tmp_path: Path):
    gan, digits = GAN.load(of_classes), load("digits")
    assert digits.labels is not None
    pictures, labels = (array[:70] for array in (digits.take(np.arange(70))[:, 0], digits.labels))
    scaled = (pictures.astype(int) * 255 // pictures.max()).astype(np.uint8)
    threes, own = gan.predict(scaled, [3] * 70), gan.predict(scaled, labels)
    assert np.abs(threes.astype(int) - own).max() > 20
    plain = written(tmp_path / "plain", scaled, [f"{n:03d}.png" for n in range(70)])
    sorted_in = written(tmp_path / "sorted", scaled, [f"{label}/{n:03d}.png" for n, label in enumerate(labels)])
    np.savez(tmp_path / "rows.npz", images=scaled, labels=labels)
    order = np.argsort(labels, kind="stable")
    for source, label, wanted in (
        (plain, "3", threes),
        (sorted_in, "3", threes[order]),
        (sorted_in, None, own[order]),
        (tmp_path / "rows.npz", None, own),
        (tmp_path / "rows.npz", "3", threes),
    ):
        out = tmp_path / f"{source.name}_{label}.npz"
        main(["predict", str(of_classes), str(source), "--out", str(out), *(["--label", label] if label else [])])
        made = np.load(out)["images"][..., 0]
        assert np.abs(made.astype(int) - wanted).max() <= 1, (source.name, label)  # either may round


def test_a_class_that_is_missing_or_unknown_is_said(
    model: GAN, of_classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    blank = np.zeros((2, 8, 8), np.uint8)
    plain = written(tmp_path / "plain", blank, ["a.png", "b.png"])
    strange = written(tmp_path / "strange", blank, ["7/a.png", "cat/b.png"])
    np.save(tmp_path / "rows.npy", blank)
    model.save(tmp_path / "free.gan")
    every = ", ".join("0123456789")
    out = tmp_path / "out"
    for run, source, label, said in (
        (of_classes, plain, [], ["a.png: this model needs the class", "--label", f"there are {every}"]),
        (of_classes, plain / "b.png", [], ["b.png: this model needs the class", "--label"]),
        (of_classes, tmp_path / "rows.npy", [], ["rows.npy: this model needs the class", "--label"]),
        (of_classes, strange, [], ["cat/b.png", "its class is 'cat'", f"there are {every}"]),
        (of_classes, plain, ["--label", "cat"], ["no class 'cat'", f"there are {every}"]),
        (tmp_path / "free.gan", plain, ["--label", "3"], ["trained without labels"]),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["predict", str(run), str(source), "--out", str(out), *label])
        found = capsys.readouterr().err
        assert stopped.value.code not in (0, None) and all(part in found for part in said), found
        assert not out.exists(), "nothing is written before the classes are known"
    main(["predict", str(tmp_path / "free.gan"), str(strange), "--out", str(out)])
    assert sorted(path.name for path in out.rglob("*.png")) == ["a.png", "b.png"], "folders are no classes to it"


def test_what_does_not_fit_is_said(model: GAN):
    with pytest.raises(UsageError, match="recipe vae has no discriminator"):
        model.score(np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"\(1, 9, 8\).*\(1, 8, 8\)"):
        model.predict(np.zeros((2, 9, 8), np.uint8))
    gan = GAN(find("gan")(latent=4, batch_items=16), seed=0).fit("digits", items=32, progress="none")
    with pytest.raises(DataError, match=r"recipe gan makes items of latents.*autoencoder, vae"):
        gan.predict(np.zeros((2, 8, 8), np.uint8))


def test_bits_are_logged_and_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path):
    whole = fitted("vae", 640, tmp_path / "whole")
    bits = [record["generator/bits_per_dimension"] for record in whole.history_ if "generator/divergence" in record]
    assert 0 < bits[-1] < bits[0] < 12
    fitted("vae", 320, tmp_path / "parts")
    again = fitted("vae", 640, tmp_path / "parts")
    for ours, wanted in zip(again.model_.generator.parameters(), whole.model_.generator.parameters(), strict=True):
        assert ours.shape == wanted.shape
    assert again.model_.discriminator is None and again.diagnose() is not None
