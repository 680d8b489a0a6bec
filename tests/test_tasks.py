"""What a task makes of a batch: pairs, and what is drawn for them."""

import math

import torch
from torch import Tensor, nn

from ganlib.core import Draws
from ganlib.networks.vectors import LEAST_NOISE, MOST_NOISE, MixtureGenerator, NoisyDiscriminator
from ganlib.penalties import R1
from ganlib.tasks.generate import Generate
from ganlib.tasks.noisy import GenerateNoisy

LATENT = 6


def noisy() -> GenerateNoisy:
    return GenerateNoisy(
        lambda: MixtureGenerator((2,), latent=LATENT, widths=(8, 8)),
        lambda: NoisyDiscriminator((2,), widths=(8, 8)),
        LATENT,
    )


def drawn(task: Generate, num_items: int = 4000) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return task.draw({"real": torch.randn(num_items, 2, generator=rng)}, Draws(rng))


def shifted(latent: Tensor, label: Tensor | None) -> Tensor:
    """A generator whose items are known."""
    return latent[:, :2] + 3


def test_a_pair_under_noise_is_divided_by_its_level_and_says_it():
    batch = drawn(noisy())
    pair, level = noisy().pair(shifted, batch), batch["log_level"].exp()
    noises = []
    for made, plain in ((pair.real, batch["real"]), (pair.fake, shifted(batch["latent"], None))):
        assert torch.equal(made[:, 2:], batch["log_level"])
        noise = made[:, :2] - plain / level
        assert abs(float(noise.mean())) < 0.05 and abs(float(noise.std()) - 1) < 0.05
        noises.append(noise.flatten())
    assert abs(float(torch.corrcoef(torch.stack(noises))[0, 1])) < 0.05


def test_levels_are_log_uniform_from_the_least_to_the_most():
    log_level = drawn(noisy())["log_level"]
    assert math.log(LEAST_NOISE) <= float(log_level.min()) and float(log_level.max()) <= math.log(MOST_NOISE)
    share = (log_level - math.log(LEAST_NOISE)) / math.log(MOST_NOISE / LEAST_NOISE)
    assert torch.allclose(share.quantile(torch.tensor([0.1, 0.5, 0.9])), torch.tensor([0.1, 0.5, 0.9]), atol=0.03)


def test_plain_vectors_are_judged_as_under_the_least_noise():
    torch.manual_seed(0)
    judge, items = NoisyDiscriminator((2,), widths=(8, 8)), torch.randn(5, 2)
    level = torch.full((5, 1), math.log(LEAST_NOISE))
    with torch.no_grad():
        (plain,), (told,) = judge(items).logits, judge(torch.cat([items / LEAST_NOISE, level], 1)).logits
        (other,) = judge(torch.cat([items / MOST_NOISE, torch.zeros(5, 1)], 1)).logits
    assert torch.allclose(plain, told, atol=1e-5) and not torch.allclose(plain, other, atol=1e-3)


def test_a_penalty_is_on_the_item_and_not_on_the_level():
    torch.manual_seed(0)
    judge, batch = NoisyDiscriminator((2,), widths=(8, 8)), drawn(noisy(), 16)
    pair = noisy().pair(shifted, batch)
    items = pair.real.requires_grad_()
    (logits,) = judge(items).logits
    (gradient,) = torch.autograd.grad(logits.sum(), items, retain_graph=True)
    assert bool((gradient[:, 2] == 0).all()) and bool((gradient[:, :2] != 0).all())
    value = R1()(judge, pair, judge(items), judge(pair.fake), Draws(torch.Generator()))
    torch.testing.assert_close(value, 0.5 * gradient.square().sum(1).mean())


def test_the_gradient_reaches_the_generator_through_the_noise():
    generator, _ = noisy().networks()
    pair = noisy().pair(generator, drawn(noisy(), 16))
    pair.fake[:, :2].square().sum().backward()
    moved = [weight for weight in generator.parameters() if weight.grad is not None and bool((weight.grad != 0).any())]
    assert isinstance(generator, nn.Module) and len(moved) == len(list(generator.parameters()))
