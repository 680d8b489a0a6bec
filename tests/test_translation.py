"""Tasks from picture to picture: what is real, what is fake, under which condition, and the further terms."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ganlib.core import Draws, Pair, Spec, Verdict
from ganlib.errors import UsageError
from ganlib.networks.contrast import Contrasted, ContrastingGenerator
from ganlib.networks.routed import RoutedDiscriminator, RoutedGenerator
from ganlib.networks.translator import TranslatingGenerator
from ganlib.penalties.matching import PairedFeatures
from ganlib.tasks.contrast import TEMPERATURE, Contrast, patch_contrast
from ganlib.tasks.degrading import KINDS, Degradation, Down, Grey, Mask, Noise, degradation
from ganlib.tasks.translate import Translate
from ganlib.tasks.unpaired import Cycle, beside

COLOUR = Spec("image", (3, 8, 12))


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def nothing() -> nn.Module:
    return nn.Identity()


def test_translation_from_pairs_judges_both_beside_the_given_picture() -> None:
    task, batch = Translate(nothing, nothing), {"real": pictures(4, 3, 8, 12), "condition": pictures(4, 1, 8, 12)}
    drawn = task.draw(batch, draws())
    pair = task.pair(lambda given: given.expand(-1, 3, -1, -1), drawn)
    assert pair.real is batch["real"] and pair.condition is batch["condition"]
    assert torch.equal(pair.fake[:, 2:], batch["condition"]) and task.condition(batch, draws()) is batch["condition"]
    content = task.generator_terms(pair, None, Verdict(()))["content"]
    assert content.item() == pytest.approx((batch["condition"] - batch["real"]).abs().mean().item(), rel=1e-6)
    assert [shown.shape[1] for shown in task.exhibit(pair)] == [3, 3, 3]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_spoiled_picture_is_what_its_spec_says_and_comes_back_to_size(kind: str) -> None:
    found, items = KINDS[kind](), pictures(5, 3, 8, 12)
    given = found(items, draws())
    assert given.shape == (5, *found.given(COLOUR).shape)
    assert found.to_size(given).shape[2:] == items.shape[2:]
    assert torch.equal(given, found(items, draws())) and not torch.equal(given, items[:, : given.shape[1]])
    task = Translate(nothing, nothing, found)
    drawn = task.draw({"real": items}, draws())
    assert drawn["condition"].shape[2:] == items.shape[2:] and task.given(COLOUR) == found.given(COLOUR)
    levels = drawn["condition"] * 127.5 + 127.5 if kind != "down4" else given.new_zeros(1)
    assert torch.allclose(levels, levels.round(), atol=1e-4), "what is given can be stored in 8 bits"


def test_what_each_way_to_spoil_does() -> None:
    items = pictures(400, 3, 8, 12)
    assert torch.allclose(Grey()(items, draws())[:, 0], 0.299 * items[:, 0] + 0.587 * items[:, 1] + 0.114 * items[:, 2])
    holes = Mask()(items + 3, draws()) == 0
    assert torch.equal(holes.flatten(1).sum(1), torch.full((400,), 3 * 4 * 6)), "half as high, half as wide"
    reached = holes[:, 0].any(0)
    assert bool(reached.all()), "the hole may be anywhere"
    noise = Noise()(torch.zeros_like(items), draws()).flatten(1).std(1)
    assert 0 <= noise.min() < 0.05 and 0.35 < noise.max() < 0.55, "deviations from 0 to 2 · 55 / 255"
    flat = torch.full((1, 3, 8, 12), 0.25)
    assert torch.allclose(Down()(flat, draws()), torch.full((1, 3, 2, 3), 0.25), atol=1e-6)


def test_what_cannot_be_spoiled_says_so() -> None:
    with pytest.raises(UsageError, match=r"degrade=grey .* 1 channels"):
        degradation("grey", replace(COLOUR, shape=(1, 8, 12)))
    with pytest.raises(UsageError, match="no multiple of it; the nearest is --size 8x12"):
        degradation("down4", replace(COLOUR, shape=(3, 9, 13)))
    assert degradation("none", COLOUR) is None
    assert all(isinstance(make(), Degradation) for make in KINDS.values())


def test_paired_features_by_hand() -> None:
    real = Verdict((), (torch.zeros(2, 3), torch.ones(2, 4)))
    fake = Verdict((), (torch.full((2, 3), 0.5), torch.full((2, 4), -1.0)))
    pair = Pair(torch.zeros(2, 1), torch.zeros(2, 1))
    assert PairedFeatures()(None, {}, pair, real, fake, draws()).item() == pytest.approx(0.5 + 2.0)
    with pytest.raises(UsageError, match="features"):
        PairedFeatures()(None, {}, pair, Verdict(()), Verdict(()), draws())


def two_sets(count: int = 3) -> dict[str, Tensor]:
    return {"real": pictures(2 * count, 1, 4, 4), "label": torch.tensor([0, 1] * count)}


def test_a_cycle_pairs_what_is_made_with_the_domain_it_is_made_for() -> None:
    """The generator into domain 1 adds 10, that into domain 0 subtracts 10: the way there and back is the identity."""
    task, batch = Cycle(nothing, nothing), two_sets()

    def generator(items: Tensor, target: Tensor) -> Tensor:
        return items + 20 * (target[:, None, None, None] - 0.5)

    pair = task.pair(generator, task.draw(batch, draws()))
    assert pair.condition is not None and pair.condition.tolist() == [1, 0] * 3
    assert torch.equal(pair.real[0::2], batch["real"][1::2]) and torch.equal(pair.real[1::2], batch["real"][0::2])
    assert torch.allclose(pair.fake[0::2], batch["real"][0::2] + 10)
    assert torch.allclose(pair.fake[1::2], batch["real"][1::2] - 10)
    terms = task.generator_terms(pair, None, Verdict(()))
    assert terms["cycle"].item() == pytest.approx(0.0, abs=1e-5) and terms["identity"].item() == pytest.approx(10.0)


def test_cycle_and_identity_are_zero_for_networks_that_change_nothing() -> None:
    task, batch = Cycle(nothing, nothing), two_sets()
    terms = task.generator_terms(task.pair(lambda items, target: items, batch), None, Verdict(()))
    assert terms["cycle"].item() == 0.0 and terms["identity"].item() == 0.0
    without = Cycle(nothing, nothing, identity=False)
    terms = without.generator_terms(without.pair(lambda items, target: items, batch), None, Verdict(()))
    assert terms.keys() == {"cycle"}


def test_rows_that_stand_beside_each_other_are_exchanged() -> None:
    rows = torch.arange(6)
    assert beside(rows).tolist() == [1, 0, 3, 2, 5, 4] and torch.equal(beside(beside(rows)), rows)


class Times(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, items: Tensor) -> Tensor:
        return self.factor * items**2


def test_each_row_goes_to_its_own_network_and_gradients_with_it() -> None:
    network, items = RoutedGenerator(Times), pictures(5, 1, 2, 2).requires_grad_()
    with torch.no_grad():
        network.domains[1].factor.fill_(7.0)  # type: ignore[union-attr]
    target = torch.tensor([1, 0, 0, 1, 0])
    made = network(items, target)
    factors = torch.tensor([7.0, 1, 1, 7, 1])[:, None, None, None]
    assert torch.allclose(made, factors * items**2)
    (slope,) = torch.autograd.grad(made.sum(), items, create_graph=True)
    slope.square().sum().backward()
    assert items.grad is not None and torch.allclose(items.grad, 8 * factors**2 * items)
    assert torch.allclose(network(items, torch.zeros(5, dtype=torch.long)), items**2)


def test_verdicts_of_two_domains_keep_their_rows() -> None:
    class Judge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = Times()

        def forward(self, items: Tensor) -> Verdict:
            made = self.own(items)
            return Verdict((made.flatten(1).sum(1), made[:, :, 0]), (made,))

    network, items = RoutedDiscriminator(Judge), pictures(4, 1, 2, 2)
    with torch.no_grad():
        network.domains[1].own.factor.fill_(3.0)  # type: ignore[union-attr]
    verdict = network(items, torch.tensor([0, 1, 1, 0]))
    factors = torch.tensor([1.0, 3, 3, 1])
    assert torch.allclose(verdict.logits[0], factors * items.square().flatten(1).sum(1))
    assert torch.allclose(verdict.features[0], factors[:, None, None, None] * items.square())
    assert verdict.logits[1].shape == (4, 1, 2)


def unit_vectors(*shape: int, seed: int = 0) -> Tensor:
    return nn.functional.normalize(pictures(*shape, seed=seed), dim=-1)


def test_patch_contrast_by_the_definition_and_without_a_gradient_to_the_keys() -> None:
    queries, keys = unit_vectors(2, 5, 8).requires_grad_(), unit_vectors(2, 5, 8, seed=1).requires_grad_()
    total = 0.0
    for item in range(2):
        for place in range(5):
            scores = torch.stack([queries[item, place] @ keys[item, other] for other in range(5)]).detach() / 0.07
            total -= float(scores[place] - scores.logsumexp(0))
    found = patch_contrast(queries, keys)
    assert found.item() == pytest.approx(total / 10, rel=1e-5) and TEMPERATURE == 0.07
    found.backward()
    assert queries.grad is not None and keys.grad is None
    same = torch.eye(4)[None]
    assert patch_contrast(same, same).item() == pytest.approx(0.0, abs=1e-5), "every place knows itself"


@pytest.mark.parametrize("identity", [True, False])
def test_contrast_translates_the_first_set_and_compares_place_by_place(identity: bool) -> None:
    translator = TranslatingGenerator(1, 1, width=4, blocks=2, downsamplings=1, antialiased=True)
    shapes = translator.feature_shapes(8, 8)
    network = ContrastingGenerator(translator, shapes, units=6)
    task = Contrast(nothing, nothing, shapes, 7, identity)
    batch = task.draw({"real": pictures(6, 1, 8, 8), "label": torch.tensor([0, 1] * 3)}, draws())
    pair = task.pair(network, batch)
    assert torch.equal(pair.real, batch["real"][1::2]) and pair.condition is None
    assert torch.allclose(pair.fake, network(batch["real"][0::2]), atol=1e-5)
    terms = task.generator_terms(pair, None, Verdict(()))
    assert terms.keys() == ({"contrast", "identity"} if identity else {"contrast"})
    places = [batch[f"places{number}"] for number in range(len(shapes))]
    for name, rows in (("contrast", slice(0, None, 2)), ("identity", slice(1, None, 2)))[: len(terms)]:
        alone: Contrasted = network(batch["real"][rows], [at[rows] for at in places])
        layers = [patch_contrast(q, k) for q, k in zip(alone.of_made, alone.of_given, strict=True)]
        assert terms[name].item() == pytest.approx(torch.stack(layers).mean().item(), rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("symmetric", [True, False])
def test_what_is_made_of_a_mirror_image_is_compared_mirrored_back(symmetric: bool) -> None:
    """Kernels that are their own mirror images make of a mirror image the mirror image; a last one that is not, not."""
    torch.manual_seed(0)
    translator = TranslatingGenerator(1, 1, width=3, blocks=1, downsamplings=0)
    for module in translator.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if symmetric or module is not translator.last[1]:
                module.weight.copy_((module.weight + module.weight.flip(3)) / 2)
    shapes = translator.feature_shapes(6, 6)
    network = ContrastingGenerator(translator, shapes, units=5)
    items, mirrored = pictures(4, 1, 6, 6), torch.tensor([True, False, True, True])
    places = [torch.arange(rows * columns).expand(4, -1) for _, rows, columns in shapes]
    plain, found = network(items, places), network(items, places, mirrored)
    for one, other in zip(plain.of_given, found.of_given, strict=True):
        assert torch.allclose(one, other, atol=1e-4), "the places are those of the picture as it was given"
    assert torch.allclose(found.made[1], plain.made[1], atol=1e-5), "row 1 is not mirrored"
    same = torch.allclose(found.made[0], plain.made[0].flip(2), atol=1e-4)
    alike = all(torch.allclose(a[0], b[0], atol=1e-3) for a, b in zip(found.of_made, plain.of_made, strict=True))
    assert same == alike == symmetric, "the comparison tells whether the two are each other's mirror image"


def test_with_flips_every_second_pair_is_made_of_its_mirror_image() -> None:
    translator = TranslatingGenerator(1, 1, width=4, blocks=2, downsamplings=1, antialiased=True)
    shapes = translator.feature_shapes(8, 8)
    network = ContrastingGenerator(translator, shapes, units=6)
    for identity in (True, False):
        task = Contrast(nothing, nothing, shapes, 7, identity, flips=True)
        batch = task.draw({"real": pictures(40, 1, 8, 8), "label": torch.tensor([0, 1] * 20)}, draws())
        mirrored = batch["mirrored"][::2]
        assert torch.equal(mirrored, batch["mirrored"][1::2]) and 4 <= int(mirrored.sum()) <= 16
        pair, given = task.pair(network, batch), batch["real"][::2]
        turned = torch.where(mirrored[:, None, None, None], given.flip(3), given)
        assert torch.allclose(pair.fake, network(turned), atol=1e-5)
        assert torch.equal(pair.extra["items"], turned), "what is shown beside it is what it was made of"
        assert torch.equal(pair.real, batch["real"][1::2]), "what is real stays as it is"
    assert "mirrored" not in Contrast(nothing, nothing, shapes, 7).draw({"real": pictures(4, 1, 8, 8)}, draws())
