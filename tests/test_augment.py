"""Each operation against a plain reference, how often it happens, and what holds of every change."""

import math
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ganlib import augment
from ganlib.augment import AdaptivePipeline, DiffAugment, InstanceNoise
from ganlib.core import Augment, Draws, Pair, Verdict
from ganlib.penalties import R1

NOTHING = dict(flip=False, turn=False, shift=False, scale=False, rotate=False, slide=False, colour=False)
EVERY = [AdaptivePipeline(cutout=True), DiffAugment(), InstanceNoise()]
every_augment = pytest.mark.parametrize("aug", EVERY, ids=lambda aug: type(aug).__name__)
SHAPES = [(1, 8, 8), (3, 6, 6), (3, 5, 8), (4, 7, 6), (2, 1, 1), (1, 1, 9)]


def only(**groups: bool) -> AdaptivePipeline:
    return AdaptivePipeline(**{**NOTHING, **groups})


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def changed(aug: Augment, items: Tensor, probability: float = 1.0, seed: int = 0) -> Tensor:
    return aug.draw(items, torch.tensor(probability), draws(seed))(items)


def share_changed(aug: Augment, items: Tensor, probability: float) -> float:
    return float((changed(aug, items, probability) != items).flatten(1).any(1).double().mean())


def scripted(patch: pytest.MonkeyPatch, *numbers: Iterable[float]) -> Draws:
    """Draws that were written down: a test knows what each operation was asked to do."""
    rows = [torch.tensor([list(row)]) for row in numbers]

    def given(self: Draws, *shape: int) -> Tensor:
        assert rows[0].shape == shape
        return rows.pop(0)

    patch.setattr(Draws, "uniform", given)
    patch.setattr(Draws, "normal", given)
    return draws()


def near(share: float, expected: float, count: int) -> bool:
    """Within five standard deviations of a binomial share."""
    return abs(share - expected) <= 5 * math.sqrt(max(expected * (1 - expected), 1e-9) / count)


@every_augment
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("shortcut", [True, False])
def test_a_probability_of_0_is_the_identity_to_the_bit(aug, shape, shortcut, monkeypatch):
    if not shortcut:  # as on a GPU
        monkeypatch.setattr(augment, "_never", lambda probability: False)
    items = torch.randn(16, *shape)
    assert torch.equal(changed(aug, items, 0.0), items)


@every_augment
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_change_keeps_shape_and_is_the_same_at_each_call(aug, shape):
    items, others = torch.randn(5, *shape), torch.randn(5, *shape)
    change = aug.draw(items, torch.tensor(1.0), draws())
    first = change(items)
    change(others)
    assert torch.equal(change(items), first) and first.shape == items.shape and not torch.equal(first, items)
    torch.testing.assert_close(change(items[:, :].clone().double()).float(), first, atol=1e-5, rtol=1e-5)


def test_turns_are_those_of_rot90_each_as_often():
    items = torch.randn(4000, 2, 5, 5)
    after = changed(only(turn=True), items)
    same = torch.stack([(after == items.rot90(k, (2, 3))).flatten(1).all(1) for k in range(4)])
    assert bool((same.sum(0) == 1).all())
    assert all(near(float(share), 0.25, 4000) for share in same.double().mean(1))


def test_pictures_that_are_not_square_turn_by_180_degrees_alone():
    items = torch.randn(2000, 1, 4, 7)
    after = changed(only(turn=True), items)
    half = (after == items.rot90(2, (2, 3))).flatten(1).all(1)
    assert bool((half | (after == items).flatten(1).all(1)).all()) and near(float(half.double().mean()), 0.5, 2000)


def test_flips_are_mirror_images_in_half_of_the_chosen():
    items = torch.randn(3000, 2, 4, 6)
    after = changed(only(flip=True), items, 0.6)
    flipped = (after == items.flip(3)).flatten(1).all(1)
    assert bool((flipped | (after == items).flatten(1).all(1)).all())
    assert near(float(flipped.double().mean()), 0.3, 3000)


