"""One table and one contract for every network; the published sizes; a few numbers that must not move."""

import importlib
import inspect
import math
import pkgutil
from itertools import pairwise
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from ganlib import networks
from ganlib.core import Verdict
from ganlib.networks.attributes import AttributeDiscriminator, AttributeGenerator
from ganlib.networks.autoencoder import SimilarityDiscriminator
from ganlib.networks.biggan import BigGANGenerator
from ganlib.networks.cascade import CascadeDiscriminator, CascadeGenerator
from ganlib.networks.compact import CompactDiscriminator, CompactGenerator
from ganlib.networks.contrast import ContrastingGenerator
from ganlib.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from ganlib.networks.fastgan import FastGANDiscriminator, FastGANGenerator
from ganlib.networks.mlp import MLPDiscriminator, MLPGenerator
from ganlib.networks.parts import crop, pad, pyramid
from ganlib.networks.patch import PatchDiscriminator
from ganlib.networks.progressive import ProgressiveDiscriminator, ProgressiveGenerator
from ganlib.networks.residual import ResidualDiscriminator, ResidualGenerator
from ganlib.networks.resnet import ResNetDiscriminator, ResNetGenerator
from ganlib.networks.routed import RoutedDiscriminator, RoutedGenerator
from ganlib.networks.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
from ganlib.networks.superres import EnlargingGenerator
from ganlib.networks.translator import TranslatingGenerator
from ganlib.networks.unet import UNetGenerator
from ganlib.networks.vectors import MixtureGenerator, NoisyDiscriminator

TABLE: dict[type[nn.Module], dict[str, Any]] = {
    MLPGenerator: dict(latent=5, widths=(7, 6)),
    MLPDiscriminator: dict(widths=(7, 6)),
    MixtureGenerator: dict(latent=6, widths=(7, 6), bits=2),
    NoisyDiscriminator: dict(widths=(7, 6)),
    DCGANGenerator: dict(latent=5, width=4),
    DCGANDiscriminator: dict(width=4),
    CompactGenerator: dict(latent=5, width=4),
    CompactDiscriminator: dict(width=4),
    ResidualGenerator: dict(latent=5, width=16, blocks=1),
    ResidualDiscriminator: dict(width=16, blocks=1),
    ResNetGenerator: dict(latent=5, width=4),
    ResNetDiscriminator: dict(width=4),
    BigGANGenerator: dict(latent=5, width=4, shared=3),
    StyleGAN2Generator: dict(latent=5, width=4, widest=8, mapping_layers=2, mixing=0.0),
    StyleGAN2Discriminator: dict(width=4, widest=8),
    ProgressiveGenerator: dict(latent=5, width=4, widest=8),
    ProgressiveDiscriminator: dict(width=4, widest=8),
    FastGANGenerator: dict(latent=5, width=4, widest=16),
    FastGANDiscriminator: dict(width=4, widest=16),
}
"""A new generator or discriminator needs its tiny arguments here; the contract below does the rest."""

VECTORS = {MLPGenerator, MixtureGenerator, MLPDiscriminator, NoisyDiscriminator}  # those that take items of any shape
MIXES_ITEMS = {
    DCGANDiscriminator,
    FastGANDiscriminator,
}  # discriminators whose batch normalisation looks at the whole batch
LOOKS_AT_GROUPS = {StyleGAN2Discriminator, ProgressiveDiscriminator}  # and those with minibatch deviation
RESTS = {ProgressiveGenerator: "to_items", ProgressiveDiscriminator: "from_items"}  # of coarser stages, once grown
BEGINS_AT_ZERO = {ResidualGenerator, ResidualDiscriminator}  # some gradients are zero at the start, by design
OF_OTHER_MANNERS = {  # they take pictures, judge places, or see several views at once, and have tests of their own
    CascadeGenerator,
    CascadeDiscriminator,
    EnlargingGenerator,
    SimilarityDiscriminator,
    UNetGenerator,
    PatchDiscriminator,
    TranslatingGenerator,
    AttributeGenerator,
    AttributeDiscriminator,
    RoutedGenerator,
    RoutedDiscriminator,
    ContrastingGenerator,
}
SHAPES = [(1, 28, 28), (3, 32, 48), (4, 9, 13), (5, 8, 8), (3, 5, 7), (1, 64, 64), (3, 100, 60)]


