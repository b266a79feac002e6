"""docs/rooms.md shows the imports that are there."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tests.support.rooms import PICTURE, arrows_of, drawn_arrows, drawn_rooms, imported_rooms

ROOT = Path(__file__).parents[1]
TEXT = PICTURE.read_text()


def test_every_room_is_drawn_once_and_described() -> None:
    imports = imported_rooms()
    assert set(drawn_rooms(TEXT)) == {room for pair in imports for room in pair}
    table = TEXT.split("|---|---|")[1]
    ground = {
        "command",
        "config",
        "limits",
        "errors",
        "field_errors",
        "field_texts",
        "field_types",
        "outgoing",
        "periodic",
        "secret_files",
        "setting_values",
    }
    assert [room for room in drawn_rooms(TEXT) if room not in ground and f"`{room}`" not in table] == []


def test_every_import_between_rooms_has_its_arrow_and_every_arrow_an_import() -> None:
    made = arrows_of(imported_rooms(), drawn_rooms(TEXT))
    drawn = drawn_arrows(TEXT)
    missing = [f"{above} --> {below}  ({made[above, below]})" for above, below in sorted(set(made) - drawn)]
    untrue = [f"{above} --> {below}" for above, below in sorted(drawn - set(made))]
    assert (missing, untrue) == ([], [])


def test_the_picture_and_the_linter_know_the_same_rooms() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["backend"])
    rooms = {room.strip(" ") for layer in layers for room in layer.split(":")}
    assert {room for room in rooms if "(" not in room} == set(drawn_rooms(TEXT)) - {"orfeas_client"}
