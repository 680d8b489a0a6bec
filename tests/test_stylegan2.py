"""StyleGAN2: modulation against a loop over items, the published sizes, noise, mixing, and the step."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Spec
from ganlib.networks.stylegan2 import (
    MAPPING_RATE,
    ModulatedConv,
    ResidualHalving,
    StyledConv,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
)
from ganlib.recipe import Setting
from ganlib.recipes.stylegan2 import stylegan2
from ganlib.training.runtime import Runtime
from ganlib.training.state import create
from ganlib.training.step import step


def number_of_weights(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def loop(conv: ModulatedConv, x: Tensor, style: Tensor) -> Tensor:
    """The paper's order: weights are scaled and normalised for each item, which then has a convolution of its own."""
    made = []
    for item, of_item in zip(x, style, strict=True):
        scale = conv.affine.weight @ of_item / math.sqrt(len(of_item)) + conv.affine.bias
        weight = conv.weight / math.sqrt(conv.weight[0].numel()) * scale[None, :, None, None]
        if conv.demodulate:
            norm = (weight.flatten(1).square().sum(1) + 1e-8).sqrt()
            torch.testing.assert_close(
                (weight / norm[:, None, None, None]).flatten(1).norm(dim=1), torch.ones_like(norm)
            )
            weight = weight / norm[:, None, None, None]
        if conv.blur is not None:
            spread = torch.zeros(1, len(item), 2 * item.shape[1], 2 * item.shape[2], dtype=x.dtype)
            spread[0, :, ::2, ::2] = item
            mirrored = weight.flip(2, 3)  # a transposed convolution
            large = F.conv2d(F.pad(spread, (2, 1, 2, 1)), mirrored)
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype) / 4
            kernel = torch.outer(taps, taps).expand(large.shape[1], 1, 4, 4)
            made.append(F.conv2d(large, kernel, padding=1, groups=large.shape[1]))
        else:
            made.append(F.conv2d(item[None], weight, padding=weight.shape[2] // 2))
    return torch.cat(made)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(("kernel", "demodulate"), [(3, True), (1, False)])
def test_a_modulated_convolution_is_one_of_its_own_for_each_item(kernel: int, demodulate: bool, double: bool):
    if double and kernel == 1:
        pytest.skip("a 1x1 convolution never doubles")
    torch.manual_seed(0)
    conv = ModulatedConv(4, 5, kernel, 6, demodulate=demodulate, double=double).double()
    x, style = torch.randn(3, 4, 5, 7).double(), 2 * torch.randn(3, 6).double()
    made = conv(x, style)
    assert made.shape == (3, 5, 10, 14) if double else (3, 5, 5, 7)
    torch.testing.assert_close(made, loop(conv, x, style), rtol=1e-6, atol=1e-7)


def test_demodulated_weights_have_norm_one_whatever_the_style():
    """An impulse in each input channel in turn shows the weights that work."""
    torch.manual_seed(0)
    conv = ModulatedConv(3, 4, 3, 6).double()
    style = 5 * torch.randn(1, 6).double().expand(3, 6)
    impulses = torch.zeros(3, 3, 5, 5).double()
    for channel in range(3):
        impulses[channel, channel, 2, 2] = 1
    torch.testing.assert_close(conv(impulses, style).square().sum((0, 2, 3)), torch.ones(4).double(), rtol=1e-5, atol=0)


def test_halving_blocks_and_styled_layers_keep_the_second_moment():
    torch.manual_seed(0)
    x = torch.randn(8, 64, 32, 32)
    layer = StyledConv(64, 64, 16, (32, 32))
    assert float(layer(x, torch.randn(8, 16)).detach().square().mean()) == pytest.approx(1, rel=0.15)
    # The blur takes most of white noise away; a smooth input shows the gain.
    smooth = F.interpolate(torch.randn(8, 64, 4, 4), scale_factor=8, mode="bilinear")
    made = ResidualHalving(64, 64)(smooth)[..., 2:-2, 2:-2]
    assert float(made.detach().square().mean()) == pytest.approx(float(smooth.square().mean()), rel=0.35)


def test_the_networks_have_the_published_sizes():
    """Counted from the paper's configuration F at 1024: 512 channels to 64 x 64, then 256, 128, 64, 32.

    The paper rounds them to 30 and 29 million (section 4.2). A layer of the generator has weights, a bias for each
    output, a strength of noise, and an affine map of the 512 styles to its inputs.
    """
    widths = [512] * 5 + [256, 128, 64, 32]
    pairs = list(itertools.pairwise(widths))

    def styled(a: int, b: int) -> int:
        return 9 * a * b + b + 1 + 513 * a

    pictures = sum(3 * w + 3 + 513 * w for w in widths)
    synthesis = 16 * 512 + styled(512, 512) + sum(styled(a, b) + styled(b, b) for a, b in pairs) + pictures
    mapping = 8 * (512 * 512 + 512)
    halvings = sum(9 * b * b + b + 9 * a * b + a + a * b for a, b in pairs)
    judge = 4 * 32 + halvings + 9 * 513 * 512 + 512 + 16 * 512 * 512 + 512 + 513
    with torch.device("meta"):
        generator = StyleGAN2Generator((3, 1024, 1024), latent=512, width=32)
        discriminator = StyleGAN2Discriminator((3, 1024, 1024), width=32)
    assert number_of_weights(generator.mapping) == mapping == 2_101_248
    assert number_of_weights(generator) == synthesis + mapping == 30_370_060
    assert number_of_weights(discriminator) == judge == 29_012_513


def small(**changes: float) -> StyleGAN2Generator:
    torch.manual_seed(0)
    network = StyleGAN2Generator((1, 16, 16), latent=6, width=4, widest=8, **changes)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("strength"):
                weight.fill_(0.5)
    return network


def test_noise_is_fresh_while_training_and_constant_in_evaluation():
    network, latent = small(mixing=0.0), torch.randn(4, 6)
    assert not torch.equal(network(latent), network(latent))
    network.eval()
    together, alone = network(latent), torch.cat([network(one[None]) for one in latent])
    assert torch.equal(together, network(latent))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_only_the_direction_of_a_latent_matters_and_it_takes_a_shift_of_the_style():
    network, latent = small().eval(), torch.randn(4, 6)
    torch.testing.assert_close(network(3 * latent), network(latent), rtol=1e-4, atol=1e-5)
    shift = torch.zeros(4, 6, requires_grad=True)
    moved = network(latent, None, shift)
    assert torch.equal(moved, network(latent))
    (slope,) = torch.autograd.grad(moved.sum(), shift)
    assert bool((slope != 0).any(1).all())


def test_mixing_leaves_the_coarse_style_and_changes_finer_ones_in_its_share_of_items():
    network = small(mixing=0.5)
    seen: list[Tensor] = []
    network.synthesis = lambda styles: seen.append(styles.detach()) or torch.zeros(2000, 1, 16, 16)  # type: ignore[method-assign]
    latent = torch.randn(2000, 6)
    network(latent)
    own = network.mapping(latent, None).detach()
    same = (seen[0] == own).all(2)  # stage, item
    assert bool(same[0].all())
    assert bool((same[1:] <= same[:-1]).all()), "once mixed, all finer stages are"
    # There are 3 stages: the first mixed one is the second, the third, or none.
    assert float(same[1].float().mean()) == pytest.approx(1 - 0.5 / 3, abs=0.04)
    assert float(same[2].float().mean()) == pytest.approx(1 - 0.5 * 2 / 3, abs=0.04)
    network.eval()(latent)
    assert bool((seen[1] == own).all())


def test_the_mapping_network_learns_slower_by_its_rate():
    network = small()
    assert {layer.rate for layer in network.mapping.layers} == {MAPPING_RATE}  # type: ignore[union-attr]
    assert len(network.mapping.layers) == 8


def test_a_step_applies_both_lazy_penalties_in_their_turns_and_remembers_the_path_length():
    setting = Setting(Spec("image", (1, 8, 8)), 100, "cpu")
    plan = stylegan2(width=4, latent=4, mapping_layers=2, batch_items=4).plan(setting)
    state, runtime = create(plan, Runtime(), 0, 1000), Runtime()
    names = [set(step(state, plan, {"real": torch.randn(4, 1, 8, 8).clamp(-1, 1)}, runtime, 0)) for _ in range(17)]
    assert [k for k in range(17) if "discriminator/r1" in names[k]] == [0, 16]
    assert [k for k in range(17) if "generator/path_length" in names[k]] == [0, 8, 16]
    (memory,) = state.memories.buffers()
    assert float(memory) > 0


def test_the_weight_of_the_path_length_is_the_papers():
    """ln 2 / (r² (ln r - ln 2)) for noise that is not divided by r."""
    for side in (64, 256, 1024):
        plan = stylegan2().plan(Setting(Spec("image", (3, side, side)), 100, "cuda"))
        weight = plan.objective.generator_penalties["path_length"].weight(0, 1)
        assert weight / side**2 == pytest.approx(math.log(2) / (side**2 * (math.log(side) - math.log(2))))
    assert (
        not stylegan2(path_length=0.0).plan(Setting(Spec("image", (1, 8, 8)), 9, "cpu")).objective.generator_penalties
    )
