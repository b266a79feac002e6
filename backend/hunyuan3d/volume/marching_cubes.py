"""The zero surface of a sparse volume as triangles: marching cubes on the active cells only, without a loop over cells.

Bricks are taken with a margin of one point, so that a cell's corners are found by adding to its address, whichever
brick they are in. This module does not know how the field was computed, nor what is done with the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from backend.errors import NoSurface
from backend.hunyuan3d.volume.marching_cubes_table import CENTRE, marching_cubes_table
from backend.hunyuan3d.volume.sparse_volume import BRICK, VOXELS, SparseVolume

SPAN = BRICK + 1
UNKNOWN = 256
# Bricks at a time on the CPU: what is computed in between then stays in the cache.
BRICKS_AT_A_TIME = 1024
# A vertex keeps this distance (cells) from the lattice points at its edge's ends. Where the field is exactly zero on a
# lattice point, or the surface is cut off at the box's wall, vertices would coincide and triangles lose their area.
END_DISTANCE = 5e-4


@dataclass(frozen=True, eq=False)
class _Tables:
    """The marching cubes table as tensors; rows are a case's ways to be cut, T their triangles one after another.

    own_bits : (256,) int32, bit a: the edge from corner 0 along axis a is crossed. first_row : (256,) int64.
    face_bits : (256,6) int64, weight of each face in the row's number, 0 where not ambiguous. unclear : (256,) bool, is
    any of them. face_steps : (6,4) int64, a face's corners as steps from the cell's address.
    row_start, row_count : (rows,) int32, first triangle and number of triangles.
    entries : (T,3) int32 per triangle's vertex, its edge's lower corner as a step * 4, plus a mask of the axes before
    its own. is_centre : (T,3) bool, it is the row's extra vertex; has_centre : (rows,) bool; centre_edges : (rows,12)
    bool, the edges around that.
    address : (512,) int32, where a voxel is in a brick with margin. local : (512,3) float32, where in the brick.
    """

    own_bits: Tensor
    first_row: Tensor
    face_bits: Tensor
    unclear: Tensor
    face_steps: Tensor
    row_start: Tensor
    row_count: Tensor
    entries: Tensor
    is_centre: Tensor
    has_centre: Tensor
    centre_edges: Tensor
    address: Tensor
    local: Tensor


@cache
def _tables(device: torch.device) -> _Tables:
    table = marching_cubes_table()
    case = torch.arange(256)
    face_bits = torch.zeros((256, 6), dtype=torch.int64)
    for number, faces in enumerate(table.ambiguous_faces):
        for rank, face in enumerate(faces):
            face_bits[number, face] = 1 << rank
    counts = torch.tensor([len(row) for row in table.rows])
    edge = torch.tensor([triangle for row in table.rows for triangle in row])
    step = torch.tensor([_step(lower) for lower, _ in table.edges] + [0])
    before = torch.tensor([(1 << number // 4) - 1 for number in range(CENTRE)] + [0])
    centre_edges = torch.zeros((len(table.rows), CENTRE), dtype=torch.bool)
    for number, edges in enumerate(table.centres):
        centre_edges[number, list(edges)] = True
    local = torch.cartesian_prod(*[torch.arange(BRICK)] * 3)
    tables = _Tables(
        own_bits=torch.stack([((case ^ case >> (1 << a)) & 1) << a for a in range(3)]).sum(0).int(),
        first_row=torch.tensor(table.first_row),
        face_bits=face_bits,
        unclear=face_bits.any(1),
        face_steps=torch.tensor([[_step(corner) for corner in corners] for corners in table.faces]),
        row_start=(counts.cumsum(0) - counts).int(),
        row_count=counts.int(),
        entries=(step[edge] * 4 + before[edge]).int(),
        is_centre=edge == CENTRE,
        has_centre=centre_edges.any(1),
        centre_edges=centre_edges,
        address=(local * torch.tensor([SPAN**2, SPAN, 1])).sum(1).int(),
        local=local.float(),
    )
    return _Tables(**{name: value.to(device) for name, value in vars(tables).items()})


def _step(corner: int) -> int:
    """Return how much further than a cell's address its corner is found."""
    return ((corner & 1) * SPAN + (corner >> 1 & 1)) * SPAN + (corner >> 2 & 1)


