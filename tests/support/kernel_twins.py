"""Kernels against their twins in torch, to be run by itself under TRITON_INTERPRET=1.

Triton asks for its interpreter when a kernel is defined, so a process has it for all kernels or for none.
"""

from __future__ import annotations

import sys
from itertools import product

import torch
from torch import Tensor

from backend.hunyuan3d.kernels.embedding import Embedding, embedded_points_torch, embedded_points_triton
from backend.hunyuan3d.kernels.ghost_cells import ghost_cells_torch, ghost_cells_triton
from backend.hunyuan3d.kernels.norm_dot import NormDotWeights, norm_dot_torch, norm_dot_triton
from backend.hunyuan3d.kernels.query_norm import QueryWeights, query_heads_torch, query_heads_triton
from backend.hunyuan3d.volume.sparse_volume import BrickGrid


def check_query_heads() -> None:
    """Rows that fill blocks and rows that do not, with and without the norm of heads."""
    for rows, (heads, head_dim, normed) in product((1, 128, 200), ((2, 64, True), (3, 16, True), (2, 32, False))):
        width = heads * head_dim
        f, centred, weight = (torch.randn(n, 64) for n in (rows, width, width))
        gain, offset = (torch.randn(head_dim), torch.randn(head_dim)) if normed else (None, None)
        weights = QueryWeights(centred, weight, torch.randn(width), heads, 1e-6, gain, offset, 1e-6)
        torch.testing.assert_close(query_heads_triton(f, weights), query_heads_torch(f, weights), atol=1e-4, rtol=1e-4)


def check_embedding() -> None:
    """Released sizes and the demo's, with and without pi, rows that fill blocks and that do not."""
    for rows, (embedding, width) in product((1, 64, 100), ((Embedding(8, 1.0), 64), (Embedding(6, torch.pi), 48))):
        points = torch.rand(rows, 3) * 2.02 - 1.01
        out = embedded_points_triton(points, embedding, width, torch.float32)
        expected = embedded_points_torch(points, embedding, width, torch.float32)
        torch.testing.assert_close(out, expected, atol=1e-6, rtol=0)


def check_norm_dot() -> None:
    """Widths that are powers of two and that are not, with and without the norm."""
    for (rows, width), normed in product(((1, 1024), (7, 48)), (True, False)):
        x = torch.randn(rows, width) * 3 + 1
        gain, offset = (torch.randn(width), torch.randn(width)) if normed else (None, None)
        weights = NormDotWeights(torch.randn(width), gain, offset, 1e-5, torch.randn(width), torch.tensor([0.3]))
        torch.testing.assert_close(norm_dot_triton(x, weights), norm_dot_torch(x, weights), atol=1e-4, rtol=1e-4)


def check_ghost_cells() -> None:
    """Every type that bricks hold, all margins that are used, all bricks and some."""
    coordinates = (torch.rand(2, 3, 3, 3) > 0.4).nonzero()
    grid = BrickGrid.build(2, 3, coordinates)
    for dtype in (torch.float32, torch.bool, torch.uint8, torch.int32):
        values: Tensor = (torch.randn(len(grid), 8, 8, 8) * 9).abs().to(dtype)
        fill = torch.nan if dtype == torch.float32 else 0 if dtype == torch.bool else 4
        for (low, high), of in product(((0, 1), (1, 0), (1, 1), (1, 2)), (None, torch.tensor([3, 1, 7]))):
            arguments = (values, grid._around, of, low, high, fill)
            expected = ghost_cells_torch(*arguments)
            torch.testing.assert_close(ghost_cells_triton(*arguments), expected, atol=0, rtol=0, equal_nan=True)


def main() -> None:
    """Check every kernel and name it."""
    torch.manual_seed(0)
    for check in (check_embedding, check_query_heads, check_norm_dot, check_ghost_cells):
        check()
        sys.stdout.write(f"{check.__name__}\n")


if __name__ == "__main__":
    main()
