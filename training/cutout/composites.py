"""Photographs with known masks, a batch at a time: objects before surroundings, with shadows, frames and a camera.

A batch is a function of its seed and of the pictures that there are, and is put together on the device that holds
them. Knows nothing of networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.cutout.bank import Bank
from training.cutout.camera import blur, photographed
from training.cutout.colour import greyed, mixed, permutation
from training.cutout.dice import Dice
from training.cutout.frames import any_colour, captioned, framed
from training.cutout.shadows import mapped, places, reflected, sample, shadowed, stand_of

_FINER = 2


@dataclass(frozen=True, eq=False)
class Composites:
    """Photographs and their masks; image : (B, 3, S, S) in 0..1 as 8 bits hold it. mask : (B, 1, S, S) in 0..1."""

    image: Tensor
    mask: Tensor


@dataclass(frozen=True, eq=False)
class _Scene:
    """Photographs in the making, and the height of their horizon, -1 top to 1 bottom; 2 where there is none."""

    image: Tensor
    mask: Tensor
    horizon: Tensor


def draw_composites(seed: int, bank: Bank, batch: int, side: int) -> Composites:
    """Draw the composites of a seed; side : a multiple of 16."""
    dice = Dice(seed, batch, bank.device)
    with torch.no_grad():
        image, horizon = surroundings(dice, bank, side)
        scene = _Scene(image, torch.zeros_like(image[:, :1]), horizon)
        image, mask = _with_object(dice, bank, scene, first=True)
        more = dice.some(0.09)
        if len(more):
            beside = _Scene(image[more], mask[more], horizon[more])
            image[more], mask[more] = _with_object(dice.for_some(len(more)), bank, beside, first=False)
        early = dice.shared() < 0.5
        image = _some_captioned(dice, bank, image, mask) if early else image
        some = dice.some(0.17)
        if len(some):
            image[some], mask[some] = framed(dice.for_some(len(some)), image[some], mask[some])
        image = image if early else _some_captioned(dice, bank, image, mask)
        image = photographed(dice, image)
        mirrored = dice.chance(0.5)
        image = torch.where(mirrored, image.flip(-1), image)
        mask = torch.where(mirrored, mask.flip(-1), mask)
    return Composites(image, mask.clamp(0, 1))


def surroundings(dice: Dice, bank: Bank, side: int) -> tuple[Tensor, Tensor]:
    """Return surroundings (B, 3, S, S) and the height of their horizon (B, 1, 1, 1), 2 where they have none.

    Nearly half have a second surface below a horizon, as a table before a wall has; some darken towards the corners,
    from one side to the other, or all about a spot of light.
    """
    x, y = places(side, dice.device)
    wall = _surface(dice, bank, side, None)
    horizon = torch.where(dice.chance(0.46), dice.uniform(-0.4, 0.85), torch.full_like(dice.uniform(), 2.0))
    table = _surface(dice, bank, side, horizon)
    table = _as_the_room_is(dice, wall, table)
    slope = dice.normal(0.04) * dice.chance(0.4)
    soft = torch.where(dice.chance(0.65), dice.uniform(0.004, 0.012), dice.log_uniform(0.02, 0.4))
    mix = ((y - horizon - slope * x) / soft + 0.5).clamp(0, 1)
    out = torch.lerp(wall, table, mix)
    # Skirting, or the table's own edge.
    edge = ((y - horizon - slope * x).abs() < dice.log_uniform(0.004, 0.08)) & dice.chance(0.12)
    out = out * (torch.where(edge, dice.uniform(0.5, 1.3), 1.0) * _lamplight(dice, side))
    crowd = dice.some(0.13)
    if len(crowd):
        out[crowd] = _crowded(dice.for_some(len(crowd)), bank, out[crowd])
    far = dice.some(0.1)
    some = dice.for_some(len(far))
    out[far] = blur(out[far], some.log_uniform(1, 8) * side / 320)
    lit = dice.some(0.06)
    out[lit] = out[lit] * _patches_of_light(dice.for_some(len(lit)), side)
    return out.clamp(0, 1), horizon


def _as_the_room_is(dice: Dice, wall: Tensor, table: Tensor) -> Tensor:
    """Bring some tables near to their walls in colour, as those of one room often are, and make some nearly white."""
    kind = dice.uniform()
    near, white = kind < 0.25, kind > 0.9
    bright = dice.uniform(0.1, 0.45)
    share = torch.where(near, 0.4, torch.where(white, bright, 1.0))
    own = wall.mean((2, 3), keepdim=True) * dice.uniform(0.8, 1.2) - 0.4 * table.mean((2, 3), keepdim=True)
    return table * share + own * near + (1 - bright) * dice.uniform(0.85, 1.0) * white


def _lamplight(dice: Dice, side: int) -> Tensor:
    """Return how light surroundings are (B, 1, S, S): even, or darker towards corners, a side or around a spot."""
    x, y = places(side, dice.device)
    away = (x - dice.normal(0.25)) ** 2 + (y - dice.normal(0.25)) ** 2
    corners = 1 - dice.uniform(0.1, 0.55) * dice.chance(0.3) * away / 2
    turn = dice.uniform(0, 6.2832)
    across = 1 + dice.uniform(0, 0.5) * dice.chance(0.15) * (x * torch.cos(turn) + y * torch.sin(turn))
    from_x, from_y = _turned(x - dice.normal(0.3), y - dice.normal(0.35), turn)
    far = (from_x / dice.log_uniform(0.25, 1.2)) ** 2 + (from_y / dice.log_uniform(0.25, 1.2)) ** 2
    dark = dice.uniform(0.05, 0.65)
    spot = (dark + (1 - dark) * torch.exp(-far)) * dice.uniform(1.0, 1.35)
    return corners * across * torch.where(dice.chance(0.07), spot, 1.0)


def _crowded(dice: Dice, bank: Bank, image: Tensor) -> Tensor:
    """Lay many things over one another, of all sizes and in part beyond the border, as photographs of places have."""
    for _ in range(4 + int(dice.shared() * 9)):
        pictures, _ = bank.objects(dice.numbers(bank.count("objects")))
        size = dice.log_uniform(0.15, 2.5)
        at = dice.uniform(-1.2, 1.2), dice.uniform(-1.2, 1.2)
        seen = _strewn(dice, pictures, at, size, image.shape[-1])
        image = torch.lerp(image, _tinted(dice, _straight(seen)), seen[:, 3:])
    return image


def _strewn(dice: Dice, pictures: Tensor, at: tuple[Tensor, Tensor], size: Tensor, side: int) -> Tensor:
    """Return pictures (B, 4, H, W) laid with their middles at places, some turned, half of them mirrored."""
    turn = dice.uniform(-3.1, 3.1) * dice.chance(0.3)
    return _laid(_premultiplied(pictures), at, turn, (size * dice.sign(), size), side)


def _laid(pictures: Tensor, at: tuple[Tensor, Tensor], turn: Tensor, size: tuple[Tensor, Tensor], side: int) -> Tensor:
    """Return pictures (B, C, S, S) that are laid with their middles at places, turned and of other sizes."""
    (x, y), (wide, high) = at, size
    cos, sin = torch.cos(turn), torch.sin(turn)
    rows = [cos / wide, sin / wide, -(x * cos + y * sin) / wide, -sin / high, cos / high, (x * sin - y * cos) / high]
    return mapped(pictures, torch.cat(rows, 1).reshape(-1, 2, 3), side)


def _surface(dice: Dice, bank: Bank, side: int, horizon: Tensor | None) -> Tensor:
    """Return surfaces: plain ones, even gradients, and drawn ones seen from anywhere; flat below a horizon, if any."""
    x, y = places(side, dice.device)
    turn = dice.uniform(0, 6.2832)
    along = x * torch.cos(turn) + y * torch.sin(turn)
    around = torch.sqrt((x - dice.normal(0.4)) ** 2 + (y - dice.normal(0.4)) ** 2)
    along = torch.where(dice.chance(0.6), along, around)
    first = torch.where(
        dice.chance(0.3), (dice.uniform(0.88, 1.0) + 0.01 * any_colour(dice)).clamp(0, 1), any_colour(dice)
    )
    kind = dice.uniform()
    second = torch.where(kind < 0.5, first, torch.where(kind < 0.85, first * dice.uniform(0.5, 1.4), any_colour(dice)))
    mix = (along * 0.5 + 0.5).clamp(0, 1)
    smooth = torch.lerp(first, second, mix)
    drawn = bank.surfaces(dice.numbers(bank.count("surfaces")))
    zoom = dice.log_uniform(0.35, 1.0)
    angle = dice.normal(0.25) * dice.chance(0.3) + torch.where(dice.chance(0.25), 1.5708, 0.0)
    depth = dice.uniform(-0.35, 0.35) * dice.chance(0.3)
    if horizon is not None:
        # A table recedes towards the horizon: rows there are seen from further away.
        flat = dice.chance(0.6) & (horizon < 1)
        depth = torch.where(flat, dice.uniform(0.15, 0.75), depth)
    far = 1 / (1 + depth * (y - 0.2)).clamp(min=0.2)
    u, v = x * far * zoom, y * far * zoom
    free = 1 - zoom
    from_x = u * torch.cos(angle) - v * torch.sin(angle) + dice.uniform(-1, 1) * free
    from_y = u * torch.sin(angle) + v * torch.cos(angle) + dice.uniform(-1, 1) * free
    seen = sample(drawn, from_x, from_y, "reflection")
    plain = torch.where(horizon < 1, 0.32, 0.42) if horizon is not None else 0.42
    return torch.where(dice.uniform() < plain, smooth, _tinted(dice, seen))


def _tinted(dice: Dice, image: Tensor) -> Tensor:
    """Change the colours of surfaces: channels permuted, greyed, of less or more contrast, lighter or darker."""
    grey = torch.where(dice.chance(0.3), dice.uniform(0, 0.7), 1.0)
    contrast = torch.where(dice.chance(0.4), dice.uniform(0.2, 1.0), 1.0)
    matrix = greyed(permutation(dice, 0.25), grey)
    return mixed(image, matrix, contrast, dice.uniform(0.7, 1.25)).clamp_(0, 1)


def _patches_of_light(dice: Dice, side: int) -> Tensor:
    """Return what a window or leaves let through, (B, 1, S, S): soft patches, darker between."""
    cells = 2 + int(dice.shared() * 5)
    coarse = F.interpolate(dice.noise(1, cells, cells), (side, side), mode="bicubic", align_corners=False)
    sharp = dice.log_uniform(1, 20)
    return 1 - dice.uniform(0.15, 0.6) * torch.sigmoid(coarse * sharp)


def _with_object(dice: Dice, bank: Bank, scene: _Scene, *, first: bool) -> tuple[Tensor, Tensor]:
    """Put an object into each photograph, with its shadow; return images and masks."""
    image, side = scene.image, scene.image.shape[-1]
    colour, alpha = _placed(dice, bank, scene.horizon, side, first=first)
    colour = _in_this_light(dice, bank, colour, alpha, image)
    stands = stand_of(alpha)
    image = shadowed(dice, image, alpha, stands, scene.horizon < 1)
    glossy = dice.some(0.2)
    if len(glossy):
        some = dice.for_some(len(glossy))
        here = type(stands)(*(value[glossy] for value in vars(stands).values()))
        image[glossy] = reflected(some, image[glossy], colour[glossy], alpha[glossy], here)
    share = alpha * torch.where(dice.chance(0.04), dice.uniform(0.4, 0.8), 1.0)
    return torch.lerp(image, colour, share), torch.maximum(scene.mask, alpha)


def _placed(dice: Dice, bank: Bank, horizon: Tensor, side: int, *, first: bool) -> tuple[Tensor, Tensor]:
    """Return objects' colours (B, 3, S, S) and alpha (B, 1, S, S) in the photographs' frames."""
    pictures, reach = bank.objects(dice.numbers(bank.count("objects")))
    cut = dice.chance(0.2)
    usual = torch.where(dice.chance(0.86), dice.uniform(0.3, 0.95), dice.uniform(0.08, 0.3))
    # Those that are larger than the picture are cut by two borders or three.
    beyond = torch.where(dice.chance(0.5), dice.uniform(1.1, 2.2), dice.uniform(0.5, 1.5))
    size = torch.where(cut, beyond, usual) * (1.0 if first else dice.uniform(0.15, 0.6))
    stretch = dice.normal(0.1).exp()
    size_x, size_y = size * stretch.clamp(max=1), size / stretch.clamp(min=1)
    half_x, half_y = size_x * reach[:, 0].reshape(-1, 1, 1, 1), size_y * reach[:, 1].reshape(-1, 1, 1, 1)
    shown = torch.where(cut, 0.35, 1.0)
    room_x, room_y = (1 - half_x * shown).clamp(min=0), (1 - half_y * shown).clamp(min=0)
    middle = dice.chance(0.45 if first else 0.0) & ~cut
    x = torch.where(middle, dice.normal(0.08), dice.uniform(-1, 1)) * room_x
    y = torch.where(middle, dice.normal(0.15), dice.uniform(-1, 1)) * room_y
    on_table = (horizon < 1) & ~cut & dice.chance(0.8)
    foot = horizon + dice.uniform() * (0.94 - horizon)
    standing = torch.minimum(torch.maximum(foot - half_y, half_y * 0.9 - 1), (1 - half_y).clamp(min=-1))
    y = torch.where(on_table, standing, y)
    turn = dice.normal(0.1) * dice.chance(0.35)
    turn = torch.where(dice.chance(0.04), dice.uniform(-3.1, 3.1), turn)
    size_x = size_x * dice.sign()
    seen = F.avg_pool2d(_laid(_premultiplied(pictures), (x, y), turn, (size_x, size_y), _FINER * side), _FINER)
    return _straight(seen), seen[:, 3:].contiguous()


def _turned(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return places in a frame that is turned by an angle, radians."""
    return x * torch.cos(angle) + y * torch.sin(angle), -x * torch.sin(angle) + y * torch.cos(angle)