def test_shifts_are_by_whole_pixels_with_mirrored_borders():
    height, width, found = 17, 24, set()
    items = torch.randn(300, 1, height, width)
    after = changed(only(shift=True), items)
    for before, moved in zip(items[:, 0].numpy(), after[:, 0].numpy(), strict=True):
        padded = np.pad(before, ((3, 3), (3, 3)), mode="reflect")
        fits = [
            (down, right)
            for down in range(-3, 4)
            for right in range(-3, 4)
            if np.array_equal(padded[3 - down :, 3 - right :][:height, :width], moved)
        ]
        assert len(fits) == 1
        found.add(fits[0])
    downs, rights = ({place[axis] for place in found} for axis in (0, 1))
    assert downs == set(range(-2, 3)) and rights == set(range(-3, 4)), "an eighth of 17 is 2.1, of 24 it is 3"


@pytest.mark.parametrize(("height", "width"), [(6, 9), (12, 12), (2, 5)])
def test_sampling_is_that_of_grid_sample_also_far_outside(height, width):
    """grid_sample with mirrored borders; its positions are from -1 to 1 between the centres of the outer pixels."""
    rng = torch.Generator().manual_seed(1)
    back = torch.eye(3).repeat(20, 1, 1)
    back[:, :2] += torch.randn(20, 2, 3, generator=rng) * torch.tensor([0.7, 0.7, 15.0])
    items = torch.randn(20, 2, height, width, generator=rng)
    grid = torch.zeros(20, height, width, 2)
    for row in range(height):
        for column in range(width):
            place = torch.tensor([column - (width - 1) / 2, row - (height - 1) / 2, 1.0])
            source = back[:, :2] @ place
            grid[:, row, column] = 2 * source / torch.tensor([width - 1.0, height - 1.0])
    expected = F.grid_sample(items, grid, padding_mode="reflection", align_corners=True)
    found = augment._sampled(items, *augment._samples(back, height, width))
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)  # positions are rounded to 1/4096 pixel


def maps(aug: AdaptivePipeline, probability: float, count: int = 4000) -> Tensor:
    return aug._map(count, 16, 24, torch.tensor(probability), draws())


def test_scales_are_log_normal_a_fifth_of_an_octave_alike_and_against_each_other():
    x, y = maps(only(scale=True), 1.0)[:, [0, 1], [0, 1]].log2().unbind(1)
    for exponent in ((x + y) / 2, (x - y) / 2):
        assert abs(float(exponent.mean())) < 0.2 * 5 / math.sqrt(4000)
        assert float(exponent.std()) == pytest.approx(0.2, rel=0.06)
    assert near(float(((x + y).abs() > 1e-6).double().mean()), 1.0, 4000)
    rarer = maps(only(scale=True), 0.3)[:, [0, 1], [0, 1]].log2()
    assert near(float((rarer.sum(1).abs() > 1e-6).double().mean()), 0.3, 4000)


def test_rotations_happen_before_or_after_stretching_together_with_the_probability():
    linear = maps(only(rotate=True), 0.4)[:, :2, :2]
    torch.testing.assert_close(linear @ linear.mT, torch.eye(2).expand(4000, 2, 2), atol=1e-5, rtol=0)
    assert bool((torch.linalg.det(linear) > 0.99).all())
    turned = (linear[:, 0, 0] - 1).abs() > 1e-7
    assert near(float(turned.double().mean()), 0.4, 4000)
    angles = torch.atan2(linear[turned, 1, 0], linear[turned, 0, 0])
    counts = torch.histc(angles, 4, -math.pi, math.pi) / len(angles)
    assert all(near(float(share), 0.25, len(angles)) for share in counts)


def test_slides_are_normal_with_an_eighth_of_each_side():
    moved = maps(only(slide=True), 1.0)[:, :2, 2]
    assert moved.std(0).tolist() == pytest.approx([3.0, 2.0], rel=0.06)


