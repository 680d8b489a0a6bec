"""Random changes of pictures before the discriminator sees them, for few items; pure torch, differentiable twice.

A change is drawn once and given to real and fake alike. It acts item by item, in the numbers of the networks (pictures
in [-1, 1]), on any height, width and number of channels. A draw with probability 0 is the identity, to the bit.

A generator learns the changes too where they leave no trace of what is upright: at a probability of 1 nothing says that
a 6 is no 9. Below about 0.8 the true pictures stay the most frequent (Karras et al. 2020, section 2.2), yet leave out
what a kind of picture forbids: flips and turns of digits, letters or anything with a left and a right.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ganlib.core import Augment, Change, Draws

Images = Float[Tensor, "batch channels height width"]
PerItem = Float[Tensor, " batch"]
SUBPIXELS = 4096
"""Positions are rounded to so many parts of a pixel: a quarter turn then meets pixels and not their neighbourhood."""


@final
@dataclass(frozen=True)
class AdaptivePipeline(Augment):
    """Blits, geometry and colour, each for an item with the same probability. Karras et al. 2020, arXiv:2006.06676.

    The operations, their order and strengths are those of its appendix B ("bgc", and cutout where asked for). Geometry
    is one affine map with mirrored borders, sampled bilinearly and not from a wavelet-filtered picture of twice the
    size. Turns of 90 and 270 degrees are for square pictures only, the colour operations besides brightness and
    contrast for three channels only.
    """

    flip: bool = True  # left and right
    turn: bool = True  # by 90, 180 or 270 degrees
    shift: bool = True  # by whole pixels, to an eighth of a side
    scale: bool = True  # both sides alike, and one against the other
    rotate: bool = True  # by any angle
    slide: bool = True  # by fractions of pixels, normal with an eighth of a side
    colour: bool = True  # brightness, contrast; luma, hue, saturation
    cutout: bool = False  # a rectangle of half the sides becomes 0

    def draw(self, items: Images, probability: Float[Tensor, ""], draws: Draws) -> Change:
        if _never(probability):
            return _unchanged
        num_items, channels, height, width = items.shape
        samples = tint = mask = None
        if any([self.flip, self.turn, self.shift, self.scale, self.rotate, self.slide]):
            samples = _samples(self._map(num_items, height, width, probability, draws), height, width)
        if self.colour:
            tint = self._tint(num_items, channels, probability, draws)
        if self.cutout:
            mask = _cutout(num_items, height, width, probability, draws)

        def change(images: Images) -> Images:
            images = images if samples is None else _sampled(images, *samples)
            images = images if tint is None else _tinted(images, *tint)
            return images if mask is None else images * mask.to(images.dtype)

        return change

    def _map(self, num_items: int, height: int, width: int, probability: Tensor, draws: Draws) -> Tensor:
        """Where each pixel of the changed picture comes from: the inverses of the operations, the last one first."""
        half = 1 - (1 - probability).sqrt()  # of either rotation, so that one of them happens with the probability
        asked = [self.flip, self.turn, self.shift, self.scale, self.rotate, self.scale, self.rotate, self.slide]
        chances = torch.stack([probability] * 4 + [half, probability, half, probability])
        drawn = draws.uniform(num_items, 8) < chances * torch.tensor(asked, device=chances.device)
        flip, turn, shift, scale, before, stretch, after, slide = drawn.float().unbind(1)
        flips, turns, right, down, angle, angle2 = draws.uniform(num_items, 6).unbind(1)
        size, ratio, x, y = draws.normal(num_items, 4).unbind(1)
        kinds, step = (4, math.pi / 2) if height == width else (2, math.pi)
        whole = ((2 * side - 1) * length / 8 for side, length in ((right, width), (down, height)))
        zoom, squeeze = (torch.exp(on * z * 0.2 * math.log(2)) for on, z in ((scale, size), (stretch, ratio)))
        return _compose(
            _scaling(1 - 2 * flip * (flips < 0.5), torch.ones_like(flip)),
            _rotation(turn * step * (kinds * turns).floor()),
            _translation(*(shift * distance.round() for distance in whole)),
            _scaling(zoom, zoom),
            _rotation(before * math.pi * (2 * angle - 1)),
            _scaling(squeeze, 1 / squeeze),
            _rotation(after * math.pi * (2 * angle2 - 1)),
            _translation(slide * x * width / 8, slide * y * height / 8),
        )

    def _tint(self, num_items: int, channels: int, probability: Tensor, draws: Draws) -> tuple[PerItem, ...]:
        """What :func:`_tinted` multiplies by: brightness, contrast, luma flip, hue and saturation in one."""
        on = (draws.uniform(num_items, 5) < probability).float()
        if channels != 3:
            on = on * torch.tensor([1.0, 1, 0, 0, 0], device=on.device)
        brighter, contrast, saturation = (on[:, [0, 1, 4]] * draws.normal(num_items, 3)).unbind(1)
        flip, turn = draws.uniform(num_items, 2).unbind(1)
        contrast, saturation = torch.exp(contrast * 0.5 * math.log(2)), torch.exp(saturation * math.log(2))
        luma = contrast * (1 - 2 * on[:, 2] * (flip < 0.5))
        hue = on[:, 3] * math.pi * (2 * turn - 1)
        gain = contrast * saturation * torch.cos(hue)
        return gain, luma - gain, contrast * saturation * torch.sin(hue) / math.sqrt(3), luma * 0.2 * brighter


@final
@dataclass(frozen=True)
class DiffAugment(Augment):
    """Colour, translation and cutout at the paper's strengths. Zhao et al. 2020, arXiv:2006.10738.

    Brightness + U(-½, ½), saturation · U(0, 2) about the mean of the channels, contrast · U(½, 3/2) about the mean of
    the picture; a shift to an eighth of a side, with zeros; a rectangle of half the sides set to 0. The paper does them
    all to every item: probability 1. Below, an item undergoes each of the three with that probability.
    """

    colour: bool = True
    translation: bool = True
    cutout: bool = True

    def draw(self, items: Images, probability: Float[Tensor, ""], draws: Draws) -> Change:
        if _never(probability):
            return _unchanged
        num_items, channels, height, width = items.shape
        colours = source = mask = None
        if self.colour:
            on = (draws.uniform(num_items, 1) < probability).float()
            brighter, saturation, contrast = (on * (draws.uniform(num_items, 3) - 0.5)).unbind(1)
            colours = brighter, 1 + 2 * saturation if channels == 3 else None, 1 + contrast
        if self.translation:
            on = (draws.uniform(num_items, 1) < probability).float()
            most = torch.tensor([round(height / 8), round(width / 8)], device=on.device)
            down, right = (on * ((2 * most + 1) * draws.uniform(num_items, 2)).floor().sub(most)).long().unbind(1)
            source = _shifted_source(down, right, height, width)
        if self.cutout:
            mask = _cutout(num_items, height, width, probability, draws)

        def change(images: Images) -> Images:
            images = images if colours is None else _coloured(images, *colours)
            if source is not None:
                images = _taken(images, source[0]).view_as(images) * source[1].to(images.dtype)
            return images if mask is None else images * mask.to(images.dtype)

        return change


@final
@dataclass(frozen=True)
class InstanceNoise(Augment):
    """x + probability · σε on real and fake, ε ~ N(0, I). Sønderby et al. 2017, arXiv:1610.04490, section 4.

    The paper lowers the strength over the training: here the schedule of the probability does. Items of any shape.
    """

    sigma: float = 0.1

    def draw(self, items: Float[Tensor, "batch *item"], probability: Float[Tensor, ""], draws: Draws) -> Change:
        if _never(probability):
            return _unchanged
        noise = probability * self.sigma * draws.normal(*items.shape)
        return lambda images: images + noise.to(torch.promote_types(images.dtype, noise.dtype))


def _unchanged(items: Tensor) -> Tensor:
    return items


def _never(probability: Tensor) -> bool:
    """Whether nothing is to be done, where asking does not make the processor wait for a GPU."""
    return probability.device.type == "cpu" and float(probability) == 0.0


def _matrix(*rows: tuple[Tensor, Tensor, Tensor]) -> Float[Tensor, "batch 3 3"]:
    one, zero = torch.ones_like(rows[0][0]), torch.zeros_like(rows[0][0])
    return torch.stack([torch.stack(row, 1) for row in (*rows, (zero, zero, one))], 1)


def _scaling(x: PerItem, y: PerItem) -> Float[Tensor, "batch 3 3"]:
    zero = torch.zeros_like(x)
    return _matrix((x, zero, zero), (zero, y, zero))


def _rotation(angle: PerItem) -> Float[Tensor, "batch 3 3"]:
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return _matrix((cos, -sin, zero), (sin, cos, zero))


def _translation(x: PerItem, y: PerItem) -> Float[Tensor, "batch 3 3"]:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix((one, zero, x), (zero, one, y))


def _compose(*maps: Float[Tensor, "batch 3 3"]) -> Float[Tensor, "batch 3 3"]:
    """The product; not by a matrix multiplication, which autocast and TF32 would do in a few bits."""
    product = maps[0]
    for each in maps[1:]:
        product = (product[:, :, :, None] * each[:, None]).sum(2)
    return product


def _samples(
    back: Float[Tensor, "batch 3 3"], height: int, width: int
) -> tuple[Int[Tensor, "batch neighbours"], Float[Tensor, "batch 1 4 pixels"]]:
    """Which four pixels make each pixel, and their weights. `back` is in pixels from the centre, x to the right."""
    y = (torch.arange(height, device=back.device) - (height - 1) / 2).repeat_interleave(width)
    x = (torch.arange(width, device=back.device) - (width - 1) / 2).repeat(height)
    a, b, c, d, e, f = back[:, :2].flatten(1)[:, :, None].unbind(1)
    columns, across = _neighbours(a * x + b * y + c, width)
    rows, along = _neighbours(d * x + e * y + f, height)
    index = rows[:, :, None] * width + columns[:, None]
    weights = along[:, :, None] * across[:, None]
    return index.flatten(1), weights.flatten(1, 2)[:, None]


def _neighbours(position: Tensor, length: int) -> tuple[Int[Tensor, "batch 2 pixels"], Float[Tensor, "batch 2 pixels"]]:
    """The pixels on both sides of a position from the centre, and their weights; mirrored at the edges."""
    period = max(2 * (length - 1), 1)
    position = torch.round((position + (length - 1) / 2) * SUBPIXELS) / SUBPIXELS
    position = position - period * torch.floor(position / period)
    position = torch.minimum(position, period - position).clamp(0, length - 1)
    first = position.floor()
    share = position - first
    pixels = torch.stack([first, (first + 1).clamp(max=length - 1)], 1)
    return pixels.long(), torch.stack([1 - share, share], 1)


def _taken(images: Images, index: Int[Tensor, "batch some"]) -> Float[Tensor, "batch channels some"]:
    """The pixels of those numbers, counted row by row."""
    return images.flatten(2).gather(2, index[:, None].expand(-1, images.shape[1], -1))


def _sampled(images: Images, index: Tensor, weights: Tensor) -> Images:
    # grid_sample would do, but for its second derivative, which torch does not have.
    four = _taken(images, index).unflatten(2, (4, -1))
    return (four * weights.to(torch.promote_types(images.dtype, weights.dtype))).sum(2).view_as(images)


def _tinted(images: Images, gain: PerItem, mean: PerItem, hue: PerItem, bias: PerItem) -> Images:
    """gain · x + mean · x̄ + hue · (x₋₁ - x₊₁) + bias, x̄ the mean of the channels, x±₁ the channels in turn.

    Every map of three channels that keeps the grey axis and turns about it is of this form: the cross product with
    (1, 1, 1) is what the difference says.
    """
    kind = torch.promote_types(images.dtype, gain.dtype)
    gain, mean, hue, bias = (each.to(kind)[:, None, None, None] for each in (gain, mean, hue, bias))
    if images.shape[1] != 3:
        return (gain + mean) * images + bias
    turned = images.roll(1, 1) - images.roll(-1, 1)
    return gain * images + mean * images.mean(1, keepdim=True) + hue * turned + bias


def _coloured(images: Images, brighter: PerItem, saturation: PerItem | None, contrast: PerItem) -> Images:
    kind = torch.promote_types(images.dtype, brighter.dtype)
    images = images + brighter.to(kind)[:, None, None, None]
    if saturation is not None:
        images = _about(images.mean(1, keepdim=True), images, saturation)
    return _about(images.mean((1, 2, 3), keepdim=True), images, contrast)


def _about(centre: Tensor, images: Images, factor: PerItem) -> Images:
    """centre + factor · (x - centre), which is x to the bit where the factor is 1."""
    factor = factor.to(images.dtype)[:, None, None, None]
    return factor * images + (1 - factor) * centre


def _shifted_source(down: Tensor, right: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Which pixel comes to each place, and whether there is one."""
    row = torch.arange(height, device=down.device)[:, None] - down[:, None, None]
    column = torch.arange(width, device=down.device) - right[:, None, None]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    return index.flatten(1), inside[:, None]


def _cutout(num_items: int, height: int, width: int, probability: Tensor, draws: Draws) -> Tensor:
    """False in a rectangle of half the sides, whose centre is anywhere in the picture."""
    on = draws.uniform(num_items, 1) < probability
    y, x = (draws.uniform(num_items, 2) * torch.tensor([height, width], device=on.device)).unbind(1)
    rows = torch.arange(height, device=on.device) + 0.5 - y[:, None]
    columns = torch.arange(width, device=on.device) + 0.5 - x[:, None]
    rows_in, columns_in = on & (rows.abs() < height / 4), columns.abs() < width / 4
    return ~(rows_in[:, None, :, None] & columns_in[:, None, None, :])
