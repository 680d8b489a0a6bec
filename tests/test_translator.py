"""The residual translator: its published size, what antialiasing is, and the features and places that CUT compares."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganlib.core import Draws
from ganlib.networks.normalised import InstanceNorm
from ganlib.networks.translator import (
    BlurredHalving,
    PatchProjection,
    TranslatingGenerator,
    downsamplings_for,
    draw_places,
)
from twice import slope_of_penalty

SIZES = [(28, 28), (32, 44), (20, 28), (8, 8), (5, 7), (1, 1)]


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def test_the_published_size_has_the_published_number_of_weights():
    """7 x 7 from 3 to 64, 3 x 3 to 128 and 256, nine blocks of two 3 x 3, back to 128 and 64, 7 x 7 to 3 and 3 biases.

    The reference implementation's 11,378,179 hold a bias for each normalised channel too, which is undone there.
    """
    kernels = 49 * 3 * 64 + 2 * 9 * (64 * 128 + 128 * 256) + 18 * 9 * 256**2 + 49 * 64 * 3
    undone = 64 + 128 + 256 + 18 * 256 + 128 + 64
    with torch.device("meta"):
        assert count(TranslatingGenerator(3, 3)) == kernels + 3 == 11_378_179 - undone
        assert count(TranslatingGenerator(3, 3, antialiased=True)) == 11_378_179 - undone
        assert count(TranslatingGenerator(3, 3, normalisation="none")) == 11_378_179
        six = TranslatingGenerator(3, 3, blocks=6, normalisation="none")
        assert count(six) == 11_378_179 - 3 * 2 * (9 * 256**2 + 256)
        with pytest.raises(ValueError, match="1 or more"):
            TranslatingGenerator(3, 3, blocks=0)


def test_it_is_the_papers_layers_one_after_another():
    torch.manual_seed(0)
    network = TranslatingGenerator(2, 1, width=4, blocks=1, downsamplings=1).double()
    items = torch.randn(2, 2, 10, 12, dtype=torch.float64)
    first, down, one, two, up, last = (w.detach() for w in network.parameters() if w.ndim == 4)
    bias = network.last[1].bias

    def norm(x: Tensor) -> Tensor:
        mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt()

    def reflect(x: Tensor, by: int) -> Tensor:
        rows, columns = ([*range(by, 0, -1), *range(n), *range(n - 2, n - 2 - by, -1)] for n in x.shape[2:])
        return x[:, :, rows][:, :, :, columns]

    x = norm(F.conv2d(reflect(items, 3), first)).clamp(min=0)
    x = norm(F.conv2d(x, down, stride=2, padding=1)).clamp(min=0)
    x = x + norm(F.conv2d(reflect(norm(F.conv2d(reflect(x, 1), one)).clamp(min=0), 1), two))
    x = norm(F.conv_transpose2d(x, up, stride=2, padding=1, output_padding=1)).clamp(min=0)
    torch.testing.assert_close(network(items), torch.tanh(F.conv2d(reflect(x, 3), last, bias)))


def test_the_blurs_are_the_filters_of_the_paper(rng: torch.Generator):
    x = torch.randn(2, 3, 8, 10, generator=rng, dtype=torch.float64)
    taps = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    kernel = torch.outer(taps, taps).expand(3, 1, 3, 3)
    wanted = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=3)
    torch.testing.assert_close(BlurredHalving()(x), wanted)

    network = TranslatingGenerator(1, 1, width=2, blocks=1, downsamplings=1, antialiased=True)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 4
    kernel = torch.outer(taps, taps).expand(3, 1, 4, 4)
    wanted = F.conv_transpose2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, stride=2, groups=3)[:, :, 3:-3, 3:-3]
    torch.testing.assert_close(network.body.doublings[0](x), wanted)


def test_antialiasing_makes_it_heed_a_shift_by_a_pixel_less():
    """Away from the edges a translator should move with its picture; halving without a blur breaks that."""
    torch.manual_seed(0)
    items = torch.randn(4, 1, 40, 40)
    errors = []
    for antialiased in (False, True):
        network = TranslatingGenerator(1, 1, width=8, blocks=1, antialiased=antialiased, normalisation="none")
        with torch.no_grad():
            for weight in network.parameters():
                weight.mul_(3)
            made, moved = network(items), network(items.roll(1, 3)).roll(-1, 3)
        errors.append(float((made - moved)[:, :, 12:-12, 12:-12].std() / made[:, :, 12:-12, 12:-12].std()))
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_size_stays_and_gradients_reach_every_weight(size: tuple[int, int], antialiased: bool):
    torch.manual_seed(0)
    network = TranslatingGenerator(
        2, 3, width=4, blocks=2, downsamplings=downsamplings_for(*size), antialiased=antialiased
    )
    items = torch.randn(1, 2, *size, requires_grad=True)
    made = network(items)
    assert made.shape == (1, 3, *size) and float(made.detach().abs().max()) <= 1
    (made * torch.randn(made.shape)).sum().backward()
    if size != (1, 1):  # one pixel, repeated, is constant, and normalisation leaves nothing of it
        assert items.grad is not None and bool((items.grad != 0).all())
        assert all(w.grad is not None and bool((w.grad != 0).any()) for w in network.parameters())


def test_halvings_of_common_sizes():
    assert [downsamplings_for(*size) for size in [(256, 256), (32, 32), (28, 28), (20, 28), (8, 8), (1, 1)]] == [
        *[2, 2, 2, 1, 0, 0]
    ]


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize(
    ("blocks", "downsamplings", "among"), [(9, 2, [1, 5]), (6, 1, [1, 3]), (2, 2, [1]), (1, 0, [1])]
)
def test_features_are_those_on_the_way_by_the_encoder_alone(
    blocks: int, downsamplings: int, among: list[int], antialiased: bool
):
    torch.manual_seed(0)
    network = TranslatingGenerator(
        1, 1, width=4, blocks=blocks, downsamplings=downsamplings, antialiased=antialiased, normalisation="none"
    )
    items = torch.randn(2, 1, 16, 24)
    seen: dict[nn.Module, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda module, given, made: seen.update({module: made.detach().clone()}))
        for module in network.modules()
    ]
    features = network.features(items)
    assert network.last not in seen and not {*network.body.blocks[among[-1] :]} & seen.keys()
    for hook in hooks:
        hook.remove()
    wanted = [items, *(seen[layer] for layer in network.body.halvings)]
    wanted += [seen[network.body.blocks[number - 1]] for number in among]
    for found, one in zip(features, wanted, strict=True):
        assert torch.equal(found, one)
    made, beside = network.with_features(items)
    assert torch.equal(made, network(items)) and all(map(torch.equal, beside, features))


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_shapes_of_features_are_known_beforehand(size: tuple[int, int], antialiased: bool):
    for downsamplings in (0, 1, 2):
        network = TranslatingGenerator(3, 1, width=2, downsamplings=downsamplings, antialiased=antialiased)
        shapes = network.feature_shapes(*size)
        assert shapes == tuple(tuple(f.shape[1:]) for f in network.features(torch.randn(1, 3, *size)))
        assert len(shapes) == 3 + downsamplings


@pytest.mark.parametrize("antialiased", [False, True])
def test_it_can_be_differentiated_twice(antialiased: bool):
    torch.manual_seed(0)
    network = TranslatingGenerator(1, 1, width=2, blocks=1, downsamplings=1, antialiased=antialiased).double()
    items = torch.randn(2, 1, 9, 8, dtype=torch.float64)
    exact, measured = slope_of_penalty(network, network, items)
    assert exact == pytest.approx(measured, rel=1e-4)


@pytest.mark.parametrize("antialiased", [False, True])
def test_bfloat16_by_autocast_and_channels_last(antialiased: bool):
    torch.manual_seed(0)
    network = TranslatingGenerator(3, 1, width=8, blocks=3, antialiased=antialiased)
    projection = PatchProjection([c for c, _, _ in network.feature_shapes(28, 28)], units=16)
    items = torch.randn(2, 3, 28, 28)
    places = draw_places(
        network.feature_shapes(28, 28), num_items=2, num_patches=9, draws=Draws(torch.Generator().manual_seed(1))
    )
    exact = [network(items), *projection(network.features(items), places)]
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    made, features = network.with_features(items.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close([made, *projection(features, places)], exact, rtol=1e-3, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        made, features = network.with_features(items)
        rounded = [made, *projection(features, places)]
    assert all(vectors.dtype == torch.float32 for vectors in rounded[1:])
    for one, other in zip(rounded, exact, strict=True):
        assert float((one.detach().float() - other.detach()).abs().max()) < 0.1
    torch.stack([vectors.float().square().mean() for vectors in rounded]).sum().backward()
    assert all(w.grad is None or bool(w.grad.isfinite().all()) for w in network.parameters())


def test_a_projection_is_of_what_lies_at_each_place(rng: torch.Generator):
    projection = PatchProjection([3, 5], units=8).double()
    features = [torch.randn(2, 3, 4, 6, generator=rng).double(), torch.randn(2, 5, 2, 3, generator=rng).double()]
    places = [torch.tensor([[0, 23, 7], [5, 6, 12]]), torch.tensor([[5, 0], [3, 2]])]
    found = projection(features, places)
    assert [tuple(f.shape) for f in found] == [(2, 3, 8), (2, 2, 8)]
    for head, maps, at, vectors in zip(projection.heads, features, places, found, strict=True):
        for item in range(2):
            for patch, place in enumerate(at[item].tolist()):
                wanted = head(maps[item, :, place // maps.shape[3], place % maps.shape[3]])
                torch.testing.assert_close(vectors[item, patch], wanted / wanted.norm())
    # At the same places of the same picture moved by a row, the vectors are those of the places a row before.
    moved = projection(
        [maps.roll(1, 2) for maps in features],
        [
            at + maps.shape[3]
            for at, maps in zip([torch.tensor([[0, 8], [3, 9]]), torch.tensor([[0], [2]])], features, strict=True)
        ],
    )
    still = projection(features, [torch.tensor([[0, 8], [3, 9]]), torch.tensor([[0], [2]])])
    torch.testing.assert_close(moved, still)


def test_the_weights_of_the_heads_are_those_of_the_paper():
    """Two layers of 256 with biases for each of 3, 128, 256, 256 and 256 channels."""
    heads = PatchProjection([3, 128, 256, 256, 256])
    assert count(heads) == 256 * (3 + 128 + 3 * 256) + 5 * (256 + 256**2 + 256)


def test_places_are_drawn_without_repetition_for_each_item_and_alike_by_all_processes():
    shapes = [(3, 8, 6), (2, 2, 3)]
    places = draw_places(shapes, num_items=4, num_patches=10, draws=Draws(torch.Generator().manual_seed(0)))
    assert [tuple(at.shape) for at in places] == [(4, 10), (4, 6)]
    for (_, rows, columns), at in zip(shapes, places, strict=True):
        assert int(at.min()) >= 0 and int(at.max()) < rows * columns
        assert all(len(row.unique()) == len(row) for row in at)
    assert not torch.equal(places[0][0].sort().values, places[0][1].sort().values)
    for rank in (0, 1):
        own = draw_places(shapes, num_items=2, num_patches=10, draws=Draws(torch.Generator().manual_seed(0), rank, 2))
        assert all(torch.equal(at, whole[rank::2]) for at, whole in zip(own, places, strict=True))
    many = torch.cat(
        [draw_places([(1, 4, 5)], num_items=1000, num_patches=4, draws=Draws(torch.Generator().manual_seed(1)))[0]]
    )
    assert torch.bincount(many.flatten(), minlength=20).float().sub(200).abs().max() < 70  # 200 ± 13 of each place


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_instance_normalisation_leaves_each_channel_of_an_item_mean_0_and_variance_1(
    order: torch.memory_format,
) -> None:
    x = (3 * torch.randn(2, 3, 4, 5, dtype=torch.double) + 7).to(memory_format=order).requires_grad_()
    places = x.flatten(2)
    mean = places.mean(2, keepdim=True)
    wanted = (places - mean) / ((places - mean).square().mean(2, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(InstanceNorm()(x), wanted.view(2, 3, 4, 5), atol=1e-12)
    assert torch.autograd.gradcheck(InstanceNorm(), x) and torch.autograd.gradgradcheck(InstanceNorm(), x)
