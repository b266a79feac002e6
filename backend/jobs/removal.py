"""What becomes of the jobs of agents that were removed: they are cancelled, and their images go at once.

This module does not know how an agent is removed, or who says which were.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from backend.jobs.models import Status
from backend.jobs.store import JobStore
from backend.storage.files import Deletes, discard

_log = logging.getLogger(__name__)


def cancel_jobs(store: JobStore, images: Deletes, removed: Collection[str]) -> int:
    """Cancel the unfinished jobs of removed agents, by their internal ids; return how many it were.

    Raises StoreUnavailable, StorageFull.
    """
    cancelled = store.cancel_of_agents(removed)
    if cancelled:
        _log.info("%d jobs of agents that were removed are cancelled.", len(cancelled))
    for job in cancelled:
        # A running one's is still read; its worker removes it.
        if job.status is Status.CANCELLED:
            discard(images, job.image_name)
    return len(cancelled)