@dataclass(frozen=True, eq=False)
class _Part:
    """The M cells with surface among some bricks (n,) int64.

    address : (M,) int32, brick among these * 729 + place in a brick with margin, of each cell's lowest corner.
    row : (M,) int64 of the table.
    """

    bricks: Tensor
    address: Tensor
    row: Tensor


def extract_surface(volume: SparseVolume) -> tuple[Tensor, Tensor]:
    """Draw triangles where the field crosses zero, closed at the box's wall.

    Returns vertices (V,3) float32 in world units and faces (F,3) int64, wound so that normals point outward.
    Ambiguous faces are decided by the sign at their bilinear saddle (Nielson and Hamann 1991), which both neighbours
    compute from the same four values. Raises NoSurface when no cell changes sign.
    """
    device = volume.values.device
    at_a_time = BRICKS_AT_A_TIME if device.type == "cpu" else max(1, len(volume.grid))
    # Per voxel: the number of its first vertex * 8, plus which of its three edges hold one; nothing where none does.
    numbers = torch.empty(volume.values.shape, dtype=torch.int32, device=device)
    parts, vertices, total = [], [torch.empty((0, 3), device=device)], 0
    for bricks in torch.split(torch.arange(len(volume.grid), device=device), at_a_time):
        part, found = _cells_and_vertices(volume, bricks, numbers, total)
        parts.append(part)
        vertices.append(found)
        total += len(found)
    if total == 0:
        raise NoSurface
    return _with_faces(volume, parts, torch.cat(vertices), numbers)


def _cells_and_vertices(volume: SparseVolume, bricks: Tensor, numbers: Tensor, total: int) -> tuple[_Part, Tensor]:
    """Find the cells of `bricks` whose corners are all known and differ in sign, and the vertices on their own edges.

    Returns the cells and vertices (V,3) float32, world; these are numbered from `total` on in `numbers`.
    """
    values = volume.grid.ghost_cells(volume.values, 0, 1, torch.nan, bricks)
    code = (values > 0).to(torch.int16).masked_fill_(values.isnan(), UNKNOWN)
    code = code[:, :-1] | code[:, 1:] << 1
    code = code[:, :, :-1] | code[:, :, 1:] << 2
    code = (code[:, :, :, :-1] | code[:, :, :, 1:] << 4).reshape(-1)
    active = ((code > 0) & (code < 255)).nonzero().squeeze(1)
    tables = _tables(values.device)
    brick, voxel, case = active >> 9, active & VOXELS - 1, code.index_select(0, active).int()
    address = (brick * SPAN**3).int() + tables.address.index_select(0, voxel)
    part = _Part(bricks, address, _rows(values.view(-1), address, case))
    own = tables.own_bits.index_select(0, case)
    count = (own & 1) + (own >> 1 & 1) + (own >> 2)
    numbers.view(-1)[bricks[brick] * VOXELS + voxel] = (count.cumsum(0, dtype=torch.int32) - count + total) << 3 | own
    origin = volume.grid.coordinates[bricks, 1:].float() * BRICK - volume.origin
    points = origin.index_select(0, brick) + tables.local.index_select(0, voxel)
    vertices = _edge_vertices(values.view(-1), address, own, points)
    return part, vertices / volume.resolution * (2 * volume.bounds) - volume.bounds


def _rows(values: Tensor, address: Tensor, case: Tensor) -> Tensor:
    """Return the table row (M,) int64 of every cell: its case (M,), and how its ambiguous faces are cut."""
    tables = _tables(values.device)
    row = tables.first_row.index_select(0, case)
    unclear = tables.unclear.index_select(0, case).nonzero().squeeze(1)
    a, b, c, d = values[address[unclear].long()[:, None, None] + tables.face_steps].unbind(-1)
    joined = torch.where(a > 0, a * c > b * d, b * d > a * c)
    row[unclear] += (tables.face_bits[case[unclear]] * joined).sum(1)
    return row