def found() -> list[type[nn.Module]]:
    """Every public module of ganlib.networks that is named a generator or a discriminator."""
    kinds = set()
    for file in pkgutil.iter_modules(networks.__path__):
        module = importlib.import_module(f"{networks.__name__}.{file.name}")
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, nn.Module) and name.endswith(("Generator", "Discriminator")):
                kinds.add(kind)
    return sorted(kinds - OF_OTHER_MANNERS, key=lambda kind: kind.__name__)


NETWORKS = found()
GENERATORS = [kind for kind in NETWORKS if kind.__name__.endswith("Generator")]
DISCRIMINATORS = [kind for kind in NETWORKS if kind.__name__.endswith("Discriminator")]
every_network = pytest.mark.parametrize("kind", NETWORKS, ids=lambda kind: kind.__name__)
every_discriminator = pytest.mark.parametrize("kind", DISCRIMINATORS, ids=lambda kind: kind.__name__)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def build(kind: type[nn.Module], shape: tuple[int, ...], num_classes: int = 0, seed: int = 0) -> nn.Module:
    assert kind in TABLE, f"give {kind.__name__} a row in TABLE of tests/test_networks.py"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(shape, **TABLE[kind], num_classes=num_classes)


def inputs(kind: type[nn.Module], shape: tuple[int, ...], batch: int = 3, seed: int = 1) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *((TABLE[kind]["latent"],) if kind in GENERATORS else shape), generator=rng)


def output(found: Tensor | Verdict) -> Tensor:
    return found.logits[0] if isinstance(found, Verdict) else found


def away_from_the_start(network: nn.Module) -> nn.Module:
    """The network with noise on every weight: zeros at the start hide what they multiply."""
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=rng, dtype=weight.dtype))
    return network


def at_rest(network: nn.Module) -> nn.Module:
    """The network with the power iterations of its spectral norms at their end: in training each call makes one."""
    with torch.no_grad():
        for weight in network.modules():
            if isinstance(weight, ParametrizationList):
                for _ in range(300):
                    weight()
                weight.eval()
    return network


def is_residual_start(kind: type[nn.Module], name: str) -> bool:
    in_attention = name.startswith("attention.") and name != "attention.gain"
    return in_attention or (kind in BEGINS_AT_ZERO and (".expand." in name or ".mix." in name))


def rests(kind: type[nn.Module], name: str, network: nn.Module) -> bool:
    """What has no part in the output: doors to pictures of sizes that a grown network no longer makes or sees."""
    part, _, rest = name.partition(".")
    if kind is FastGANDiscriminator:
        return part.startswith("of_")  # the decoders have no part in the logit
    return kind in RESTS and part == RESTS[kind] and int(rest.partition(".")[0]) < len(getattr(network, part)) - 1


def test_networks_are_found():
    assert set(TABLE) <= set(NETWORKS)