def test_the_operations_follow_each_other_as_in_the_paper(monkeypatch: pytest.MonkeyPatch):
    """Appendix B multiplies the map of a picture from the left by each operation in turn; this is the inverse."""
    uniform, normal = [0.1, 0.8, 0.9, 0.2, 0.7, 0.95], [0.6, -1.1, 0.3, -0.8]
    known = scripted(monkeypatch, [0.0] * 8, uniform, normal)
    back = AdaptivePipeline()._map(1, 24, 24, torch.tensor(0.5), known)[0]

    def matrix(linear: list[list[float]], x: float = 0.0, y: float = 0.0) -> np.ndarray:
        return np.array([[*linear[0], x], [*linear[1], y], [0, 0, 1]])

    def rotate(angle: float) -> np.ndarray:
        return matrix([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    one, zoom, squeeze = [[1.0, 0], [0, 1.0]], 2 ** (0.2 * normal[0]), 2 ** (0.2 * normal[1])
    picture = matrix([[-1.0, 0], [0, 1.0]])
    for operation in (
        rotate(-3 * math.pi / 2),  # 0.8 of the four
        matrix(one, -round(24 * 0.8 / 8), -round(24 * -0.6 / 8)),
        matrix([[1 / zoom, 0], [0, 1 / zoom]]),
        rotate(-math.pi * (2 * uniform[4] - 1)),
        matrix([[1 / squeeze, 0], [0, squeeze]]),
        rotate(-math.pi * (2 * uniform[5] - 1)),
        matrix(one, -3 * normal[2], -3 * normal[3]),
    ):
        picture = operation @ picture
    np.testing.assert_allclose(back.numpy(), np.linalg.inv(picture), atol=1e-5)


def colour_matrix(brighter: float, contrast: float, luma: bool, hue: float, saturation: float) -> np.ndarray:
    """The paper's product of 4 x 4 matrices; the rotation about the grey axis by Rodrigues' formula."""
    v = np.ones(3) / math.sqrt(3)
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    product = np.eye(4)
    product[:3, 3] = 0.2 * brighter
    product = np.diag([2 ** (0.5 * contrast)] * 3 + [1]) @ product
    for part in (
        np.eye(3) - 2 * luma * np.outer(v, v),
        np.cos(hue) * np.eye(3) + np.sin(hue) * cross + (1 - np.cos(hue)) * np.outer(v, v),
        np.outer(v, v) + 2**saturation * (np.eye(3) - np.outer(v, v)),
    ):
        whole = np.eye(4)
        whole[:3, :3] = part
        product = whole @ product
    return product


@pytest.mark.parametrize("which", ["00000", "10000", "01000", "00100", "00010", "00001", "11111"])
def test_colours_are_the_product_of_the_papers_matrices(which: str, monkeypatch: pytest.MonkeyPatch):
    on = [character == "1" for character in which]
    normal, uniform = [0.7, -1.3, 0.4], [0.2, 0.9]
    known = scripted(monkeypatch, [0.0 if each else 0.9 for each in on], normal, uniform)
    items = torch.randn(1, 3, 4, 5)
    after = only(colour=True).draw(items, torch.tensor(0.5), known)(items)
    hue = math.pi * (2 * uniform[1] - 1)
    matrix = colour_matrix(on[0] * normal[0], on[1] * normal[1], on[2], on[3] * hue, on[4] * normal[2])
    whole = np.concatenate([items[0].flatten(1).numpy(), np.ones((1, 20))])
    np.testing.assert_allclose(after[0].flatten(1).numpy(), (matrix @ whole)[:3], atol=1e-5)


def test_hue_and_saturation_keep_the_mean_of_the_channels_and_grey_stays_grey(monkeypatch: pytest.MonkeyPatch):
    items = torch.randn(1, 3, 4, 5)
    known = scripted(monkeypatch, [0.9, 0.9, 0.9, 0.0, 0.0], [1.0, 1.0, 1.0], [0.1, 0.3])
    change = only(colour=True).draw(items, torch.tensor(0.5), known)
    torch.testing.assert_close(change(items).mean(1), items.mean(1))
    assert float((change(items) - items).abs().max()) > 0.1
    grey = items.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(change(grey), grey)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_without_three_channels_colours_are_brightness_and_contrast_about_the_middle_grey(
    channels: int, monkeypatch: pytest.MonkeyPatch
):
    items = torch.randn(1, channels, 4, 5)
    known = scripted(monkeypatch, [0.0, 0.0, 0.0, 0.0, 0.0], [0.5, 2.0, 1.0], [0.1, 0.3])
    after = only(colour=True).draw(items, torch.tensor(0.5), known)(items)
    torch.testing.assert_close(after, 2 * (items + 0.1))


def test_cutout_blanks_half_the_sides_around_a_centre_anywhere():
    items = torch.ones(3000, 2, 8, 12)
    blank = changed(only(cutout=True), items) == 0
    assert bool((blank[:, 0] == blank[:, 1]).all())
    rows, columns = blank[:, 0].any(2).sum(1), blank[:, 0].any(1).sum(1)
    assert torch.equal(blank[:, 0].sum((1, 2)), rows * columns), "a rectangle"
    assert (int(rows.max()), int(columns.max())) == (4, 6) and (int(rows.min()), int(columns.min())) == (2, 3)
    assert near(share_changed(only(cutout=True), items, 0.35), 0.35, 3000)


def test_diffaugment_is_what_its_paper_says(monkeypatch: pytest.MonkeyPatch):
    """Operation by operation with known numbers: colour, then translation with zeros, then cutout."""
    items = torch.randn(1, 3, 8, 16)
    known = scripted(monkeypatch, [0.0], [0.9, 0.2, 0.7], [0.0], [0.99, 0.3], [0.0], [0.25, 0.5])
    after = DiffAugment().draw(items, torch.tensor(1.0), known)(items)[0].numpy()
    x = items[0].numpy() + 0.4
    x = x.mean(0) + 0.4 * (x - x.mean(0))
    x = x.mean() + 1.2 * (x - x.mean())
    moved = np.zeros_like(x)
    moved[:, 1:, :-1] = x[:, :-1, 1:]  # 0.99 of -1..1 is one row down, 0.3 of -2..2 is one column to the left
    moved[:, 0:4, 4:12] = 0  # about row 2 and column 8
    np.testing.assert_allclose(after, moved, atol=1e-5)


@pytest.mark.parametrize("group", ["colour", "translation", "cutout"])
def test_diffaugment_does_each_operation_with_the_probability(group: str):
    off = dict(colour=False, translation=False, cutout=False)
    share = share_changed(DiffAugment(**{**off, group: True}), torch.randn(3000, 1, 32, 32), 0.4)
    still = 0.4 / 81 if group == "translation" else 0.0  # by none of -4..4 rows and columns
    assert near(share, 0.4 - still, 3000)


def test_instance_noise_has_its_strength_and_is_the_same_on_real_and_fake():
    items, others = torch.zeros(50, 1, 20, 20), torch.ones(50, 1, 20, 20)
    change = InstanceNoise(0.5).draw(items, torch.tensor(0.4), draws())
    assert float(change(items).std()) == pytest.approx(0.2, rel=0.03)
    torch.testing.assert_close(change(others) - 1, change(items))


@every_augment
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 3, 4)], ids=str)
def test_changes_differentiate_twice(aug, shape):
    items = torch.randn(2, *shape, dtype=torch.float64, requires_grad=True)
    change = aug.draw(items.detach(), torch.tensor(0.9), draws(3))
    assert torch.autograd.gradcheck(change, (items,))
    assert torch.autograd.gradgradcheck(lambda x: torch.sin(change(x)), (items,))


