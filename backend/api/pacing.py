"""When a caller is to ask again how its jobs are: not before there is something to see, and never to be refused.

This module does not know what is answered.
"""

from __future__ import annotations

import math

from flask import Response

from backend.auth.rate_limits import RateState, rate_state
from backend.services import AgentServices

_SOONEST, _LATEST = 1, 20
_MINUTE = 60
_POLLS_SHARE = 0.6
"""Of an agent's calls, for asking how its jobs are; the others submit and fetch them."""


def poll_after(eta_seconds: float | None, asked_for: int, rate: RateState | None) -> int:
    """Return after how many seconds to ask again, so that whoever does so for all its jobs is never refused.

    asked_for : jobs and batches of the agent that are unfinished, each of which it may ask for; rate : what is left of
    its minute, None where nothing is counted. Half of what is left of the job, unless the agent's minute wants more.
    """
    wanted = _SOONEST if eta_seconds is None else min(_LATEST, eta_seconds / 2)
    if rate is not None:
        wanted = max(wanted, asked_for * _MINUTE / (_POLLS_SHARE * rate.limit))
        # The next round, and as many calls to fetch what is done by then.
        lacking = 2 * max(1, asked_for) - rate.remaining
        if lacking > 0:
            wanted = max(wanted, min(_MINUTE, rate.reset_seconds + lacking * _MINUTE / rate.limit))
    return max(_SOONEST, math.ceil(wanted))


def tell_when(
    response: Response, services: AgentServices, agent_id: str, eta_seconds: float | None, waited: float = 0.0
) -> Response:
    """Put into an answer after how many seconds its caller is to ask again.

    waited : seconds that the caller has waited for it; it may wait for the next one as soon as its minute allows that
    """
    expected = None if waited else eta_seconds
    seconds = poll_after(expected, services.store.unfinished(agent_id), rate_state()) - waited
    response.headers["Retry-After"] = str(max(_SOONEST, math.ceil(seconds)))
    return response
