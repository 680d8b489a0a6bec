"""The convolutional classics: what sets each apart, against formulas written out and sizes counted by hand."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from ganlib import GAN, recipes
from ganlib.core import Batch, Draws, Plan, Spec, Verdict
from ganlib.data import load
from ganlib.losses import LeastSquares, NonSaturating, Wasserstein
from ganlib.networks.dcgan import DCGANDiscriminator
from ganlib.networks.guessing import WithGuess, WithLabelPlane
from ganlib.penalties import ClipWeights, Dragan, GradientPenalty
from ganlib.recipe import Setting
from ganlib.sampling import truncated
from ganlib.tasks.auxiliary import GenerateGuessed
from ganlib.tasks.coded import GenerateCoded
from ganlib.training.runtime import Runtime
from ganlib.training.state import State, create
from ganlib.training.step import step

SPEC = Spec("image", (1, 8, 8), classes=("a", "b", "c"))


def plan_of(name: str, spec: Spec = SPEC, **options: Any) -> Plan:
    made = recipes.find(name)(**options)
    return made.plan(Setting(spec, 50, "cpu", conditional=made.labels != "unused"))


def batch_for(plan: Plan, position: int = 0, side: int = 8) -> Batch:
    rng, count = torch.Generator().manual_seed(position), plan.batch_items * plan.discriminator_steps
    batch = {"real": torch.rand(count, 1, side, side, generator=rng) * 2 - 1}
    unlabelled = isinstance(plan.task, GenerateCoded)
    return batch if unlabelled else batch | {"label": torch.randint(3, (count,), generator=rng)}


def begin(plan: Plan) -> State:
    return create(plan, Runtime(), 0, 1000)


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


# What the papers say of each.


def test_the_losses_penalties_and_rates_are_those_of_the_papers():
    wgan, gp, dragan, lsgan = (plan_of(name) for name in ("wgan", "wgan_gp", "dragan", "lsgan"))
    assert (wgan.objective.loss, wgan.objective.constraints) == (Wasserstein(), (ClipWeights(0.01),))
    assert not wgan.objective.penalties and wgan.discriminator_steps == gp.discriminator_steps == 5
    assert dragan.discriminator_steps == lsgan.discriminator_steps == 1
    for plan in (wgan, gp, dragan, lsgan):
        assert plan.generator == plan.discriminator and plan.batch_items == 64
    assert (wgan.generator.kind, wgan.generator.learning_rate(0, 1)) == ("rmsprop", 5e-5)
    adams = [(p.generator.kind, p.generator.beta1, p.generator.beta2(0, 1)) for p in (gp, dragan, lsgan)]
    assert adams == [("adam", 0.0, 0.9), ("adam", 0.5, 0.999), ("adam", 0.5, 0.999)]
    assert gp.generator.learning_rate(0, 1) == 1e-4
    assert (gp.objective.loss, dragan.objective.loss) == (Wasserstein(), NonSaturating())
    assert lsgan.objective.loss == LeastSquares() and not lsgan.objective.penalties
    for plan, kind in ((gp, GradientPenalty()), (dragan, Dragan())):
        (item,) = plan.objective.penalties.values()
        assert (item.penalty, item.weight(0, 1), item.every_steps) == (kind, 10.0, 1)
        judge = plan.task.networks()[1]
        assert judge is not None and not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in judge.modules())


def test_every_weight_of_the_discriminator_is_clipped_after_every_step_also_the_gains_of_its_normalisation():
    sixteen = Spec("image", (1, 16, 16), classes=("a", "b", "c"))
    plan = plan_of("wgan", sixteen, width=8, latent=4, batch_items=4, learning_rate=0.05)
    state = begin(plan)
    assert state.discriminator is not None
    (gain,) = (m.weight for m in state.discriminator.modules() if isinstance(m, nn.BatchNorm2d))
    assert float(gain.detach().min()) > 0.9
    for position in range(3):
        step(state, plan, batch_for(plan, position, side=16), Runtime(), 0)
        most = max(float(weight.detach().abs().max()) for weight in state.discriminator.parameters())
        assert most == pytest.approx(0.01) and float(gain.detach().abs().max()) == pytest.approx(0.01)
    assert max(float(weight.detach().abs().max()) for weight in state.generator.parameters()) > 0.01


@pytest.mark.parametrize("kind", ["layer", "none"])
def test_without_batch_normalisation_an_item_is_judged_alone_and_layers_are_normalised(kind: Any):
    torch.manual_seed(0)
    judge, items = DCGANDiscriminator((1, 16, 16), width=8, normalisation=kind), torch.randn(4, 1, 16, 16)
    torch.testing.assert_close(judge(items).logits[0][:1], judge(items[:1]).logits[0])
    (grid,) = (m for m in judge.layers if isinstance(m, nn.GroupNorm)) if kind == "layer" else (None,)
    if grid is None:
        assert [type(m) for m in judge.layers] == [nn.Conv2d, nn.LeakyReLU, nn.Conv2d, nn.LeakyReLU]
    else:
        x = torch.randn(2, 16, 4, 4) * 3 + 1
        by_hand = (x - x.mean((1, 2, 3), keepdim=True)) / x.var((1, 2, 3), correction=0, keepdim=True).sqrt()
        torch.testing.assert_close(grid(x), by_hand, rtol=1e-4, atol=1e-4)


# Sizes.


def test_infogan_has_the_size_of_the_table_of_mnist():
    """Appendix C.1, table 1, no bias where normalisation follows, gains and biases of that per channel.

    G: 74 → 1024; 1024 → 7 · 7 · 128; 4 x 4 up 128 → 64; 4 x 4 up 64 → 1, with bias.
    D: 4 x 4 1 → 64, with bias; 4 x 4 64 → 128; 7 · 7 · 128 → 1024; 1024 → 1, with bias.
    Q: 1024 → 128; 128 → 10 + 2, with bias.
    """
    setting = Setting(Spec("image", (1, 28, 28)), 50, "cpu")
    generator, discriminator = recipes.find("infogan")(network="paper").plan(setting).task.networks()
    assert isinstance(discriminator, WithGuess)
    up, down = 128 * 64 * 16 + 2 * 64 + 64 * 16 + 1, 16 * 64 + 64 + 64 * 128 * 16 + 2 * 128
    assert parameters(generator) == 74 * 1024 + 2 * 1024 + 1024 * 49 * 128 + 2 * 128 + up
    assert parameters(discriminator.body) == down + 49 * 128 * 1024 + 2 * 1024 + 1024 + 1
    assert parameters(discriminator.guess) == 1024 * 128 + 2 * 128 + 128 * 12 + 12


@pytest.mark.parametrize(("name", "extra"), [("wgan", 0), ("lsgan", 0), ("acgan", 10 * (8192 + 1))])
def test_the_others_have_the_size_of_dcgan_at_64(name: str, extra: int):
    """That of the widely used code: see test_networks. WGAN's own experiments are on it; AC-GAN adds a linear head."""
    spec = Spec("image", (3, 64, 64), classes=tuple("0123456789"))
    plan = recipes.find(name)().plan(Setting(spec, 50, "cpu", conditional=bool(extra)))
    generator, discriminator = plan.task.networks()
    assert discriminator is not None
    embedded = 10 * 100 + 100 * 512 * 16 if extra else 0  # of the class, beside the latent
    assert parameters(generator) == 3_576_704 + 3 + embedded
    assert parameters(discriminator) == 2_765_568 + 64 + 1 + extra


