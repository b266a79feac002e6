"""The rooms as docs/rooms.md draws them, and as the code's imports make them.

`python -m tests.support.rooms` draws the arrows anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import grimp

PICTURE = Path(__file__).parents[2] / "docs" / "rooms.md"
GROUND = "ground"
"""The drawn room that every other may use without an arrow."""

Arrow = tuple[str, str]


def drawn_rooms(text: str) -> dict[str, str]:
    """Return the drawn room that each room of the code belongs to."""
    return {
        room: name
        for name, rooms in re.findall(r'^ +(\w+)\["([^"]+)"\]$', text, re.MULTILINE)
        for room in rooms.split(", ")
    }


def drawn_arrows(text: str) -> set[Arrow]:
    """Read every arrow, from the one who imports."""
    return {(above, below) for above, below in re.findall(r"^ +(\w+) --> (\w+)$", text, re.MULTILINE)}


def imported_rooms() -> dict[Arrow, str]:
    """Find every import between two rooms, late ones and those for types too, with one module that does it."""
    graph = grimp.build_graph("backend", "orfeas_client", exclude_type_checking_imports=False, cache_dir=None)
    found: dict[Arrow, str] = {}
    for module in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            rooms = _room(module), _room(imported)
            # The package itself has nothing but the version.
            if rooms[0] != rooms[1] and "backend" not in rooms:
                found.setdefault(rooms, f"{module} imports {imported}")
    return found


def arrows_of(imports: Mapping[Arrow, str], belongs: Mapping[str, str]) -> dict[Arrow, str]:
    """Make the arrows that imports between rooms make between drawn rooms, with one module that does it."""
    arrows: dict[Arrow, str] = {}
    for (above, below), reason in imports.items():
        ends = belongs[above], belongs[below]
        if ends[0] != ends[1] and ends[1] != GROUND:
            arrows.setdefault(ends, reason)
    return arrows


def _room(module: str) -> str:
    top, *rest = module.split(".")
    return rest[0] if rest and top == "backend" else top


def redrawn(text: str) -> str:
    """Return the picture with the arrows that the code makes, in the order of its rooms."""
    belongs = drawn_rooms(text)
    order = list(dict.fromkeys(belongs.values()))
    made = arrows_of(imported_rooms(), belongs)
    arrows = sorted(made, key=lambda arrow: (order.index(arrow[0]), order.index(arrow[1])))
    without = re.sub(r"^ +\w+ --> \w+\n", "", text, flags=re.MULTILINE)
    head, fence, tail = without.partition("```mermaid\n")
    body, end, rest = tail.partition("```\n")
    return head + fence + body + "".join(f"    {above} --> {below}\n" for above, below in arrows) + end + rest


if __name__ == "__main__":
    PICTURE.write_text(redrawn(PICTURE.read_text()))
