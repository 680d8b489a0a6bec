"""Directions along which a model's pictures change, found without labels and without training."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ganlib.core import Condition
from ganlib.errors import UsageError
from ganlib.latents.space import Latents, Space, Styles, random_points
from ganlib.networks.equalised import equalised
from ganlib.networks.stylegan2 import ModulatedConv

Method = Literal["sefa", "pca"]

RANDOM_POINTS = 1000
"""By which the spread is measured, and from which principal components are taken."""

AT_ONCE = 64
NEGLIGIBLE = 1e-5
"""Of the largest strength: a direction weaker than that changes nothing."""


@dataclass(frozen=True)
class Directions:
    """Unit vectors in a space, the strongest first, and the standard deviation of random points along each.

    `strengths` are eigenvalues: of AᵀA (``sefa``; but for a factor, where the latent is normalised first), or of the
    covariance (``pca``).
    """

    vectors: Float[Tensor, "directions numbers"]
    deviations: Float[Tensor, " directions"]
    strengths: Float[Tensor, " directions"]


def directions(
    space: Space,
    number: int,
    method: Method = "sefa",
    *,
    seed: int = 0,
    label: Int[Tensor, " one"] | None = None,
) -> Directions:
    """The strongest directions, at most `number` of them: fewer where the model has fewer.

    Of a model with classes those of one class, `label`, or else of the first: what differs is then not the class.

    ``sefa``: the eigenvectors of AᵀA with the largest eigenvalues, where A is the weight by which a point enters the
    network: that of the first layer, or of all layers that make scales of styles. Shen & Zhou 2021, arXiv:2007.06600.

    ``pca``: the principal components of random styles; of latents those of what the first layer makes of random ones,
    each brought back to the latents by linear regression. Härkönen et al. 2020, arXiv:2004.02546. A first layer without
    nonlinearity before it gives the same directions as ``sefa``, but for sampling.

    Raises :class:`UsageError` for a `number` below 1, and for styles of each stage.
    """
    if number < 1 or space.kind == "styles":
        raise UsageError(f"{number} directions among {space.kind}: ask for 1 or more, of the latent or of one style")
    points, condition = random_points(
        space, RANDOM_POINTS, seed, torch.zeros(1, dtype=torch.long) if label is None else label[:1]
    )
    if method == "pca":
        strengths, vectors = _principal(space, points, condition)
    elif isinstance(space, Styles):
        strengths, vectors = _eigen(_affines(space))
    else:
        strengths, vectors = _eigen(_first_weight(space, points.shape[1], condition))
    count = min(number, int((strengths > NEGLIGIBLE * strengths[0]).sum()))
    vectors = vectors[:count] / vectors[:count].norm(dim=1, keepdim=True)
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    vectors = vectors * largest.sign()  # either sign would do: the same one in every run
    deviations = (points.cpu() @ vectors.T).std(0)
    return Directions(vectors, deviations, strengths[:count].float())


def moved(
    found: Directions, point: Float[Tensor, " numbers"], deviations: Float[Tensor, " columns"]
) -> Float[Tensor, "directions columns numbers"]:
    """A point moved along each direction by so many standard deviations."""
    steps = found.deviations[:, None] * deviations
    return point + steps[:, :, None] * found.vectors[:, None]


def _eigen(weight: Float[Tensor, "outputs numbers"]) -> tuple[Tensor, Tensor]:
    """Eigenvalues of AᵀA, the largest first, and its eigenvectors as rows."""
    values, vectors = torch.linalg.eigh(weight.T.double() @ weight.double())
    return values.flip(0).clamp(min=0), vectors.T.flip(0).float()


def _affines(space: Styles) -> Float[Tensor, "outputs style"]:
    layers = [module.affine for module in space.network.modules() if isinstance(module, ModulatedConv)]
    return torch.cat([equalised(layer.weight, layer.gain) for layer in layers]).detach().cpu()


def _first_weight(space: Space, width: int, condition: Condition) -> Float[Tensor, "outputs latent"]:
    """The Jacobian at 0 of the first layer's output in the latent: its weight, where nothing nonlinear is before it."""
    rows = []
    for tangent in torch.eye(width, device=space.model.device).split(AT_ONCE):
        latent = torch.zeros_like(tangent, requires_grad=True)
        output = _first_layer(space, latent, condition)
        # Jᵀu is linear in u, and its derivative in u, at v, is Jv: all columns of J in two passes, whatever its height.
        along = torch.zeros_like(output, requires_grad=True)
        (back,) = torch.autograd.grad(output, latent, along, create_graph=True)
        rows += [row.cpu() for row in torch.autograd.grad(back, along, tangent)]
    return torch.cat(rows).T


def _principal(space: Space, points: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
    if isinstance(space, Latents):
        parts = points.split(AT_ONCE)
        outputs = [_first_layer(space, part.requires_grad_(), condition).detach().cpu() for part in parts]
        activations = torch.cat(outputs)
    else:
        activations = points.cpu()
    centred = (activations - activations.mean(0)).double()
    # The scores of the components, from the products of all pairs: there are more numbers in a layer than points.
    values, scores = torch.linalg.eigh(centred @ centred.T)
    values, scores = values.flip(0).clamp(min=0), scores.flip(1)
    given = (points - points.mean(0)).cpu().double()
    kept = min(points.shape[1], len(points) - 1)
    return values[:kept] / (len(points) - 1), (scores.T @ given)[:kept].float()


class _Reached(Exception):
    """The first layer has answered; what comes after it is not needed."""


@torch.enable_grad()
def _first_layer(
    space: Space, latent: Float[Tensor, "batch latent"], condition: Condition
) -> Float[Tensor, "batch outputs"]:
    """The output of the first layer with weights that the latent reaches; of a latent in parts, where the first enters.

    The weights are frozen, so that only what comes of the latent has a gradient: an embedding of the class, which may
    be called before, has none.
    """
    found: list[Tensor] = []

    def look(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            # Virtual batch normalisation sends the items of its reference before those of the batch.
            found.append(output[-len(latent) :].flatten(1).float())
            raise _Reached

    known = None if condition is None else condition[: len(latent)].to(space.model.device)
    with contextlib.ExitStack() as hooks, contextlib.suppress(_Reached):
        for module in _with_weights(space.model.generator):
            hooks.callback(module.register_forward_hook(look).remove)
        space.items(latent, known)
    if not found:
        raise UsageError(f"recipe {space.model.recipe.name} has no layer with weights that takes the latent")
    return found[0]


def _with_weights(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        if is_parametrized(module) or any(True for _ in module.parameters(recurse=False)):
            yield module
