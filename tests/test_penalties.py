"""Penalties against closed forms: of a linear discriminator, of a quadratic one, of a mean over pixels."""

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ganlib import penalties
from ganlib.core import Constraint, Draws, GeneratorPenalty, Judge, Pair, Penalty, Verdict
from ganlib.networks.spectral import spectral_normalise
from ganlib.penalties import R1, R2, ClipWeights, Dragan, GradientPenalty
from ganlib.penalties.logits import Drift
from ganlib.penalties.memory import PathLength


def half_square(norm: float) -> float:
    return norm**2 / 2


def squared_distance_to_one(norm: float) -> float:
    return (norm - 1) ** 2


OF_A_SLOPE: dict[type[Penalty], Callable[[float], float]] = {
    R1: half_square,
    R2: half_square,
    GradientPenalty: squared_distance_to_one,
    Dragan: squared_distance_to_one,
}
"""A new penalty needs its value here for a discriminator D(x) = w·x, as a function of ‖w‖."""


def found(base: type) -> list[type]:
    members = [kind for _, kind in inspect.getmembers(penalties, inspect.isclass) if issubclass(kind, base)]
    return [kind for kind in members if not inspect.isabstract(kind)]


OF_LOGITS = [Drift]
"""Penalties that look at logits and at no derivative."""
PENALTIES, CONSTRAINTS = found(Penalty) + OF_LOGITS, found(Constraint)
every_penalty = pytest.mark.parametrize("kind", PENALTIES, ids=lambda kind: kind.__name__)
every_slope = pytest.mark.parametrize(
    "kind", [kind for kind in PENALTIES if kind not in OF_LOGITS], ids=lambda kind: kind.__name__
)


def of_logits(function: Callable[[Tensor], Tensor]) -> Judge:
    return lambda items: Verdict((function(items),))


def random_pair(shape: tuple[int, ...], seed: int = 0) -> Pair:
    rng = torch.Generator().manual_seed(seed)
    real, fake = (torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(2))
    return Pair(real, fake)


def value(penalty: Penalty, judge: Judge, pair: Pair, seed: int = 0) -> Tensor:
    """What the step does: inputs that require a gradient, a verdict on each, the penalty."""
    pair = Pair(pair.real.clone().requires_grad_(), pair.fake.clone().requires_grad_(), pair.condition)
    rng = torch.Generator().manual_seed(seed)
    return penalty(judge, pair, judge(pair.real), judge(pair.fake), Draws(rng))


def number(scalar: Tensor) -> float:
    return float(scalar.detach())


def linear(weight: Tensor) -> Judge:
    return of_logits(lambda items: items.flatten(1) @ weight)


def test_penalties_and_constraints_are_found():
    assert {R1, R2, GradientPenalty, Dragan} <= set(PENALTIES)
    assert ClipWeights in CONSTRAINTS


@every_slope
@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("shape", [(6,), (3, 1, 2)])
def test_the_penalty_of_a_linear_discriminator_is_that_of_its_slope(
    kind: type[Penalty], batch: int, shape: tuple[int, ...]
):
    assert kind in OF_A_SLOPE, f"write the value of {kind.__name__} for D(x) = w·x in tests/test_penalties.py"
    weight = torch.tensor([3.0, -1.0, 0.5, 2.0, 0.0, -0.25], dtype=torch.float64, requires_grad=True)
    measured = value(kind(), linear(weight), random_pair((batch, *shape)))
    assert measured.shape == () and measured.requires_grad
    assert number(measured) == pytest.approx(OF_A_SLOPE[kind](number(weight.norm())), rel=1e-9)


@every_slope
def test_a_penalty_judges_the_items_it_is_of(kind: type[Penalty]):
    """D(x) = ½ a ‖x‖² has slope a‖x‖: real items are near 1, fake ones near 3, so the value tells which were judged."""
    real, fake = torch.ones(4, 1, dtype=torch.float64), torch.full((4, 1), 3.0, dtype=torch.float64)
    measured = number(value(kind(), of_logits(lambda items: 0.5 * items.square().sum(1)), Pair(real, fake)))
    low, high = {R1: (0.5, 0.5), R2: (4.5, 4.5), GradientPenalty: (0.0, 4.0), Dragan: (0.0, 0.0)}[kind]
    assert low - 1e-9 <= measured <= high + 1e-9
    if kind is GradientPenalty:
        assert 0.01 < measured < 3.99, "the points must lie between real and fake"