def test_r1_through_a_change_is_that_of_the_raw_picture():
    """D(x) = w·(Ax + b): the penalty is ½‖Aᵀw‖², and its gradient AAᵀw."""
    items = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(48, dtype=torch.float64, requires_grad=True)
    change = AdaptivePipeline().draw(items.detach(), torch.tensor(1.0), draws(1))
    linear = torch.autograd.functional.jacobian(lambda x: change(x).flatten(), items.detach()).view(48, 48)
    verdict = Verdict((change(items).flatten(1) @ weights,))
    value = R1()(lambda x: verdict, Pair(items, items), verdict, verdict, draws())
    torch.testing.assert_close(value, 0.5 * (linear.T @ weights).square().sum())
    value.backward()
    torch.testing.assert_close(weights.grad, linear @ linear.T @ weights.detach())


@every_augment
def test_autocast_changes_nothing(aug):
    items = torch.randn(6, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        under = changed(aug, items)
    assert under.dtype == torch.float32 and torch.equal(under, changed(aug, items))
    assert changed(aug, items.bfloat16()).dtype == torch.float32


@every_augment
def test_several_processes_change_their_items_as_one_would(aug):
    items = torch.randn(6, 3, 8, 8)
    whole = changed(aug, items, 0.7)
    for rank in range(2):
        own = items[rank::2]
        part = aug.draw(own, torch.tensor(0.7), Draws(torch.Generator().manual_seed(0), rank, 2))(own)
        torch.testing.assert_close(part, whole[rank::2])


def test_changes_are_item_by_item():
    items = torch.randn(6, 3, 8, 8)
    for aug in EVERY:
        change = aug.draw(items, torch.tensor(1.0), draws())
        others = items.clone()
        others[1:] = 7.0
        assert torch.equal(change(others)[0], change(items)[0])
