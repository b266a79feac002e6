"""The marching cubes table, worked out by code: which triangles a cell holds for every pattern of corner signs.

Corner c of a cell stands at (c & 1, c >> 1 & 1, c >> 2 & 1). Edge 4a+r runs along axis a from the r-th corner whose bit
a is 0. Face 2a+s is the one across axis a on side s. A face whose corners alternate in sign can be cut in two ways; the
row of a case is chosen by one bit for every such face, 1 where the inside is joined across it. This module does not
know fields, lattices or tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

Triangle = tuple[int, int, int]
CENTRE = 12  # stands in a triangle for one more vertex amid the loop's own, on no edge


@dataclass(frozen=True)
class MarchingCubesTable:
    """Rows of triangles (edge numbers, wound so that normals leave the inside), found by case and face bits.

    A case is the sum of 2^c over the corners c inside; its rows begin at `first_row[case]` and are numbered by the bits
    of its ambiguous faces, the first face lowest.
    """

    edges: tuple[tuple[int, int], ...]
    faces: tuple[tuple[int, int, int, int], ...]
    first_row: tuple[int, ...]
    ambiguous_faces: tuple[tuple[int, ...], ...]
    rows: tuple[tuple[Triangle, ...], ...]
    centres: tuple[tuple[int, ...], ...]


@cache
def marching_cubes_table() -> MarchingCubesTable:
    """Build the table; all 256 cases with every choice on their ambiguous faces."""
    first_row: list[int] = []
    ambiguous: list[tuple[int, ...]] = []
    rows: list[tuple[Triangle, ...]] = []
    centres: list[tuple[int, ...]] = []
    for case in range(256):
        first_row.append(len(rows))
        ambiguous.append(tuple(f for f, corners in enumerate(_faces()) if _is_ambiguous(case, corners)))
        for choice in product((False, True), repeat=len(ambiguous[-1])):
            joined = dict(zip(ambiguous[-1], reversed(choice), strict=True))
            triangles, centre = _row(case, joined)
            rows.append(triangles)
            centres.append(centre)
    return MarchingCubesTable(_edges(), _faces(), tuple(first_row), tuple(ambiguous), tuple(rows), tuple(centres))


@cache
def _edges() -> tuple[tuple[int, int], ...]:
    """Return the two corners of every edge, lower one first."""
    return tuple((c, c | 1 << axis) for axis in range(3) for c in range(8) if not c >> axis & 1)


@cache
def _faces() -> tuple[tuple[int, int, int, int], ...]:
    """Return the corners around every face, anticlockwise as seen from outside."""
    faces: list[tuple[int, int, int, int]] = []
    for axis in range(3):
        u, v = 1 << (axis + 1) % 3, 1 << (axis + 2) % 3
        high = 1 << axis
        faces += [(v, u | v, u, 0), (high, high | u, high | u | v, high | v)]
    return tuple(faces)


@cache
def _face_edges() -> tuple[tuple[int, ...], ...]:
    """Edge i of a face joins its corners i and i+1."""
    number = {frozenset(edge): i for i, edge in enumerate(_edges())}
    return tuple(tuple(number[frozenset((f[i], f[(i + 1) % 4]))] for i in range(4)) for f in _faces())


def _is_ambiguous(case: int, corners: tuple[int, int, int, int]) -> bool:
    a, b, c, d = (case >> corner & 1 for corner in corners)
    return a == c != b == d


def _row(case: int, joined: dict[int, bool]) -> tuple[tuple[Triangle, ...], tuple[int, ...]]:
    """Triangles of one case, and the edges around its extra vertex (none: empty)."""
    triangles: list[Triangle] = []
    centre: tuple[int, ...] = ()
    for loop in _loops(case, joined):
        found = _triangulate(loop)
        if found is None:
            # Such a loop has 8 edges or more of the cell's 12: there is one at most.
            centre = loop
            found = tuple((loop[i - 1], loop[i], CENTRE) for i in range(len(loop)))
        triangles += found
    return tuple(triangles), centre


def _loops(case: int, joined: dict[int, bool]) -> list[tuple[int, ...]]:
    """Cut every face along segments between its crossed edges, and follow the segments around the cell.

    Going around a face anticlockwise, a segment starts where the inside is entered and ends where it is left. An edge
    is entered on one of its faces and left on the other, so that the segments close to loops.
    """
    following: dict[int, int] = {}
    for face, (corners, edges) in enumerate(zip(_faces(), _face_edges(), strict=True)):
        inside = [bool(case >> corner & 1) for corner in corners]
        entering = [i for i in range(4) if not inside[i] and inside[(i + 1) % 4]]
        for start in entering:
            step = -1 if joined.get(face, False) else 1
            end = (start + step) % 4
            while not (inside[end] and not inside[(end + 1) % 4]):
                end = (end + step) % 4
            following[edges[start]] = edges[end]
    loops: list[tuple[int, ...]] = []
    while following:
        edge = min(following)
        loop = []
        while edge in following:
            loop.append(edge)
            edge = following.pop(edge)
        loops.append(tuple(loop))
    return loops


@cache
def _triangulate(loop: tuple[int, ...]) -> tuple[Triangle, ...] | None:
    """Cut a loop into triangles by the shortest diagonals, none of which lies in a face of the cell.

    The neighbour across a face might draw the same diagonal, and four triangles would meet there. None: impossible.
    """
    last = len(loop) - 1

    def cost(i: int, j: int) -> float | None:
        return 0.0 if j - i in (1, last) else _diagonal(loop[i], loop[j])

    @cache
    def best(i: int, j: int) -> tuple[float, tuple[Triangle, ...]] | None:
        own = cost(i, j)
        if own is None or j - i == 1:
            return None if own is None else (own, ())
        options = []
        for k in range(i + 1, j):
            left, right = best(i, k), best(k, j)
            if left is not None and right is not None:
                triangle = (loop[i], loop[k], loop[j])
                options.append((own + left[0] + right[0], (*left[1], *right[1], triangle)))
        return min(options, default=None)

    found = best(0, last)
    return None if found is None else found[1]


@cache
def _diagonal(one: int, other: int) -> float | None:
    """Return the squared length of the line between two edges' middles; None for one that lies in a face."""
    if any(one in edges and other in edges for edges in _face_edges()):
        return None
    return sum((p - q) ** 2 for p, q in zip(_middle(one), _middle(other), strict=True))


def _middle(edge: int) -> tuple[float, ...]:
    a, b = _edges()[edge]
    return tuple(((a >> axis & 1) + (b >> axis & 1)) / 2 for axis in range(3))
