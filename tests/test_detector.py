"""The detector on groups that differ, or not, in known ways."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from ganlib.errors import DataError
from ganlib.metrics.detector import Detector, matched
from ganlib.metrics.intervals import area_under_curve


def normal(num_items: int, seed: int, shift: float = 0.0, width: int = 6) -> Tensor:
    return torch.randn(num_items, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def area(detector: Detector, fake: Tensor, real: Tensor) -> float:
    return area_under_curve(detector(fake), detector(real)).value


def test_groups_that_lie_apart_are_told_apart_and_the_fakes_score_high() -> None:
    detector = Detector(normal(200, 1, 3.0), normal(200, 2), seed=0)
    assert area(detector, normal(300, 3, 3.0), normal(300, 4)) > 0.999
    assert detector(normal(300, 3, 3.0)).mean() > 0 > detector(normal(300, 4)).mean()


def test_a_shift_is_found_about_as_well_as_the_best_test_finds_it() -> None:
    """Of two normal groups d apart no score has an area over Φ(d/√2)."""
    shift = 1.5 / math.sqrt(6)
    best = 0.5 * (1 + math.erf(1.5 / 2))
    detector = Detector(normal(800, 1, shift), normal(800, 2), seed=0)
    assert best - 0.05 < area(detector, normal(2000, 3, shift), normal(2000, 4)) < best + 0.02


def test_groups_of_one_distribution_are_not_told_apart() -> None:
    areas = []
    for seed in range(5):
        detector = Detector(normal(150, 4 * seed), normal(150, 4 * seed + 1), seed=seed)
        areas.append(area(detector, normal(400, 4 * seed + 2), normal(400, 4 * seed + 3)))
    assert sum(areas) / 5 == pytest.approx(0.5, abs=4 * 0.0205 / math.sqrt(5))


def test_what_no_single_feature_tells_is_learned() -> None:
    """The fakes have the signs of the first two features equal, the reals do not."""

    def signs(seed: int, product: float) -> Tensor:
        items = normal(600, seed)
        items[:, 1] = items[:, 1].abs() * items[:, 0].sign() * product
        return items

    detector = Detector(signs(1, 1.0), signs(2, -1.0), seed=0)
    assert area(detector, signs(3, 1.0), signs(4, -1.0)) > 0.9


def test_samples_that_repeat_are_known_again_though_each_alone_looks_real() -> None:
    pool = normal(40, 1)
    rng = torch.Generator().manual_seed(0)
    seen, tried = (pool[torch.randint(40, (400,), generator=rng)] + 1e-6 * normal(400, seed) for seed in (2, 3))
    assert area(Detector(seen, normal(400, 4), seed=0), tried, normal(400, 5)) > 0.97


def test_units_and_constant_features_do_not_matter() -> None:
    def moved(items: Tensor) -> Tensor:
        return torch.cat([items * torch.tensor([1e4, 1, 1e-3, 1, 1, 1]) - 50, torch.full((len(items), 1), 7.0)], 1)

    parts = normal(200, 1, 1.0), normal(200, 2), normal(500, 3, 1.0), normal(500, 4)
    plain, other = (Detector(*group[:2], seed=0) for group in (parts, [moved(part) for part in parts]))
    assert area(other, moved(parts[2]), moved(parts[3])) == pytest.approx(area(plain, parts[2], parts[3]), abs=0.02)


def test_more_of_one_kind_does_not_move_the_middle() -> None:
    """Forty times as many reals would push all logits down."""
    detector = Detector(normal(50, 1), normal(2000, 2), seed=0)
    assert abs(detector(normal(1000, 3)).median()) < 1


def test_a_detector_is_a_function_of_its_items_and_seed_and_leaves_the_global_dice_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake, real, asked = normal(60, 1, 0.5), normal(60, 2), normal(20, 3)
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(1)
    seeded.clear()
    state, calls = torch.get_rng_state(), []
    for before, seed in ((1, 7), (2, 7), (2, 8)):
        torch.default_generator.manual_seed(before)
        calls.append(Detector(fake, real, seed=seed)(asked))
    assert calls[0].equal(calls[1]) and not calls[1].equal(calls[2])
    torch.set_rng_state(state)
    detector = Detector(fake, real, seed=7)
    detector(asked)
    assert torch.get_rng_state().equal(state)
    assert not seeded, "the generators of the devices were seeded, and nobody puts them back"


def test_each_item_is_judged_by_itself() -> None:
    detector = Detector(normal(60, 1, 0.5), normal(60, 2), seed=0)
    asked = normal(20, 3)
    assert torch.cat([detector(item[None]) for item in asked]).tolist() == pytest.approx(
        detector(asked).tolist(), abs=1e-4
    )
    assert detector(asked).equal(detector(asked))  # no dropout when it is asked
    assert not detector(asked).requires_grad


@pytest.mark.parametrize("seed", range(5))
def test_matched_takes_as_many_of_both_from_each_cell_in_order(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    fake, real = torch.randint(7, (60,), generator=rng), torch.randint(2, 9, (40,), generator=rng)
    ours, theirs = matched(fake, real)
    expected: tuple[list[int], list[int]] = ([], [])
    for numbers, cells, others in ((expected[0], fake, real), (expected[1], real, fake)):
        for i, cell in enumerate(cells.tolist()):
            if cells[:i].tolist().count(cell) < others.tolist().count(cell):
                numbers.append(i)
    assert ours.tolist() == expected[0] and theirs.tolist() == expected[1]
    assert fake[ours].sort().values.equal(real[theirs].sort().values) and len(ours) > 10


def test_matched_of_cells_that_do_not_meet_is_empty() -> None:
    for fake, real in (([0, 0], [1]), ([], [1]), ([1], [])):
        for found in matched(torch.tensor(fake).long(), torch.tensor(real).long()):
            assert found.shape == (0,) and found.dtype == torch.int64


def test_features_that_cannot_be_used_are_refused() -> None:
    items = normal(20, 1)
    with pytest.raises(DataError, match="9 real items"):
        Detector(items, items[:9], seed=0)
    with pytest.raises(DataError, match="9 fake items"):
        Detector(items[:9], items, seed=0)
    with pytest.raises(DataError, match="row 3"):
        Detector(items.index_fill(0, torch.tensor([3]), math.nan), items, seed=0)
    with pytest.raises((DataError, TypeCheckError)):
        Detector(items[:, :5], items, seed=0)
    detector = Detector(items, items + 1, seed=0)
    for bad in (items[:, :5], items[0]):
        with pytest.raises((DataError, TypeCheckError), match=r"trained on 6|items"):
            detector(bad)
