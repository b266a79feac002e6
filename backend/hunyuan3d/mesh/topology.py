"""Connectivity of triangle meshes on plain arrays: edges, pieces, and the repair of edges that join too many faces.

Knows indices and positions only: nothing of models, files, or of why a mesh came to be. Everything is vectorised; the
Python loops run over the few edges that are broken.

A closed, consistently wound surface has every edge once in each direction. Contracting edges (decimation) keeps the
two directions of every edge equally often, but may lay several sheets on one edge; `separate_sheets` takes these apart
again without opening the surface.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Vertices = NDArray[np.float64]
Faces = NDArray[np.int64]
Labels = NDArray[np.int64]

_NUDGE = 0.01
_MAX_PASSES = 6


def half_edges(faces: Faces) -> tuple[Labels, Labels]:
    """Return the origin and the end of the 3F directed edges; half edge 3f + k leaves corner k of face f."""
    return faces.reshape(-1), faces[:, [1, 2, 0]].reshape(-1)


def edge_keys(faces: Faces) -> tuple[Labels, NDArray[np.bool_]]:
    """Return each half edge's number (3F,), which its opposite shares, and whether it runs to the higher index."""
    origin, end = half_edges(faces)
    span = int(faces.max(initial=0)) + 1
    return np.minimum(origin, end) * span + np.maximum(origin, end), origin < end


def is_closed(faces: Faces) -> bool:
    """Return whether every edge belongs to exactly two faces that run along it in opposite directions."""
    if not len(faces):
        return False
    keys, forward = edge_keys(faces)
    rising, falling = np.sort(keys[forward]), np.sort(keys[~forward])
    return bool(np.array_equal(rising, falling) and (np.diff(rising) > 0).all())


def count_edges(faces: Faces) -> int:
    """Count the different undirected edges."""
    # numpy.unique holds the interpreter all the while; sorting lets other threads run.
    return len(_runs(np.sort(edge_keys(faces)[0]))[0]) if len(faces) else 0


def label_vertices(faces: Faces, vertex_count: int) -> Labels:
    """Label each vertex (V,), the same where vertices hang together through edges; unused ones stand alone."""
    return label_linked(np.concatenate([faces[:, :2], faces[:, 1:]]), vertex_count)