def test_wgan_gp_in_place_of_batch_has_layer_normalisation_of_the_same_size():
    batch, layer, none = (
        parameters(DCGANDiscriminator((3, 64, 64), width=64, normalisation=kind)) for kind in ("batch", "layer", "none")
    )
    assert batch == layer == none + 128 + 256 + 512, "a gain and a bias per channel, or a bias alone"


# AC-GAN.


def reached(loss: Tensor, network: nn.Module) -> set[str]:
    """The parts of a network that a gradient of the loss reaches, by the first word of their names."""
    network.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name.partition(".")[0]
        for name, weight in network.named_parameters()
        if weight.grad is not None and bool((weight.grad != 0).any())
    }


def test_the_class_terms_are_cross_entropies_written_out():
    task = plan_of("acgan", width=8).task
    assert isinstance(task, GenerateGuessed)
    batch = task.draw(batch_for(plan_of("acgan", batch_items=5)), Draws(torch.Generator().manual_seed(0)))
    pair = task.pair(lambda latent, label: torch.zeros(5, 1, 8, 8), batch)
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    real, fake = (Verdict((), classes=part) for part in logits)
    expected = []
    for part in logits.double():
        shares = part.exp() / part.exp().sum(1, keepdim=True)
        expected.append(sum(-math.log(float(shares[row, label])) for row, label in enumerate(batch["label"])) / 5)
    found = task.discriminator_terms(pair, real, fake)
    assert {name: float(v) for name, v in found.items()} == pytest.approx(
        {"real_class": expected[0], "fake_class": expected[1]}, rel=1e-5
    )
    assert float(task.generator_terms(pair, None, fake)["class"]) == pytest.approx(expected[1], rel=1e-5)


