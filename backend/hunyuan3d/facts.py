"""What a caller hears beside a result: how its image was cut out, and what should be said of the image or the mesh.

Imports nothing, because the image's side and the mesh's both speak of it. This module does not know when what is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RemarkCode = Literal[
    "CUTOUT_DOUBTFUL",
    "OBJECT_TOUCHES_BORDER",
    "SEVERAL_OBJECTS",
    "LOW_CONTRAST",
    "MANY_PARTS",
    "LEANS",
    "THIN_WALLS",
]


@dataclass(frozen=True)
class Remark:
    """A warning: a code for programs, and a sentence that says what to do."""

    code: RemarkCode
    message: str


@dataclass(frozen=True)
class BackgroundFacts:
    """How an object was cut out.

    method : alpha, rembg, flood, grabcut and so on, or none. score : how sure the cut-out is, 0..1; None where nobody
    judged it. border : share of the image's border that the object covers, 0..1. objects : pieces that do not touch.
    """

    method: str
    score: float | None
    border: float
    objects: int


def of_several(views: list[BackgroundFacts]) -> BackgroundFacts:
    """Return the facts of several views of one object as one: the least sure score, the widest border, most pieces."""
    scores = [view.score for view in views if view.score is not None]
    return BackgroundFacts(
        ", ".join(sorted({view.method for view in views})),
        min(scores, default=None),
        max(view.border for view in views),
        max(view.objects for view in views),
    )


UnusedOutline = Literal["doubtful", "border", "soft"]
"""Why an outline is not relied on: the cut-out is doubtful, ends at the image's border, or is soft as glass is."""


@dataclass(frozen=True)
class OutlineFacts:
    """How far the network's own silhouette was from the image's, before the field was made to follow the outline.

    carved, filled : what was taken away beyond the outline and what was added within it, as shares of the cut-out's
    area. joined : parts that hang together in the outline and did not in depth, until struts joined them.
    """

    carved: float
    filled: float
    joined: int = 0

    @property
    def raw_silhouette_iou(self) -> float:
        """Intersection over union of the network's own silhouette with the cut-out's, 0 to 1."""
        return (1 - self.filled) / (1 + self.carved)
