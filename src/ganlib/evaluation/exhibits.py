"""The pictures that belong to an evaluation: chosen by its figures, not by taste."""

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from ganlib.data import pictures
from ganlib.evaluation.copying import Copies
from ganlib.evaluation.coverage import Regions
from ganlib.evaluation.material import Material, Part
from ganlib.evaluation.result import Exhibits
from ganlib.metrics.scores import Neighbourhood

SHOWN, PAIRS, STRANGE = 48, 16, 24


def exhibits(
    material: Material, near: tuple[Neighbourhood, Neighbourhood] | None, found: Regions | None, copies: Copies | None
) -> Exhibits:
    """Samples and real items at random; the closest pairs; what is missed, overdrawn, and unlike all real items."""
    none = np.zeros((0, 1, 1, 1), np.uint8)
    if material.fake.data.spec.kind != "image":
        return Exhibits(none, none, none, np.zeros(0), none, none, none)
    pairs, distances = none, np.zeros(0)
    if copies is not None and material.train is not None:
        closest = copies.fake.distances.argsort()[:PAIRS]
        ours = drawn(material.fake, closest)
        pairs = np.stack([ours, drawn(material.train, copies.fake.items[closest])], 1).reshape(-1, *ours.shape[1:])
        distances = (copies.fake.distances[closest] / max(copies.threshold, 1e-12)).numpy()
    missed = overdrawn = none
    missed_shares = overdrawn_shares = (0.0, 0.0)
    if found is not None:
        seldom, often = found.missed(found.ours), found.overdrawn()
        missed = drawn(material.reference, _members(found.reference, seldom))
        overdrawn = drawn(material.fake, _members(found.fake, often))
        missed_shares, overdrawn_shares = (
            (found.ours.fake_shares[cells].sum().item(), found.ours.real_shares[cells].sum().item())
            for cells in (seldom, often)
        )
    worst = none
    if near is not None:
        fake, _ = material.alike()
        worst = drawn(fake, (near[0].balls == 0).nonzero()[:STRANGE, 0])
    some = torch.arange(SHOWN)
    return Exhibits(
        drawn(material.fake, some[: len(material.fake)]),
        drawn(material.fresh, some[: len(material.fresh)]),
        pairs,
        distances,
        missed,
        overdrawn,
        worst,
        missed_shares,
        overdrawn_shares,
    )


def drawn(part: Part, rows: Tensor) -> np.ndarray:
    """These items of a part as pictures [n, height, width, channels] uint8; none where there are no rows."""
    if not len(rows):
        return np.zeros((0, 1, 1, 1), np.uint8)
    real = part.data.batch(part.numbers[rows.numpy()])["real"]
    return pictures(part.data.spec, real)


def _members(cells: Tensor, chosen: Bool[Tensor, " regions"]) -> Tensor:
    return chosen[cells].nonzero()[:STRANGE, 0]
