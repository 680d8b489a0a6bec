"""The learned encoder against explicit patches, planted structure and real digits."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from safetensors.torch import save
from torch import Tensor

from ganlib.data import load
from ganlib.errors import DamagedError, DataError
from ganlib.metrics import encoder
from ganlib.metrics.encoder import LearnedPatches, from_bytes, learn, learn_cached
from ganlib.metrics.neighbours import nearest

SMALL = (1, 6, 7)


def pictures(num_items: int, seed: int, shape: tuple[int, int, int] = (3, 12, 16)) -> Tensor:
    """Smooth blots of colour."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(num_items, shape[0], 4, 4, generator=rng)
    return F.interpolate(coarse, shape[1:], mode="bilinear").tanh()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer patches, where what is learned from them does not matter."""
    monkeypatch.setattr(encoder, "NUM_PATCHES", 2000)


@pytest.fixture(scope="module")
def learned() -> LearnedPatches:
    return learn(pictures(240, 1), seed=0)


def raw_by_patches(made: LearnedPatches, items: Tensor) -> Tensor:
    """The numbers before the components, from patches that are cut out and normalised one by one, in float64."""
    items, filters, bias = items.double(), made.filters.double(), made.bias.double()
    side, stride = filters.shape[-1], encoder.stride_for(items.shape[-2:])

    def answers(items: Tensor) -> Tensor:
        windows = items.unfold(2, side, stride).unfold(3, side, stride)
        patches = windows.permute(0, 2, 3, 1, 4, 5).flatten(3)
        centred = patches - patches.mean(3, keepdim=True)
        deviation = (centred.square().mean(3, keepdim=True) + encoder.LEAST_DEVIATION**2).sqrt()
        answer = centred / deviation @ filters.flatten(1).T + bias
        answer = answer.sign() * (answer.abs() - encoder.SHRINKAGE).clamp(min=0)
        rows, columns = answer.shape[1], answer.shape[2]
        # A middle row, of an odd number of them, belongs to both halves.
        halves = (
            [slice(0, -(-rows // 2)), slice(rows // 2, rows)],
            [slice(0, -(-columns // 2)), slice(columns // 2, columns)],
        )
        quarters = [answer[:, up, across] for up in halves[0] for across in halves[1]]
        kept = [torch.stack([f(quarter).mean((1, 2)) for quarter in quarters], 2) for f in (lambda x: x, Tensor.abs)]
        return torch.cat([each.flatten(1) for each in kept], 1)

    coarse = F.adaptive_avg_pool2d((items + items.flip(3)) / 2, 4).flatten(1) * made.colour_scale
    return torch.cat([(answers(items) + answers(items.flip(3))) / 2, coarse], 1)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("shape", [(3, 12, 16), (1, 28, 28), (1, 4, 5), (2, 20, 33)])
def test_normalising_after_the_convolution_is_normalising_every_patch(shape: tuple[int, int, int]) -> None:
    items = pictures(120, 1, shape)
    made = learn(items, seed=0)
    items = items[:9] * torch.linspace(0.01, 1, 9)[:, None, None, None] - 0.1  # nearly flat ones among them
    expected = (raw_by_patches(made, items) - made.mean) @ made.components.double()
    assert made(items).double() == pytest.approx(expected, abs=2e-4 * expected.abs().max().item())


def test_features_are_principal_components_with_the_root_of_their_spread_and_a_mean_variance_of_one(
    learned: LearnedPatches,
) -> None:
    items = pictures(240, 1)
    raw = raw_by_patches(learned, items)
    spread = torch.linalg.eigvalsh(raw.T.cov()).flip(0)[: learned.components.shape[1]]
    made = learned(items).double()
    assert made.shape == (240, 60) and made.mean(0).abs().max() < 1e-4
    covariance = made.T.cov()
    assert covariance.diag().mean().item() == pytest.approx(1, abs=0.02)
    ratio = covariance.diag() / (spread.sqrt() / spread.sqrt().mean())
    assert (ratio - 1)[spread > 1e-4 * spread[0]].abs().max() < 1e-3
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-2


def test_the_coarse_picture_has_a_quarter_of_the_variance_of_the_answers(learned: LearnedPatches) -> None:
    variance = raw_by_patches(learned, pictures(240, 1)).var(0)
    coarse = 16 * 3
    assert (variance[-coarse:].sum() / variance[:-coarse].sum()).item() == pytest.approx(0.25, rel=1e-3)


def test_k_means_finds_planted_directions_and_each_is_the_weighted_sum_of_its_points() -> None:
    """Points along two axes, either way, and noise: the sum must take signs and lengths into account."""
    rng = torch.Generator().manual_seed(1)
    length = torch.randn(3000, 1, generator=rng) * 3
    axes = torch.tensor([[0.6, 0.8, 0, 0], [0.8, -0.6, 0, 0]])
    points = length * axes[torch.arange(3000) % 2] + torch.randn(3000, 4, generator=rng)
    found = encoder._spherical_kmeans(points, 2, rng)
    assert (found @ axes.T).abs().amax(0).min() > 0.999
    for number, direction in enumerate(found.double()):
        own = [point for point in points.double() if (found.double() @ point).abs().argmax() == number]
        total = torch.stack([(point @ direction) * point for point in own]).sum(0)
        assert (total / total.norm() - direction).norm() < 1e-4


def test_filters_are_the_directions_along_which_planted_patches_lie() -> None:
    """Each picture is one of four stripe patterns, or its negative, faint or strong: contrast is no kind of its own."""
    rng = torch.Generator().manual_seed(0)
    place = torch.arange(12)
    across, down = place.expand(12, 12), place[:, None].expand(12, 12)
    kinds = torch.stack([torch.where(axis % 4 < 2, 1.0, -1.0) for axis in (across, down, across + down, across - down)])
    which, sign = torch.randint(4, (200,), generator=rng), torch.randint(2, (200, 1, 1), generator=rng) * 2 - 1
    items = (kinds[which] * sign * (0.3 + 0.7 * torch.rand(200, 1, 1, generator=rng)))[:, None]
    made = learn(items, seed=0)
    features = made(items)
    # A flip swaps the two diagonals, and mirror images are alike: three kinds are left.
    kind = torch.tensor([0, 1, 2, 2])[which]
    neighbour = nearest(features, features, exclude_self=True)[1][:, 0]
    assert (kind[neighbour] == kind).float().mean() > 0.97


def test_mirror_images_have_the_same_features_and_turned_ones_do_not(learned: LearnedPatches) -> None:
    items = pictures(20, 5)
    made = learned(items)
    assert (learned(items.flip(3)) - made).abs().max() < 1e-5
    assert (learned(items.flip(2)) - made).norm(dim=1).min() > 0.5


def test_brightness_and_colour_are_seen(learned: LearnedPatches) -> None:
    """Patches are normalised: without the coarse picture neither would be."""
    items = pictures(20, 5) * 0.5
    made = learned(items)
    spacing = (made[:, None] - made).norm(dim=2).fill_diagonal_(torch.inf).amin(1).median()
    assert (learned(items + 0.3) - made).norm(dim=1).min() > 0.2 * spacing
    assert (learned(items + 0.1) - made).norm(dim=1).min() < (learned(items + 0.3) - made).norm(dim=1).min()
    assert (learned(items.roll(1, 1)) - made).norm(dim=1).min() > 0.2 * spacing


def test_a_nearest_neighbour_is_of_the_right_class_of_digits() -> None:
    data = load("digits")
    batch = data.batch(np.random.default_rng(0).permutation(len(data))[:1200])
    items, labels = batch["real"], batch["label"]
    made = learn(items[:600], seed=0)
    found = nearest(made(items[600:]), made(items[:600]))[1][:, 0]
    assert (labels[:600][found] == labels[600:]).float().mean() > 0.85


@pytest.mark.usefixtures("quick")
def test_the_same_seed_gives_the_same_digest_and_all_else_another() -> None:
    items = pictures(101, 1, SMALL)
    plain, again = learn(items, seed=0), learn(items, seed=0)
    assert again.digest() == plain.digest() and again(items[:5]).equal(plain(items[:5]))
    changed = items.clone()
    changed[:, :, 2, 2] += 0.01
    others = [learn(items, seed=1), learn(changed, seed=0), learn(items[:100], seed=0)]
    fields = [{"shape": (1, 8, 6)}, {"bias": plain.bias + 1e-6}, {"colour_scale": plain.colour_scale * 1.001}]
    fields += [{"mean": plain.mean.flip(0)}, {"filters": plain.filters.mT.contiguous()}]
    fields += [{"filters": plain.filters.reshape(-1, 9, 1, 1)}]
    others += [dataclasses.replace(plain, **field) for field in fields]
    assert len({each.digest() for each in [plain, *others]}) == 10


@pytest.mark.usefixtures("quick")
def test_learning_leaves_the_global_random_state_and_the_pictures_alone() -> None:
    items, state = pictures(120, 2, SMALL), torch.get_rng_state()
    before = items.clone()
    learn(items, seed=0)
    assert torch.get_rng_state().equal(state) and items.equal(before)


def test_one_picture_alone_has_the_features_that_it_has_among_others(learned: LearnedPatches) -> None:
    items = pictures(7, 3)
    alone = torch.cat([learned(item[None]) for item in items])
    assert (alone - learned(items)).abs().max() < 1e-5
    assert learned(items.double()).equal(learned(items))


@pytest.mark.usefixtures("quick")
def test_large_pictures_are_averaged_down_first() -> None:
    items = pictures(100, 1, (1, 40, 128))
    made = learn(items, seed=0)
    doubled = items[:4].reshape(4, 1, 40, 64, 2).mean(4).repeat_interleave(2, 3)
    assert (made(doubled) - made(items[:4])).abs().max() < 1e-4


@pytest.mark.usefixtures("quick")
def test_pictures_that_are_all_of_one_colour_have_equal_features() -> None:
    made = learn(torch.full((100, 1, 8, 8), 0.3), seed=0)
    features = made(torch.full((3, 1, 8, 8), 0.3))
    assert features.isfinite().all() and features.abs().max() < 1e-3


def test_what_is_written_is_read_back(learned: LearnedPatches) -> None:
    read = from_bytes(learned.to_bytes(), "here")
    items = pictures(9, 4)
    assert read.digest() == learned.digest() and read.name == learned.name == "learned-patches-60"
    assert read.shape == (3, 12, 16) and read(items).equal(learned(items))


def test_damaged_bytes_are_refused(learned: LearnedPatches) -> None:
    whole = learned.to_bytes()
    rng = torch.Generator().manual_seed(0)
    damaged = [whole[:cut] for cut in (0, 7, 100, len(whole) // 2, len(whole) - 1)] + [whole + b"x", b"x" * 400]
    for place in torch.randint(len(whole), (40,), generator=rng).tolist():
        damaged.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    damaged += [save({}), save({"shape": torch.tensor([3, 12, 16])}), save({"shape": torch.tensor([1, 2])})]
    for content in damaged:
        with pytest.raises(DamagedError, match=r"shelf/a\.safetensors is no encoder"):
            from_bytes(content, "shelf/a.safetensors")


def test_a_damaged_header_is_refused_or_changes_nothing(learned: LearnedPatches) -> None:
    whole = learned.to_bytes()
    for place in range(8 + int.from_bytes(whole[:8], "little")):
        try:
            read = from_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], "here")
        except DamagedError:
            continue
        assert read.digest() == learned.digest()


def test_another_version_is_refused(learned: LearnedPatches, monkeypatch: pytest.MonkeyPatch) -> None:
    content = learned.to_bytes()
    monkeypatch.setattr(encoder, "VERSION", encoder.VERSION + 1)
    with pytest.raises(DamagedError):
        from_bytes(content, "here")


@pytest.mark.usefixtures("quick")
def test_the_cache_is_used_for_the_same_pictures_and_seed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items, calls = pictures(110, 2, SMALL), []
    monkeypatch.setattr(encoder, "learn", lambda items, *, seed: calls.append(seed) or learn(items, seed=seed))
    first = learn_cached(items, seed=0, folder=tmp_path / "new")
    (kept,) = (tmp_path / "new").iterdir()
    assert learn_cached(items, seed=0, folder=tmp_path / "new").digest() == first.digest() and calls == [0]
    learn_cached(items, seed=1, folder=tmp_path / "new")
    learn_cached(items + 1e-3, seed=0, folder=tmp_path / "new")
    assert calls == [0, 1, 0]
    kept.write_bytes(kept.read_bytes()[:-3])
    assert learn_cached(items, seed=0, folder=tmp_path / "new").digest() == first.digest() and len(calls) == 4
    assert from_bytes(kept.read_bytes(), "kept").digest() == first.digest()


@pytest.mark.usefixtures("quick")
def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    items = pictures(110, 2, SMALL)
    (tmp_path / "file").write_text("in the way")
    assert learn_cached(items, seed=0, folder=tmp_path / "file" / "below").digest() == learn(items, seed=0).digest()
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.usefixtures("quick")
def test_the_cache_is_under_the_home_of_ganlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANLIB_HOME", str(tmp_path))
    learn_cached(pictures(100, 2, (1, 4, 4)), seed=0)
    assert len(list((tmp_path / "encoders").glob("*.safetensors"))) == 1


def test_pictures_that_cannot_be_used_are_refused(learned: LearnedPatches) -> None:
    items = pictures(120, 1)
    for bad in (items[:99], items[:, :, :3], items[:, :, :, :3]):
        with pytest.raises(DataError, match="at least 100 pictures"):
            learn(bad, seed=0)
    with pytest.raises((DataError, TypeCheckError)):
        learn(items[0], seed=0)
    broken = items.clone()
    broken[17, 1, 2, 3] = torch.nan
    with pytest.raises(DataError, match="picture 17"):
        learn(broken, seed=0)
    for bad in (items[:, :2], items.mT, items.flatten(1)):
        with pytest.raises(DataError, match=r"learned on \(3, 12, 16\)"):
            learned(bad)
