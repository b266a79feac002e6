"""A clock that is set must not open the door to replays: what the stores of nonces make of one that jumps.

One that jumps ahead would end every nonce at once, and one that jumps back would make the requests good again. So a
nonce is forgotten only once its time is over by the clock and by a request that was accepted since, and while the clock
stands behind the newest accepted request, what could have been forgotten is refused by its timestamp:

    forgotten at e  =>  noted at n = e - ttl < newest - ttl  =>  timestamp <= n + tolerance < newest - tolerance

as ttl is at least twice the tolerance. This module does not know where nonces are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from backend.errors import AuthExpired

JUMP = timedelta(seconds=5)
"""Clocks of several machines may differ by less."""


@dataclass(frozen=True)
class SignedAt:
    """When a request says that it was signed, and how far from the present that may be."""

    time: datetime
    tolerance: timedelta


def forgettable(now: datetime, newest: datetime | None) -> datetime:
    """Return the time before which nonces must have ended to be forgotten; newest : when one was last accepted."""
    return min(now, newest or now)


def require_no_jump_back(now: datetime, newest: datetime | None, signed: SignedAt | None) -> None:
    """Refuse a request that could be one of those whose nonces were forgotten before the clock was set back.

    newest : when a request was last accepted, by the service's clock. Raises AuthExpired, whose server_time is a time
    that would do.
    """
    if newest is None or signed is None or now >= newest - JUMP:
        return
    earliest = newest - signed.tolerance
    if signed.time < earliest:
        raise AuthExpired(
            "The service's clock was set back; until it has caught up, requests must be signed for a later time.",
            details={
                "server_time": math.ceil(max(now, earliest).timestamp()),
                "tolerance_seconds": int(signed.tolerance.total_seconds()),
            },
        )
