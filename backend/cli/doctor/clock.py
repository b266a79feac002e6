"""The clock: that it runs evenly, and agrees with those of the servers that the settings name.

This module does not know what hangs on the time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import text

from backend.auth.redis_client import redis_options
from backend.cli.doctor.checks import WrongError
from backend.cli.doctor.stores import place_of, redis_addresses
from backend.config import Settings
from backend.errors import ServiceError
from backend.storage.database import Database

LARGEST_OFFSET = 2.0
"""Seconds that two machines' clocks may be apart. Leases last far longer; at this much something sets no clock."""

_JUMP = 0.05
_EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)


def look_at_clock(
    settings: Settings,
    wall: Callable[[], float] = time.time,
    steady: Callable[[], float] = time.monotonic,
    others: Mapping[str, Callable[[], float]] | None = None,
) -> str:
    """Tell that the clock is right as far as can be seen. Raises WrongError.

    wall : unix seconds; steady : seconds that only grow; others : unix seconds as each other machine tells them
    """
    first, began = wall(), steady()
    time.sleep(0.1)
    passed, meant = wall() - first, steady() - began
    if meant <= 0 or abs(passed - meant) > _JUMP:
        raise WrongError("This machine's clock jumps: let one program set it, in small steps (chrony).")
    if first < _EARLIEST.timestamp():
        raise WrongError(f"This machine's clock says {datetime.fromtimestamp(first, UTC):%Y-%m-%d}: set it by NTP.")
    offsets = _offsets(wall, other_clocks(settings) if others is None else others)
    for name, offset in offsets.items():
        if abs(offset) > LARGEST_OFFSET:
            side = "ahead of" if offset > 0 else "behind"
            raise WrongError(f"This machine's clock is {abs(offset):.0f} s {side} that of {name}: set both by NTP.")
    return "It runs evenly" + (f" and agrees with that of {' and '.join(offsets)}." if offsets else ".")


def other_clocks(settings: Settings) -> Mapping[str, Callable[[], float]]:
    """Return how to ask the time of each server that the settings name."""
    clocks: dict[str, Callable[[], float]] = {}
    if settings.database_url.startswith("postgresql"):
        clocks["the database"] = partial(_database_time, settings.database_url)
    for url in redis_addresses(settings):
        clocks[f"Redis at {place_of(url)}"] = partial(_redis_time, url)
    return clocks


def _offsets(wall: Callable[[], float], others: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    offsets = {}
    for name, tell in others.items():
        # That one does not answer is another check's to say.
        with contextlib.suppress(ServiceError, OSError):
            offsets[name] = wall() - tell()
    return offsets


def _database_time(url: str) -> float:
    database = Database.open(url)
    try:
        with database.read() as connection:
            return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
    finally:
        database.close()


def _redis_time(url: str) -> float:
    options = redis_options()
    import redis

    try:
        with redis.Redis.from_url(url, **options) as client:
            seconds, microseconds = client.time()
    except redis.RedisError as error:
        raise OSError(str(error)) from error
    return float(seconds) + float(microseconds) / 1e6