@every_network
@every_shape
def test_shapes_fit_and_gradients_reach_every_weight(kind: type[nn.Module], shape: tuple[int, ...]):
    network = build(kind, shape)
    result = network(inputs(kind, shape))
    if kind in GENERATORS:
        assert result.shape == (3, *shape)
    else:
        assert all(logits.shape[0] == 3 for logits in result.logits)
        assert result.logits[0].shape == (3,), "one logit must be [batch]: [batch, 1] broadcasts against [batch]"
        assert all(features.shape[0] == 3 for features in result.features)
    assert output(result).dtype == torch.float32 and bool(output(result).isfinite().all())
    (output(result) * torch.randn(output(result).shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for name, weight in network.named_parameters():
        if rests(kind, name, network):
            continue
        assert weight.grad is not None, f"no gradient reaches {name}"
        assert bool(weight.grad.isfinite().all()), name
        if not is_residual_start(kind, name):
            assert bool((weight.grad != 0).any()), f"the gradient of {name} is zero"


@pytest.mark.parametrize("kind", sorted(VECTORS, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_networks_of_vectors(kind: type[nn.Module]):
    result = output(build(kind, (6,))(inputs(kind, (6,))))
    assert result.shape == ((3, 6) if kind in GENERATORS else (3,))


@every_network
def test_bfloat16_by_autocast(kind: type[nn.Module]):
    shape = (3, 9, 13)
    network, given = build(kind, shape), inputs(kind, shape)
    exact = output(network(given)).detach()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = output(network(given))
    assert rounded.shape == exact.shape and bool(rounded.isfinite().all())
    assert float((rounded.detach().float() - exact).abs().max()) < 0.1 * max(1.0, float(exact.abs().max()))
    rounded.float().sum().backward()
    at_work = [w for name, w in network.named_parameters() if not rests(kind, name, network)]
    assert all(w.grad is not None and w.grad.dtype == torch.float32 for w in at_work)


@every_network
@pytest.mark.parametrize("num_classes", [0, 4])
def test_weights_survive_a_file(kind: type[nn.Module], num_classes: int):
    shape, labels = (1, 9, 13), torch.tensor([0, 3, 2]) if num_classes else None
    first, second = build(kind, shape, num_classes), build(kind, shape, num_classes, seed=9)
    given = inputs(kind, shape)
    first(given, labels)  # so that batch statistics are not those at the start
    weights = safetensors.torch.load(safetensors.torch.save(first.state_dict()))
    assert not torch.equal(output(first.eval()(given, labels)), output(second.eval()(given, labels)))
    second.load_state_dict(weights)
    assert torch.equal(output(first(given, labels)), output(second(given, labels)))


@every_network
def test_a_conditional_network_wants_labels_and_heeds_them(kind: type[nn.Module]):
    shape = (1, 8, 8)
    network, given = away_from_the_start(build(kind, shape, num_classes=3)).eval(), inputs(kind, shape)
    with pytest.raises(ValueError, match="labels"):
        network(given)
    one, other = (output(network(given, torch.full((3,), label))) for label in (0, 2))
    assert bool((one != other).flatten(1).any(1).all() if one.ndim > 1 else (one != other).all())
    mixed = output(network(given, torch.tensor([0, 2, 0])))
    torch.testing.assert_close(mixed, torch.stack([one[0], other[1], one[2]]), rtol=1e-4, atol=1e-6)


@every_network
def test_an_unconditional_network_needs_no_labels(kind: type[nn.Module]):
    network, given = build(kind, (1, 8, 8)).eval(), inputs(kind, (1, 8, 8))
    assert torch.equal(output(network(given)), output(network(given, torch.tensor([0, 1, 2]))))


@every_network
def test_the_same_seed_makes_the_same_weights(kind: type[nn.Module]):
    one, again, other = (build(kind, (3, 8, 8), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@every_discriminator
@pytest.mark.parametrize("shape", [(3, 9, 13), (1, 16, 16)], ids=str)
def test_gradients_of_gradients_reach_the_weights(kind: type[nn.Module], shape: tuple[int, ...]):
    """What R1 needs; compared with a finite difference along a random direction, in float64."""
    network, items = build(kind, shape, num_classes=2).double(), inputs(kind, shape).double().requires_grad_()
    labels = torch.tensor([0, 1, 1])
    rng = torch.Generator().manual_seed(5)
    at_rest(away_from_the_start(network))
    weights = list(network.parameters())
    direction = [torch.randn(weight.shape, generator=rng, dtype=torch.float64) for weight in weights]

    def penalty() -> Tensor:
        (slope,) = torch.autograd.grad(output(network(items, labels)).sum(), items, create_graph=True)
        return slope.square().sum()

    gradients = torch.autograd.grad(penalty(), weights, allow_unused=True)
    analytic = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None)
    values, size = [], 1e-6
    for sign in (1, -1):
        with torch.no_grad():
            torch._foreach_add_(weights, direction, alpha=sign * size)
        values.append(float(penalty().detach()))
        with torch.no_grad():
            torch._foreach_add_(weights, direction, alpha=-sign * size)
    assert analytic == pytest.approx((values[0] - values[1]) / (2 * size), rel=1e-3, abs=1e-7)
    assert sum(g is not None and bool((g != 0).any()) for g in gradients) >= len(weights) / 2


@every_discriminator
def test_the_logit_of_an_item_is_its_own_affair_without_batch_statistics(kind: type[nn.Module]):
    shape = (3, 24, 24)
    network, items = build(kind, shape, num_classes=2), inputs(kind, shape, batch=4)
    labels, other = torch.tensor([0, 1, 1, 0]), items.clone()
    other[1:] = other[1:].flip(0) * 3 + 1
    first, second = (output(at_rest(network)(x, labels))[0] for x in (items, other))
    has_norm = any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in network.modules())
    assert has_norm == (kind in MIXES_ITEMS)
    assert torch.allclose(first, second, rtol=1e-5, atol=1e-6) != (kind in MIXES_ITEMS | LOOKS_AT_GROUPS)


@every_discriminator
def test_every_pixel_is_looked_at(kind: type[nn.Module]):
    shape = (2, 9, 13)
    items = inputs(kind, shape, batch=2).requires_grad_()
    output(build(kind, shape)(items)).square().sum().backward()
    assert items.grad is not None and bool((items.grad != 0).any(0).all())


@pytest.mark.parametrize("kind", GENERATORS, ids=lambda kind: kind.__name__)
def test_every_number_of_the_latent_matters(kind: type[nn.Module]):
    network, latent = build(kind, (1, 9, 13)), inputs(kind, (1, 9, 13), batch=4).requires_grad_()
    made = network(latent)
    (made * torch.randn(made.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    assert latent.grad is not None
    of_signs = torch.arange(latent.shape[1]) < getattr(network, "bits", 0)  # columns of which only the sign counts
    assert torch.equal((latent.grad != 0).any(0), ~of_signs)
    for column in of_signs.nonzero().flatten():
        turned = latent.detach().clone()
        turned[:, column] *= -1
        assert bool((network(turned) != made).flatten(1).any(1).all()), f"column {column} changes nothing"


def test_a_mixture_is_continuous_in_its_gaussian_and_jumps_where_a_sign_turns():
    torch.manual_seed(0)
    network = MixtureGenerator((2,), latent=8, widths=(16, 16), bits=3)
    latent = torch.randn(64, 8).abs() + 0.1
    same, near, across = latent.clone(), latent.clone(), latent.clone()
    same[:, :3] *= 5
    near[:, 3:] += 1e-5
    across[:, 0] = -1e-5
    with torch.no_grad():
        made, of_same, of_near, of_across = (network(given) for given in (latent, same, near, across))
    assert torch.equal(of_same, made)
    assert float((of_near - made).abs().max()) < 1e-3
    assert float((of_across - made).abs().amax(1).min()) > 1e-3
    assert (network.coarse_points.num_embeddings, network.differences.num_embeddings) == (2, 8)


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([7, 8]))
def test_a_pyramid_covers_the_size_with_the_fewest_pixels_to_spare(height: int, width: int, largest: int):
    doublings, base_height, base_width = pyramid(height, width, largest)
    assert max(base_height, base_width) <= largest
    assert 0 <= base_height * 2**doublings - height < 2**doublings
    assert 0 <= base_width * 2**doublings - width < 2**doublings
    for other in range(doublings + 1, 10):  # a smaller base must not have been as good, unless under four pixels
        spare = math.ceil(height / 2**other) * math.ceil(width / 2**other) * 4**other
        if min(height, width) / 2**other >= 4:
            assert spare > base_height * base_width * 4**doublings


@pytest.mark.parametrize(
    ("size", "expected"), [((28, 28), (2, 7, 7)), ((32, 32), (3, 4, 4)), ((64, 64), (4, 4, 4)), ((5, 7), (0, 5, 7))]
)
def test_pyramids_of_common_sizes(size: tuple[int, int], expected: tuple[int, int, int]):
    assert pyramid(*size) == expected


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 5), st.integers(0, 5))
def test_cropping_undoes_padding(height: int, width: int, rows: int, columns: int):
    items = torch.arange(2.0 * height * width).reshape(1, 2, height, width)
    padded = pad(items, height + rows, width + columns)
    assert padded.shape[2:] == (height + rows, width + columns)
    assert torch.equal(crop(padded, height, width), items)
    assert set(padded.unique().tolist()) == set(items.unique().tolist())  # the edge repeated, no border of its own


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def test_dcgan_has_the_size_of_the_widely_used_code():
    """At 64 x 64 x 3, width 64, latent 100 the DCGAN of the PyTorch examples has 3,576,704 and 2,765,568 numbers.

    It has no bias in any convolution. Ours has one where no normalisation follows: 3 in the generator's last layer, 64
    in the discriminator's first; and its last layer, there a 4 x 4 convolution, is a linear one with a bias (1).
    """
    generator = DCGANGenerator((3, 64, 64), latent=100, width=64)
    discriminator = DCGANDiscriminator((3, 64, 64), width=64)
    assert parameters(generator) == 3_576_704 + 3
    assert parameters(discriminator) == 2_765_568 + 64 + 1
    kernels = [tuple(m.weight.shape) for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert kernels == [(100, 512, 4, 4), (512, 256, 4, 4), (256, 128, 4, 4), (128, 64, 4, 4), (64, 3, 4, 4)]
    kernels = [tuple(m.weight.shape) for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [(64, 3, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4)]
    weights = torch.cat([m.weight.flatten() for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)])
    assert float(weights.detach().std()) == pytest.approx(0.02, rel=0.01)


def test_perceptrons_have_the_widths_they_are_given():
    generator = MLPGenerator((1, 28, 28), latent=100, widths=(256, 512, 1024), batch_norm=True)
    discriminator = MLPDiscriminator((1, 28, 28), widths=(1024, 512, 256), dropout=0.3)
    sizes = [784, 1024, 512, 256, 1]
    assert parameters(discriminator) == sum(a * b + b for a, b in pairwise(sizes))
    sizes = [100, 256, 512, 1024, 784]
    normalised = 2 * (256 + 512 + 1024)
    assert parameters(generator) == sum(a * b + b for a, b in pairwise(sizes)) + normalised
    dropped = [module.p for module in discriminator.modules() if isinstance(module, nn.Dropout)]
    assert dropped == [0.3] * 3


@pytest.mark.parametrize(
    "kind",
    [DCGANGenerator, CompactGenerator, MLPGenerator, ResNetGenerator, BigGANGenerator],
    ids=lambda kind: kind.__name__,
)
def test_bounded_generators_stay_within_one(kind: type[nn.Module]):
    made = build(kind, (1, 8, 8))(100 * inputs(kind, (1, 8, 8)))
    assert float(made.detach().abs().max()) <= 1
    if kind is MLPGenerator:
        assert float(kind((6,), latent=5, widths=(7,), bounded=False)(torch.full((1, 5), 1e3)).detach().abs().max()) > 1


def test_residual_blocks_begin_as_the_identity():
    from ganlib.networks.residual import Block

    block, x = Block(16, 4), torch.randn(2, 16, 3, 3)
    assert torch.equal(block(x), x)
    with torch.no_grad():
        block.contract.weight.normal_()
    assert not torch.equal(block(x), x)


GOLDEN: dict[type[nn.Module], list[float]] = {
    DCGANGenerator: [204.69741, 11.873381],
    DCGANDiscriminator: [-0.44157367, -0.00099008365],
    MLPGenerator: [0.48217545, -1.2837465],
    MLPDiscriminator: [-0.2932908, -0.25656744],
    ResidualGenerator: [-36.101712, 16.640273],
    ResidualDiscriminator: [-0.6483869, -0.068536448],
}
"""Sum and weighted sum of an output where every weight is a fixed pattern: what a network computes must not move."""


@pytest.mark.parametrize("kind", list(GOLDEN), ids=lambda kind: kind.__name__)
def test_outputs_are_those_of_the_day_they_were_written_down(kind: type[nn.Module]):
    shape = (2, 9, 12)
    network = build(kind, shape, num_classes=3).double().eval()
    with torch.no_grad():  # a pattern instead of a seed: the same on every machine and version
        for name, weight in sorted(network.named_parameters()):
            pattern = torch.sin(torch.arange(weight.numel(), dtype=torch.float64) * 0.7 + len(name))
            pattern = pattern.reshape(weight.shape) / max(weight[0].numel(), 1) ** 0.5
            weight.copy_(1 + 0.1 * pattern if weight.ndim == 1 and name.endswith("weight") else 0.5 * pattern)
    count = inputs(kind, shape).numel()
    given = torch.cos(torch.arange(count, dtype=torch.float64)).reshape(inputs(kind, shape).shape)
    made = output(network(given, torch.tensor([0, 1, 2]))).flatten().detach()
    ramp = torch.linspace(-1, 1, made.numel(), dtype=torch.float64)
    assert [float(made.sum()), float((made * ramp).sum())] == pytest.approx(GOLDEN[kind], rel=1e-4)