def label_linked(links: Labels, vertex_count: int) -> Labels:
    """Label each vertex (V,), the same where a chain of links (n, 2) joins them; labels rise with first use."""
    graph = coo_matrix((np.ones(len(links), np.bool_), (links[:, 0], links[:, 1])), shape=(vertex_count, vertex_count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def drop_unused(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces]:
    """Keep the vertices that a face uses, in their order; return them and the faces in the new numbering."""
    used = np.zeros(len(vertices), np.bool_)
    used[faces] = True
    if used.all():
        return vertices, faces
    return vertices[used], (np.cumsum(used, dtype=np.int64) - 1)[faces]


def used_bounds(vertices: Vertices, faces: Faces) -> tuple[Vertices, Vertices]:
    """Return the lowest and the highest corner (3,) of the vertices that a face uses; at least one face."""
    used = np.zeros(len(vertices), np.bool_)
    used[faces] = True
    points = vertices if used.all() else vertices[used]
    # Each axis by itself: numpy takes many times as long for all at once.
    return np.array([axis.min() for axis in points.T]), np.array([axis.max() for axis in points.T])


def cancel_duplicates(faces: Faces) -> Faces:
    """Drop faces with a repeated corner, folded pairs (same corners, opposite winding) and second copies.

    A folded pair encloses nothing: taking both away leaves the directions along every edge balanced.
    """
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    ordered = np.sort(faces, axis=1)
    order = np.lexsort(ordered.T)
    ordered = ordered[order]
    fresh = np.ones(len(faces), np.bool_)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    if fresh.all():
        return faces
    group = np.cumsum(fresh) - 1
    a, b, c = faces[order].T
    even = ((a < b).astype(np.int64) + (b < c) + (c < a)) % 2 == 0
    turn = np.where(even, 1, -1)
    total = np.bincount(group, weights=turn)
    keep = np.zeros(len(faces), np.bool_)
    wanted = np.flatnonzero(np.sign(total)[group] == turn)
    keep[wanted[np.unique(group[wanted], return_index=True)[1]]] = True
    return faces[np.sort(order[keep])]


def separate_sheets(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces]:
    """Take apart sheets that share an edge or a vertex without being neighbours around it.

    Vertices are doubled, and moved a hundredth of their edges' length towards their own sheet, so that files that
    hold positions only are read back apart. Where both ends of an edge must stay shared, the second sheet gets a
    vertex of its own in the edge's middle. Edges whose directions don't balance are left as they are.
    """
    for _ in range(_MAX_PASSES):
        vertices, faces = _double_shared_vertices(vertices, faces)
        crowded = _crowded_edges(faces)
        if not crowded:
            break
        vertices, faces = _split_crowded(vertices, faces, crowded)
    return nudge_coincident(vertices, faces), faces


def nudge_coincident(vertices: Vertices, faces: Faces) -> Vertices:
    """Move vertices that share one float32 position apart, each towards the middle of its own neighbours."""
    positions = np.ascontiguousarray(vertices.astype(np.float32) + np.float32(0))
    _, group, count = np.unique(positions.view("V12").reshape(-1), return_inverse=True, return_counts=True)
    shared = count[group.reshape(-1)] > 1
    if not shared.any():
        return vertices
    origin, end = half_edges(faces)
    near = shared[origin]
    total = np.zeros_like(vertices)
    np.add.at(total, origin[near], vertices[end[near]])
    degree = np.bincount(origin[near], minlength=len(vertices))
    chosen = shared & (degree > 0)
    moved = vertices.copy()
    moved[chosen] += _NUDGE * (total[chosen] / degree[chosen, None] - vertices[chosen])
    return moved


def _double_shared_vertices(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces]:
    """Give each closed fan of faces a vertex of its own: corners are one vertex only if paired edges join them."""
    first, second = _pair_half_edges(vertices, faces)
    corners = np.concatenate([first, _next_corner(first)])
    others = np.concatenate([_next_corner(second), second])
    size = faces.size
    graph = coo_matrix((np.ones(len(corners), np.bool_), (corners, others)), shape=(size, size))
    count, label = connected_components(graph, directed=False)
    used = np.zeros(len(vertices), np.bool_)
    used[faces] = True
    if count == used.sum():
        return vertices, faces
    old = np.zeros(count, np.int64)
    old[label] = faces.reshape(-1)
    return vertices[old], np.asarray(label, dtype=np.int64).reshape(-1, 3)


def _next_corner(half: Labels) -> Labels:
    return half - half % 3 + (half + 1) % 3


def _pair_half_edges(vertices: Vertices, faces: Faces) -> tuple[Labels, Labels]:
    """Return half edges and their opposites: by twos where an edge has two, else by the angle around the edge."""
    keys, forward = edge_keys(faces)
    order = np.lexsort((forward, keys))
    starts, counts = _runs(keys[order])
    simple = starts[counts == 2]
    simple = simple[forward[order[simple]] != forward[order[simple + 1]]]
    first, second = [order[simple]], [order[simple + 1]]
    for start, count in zip(starts[counts > 2], counts[counts > 2], strict=True):
        pairs = _pair_by_angle(vertices, faces, order[start : start + count], forward)
        first.append(pairs[:, 0])
        second.append(pairs[:, 1])
    return np.concatenate(first), np.concatenate(second)


def _runs(ordered: Labels) -> tuple[Labels, Labels]:
    """Return where each run of equal values starts in a sorted array, and how long it is."""
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return starts, np.diff(np.concatenate([starts, [len(ordered)]]))


def _pair_by_angle(vertices: Vertices, faces: Faces, halves: Labels, forward: NDArray[np.bool_]) -> Labels:
    """Return pairs (n, 2) of half edges around one edge such that each pair bounds one wedge of the inside.

    Seen along the edge, the inside lies clockwise of a face that runs forward, up to the next one that runs back.
    """
    rising = forward[halves]
    if 2 * rising.sum() != len(halves):
        return np.empty((0, 2), np.int64)
    lead = halves[rising][0]
    start, end = faces.reshape(-1)[[lead, _next_corner(lead)]]
    axis = vertices[end] - vertices[start]
    axis = axis / max(float(np.linalg.norm(axis)), 1e-300)
    side = np.eye(3)[np.abs(axis).argmin()]
    side = side - axis * (side @ axis)
    reach = vertices[faces[halves // 3, (halves % 3 + 2) % 3]] - vertices[start]
    clockwise = halves[np.argsort(-np.arctan2(reach @ np.cross(axis, side), reach @ side), kind="stable")]
    return _match_brackets(clockwise, forward[clockwise])


def _match_brackets(ring: Labels, opens: NDArray[np.bool_]) -> Labels:
    """Match opening and closing entries of a balanced ring as brackets are matched: (n, 2)."""
    depth = np.cumsum(np.where(opens, 1, -1))
    turn = (int(depth.argmin()) + 1) % len(ring)
    waiting: list[int] = []
    pairs: list[tuple[int, int]] = []
    for half, opening in zip(np.roll(ring, -turn), np.roll(opens, -turn), strict=True):
        if opening:
            waiting.append(int(half))
        else:
            pairs.append((waiting.pop(), int(half)))
    return np.asarray(pairs, dtype=np.int64)


def _crowded_edges(faces: Faces) -> list[Labels]:
    """Return the half edges of each edge that more than two faces share."""
    keys, _ = edge_keys(faces)
    order = np.argsort(keys, kind="stable")
    starts, counts = _runs(keys[order])
    return [order[s : s + c] for s, c in zip(starts[counts > 2], counts[counts > 2], strict=True)]


def _split_crowded(vertices: Vertices, faces: Faces, crowded: list[Labels]) -> tuple[Vertices, Faces]:
    """Give all but one sheet on each crowded edge a vertex in the edge's middle; a face is cut once a pass."""
    forward = edge_keys(faces)[1]
    points, corners = [vertices], [faces.copy()]
    touched: set[int] = set()
    fresh = len(vertices)
    for halves in crowded:
        for pair in _pair_by_angle(vertices, faces, halves, forward)[1:]:
            pieces = [int(half) // 3 for half in pair]
            if touched.intersection(pieces):
                continue
            touched.update(pieces)
            ends = faces.reshape(-1)[[pair[0], _next_corner(pair[0])]]
            tips = faces[pair // 3, (pair % 3 + 2) % 3]
            middle = vertices[ends].mean(axis=0)
            points.append((middle + _NUDGE * (vertices[tips].mean(axis=0) - middle))[None])
            extra = corners[0][pieces].copy()
            corners[0][pieces, _next_corner(pair) % 3] = fresh
            extra[[0, 1], pair % 3] = fresh
            corners.append(extra)
            fresh += 1
    return np.concatenate(points), np.concatenate(corners)