def _premultiplied(pictures: Tensor) -> Tensor:
    """Return RGBA (B, 4, H, W) whose colours are weighted by their alpha, to be resampled."""
    return torch.cat([pictures[:, :3] * pictures[:, 3:], pictures[:, 3:]], 1)


def _straight(seen: Tensor) -> Tensor:
    """Return the colours (B, 3, H, W) of premultiplied RGBA."""
    return (seen[:, :3] / seen[:, 3:].clamp(min=1e-3)).clamp(0, 1)


def _in_this_light(dice: Dice, bank: Bank, colour: Tensor, alpha: Tensor, image: Tensor) -> Tensor:
    """Recolour objects: permute channels, grey, brighten, texture; some nearly as their surroundings are."""
    side = image.shape[-1]
    grey = torch.where(dice.chance(0.3), dice.uniform(0, 0.5), 1.0)
    colour = mixed(colour, greyed(permutation(dice, 0.6), grey)).clamp_(1e-4, 1) ** dice.normal(0.35).exp()
    grain = dice.some(0.16)
    some = dice.for_some(len(grain))
    texture = _surface(some, bank, side, None)
    texture = texture / texture.mean((2, 3), keepdim=True).clamp(min=0.1)
    colour[grain] = colour[grain] * (1 + (texture - 1) * some.uniform(0.2, 1.0))
    parts = dice.some(0.35)
    colour[parts] = _in_parts(dice.for_some(len(parts)), bank, colour[parts], alpha[parts], image[parts])
    cells = 4 + int(dice.shared() * 30)
    spots = F.interpolate(dice.noise(1, cells, cells), (side, side), mode="bicubic", align_corners=False)
    kind = dice.uniform()
    spotted = dice.uniform(0.05, 0.35) * ((kind > 0.31) & (kind < 0.4))
    seen = (alpha > 0.5).float()
    near = (image * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True).clamp(min=1)
    near_share, pale, dim = dice.uniform(0.6, 0.93), dice.uniform(0.05, 0.16), dice.uniform(0.06, 0.3)
    like, white, dark = kind < 0.14, (kind >= 0.14) & (kind < 0.24), (kind >= 0.24) & (kind < 0.31)
    own = torch.where(like, 1 - near_share, torch.where(white, pale, torch.where(dark, dim, 1.0)))
    other = near * near_share * like + dice.uniform(0.8, 0.92) * white
    other = other + any_colour(dice) * dice.uniform(0, 0.25) * dice.chance(0.2)
    return _shone_on(dice, colour * (own * (1 + spots * spotted)) + other).clamp_(0, 1)


