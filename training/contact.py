"""Contact sheets of procedural shapes, to be looked at: pictures, or depth from the front, side and above.

`python -m training.contact --out sheet.png --first-seed 0 --views` writes one PNG.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.render import render_images
from training.shapes.field import DistanceField
from training.shapes.generator import KINDS, ProceduralShape, kind_of, make_shape


def relief(field: DistanceField, axis: int, size: int = 112) -> NDArray[np.uint8]:
    """Shade a view (size,size,3) of the grid along one axis: 0 from +x, 1 from above, 2 from the front."""
    order = {2: (1, 0, 2), 0: (1, 2, 0), 1: (2, 0, 1)}[axis]
    grid = np.transpose(field.values, order)
    grid = grid[::-1] if axis != 1 else grid
    grid = grid[:, ::-1] if axis == 0 else grid
    inside = grid < 0
    n = grid.shape[0]
    k = np.minimum(n - 1 - np.argmax(inside[:, :, ::-1], axis=2), n - 2)
    a = np.take_along_axis(grid, k[..., None], 2)[..., 0]
    b = np.take_along_axis(grid, k[..., None] + 1, 2)[..., 0]
    height = np.where(inside.any(2), k + a / np.minimum(a - b, -1e-6), 0.0)
    gy, gx = np.gradient(height)
    light = np.clip((0.5 * gy * 1.0 - 0.4 * gx + 1.0) / np.sqrt(gx * gx + gy * gy + 1), 0, 1.3) / 1.3
    grey = np.where(inside.any(2), 40 + 200 * light, 255).astype(np.uint8)
    big = cv2.resize(grey, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.repeat(np.asarray(big, np.uint8)[..., None], 3, 2)


def sheet(shapes: list[ProceduralShape], columns: int, views: bool) -> NDArray[np.uint8]:
    """Lay out one tile a shape (with `views`: picture, side and top next to each other)."""
    tiles = []
    for shape in shapes:
        images = render_images(shape)
        tile = [np.ascontiguousarray(images[0][..., :3])]
        tile += [relief(shape.field, 0), relief(shape.field, 1)] if views else []
        cv2.putText(tile[0], shape.name, (2, 110), cv2.FONT_HERSHEY_SIMPLEX, 0.3, (0, 0, 0), 1)
        tiles.append(np.concatenate(tile, 1))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows, 0)


def main(arguments: list[str] | None = None) -> None:
    """Write a contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--views", action="store_true")
    chosen = parser.parse_args(arguments)
    shapes: list[ProceduralShape] = []
    seed = chosen.first_seed
    while len(shapes) < chosen.count:
        if chosen.kind in (None, KINDS[kind_of(seed)]):
            shapes.append(make_shape(seed))
        seed += 1
    cv2.imwrite(str(chosen.out), sheet(shapes, chosen.columns, chosen.views)[..., ::-1])


if __name__ == "__main__":
    main()