def test_the_class_terms_reach_the_body_the_head_and_the_generator():
    plan = plan_of("acgan", width=8, latent=4, batch_items=6)
    torch.manual_seed(0)
    generator, judge = plan.task.networks()
    assert judge is not None
    pair = plan.task.pair(generator, plan.task.draw(batch_for(plan), Draws(torch.Generator())))
    real, fake = judge(pair.real, pair.condition), judge(pair.fake.detach(), pair.condition)
    for term in plan.task.discriminator_terms(pair, real, fake).values():
        assert reached(term, judge) == {"body", "guess"} and not reached(term, generator)
    term = plan.task.generator_terms(pair, None, judge(pair.fake, pair.condition))["class"]
    assert reached(term, generator) == {"condition", "layers"}


def test_acgan_does_not_tell_the_discriminator_the_class_and_cgan_does():
    for name, told in (("acgan", False), ("cgan", True)):
        torch.manual_seed(0)
        judge = plan_of(name, width=8).task.networks()[1]
        assert judge is not None
        items, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 1])
        one, other = (judge(items, given).logits[0] for given in (labels, (labels + 1) % 3))
        assert torch.equal(one, other) != told


def test_the_plane_of_a_label_is_one_more_channel():
    class Channels(nn.Module):
        def forward(self, items: Tensor) -> Verdict:
            return Verdict((items[:, 0].sum((1, 2)),), (items,))

    judge, items = WithLabelPlane(Channels(), 4, 6, num_classes=3), torch.randn(2, 2, 4, 6)
    (seen,) = judge(items, torch.tensor([2, 0])).features
    assert torch.equal(seen[:, :2], items)
    assert torch.equal(seen[:, 2].flatten(1), judge.planes.weight[[2, 0]])
    with pytest.raises(ValueError, match="labels"):
        judge(items)


# InfoGAN.


def coded(**options: Any) -> GenerateCoded:
    task = plan_of("infogan", width=8, latent=4, categories=3, continuous=2, **options).task
    assert isinstance(task, GenerateCoded)
    return task


def test_codes_are_uniform_and_what_is_chosen_is_what_the_generator_gets():
    task, given = coded(), []

    def generator(numbers: Tensor) -> Tensor:
        given.append(numbers)
        return numbers

    latent = task.latent(6000, Draws(torch.Generator().manual_seed(0)))
    category, continuous, noise = task.code(latent)
    counts = torch.bincount(category, minlength=3).double()
    assert float((counts - 2000).square().sum() / 2000) < 13.8, "two degrees of freedom: once in a thousand"
    share = continuous.flatten().sort().values
    uniform = torch.linspace(-1, 1, len(share))
    assert float((share - uniform).abs().max()) / 2 < 1.95 / len(share) ** 0.5, "Kolmogorov: once in a thousand"
    assert torch.equal(noise, latent[:, 5:])
    latent[:, :3] = torch.eye(3)[torch.arange(6000) % 3]
    latent[:, 3] = 0
    task.sample(generator, latent, None)
    assert torch.equal(given[0][:, :3], torch.eye(3).repeat(2000, 1))
    assert bool((given[0][:, 3] == 0).all()) and torch.equal(given[0][:, 5:], noise)