def _in_parts(dice: Dice, bank: Bank, colour: Tensor, alpha: Tensor, image: Tensor) -> Tensor:
    """Lay things on objects, as windows, faces, clothes and labels are; some nearly as light as their surroundings."""
    span = (alpha.mean((1, 2, 3), keepdim=True) ** 0.5).clamp(min=0.02)
    for _ in range(1 + int(dice.shared() * 4)):
        pictures, _ = bank.objects(dice.numbers(bank.count("objects")))
        at = _somewhere_on(dice, alpha)
        seen = _strewn(dice, pictures, at, span * dice.log_uniform(0.2, 1.6), colour.shape[-1])
        plain, like = dice.chance(0.6), dice.chance(0.2)
        around = image * dice.uniform(0.9, 1.1) + dice.normal(0.03)
        own = torch.where(like, around, torch.where(plain, any_colour(dice), _tinted(dice, _straight(seen))))
        colour = torch.lerp(colour, own, seen[:, 3:] * torch.where(dice.chance(0.8), 1.0, dice.uniform(0.3, 1.0)))
    return colour.clamp(0, 1)


def _somewhere_on(dice: Dice, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Return a place (B, 1, 1, 1) each that an object covers, to a sixteenth of the picture."""
    cells = F.adaptive_avg_pool2d(alpha, 16).flatten(1)
    picked = (cells.clamp(max=0.5) * (0.5 + dice.noise(256).sigmoid())).argmax(1)
    place = picked.reshape(-1, 1, 1, 1)
    return (place % 16 + 0.5) / 8 - 1, (place // 16 + 0.5) / 8 - 1


def _shone_on(dice: Dice, colour: Tensor) -> Tensor:
    """Light some objects from a side, and lay highlights on some, as glaze and metal have."""
    x, y = places(colour.shape[-1], dice.device)
    turn = dice.uniform(0, 6.2832)
    slope = x * torch.cos(turn) + y * torch.sin(turn)
    colour = colour * (1 + slope * dice.uniform(0, 0.5) * dice.chance(0.2))
    dx, dy = x - dice.normal(0.3), y - dice.normal(0.3)
    from_x, from_y = _turned(dx, dy, turn)
    away = (from_x.abs() / dice.log_uniform(0.03, 0.3)) ** 3 + (from_y.abs() / dice.log_uniform(0.03, 0.5)) ** 3
    shine = torch.sigmoid((1 - away) * dice.log_uniform(1, 12)) * dice.uniform(0.2, 0.95) * dice.chance(0.12)
    return colour + (1 - colour) * shine


def _some_captioned(dice: Dice, bank: Bank, image: Tensor, mask: Tensor) -> Tensor:
    """Write on a tenth of the pictures, up to three times."""
    if not bank.count("writing"):
        return image
    for share in (0.1, 0.05, 0.03):
        some = dice.some(share)
        if len(some):
            image[some] = captioned(dice.for_some(len(some)), bank, image[some], mask[some])
    return image
