"""The code that opens the studio: good once, in time, for few tries, and kept as a hash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from backend.auth.studio_codes import LIFETIME, MOST_TRIES, StudioCodes
from backend.errors import StudioCodeInvalid
from backend.jobs.schema import studio_codes
from backend.storage.database import Database
from tests.support.store_backends import BACKENDS, ManualClock, empty_database, open_database


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with open_database(empty_database(request.param, tmp_path)) as found:
        yield found


def test_a_code_is_good_once_and_kept_as_a_hash(database: Database) -> None:
    codes = StudioCodes(database, ManualClock())
    code = codes.make()
    assert len(code) == 22  # 128 bits in base64
    with database.read() as connection:
        (row,) = connection.execute(select(studio_codes.c.code_hash)).all()
    assert code not in str(row)
    codes.redeem(code)
    with pytest.raises(StudioCodeInvalid):
        codes.redeem(code)


def test_a_new_code_ends_the_one_before(database: Database) -> None:
    codes = StudioCodes(database, ManualClock())
    before, code = codes.make(), codes.make()
    with pytest.raises(StudioCodeInvalid):
        codes.redeem(before)
    codes.redeem(code)


def test_a_code_ends_with_its_time(database: Database) -> None:
    clock = ManualClock()
    codes = StudioCodes(database, clock)
    code = codes.make()
    clock.advance(LIFETIME.total_seconds())
    with pytest.raises(StudioCodeInvalid):
        codes.redeem(code)


@pytest.mark.parametrize("wrong", [MOST_TRIES - 1, MOST_TRIES])
def test_five_wrong_tries_end_a_code(database: Database, wrong: int) -> None:
    codes = StudioCodes(database, ManualClock())
    code = codes.make()
    for k in range(wrong):
        with pytest.raises(StudioCodeInvalid):
            codes.redeem(f"{code[:-1]}{k}\udc80")
    if wrong < MOST_TRIES:
        codes.redeem(code)
    else:
        with pytest.raises(StudioCodeInvalid):
            codes.redeem(code)