def test_truncation_keeps_the_category_and_the_order_of_the_codes():
    task = coded()
    latent = task.latent(500, Draws(torch.Generator().manual_seed(0)))
    before, after = task.code(latent), task.code(truncated(latent, 0.7))
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1].argsort(0), after[1].argsort(0))
    assert float(after[1].abs().max()) <= math.erf(0.7 / math.sqrt(2)) + 1e-6


def test_the_information_terms_are_the_formulas_written_out():
    task = coded()
    batch = task.draw({"real": torch.zeros(5, 1, 8, 8)}, Draws(torch.Generator().manual_seed(0)))
    pair = task.pair(lambda numbers: torch.zeros(5, 1, 8, 8), batch)
    category, continuous, _ = task.code(batch["latent"])
    guess = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    of_category = torch.distributions.Categorical(logits=guess[:, :3]).log_prob(category)
    of_continuous = torch.distributions.Normal(guess[:, 3:], 1.0).log_prob(continuous).sum(1)
    for found in (
        task.discriminator_terms(pair, Verdict(()), Verdict((), classes=guess)),
        task.generator_terms(pair, None, Verdict((), classes=guess)),
    ):
        torch.testing.assert_close(found["category"], -of_category.mean())
        torch.testing.assert_close(found["continuous"], -of_continuous.mean())


@pytest.mark.parametrize("network", ["dcgan", "paper"])
def test_the_information_reaches_generator_body_and_head_each_in_its_turn(network: str):
    plan = plan_of("infogan", network=network, width=8, latent=4, batch_items=6)
    torch.manual_seed(0)
    generator, judge = plan.task.networks()
    assert judge is not None
    pair = plan.task.pair(generator, plan.task.draw(batch_for(plan), Draws(torch.Generator())))
    for name, term in plan.task.discriminator_terms(pair, Verdict(()), judge(pair.fake.detach())).items():
        assert reached(term, judge) == {"body", "guess"}, name
        assert not reached(term, generator), name
    for name, term in plan.task.generator_terms(pair, None, judge(pair.fake)).items():
        assert reached(term, generator) == {"layers"} | ({"dense"} if network == "paper" else set()), name


def test_minimising_the_information_terms_alone_makes_the_code_readable():
    """With no adversary's share in the loss both networks agree on a language within some steps."""
    plan = plan_of("infogan", width=8, latent=4, categories=3, batch_items=32, generator_learning_rate=2e-3)
    silent = dataclasses.replace(plan.objective, loss=Silent())
    plan, state = dataclasses.replace(plan, objective=silent), begin(plan)
    terms = {}
    for position in range(40):
        terms = step(state, plan, batch_for(plan, position), Runtime(), 0)
    assert float(terms["generator/category"]) < 0.2 * math.log(3)


class Silent(Wasserstein):
    """A loss of nothing."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0 * fake.mean()

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return 0 * fake.mean()


# Labels.


@pytest.mark.parametrize(
    ("name", "shuffled"), [("cgan", False), ("acgan", False), ("acgan", True)], ids=["cgan", "acgan", "acgan-shuffled"]
)
def test_the_class_that_is_asked_for_is_drawn_as_a_classifier_of_real_digits_sees_it(name: str, shuffled: bool):
    """Of labels that say nothing the generator cannot have learned what they mean; chance is a tenth."""
    data = load("digits")
    assert data.labels is not None
    items = data.take(np.arange(len(data)))
    classifier = LogisticRegression(max_iter=300).fit(items.reshape(len(items), -1) / 255, data.labels)
    labels = np.random.default_rng(0).permutation(data.labels) if shuffled else data.labels
    small = recipes.find(name)(width=16, latent=16, batch_items=32, learning_rate=1e-3)
    made = GAN(small).fit(items, labels, items=ITEMS[name], validation=0.0, progress="none")
    drawn = made.sample(300, labels=list(range(10)))
    agreement = (classifier.predict(drawn.reshape(300, -1) / 255) == np.arange(300) % 10).mean()
    assert agreement < 0.5 if shuffled else agreement > 0.7


ITEMS = {"cgan": 30_000, "acgan": 12_000}