def _edge_vertices(values: Tensor, address: Tensor, own: Tensor, points: Tensor) -> Tensor:
    """Place vertices (V,3) float32 by linear interpolation on the edges `own` of points (M,3) in lattice units."""
    bits = torch.tensor([1, 2, 4], dtype=torch.int32, device=own.device)
    cell, axis = (own[:, None] & bits).nonzero().unbind(1)
    steps = torch.tensor([SPAN**2, SPAN, 1], dtype=torch.int32, device=own.device)
    start = address.index_select(0, cell)
    near = values.index_select(0, start)
    far = values.index_select(0, start + steps.index_select(0, axis))
    step = (near / (near - far)).nan_to_num_(nan=1 - END_DISTANCE).clamp_(END_DISTANCE, 1 - END_DISTANCE)
    return points.index_select(0, cell).scatter_add_(1, axis[:, None], step[:, None])


def _with_faces(volume: SparseVolume, parts: list[_Part], vertices: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the vertices, with those amid cells added, and the faces (F,3) int64 of all parts."""
    counts = _tables(vertices.device).row_count
    sizes = [int(counts.index_select(0, part.row).sum()) for part in parts]
    faces = torch.empty((sum(sizes), 3), dtype=torch.int64, device=vertices.device)
    extra: list[Tensor] = [vertices]
    total = len(vertices)
    for part, own_faces in zip(parts, torch.split(faces, sizes), strict=True):
        margin = volume.grid.ghost_cells(numbers, 0, 1, 0, part.bricks).view(-1)
        centres, cell = _centres(part, margin, vertices)
        _fill_faces(own_faces, part, margin, cell, total)
        extra.append(centres)
        total += len(centres)
    return torch.cat(extra), faces


def _centres(part: _Part, margin: Tensor, vertices: Tensor) -> tuple[Tensor, Tensor]:
    """Return extra vertices (N,3), amid those on the edges around, and the cells (N,) int64 that need one."""
    tables = _tables(margin.device)
    cell = tables.has_centre.index_select(0, part.row).nonzero().squeeze(1)
    around = tables.centre_edges[part.row[cell]]
    total = torch.zeros((len(cell), 3), device=vertices.device)
    for number, (lower, _) in enumerate(marching_cubes_table().edges if len(cell) else ()):
        packed = margin[part.address[cell].long() + _step(lower)]
        taken = around[:, number]
        vertex = torch.where(taken, _vertex_number(packed, packed & (1 << number // 4) - 1), 0)
        total += torch.where(taken[:, None], vertices[vertex], 0.0)
    return total / around.sum(1, keepdim=True), cell


def _vertex_number(packed: Tensor, before: Tensor) -> Tensor:
    """Return the number of a vertex on a voxel's edge: those on the axes `before`, a mask of 2 bits, come first."""
    return (packed >> 3) + before - (before >> 1)


def _fill_faces(faces: Tensor, part: _Part, margin: Tensor, centre_cell: Tensor, first_centre: int) -> None:
    """Write the faces (F,3) int64 of a part's cells, row by row of the table.

    margin : (729 n,) int32 vertex numbers. centre_cell : (N,) int64 cells with an extra vertex, from first_centre on.
    """
    tables = _tables(margin.device)
    count = tables.row_count.index_select(0, part.row)
    cells = torch.arange(len(part.row), dtype=torch.int32, device=margin.device)
    cell = torch.repeat_interleave(cells, count, output_size=len(faces))
    shift = tables.row_start.index_select(0, part.row) - (count.cumsum(0, dtype=torch.int32) - count)
    triangle = torch.arange(len(faces), dtype=torch.int32, device=margin.device) + shift.index_select(0, cell)
    entries = tables.entries.index_select(0, triangle)
    corner = (entries >> 2) + part.address.index_select(0, cell)[:, None]
    packed = margin.index_select(0, corner.view(-1)).view(-1, 3)
    faces.copy_(_vertex_number(packed, packed & entries & 3))
    if len(centre_cell) > 0:
        number = torch.zeros(len(part.row), dtype=torch.int64, device=margin.device)
        number[centre_cell] = torch.arange(len(centre_cell), device=margin.device) + first_centre
        faces.copy_(torch.where(tables.is_centre[triangle], number[cell][:, None], faces))