def test_the_gradient_penalty_mixes_each_pair_with_one_share_for_all_its_numbers():
    seen = []

    def spying(items: Tensor) -> Tensor:
        seen.append(items.detach())
        return items.sum(1)

    pair = Pair(torch.zeros(500, 3), torch.ones(500, 3))
    value(GradientPenalty(), of_logits(spying), pair)
    share = seen[-1]
    assert torch.equal(share[:, 0], share[:, 1]) and torch.equal(share[:, 0], share[:, 2])
    assert float(share[:, 0].mean()) == pytest.approx(0.5, abs=0.06)
    assert float(share[:, 0].var()) == pytest.approx(1 / 12, abs=0.01)


def test_dragan_stays_within_half_a_standard_deviation_of_real_items():
    seen = []

    def spying(items: Tensor) -> Tensor:
        seen.append(items.detach())
        return items.sum(1)

    pair = random_pair((400, 5))
    value(Dragan(), of_logits(spying), pair)
    shift = (seen[-1] - pair.real) / pair.real.std(correction=0)
    assert float(shift.min()) >= 0 and 0.49 < float(shift.max()) < 0.5
    assert float(shift.mean()) == pytest.approx(0.25, abs=0.02)


@every_penalty
def test_a_penalty_does_not_depend_on_the_size_of_the_batch(kind: type[Penalty]):
    """Twice the same items is the same mean; for those that draw points, a slope that is the same everywhere."""
    pair = random_pair((5, 4))
    twice = Pair(pair.real.repeat(2, 1), pair.fake.repeat(2, 1))
    draws = kind in (GradientPenalty, Dragan)
    judge = linear(torch.arange(4.0).double()) if draws else of_logits(lambda items: items.pow(3).sum(1))
    assert number(value(kind(), judge, twice)) == pytest.approx(number(value(kind(), judge, pair)), rel=1e-12)


@pytest.mark.parametrize("kind", [R1, R2])
def test_gamma_by_the_numbers_of_an_item_makes_the_penalty_of_a_mean_the_same_at_every_size(kind: type[Penalty]):
    """For D = c · mean(x) the squared slope is c²/n: recipe r3 multiplies γ by n, so that every size feels the same."""
    measured = []
    for size in (4, 8, 32):
        numbers = 3 * size * size
        of_mean = of_logits(lambda items: 7 * items.flatten(1).mean(1))
        measured.append(numbers * number(value(kind(), of_mean, random_pair((2, 3, size, size)))))
    assert measured == pytest.approx([49 / 2] * 3, rel=1e-9)


def test_recipe_r3_multiplies_gamma_by_the_numbers_of_an_item():
    from ganlib.core import Spec
    from ganlib.recipe import Setting
    from ganlib.recipes.r3 import r3

    weights = {}
    for shape in ((3, 32, 32), (1, 8, 8), (3, 64, 64)):
        plan = r3(gamma=0.3).plan(Setting(Spec("image", shape), 100, "cpu"))
        weights[shape] = [item.weight(0, 1) for item in plan.objective.penalties.values()]
    assert weights[3, 32, 32] == pytest.approx([0.3, 0.3])
    assert weights[1, 8, 8] == pytest.approx([0.3 * 64 / 3072] * 2)
    assert weights[3, 64, 64] == pytest.approx([1.2, 1.2])


@every_slope
def test_an_items_logit_is_the_mean_over_its_heads_and_patches(kind: type[Penalty]):
    """Heads with slopes w and 3w, the second in patches of 2w and 4w, make the slope 2w."""
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def judge(items: Tensor) -> Verdict:
        logits = items @ weight
        return Verdict((logits, torch.stack([2 * logits, 4 * logits], 1)[:, :, None]))

    measured = number(value(kind(), judge, random_pair((3, 3))))
    assert measured == pytest.approx(OF_A_SLOPE[kind](2 * number(weight.norm())), rel=1e-9)


@pytest.mark.parametrize("kind", [R1, R2])
@pytest.mark.parametrize("sigma", [None, 0.01])
def test_the_gradient_of_the_penalty_of_a_quadratic_discriminator_is_the_analytic_one(
    kind: Callable[[float | None], Penalty], sigma: float | None
):
    """D(x) = ½ xᵀAx with A symmetric: ∇D = Ax, so ½‖Ax‖² has the derivative (Ax) xᵀ to A."""
    rng = torch.Generator().manual_seed(3)
    matrix = torch.randn(3, 3, generator=rng, dtype=torch.float64)
    matrix = ((matrix + matrix.T) / 2).requires_grad_()
    pair = random_pair((1, 3), seed=4)
    item = (pair.real if kind is R1 else pair.fake)[0]
    if sigma is not None:  # in expectation: one item many times, each time with other noise
        pair = Pair(pair.real.expand(200_000, -1), pair.fake.expand(200_000, -1))

    def quadratic(items: Tensor) -> Tensor:
        return 0.5 * torch.einsum("bi,ij,bj->b", items, (matrix + matrix.T) / 2, items)

    measured = value(kind(sigma), of_logits(quadratic), pair)
    (gradient,) = torch.autograd.grad(measured, matrix)
    slope = (matrix @ item).detach()
    outer = torch.outer(slope, item)
    tolerance = 1e-9 if sigma is None else 0.02
    assert number(measured) == pytest.approx(float(slope @ slope) / 2, rel=tolerance)
    torch.testing.assert_close(
        gradient, (outer + outer.T) / 2, rtol=tolerance, atol=tolerance * float(outer.abs().max())
    )


