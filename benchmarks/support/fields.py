"""Fields whose surfaces are known in closed form, and what is measured on the meshes found in them.

Shapes are functions of points (...,3) -> values (...), positive inside. Used by tests and benchmarks; this module does
not know how a field is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from backend.hunyuan3d.volume.decode import Field

Shape = Callable[[Tensor], Tensor]


@dataclass
class AnalyticField:
    """A batch of closed-form fields, one shape for each image, that remembers what it was asked."""

    shapes: Sequence[Shape]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    remember: bool = False
    calls: list[tuple[Tensor, int]] = field(default_factory=list)

    @property
    def batch_size(self) -> int:
        return len(self.shapes)

    def __call__(self, points: Tensor, image: int) -> Tensor:
        if self.remember:
            self.calls.append((points, image))
        return self.shapes[image](points)


@dataclass(frozen=True)
class FieldAround:
    """A field in another's place, which it asks."""

    inner: Field

    @property
    def batch_size(self) -> int:
        return self.inner.batch_size

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def __call__(self, points: Tensor, image: int) -> Tensor:
        return self.inner(points, image)


def norm(vectors: Tensor) -> Tensor:
    """Return the length of vectors (...,3)."""
    return vectors.square().sum(-1).sqrt()


def sphere(radius: float = 0.8, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Shape:
    """Return the signed distance to a ball."""

    def distance(p: Tensor) -> Tensor:
        return radius - norm(p - torch.tensor(centre, device=p.device))

    return distance


def torus(notify: float = 0.6, tube: float = 0.22) -> Shape:
    """Return the signed distance to a torus around the Y axis."""
    return lambda p: tube - torch.hypot(torch.hypot(p[..., 0], p[..., 2]) - notify, p[..., 1])


def box(half: tuple[float, float, float]) -> Shape:
    """Return the signed distance to a box."""
    return lambda p: -_outside_box(p.abs() - torch.tensor(half, device=p.device))


def _outside_box(q: Tensor) -> Tensor:
    return norm(q.clamp(min=0)) + q.amax(-1).clamp(max=0)


def thin_plate(thickness: float, half: float = 0.7) -> Shape:
    """Return a square plate, tilted so that it lies along no lattice plane."""
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.35, 0.2], [0.35, 0.0, -0.5], [-0.2, 0.5, 0.0]]))
    plate = box((half, thickness / 2, half))

    def distance(p: Tensor) -> Tensor:
        return plate(p @ turn.to(p.device))

    return distance


def two_balls(gap: float, radius: float = 0.4) -> Shape:
    """Return two balls that nearly touch."""
    direction = torch.tensor([0.62, 0.54, 0.57])
    x, y, z = (direction / norm(direction) * (radius + gap / 2)).tolist()
    one, other = sphere(radius, (x, y, z)), sphere(radius, (-x, -y, -z))
    return lambda p: torch.maximum(one(p), other(p))


def box_frame(bar: float, half: float = 0.7) -> Shape:
    """Return the twelve edges of a cube as bars `bar` thick."""

    def distance(p: Tensor) -> Tensor:
        outer = p.abs() - half
        inner = (outer + bar / 2).abs() - bar / 2
        bars = [_outside_box(torch.where(torch.arange(3, device=p.device) == axis, outer, inner)) for axis in range(3)]
        return -torch.stack(bars).amin(0)

    return distance


def gyroid_in_ball(radius: float = 0.9, frequency: float = 12.0, wall: float = 0.35) -> Shape:
    """Return a thick gyroid sheet within a ball: a large surface of high genus."""

    def value(p: Tensor) -> Tensor:
        x, y, z = (p * frequency).unbind(-1)
        sheet = torch.sin(x) * torch.cos(y) + torch.sin(y) * torch.cos(z) + torch.sin(z) * torch.cos(x)
        return torch.minimum((wall - sheet.abs()) / frequency, radius - norm(p))

    return value


def truncated(shape: Shape, distance: float = 0.05) -> Shape:
    """Return the field that a truncated signed distance gives: between -1 and 1, flat beyond `distance`."""
    return lambda p: (shape(p) / distance).clamp(-1, 1)


def waves(seed: int, frequency: float, count: int = 12) -> Shape:
    """Return a random sum of sines, of wave numbers around `frequency`."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(3, count, generator=generator) * frequency
    phase, weight = torch.rand(count, generator=generator) * 6.28, torch.randn(count, generator=generator)

    def value(p: Tensor) -> Tensor:
        return torch.sin(p @ direction.to(p.device) + phase.to(p.device)) @ weight.to(p.device) - 0.5

    return value


def bumps(seed: int, width: float, count: int = 10) -> Shape:
    """Return a random sum of gaussians from `width` to four times as wide; no distance, and flat far from them."""
    generator = torch.Generator().manual_seed(seed)
    centre = (torch.rand(count, 3, generator=generator) - 0.5) * 1.4
    sigma = width * (1 + 3 * torch.rand(count, generator=generator))
    weight = torch.randn(count, generator=generator) + 0.8

    def value(p: Tensor) -> Tensor:
        squares = (p[..., None, :] - centre.to(p.device)).square().sum(-1)
        return torch.exp(-squares / (2 * sigma.to(p.device).square())) @ weight.to(p.device) - 0.3

    return value


def small_balls(seed: int, radius: float, count: int = 15) -> Shape:
    """Return the signed distance to balls from `radius` to three times as large, strewn about."""
    generator = torch.Generator().manual_seed(seed)
    centre = (torch.rand(count, 3, generator=generator) - 0.5) * 1.6
    radii = radius * (1 + 2 * torch.rand(count, generator=generator))

    def distance(p: Tensor) -> Tensor:
        return (radii.to(p.device) - norm(p[..., None, :] - centre.to(p.device))).amax(-1)

    return distance


def required_shapes(resolution: int) -> dict[str, Shape]:
    """Return the shapes that coarse-to-fine decoding has to get right, thin parts in cells, plain and truncated."""
    cell = 2.02 / resolution
    plain = {
        "sphere": sphere(),
        "torus": torus(),
        "thin plate": thin_plate(2 * cell),
        "two balls": two_balls(cell),
        "box frame": box_frame(2 * cell),
    }
    return plain | {f"{name}, truncated": truncated(shape) for name, shape in plain.items()}


@dataclass(frozen=True)
class Topology:
    """Connected parts of a closed mesh, and its handles, all parts together."""

    components: int
    genus: int


def topology(vertices: Tensor, faces: Tensor) -> Topology:
    """Return components and genus of a watertight mesh, from Euler's formula V - E + F = 2 (components - genus)."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).numpy()
    links = coo_matrix((torch.ones(len(edges)).numpy(), (edges[:, 0], edges[:, 1])), shape=(len(vertices),) * 2)
    components = int(connected_components(links, directed=False)[0])
    euler = len(vertices) - len(edges) // 2 + len(faces)
    return Topology(components, components - euler // 2)


def hausdorff(one: Tensor, other: Tensor) -> float:
    """Return the symmetric Hausdorff distance between the vertices (V,3) of two meshes, world units."""
    there, _ = cKDTree(other.numpy()).query(one.numpy())
    back, _ = cKDTree(one.numpy()).query(other.numpy())
    return max(float(there.max()), float(back.max()))
