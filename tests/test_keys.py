"""`orfeas keys`: rotates, and says what that means."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from backend.auth.link_keys import SqlLinkKeys
from backend.cli.keys import run
from backend.config import Settings
from backend.periodic import utc_now
from backend.storage.migrations import migrate
from tests.support.store_backends import open_database


def rotated(folder: Path) -> str:
    output = io.StringIO()
    assert run(["rotate"], {"ORFEAS_DATA_DIR": str(folder)}, output) == 0
    return output.getvalue()


def test_keys_are_rotated_and_the_one_before_is_named(tmp_path: Path) -> None:
    url = Settings(data_dir=tmp_path).database_url
    migrate(url)
    assert rotated(tmp_path) == "Links are signed with a new key from now on. There was none before.\n"
    with open_database(url) as database:
        first = SqlLinkKeys(database, utc_now).newest()
        said = rotated(tmp_path)
        assert SqlLinkKeys(database, utc_now).accepted()[1] == first
    assert "are good until their time is over; older ones end now." in said
    assert first not in said


def test_a_database_of_another_version_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rotate"], {"ORFEAS_DATA_DIR": str(tmp_path)}, io.StringIO()) == 1
    assert "no tables yet: start the service once, or run `orfeas migrate`." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