@pytest.mark.parametrize("kind", [R1, R2])
def test_a_finite_difference_agrees_with_the_exact_penalty_in_expectation(kind: Callable[..., Penalty]):
    """A smooth D: (1/σ²) E (D(x+σε) - D(x))² = ‖∇D‖² + O(σ²); 40,000 draws leave an error of about 0.7 %."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    judge = of_logits(lambda items: network(items).squeeze(1))
    pair = random_pair((4, 4), seed=1)
    many = Pair(pair.real.repeat(10_000, 1), pair.fake.repeat(10_000, 1))
    exact = number(value(kind(), judge, pair))
    assert number(value(kind(sigma=0.01), judge, many)) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("kind", [R1, R2])
def test_a_finite_difference_of_a_linear_discriminator_is_chi_squared_around_the_exact_value(
    kind: Callable[..., Penalty],
):
    """D = w·x: the difference is ‖w‖ times a normal number whatever σ, so 2 · value / ‖w‖² has mean 1."""
    weight = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    for sigma in (1e-3, 1.0):
        values = [value(kind(sigma=sigma), linear(weight), random_pair((50, 3)), seed) for seed in range(400)]
        normalised = 2 * torch.stack(values).detach() / weight.square().sum()
        assert float(normalised.mean()) == pytest.approx(1, abs=0.04)
        assert float(normalised.var()) == pytest.approx(2 / 50, rel=0.35)


@pytest.mark.parametrize("kind", [R1, R2])
def test_a_finite_difference_needs_no_second_derivative_but_reaches_the_weights(kind: Callable[..., Penalty]):
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    pair = Pair(torch.randn(3, 2), torch.randn(3, 2))
    judge = linear(weight)
    penalty = kind(sigma=0.1)
    measured = penalty(judge, pair, judge(pair.real), judge(pair.fake), Draws(torch.Generator().manual_seed(0)))
    assert not penalty.double_backward and kind().double_backward
    assert measured.requires_grad
    (gradient,) = torch.autograd.grad(measured, weight)
    assert bool(gradient.isfinite().all()) and float(gradient.abs().sum()) > 0


@every_penalty
def test_a_penalty_and_its_gradient_are_finite_where_the_discriminator_is_flat(kind: type[Penalty]):
    weight = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    measured = value(kind(), linear(weight), random_pair((2, 3)))
    (gradient,) = torch.autograd.grad(measured, weight)
    assert bool(measured.isfinite()) and bool(gradient.isfinite().all())


@every_penalty
def test_the_same_seed_draws_the_same_and_the_global_generator_is_left_alone(kind: type[Penalty]):
    pair = random_pair((3, 4))
    judge = of_logits(lambda items: items.pow(3).sum(1))
    before = torch.random.get_rng_state()
    first, again = number(value(kind(), judge, pair, seed=5)), number(value(kind(), judge, pair, seed=5))
    assert first == again and torch.equal(before, torch.random.get_rng_state())
    if kind in (GradientPenalty, Dragan):
        assert first != number(value(kind(), judge, pair, seed=6))


@every_penalty
def test_a_penalty_leaves_no_gradient_behind(kind: type[Penalty]):
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    value(kind(), linear(weight), random_pair((2, 3)))
    assert weight.grad is None


def test_clipping_holds_every_weight_within_the_bound_and_changes_no_other():
    network = nn.Linear(3, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[-3.0, 0.005, 0.02]]))
        network.bias.fill_(-0.02)
    ClipWeights(0.01)(network)
    torch.testing.assert_close(network.weight.detach(), torch.tensor([[-0.01, 0.005, 0.01]]))
    assert float(network.bias.detach()) == pytest.approx(-0.01) and network.weight.requires_grad


@pytest.mark.parametrize("kind", CONSTRAINTS, ids=lambda kind: kind.__name__)
def test_a_constraint_applied_twice_is_applied_once(kind: Callable[[], Constraint]):
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    kind()(network)
    once = [weight.detach().clone() for weight in network.parameters()]
    kind()(network)
    assert all(torch.equal(a, b) for a, b in zip(once, network.parameters(), strict=True))


def largest_singular_value(weight: Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight.detach().flatten(1), ord=2))


def test_spectral_normalisation_makes_the_largest_singular_value_one():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(8 * 16, 1), nn.Embedding(5, 4))
    before = largest_singular_value(network[0].weight)
    assert spectral_normalise(network) is network
    for _ in range(50):
        network[:4](torch.randn(1, 3, 6, 6))
        network[4](torch.tensor([0, 3]))
    assert not math.isclose(before, 1, abs_tol=0.1)
    network.eval()  # reading a weight in training is one more iteration
    for layer in (network[0], network[3], network[4]):
        assert largest_singular_value(layer.weight) == pytest.approx(1, abs=0.02)


def test_a_spectrally_normalised_linear_discriminator_has_slope_one():
    torch.manual_seed(0)
    network = spectral_normalise(nn.Linear(5, 1)).double()
    judge = of_logits(lambda items: network(items).squeeze(1))
    assert number(value(R1(), judge, random_pair((3, 5)))) == pytest.approx(0.5, rel=1e-4)


def test_an_exact_penalty_differentiates_twice_through_spectral_normalisation():
    torch.manual_seed(0)
    network = spectral_normalise(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))).double()
    measured = value(R1(), of_logits(lambda items: network(items).squeeze(1)), random_pair((3, 4)))
    measured.backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters() if "bias" not in name}
    assert gradients and all(
        g is not None and bool(g.isfinite().all()) and float(g.norm()) > 0 for g in gradients.values()
    )


def test_drift_is_the_mean_square_of_real_logits():
    pair = Pair(torch.tensor([[1.0], [-3.0]]), torch.tensor([[7.0], [7.0]]))
    assert number(value(Drift(), of_logits(lambda items: 2 * items[:, 0]), pair)) == (4 + 36) / 2


class LinearGenerator(nn.Module):
    """Pictures A(w + shift), of which the derivative to the style is A, whatever the latent."""

    def __init__(self, matrix: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.matrix, self.shape = nn.Parameter(matrix), shape

    def forward(self, latent: Tensor, labels: Tensor | None, shift: Tensor) -> Tensor:
        return ((latent + shift) @ self.matrix.T).unflatten(1, self.shape)


def path_length(penalty: PathLength, generator: nn.Module, num_items: int, seed: int = 0) -> Tensor:
    batch = {"latent": torch.randn(num_items, 3, generator=torch.Generator().manual_seed(9)).double()}
    items = torch.zeros(0)
    return penalty(generator, batch, Pair(items, items), None, Verdict(()), Draws(torch.Generator().manual_seed(seed)))


def test_the_path_length_of_a_linear_generator_is_that_of_its_matrix():
    """A = c(e₁ e₂ e₃) has length c‖(y₁, y₂, y₃)‖/√(hw), with mean c √(8/π)/√(hw) and variance (3 - 8/π)c²/hw."""
    assert issubclass(PathLength, GeneratorPenalty)
    matrix = torch.zeros(2 * 4 * 2, 3, dtype=torch.float64)
    matrix[:3] = 5 * torch.eye(3)
    penalty = PathLength().double()
    measured = path_length(penalty, LinearGenerator(matrix, (2, 4, 2)), 200_000)
    assert number(penalty.mean) == pytest.approx(5 * math.sqrt(8 / math.pi / 8), rel=0.005)
    assert number(measured) == pytest.approx(25 * (3 - 8 / math.pi) / 8, rel=0.02)


def test_the_running_mean_of_path_lengths_begins_at_the_first_and_then_moves_by_its_decay():
    penalty = PathLength(decay=0.9).double()
    small, large = (LinearGenerator(size * torch.ones(4, 3, dtype=torch.float64), (1, 2, 2)) for size in (1, 2))
    path_length(penalty, small, 5)
    first = number(penalty.mean)
    again = PathLength(decay=0.9).double()
    path_length(again, large, 5, seed=1)
    path_length(penalty, large, 5, seed=1)
    assert number(penalty.mean) == pytest.approx(0.9 * first + 0.1 * number(again.mean), rel=1e-12)
    assert {name for name, _ in penalty.named_buffers()} == {"mean"}


def test_the_gradient_of_the_path_length_is_to_the_generator_and_not_through_the_mean():
    generator, penalty = LinearGenerator(torch.ones(4, 3, dtype=torch.float64), (1, 2, 2)), PathLength(0.0).double()
    path_length(penalty, generator, 6).backward()
    assert generator.matrix.grad is not None and not penalty.mean.requires_grad
    # With a held fixed, d/dc of E(c l - a)² at c = 1 is 2 E(l - a) l = 2 var(l), where a = E l.
    along = float((generator.matrix.grad * generator.matrix.detach()).sum())
    assert along == pytest.approx(2 * number(path_length(PathLength(0.0).double(), generator, 6)), rel=1e-9)
