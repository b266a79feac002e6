"""What may be asked of a mesh on the client's command line: the options, and what was given of them.

The service checks ranges and fills in defaults. This module does not know what is done with what was given.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from orfeas_client.client import VIEWS
from orfeas_client.models import Fields

FORMATS = ("glb", "stl", "obj", "ply", "3mf", "usdz")
_ACCELERATIONS = ("none", "balanced", "fast")
FIELDS = (
    "format",
    "quality",
    "steps",
    "guidance_scale",
    "acceleration",
    "seed",
    "candidates",
    "keep",
    "target_faces",
    "remove_background",
    "scale_mm",
    "octree_resolution",
    "objects",
    "outline",
    "color",
    "place",
    "upright",
    "compress",
    "preview",
    "turntable",
    "label",
    "prompt",
    "image_seed",
)
_VIEW_HELP = "the object's {}, where the service's model takes several views of one object"


def add_views(parser: argparse.ArgumentParser) -> None:
    """Add an option for each view of one object."""
    for view in VIEWS:
        parser.add_argument(f"--{view}", type=Path, metavar="PICTURE", help=_VIEW_HELP.format(view))


def add_fields(parser: argparse.ArgumentParser) -> None:
    """Add an option for each field."""
    add = parser.add_argument
    add(
        "-f", "--format", action="extend", type=_format_names, metavar="FORMATS",
        help=f"{', '.join(FORMATS)}; comma lists, repeats; first the main one (default: the output's suffix, or glb)",
    )  # fmt: skip
    add("--preview", action="store_const", const=True, help="fetch the picture that the service draws of the mesh too")
    add("--turntable", action="store_const", const=True, help="have the mesh drawn as it turns as well")
    add("--quality", type=int, metavar="Q", help="1 to 10 (default: 7)")
    add("--steps", type=int, metavar="N", help="denoising steps, 10 to 100 (default: the checkpoint's)")
    add("--guidance-scale", type=float, metavar="G", help="0 to 20 (default: the checkpoint's)")
    add("--acceleration", choices=_ACCELERATIONS, help="faster, slightly different meshes (default: none)")
    add("--seed", type=int, metavar="S", help="0 to 2^32 - 1, or -1 for one that is drawn (the default)")
    add("--candidates", type=int, metavar="N", help="meshes to choose the best from, 1 to 8 (default: 1)")
    add("--keep", choices=("best", "all"), help="which of them are kept (default: best)")
    add("--target-faces", metavar="N", help="at most so many faces, 100 to 2 000 000, or none for all")
    add("--remove-background", choices=("auto", "always", "never"), help="default: auto")
    add("--scale-mm", type=float, metavar="MM", help="longest side in mm (default: 100)")
    add("--octree-resolution", type=int, metavar="R", help="cells a side, in place of what quality says")
    add("--objects", choices=("all", "largest"), help="which pieces are kept (default: all)")
    add(
        "--outline",
        choices=("auto", "off"),
        help="whether the mesh ends where the picture's outline does (default: auto)",
    )
    add("--color", choices=("auto", "none", "vertex", "texture"), help="colours from the picture (default: auto)")
    add("--place", choices=("ground", "center", "as_is"), help="where the mesh lies (default: ground)")
    add("--upright", choices=("auto", "off"), help="whether a mesh that leans is levelled (default: auto)")
    add("--compress", choices=("none", "meshopt", "draco"), help="of GLB files (default: none)")
    add("--prompt", metavar="TEXT", help="words in a picture's place, where the service draws pictures of such")
    add("--image-seed", type=int, metavar="S", help="draws the same picture of the same prompt again")
    add("--label", metavar="TEXT", help="what to call it: `jobs --label TEXT` finds it again")


def read_views(options: argparse.Namespace) -> dict[str, Path]:
    """Return the views that were given, by name."""
    given = {view: getattr(options, view) for view in VIEWS}
    return {view: path for view, path in given.items() if path is not None}


def read_fields(options: argparse.Namespace) -> Fields:
    """Return the fields that were given."""
    given: Fields = {}
    for name in FIELDS:
        value = getattr(options, name)
        if name == "format" and value is not None:
            value = ",".join(dict.fromkeys(value))
        if value is not None:
            given[name] = value  # type: ignore[literal-required]  # FIELDS are its keys, as a test sees to
    return given


def _format_names(text: str) -> list[str]:
    """Take a list of formats apart. Raises ArgumentTypeError."""
    names = [name.strip().lower() for name in text.split(",")]
    unknown = next((name for name in names if name not in FORMATS), None)
    if unknown is not None:
        raise argparse.ArgumentTypeError(f"the formats are {', '.join(FORMATS)}, not {unknown!r}")
    return names
