"""Each tool carried out: an agent's arguments in, a job or what is known of one out.

This module does not know the protocol, or who waits for the end of a job.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flask import g

from backend.api.following import find
from backend.api.job_answers import describe_job, job_failure
from backend.api.mcp.forms import as_form
from backend.api.mcp.results import MOST_PICTURE_BYTES, Picture, picture_result, plain_result
from backend.api.mcp.tools import DEFAULT_WAIT_SECONDS, IMAGE, IMAGES, MOST_LISTED, MOST_WAIT_SECONDS, WAIT
from backend.api.query import read_cursor, read_filter
from backend.api.responses import Links
from backend.api.submissions import Operation, Submitter
from backend.auth.agents import AgentConfig
from backend.errors import ArtifactNotFound, Expired, InvalidParameter, JobNotFound, JobUnfinished, UnknownField
from backend.jobs.models import Batch, Job, JobFile, Status
from backend.services import AgentServices
from backend.storage.files import discard
from backend.telemetry.logs import log_jobs

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Waits:
    """A job or batch whose end is to be waited for, for so many seconds."""

    found: Job | Batch
    seconds: float


@dataclass(frozen=True)
class ToolCaller:
    """What tools are carried out with, for one agent."""

    services: AgentServices
    submitter: Submitter
    agent: AgentConfig
    links: Links

    def call(self, name: str, arguments: Mapping[str, Any]) -> Waits | dict[str, Any]:
        """Carry a tool out; return its result, or what is to be waited for. Raises as the same call over HTTP does."""
        calls: Mapping[str, Callable[[Mapping[str, Any]], Waits | dict[str, Any]]] = {
            "generate_3d": lambda given: self._generate("generate", IMAGE, given),
            "generate_batch": lambda given: self._generate("batch", IMAGES, given),
            "get_job": lambda given: Waits(self._found(given, ("job_id",)), 0),
            "wait_for_job": lambda given: Waits(self._found(given, ("job_id", WAIT)), _seconds(given)),
            "list_jobs": self._list,
            "cancel_job": lambda given: Waits(self.cancel(self._found(given)), 0),
            "get_preview": self._preview,
        }
        return calls[name](arguments)

    def pictures_of(self, found: Job | Batch) -> list[Picture]:
        """Return the pictures of a finished job, for an agent that may see them; of a batch, each one's thumbnail.

        A job's are its preview, and the sheet of its candidates.
        """
        if "download" not in self.agent.operations:
            return []
        wanted: tuple[tuple[str, ...], ...]
        if isinstance(found, Batch):
            wanted = (("thumbnail",),)
            jobs = [job for job in found.jobs if job.status is Status.COMPLETED]
        else:
            wanted = (("preview", "thumbnail"), ("contact_sheet",))
            jobs = [found] if found.status is Status.COMPLETED else []
        files = self.services.store.files.of_all(jobs) if jobs else {}
        found_ones = (self._picture(files[job.id], kinds) for job in jobs for kinds in wanted)
        return [picture for picture in found_ones if picture is not None]

    def cancel(self, found: Job | Batch) -> Job | Batch:
        """Cancel a job, or what is left of a batch; return it as it is then. Raises StoreUnavailable."""
        store = self.services.store
        now: Job | Batch
        now = (store.cancel_batch if isinstance(found, Batch) else store.cancel)(found.id, self.agent.internal_id)
        jobs = now.jobs if isinstance(now, Batch) else [now]
        discard(self.services.images, *(job.image_name for job in jobs if job.status is Status.CANCELLED))
        return now

    def _generate(self, operation: Operation, field: str, given: Mapping[str, Any]) -> Waits:
        seconds = _seconds(given)
        rest = {name: value for name, value in given.items() if name != WAIT}
        form = as_form(rest, field)
        with form.body:
            began = g.request_began
            submission = self.submitter.submit(self.agent, operation, form.body, form.content_type, None, began)
        submitted = submission.submitted
        log_jobs(*submitted.job_ids)
        id = submitted.batch_id or submitted.job_ids[0]
        return Waits(find(self.services, id, self.agent.internal_id), seconds)

    def _found(self, given: Mapping[str, Any], known: tuple[str, ...] = ("job_id",)) -> Job | Batch:
        _require_known(given, known)
        job_id = given.get("job_id")
        if not isinstance(job_id, str) or not _ID.fullmatch(job_id):
            raise JobNotFound("job_id must be the 32 digits that an earlier result gave; list_jobs lists them.")
        return find(self.services, job_id, self.agent.internal_id)

    def _list(self, given: Mapping[str, Any]) -> dict[str, Any]:
        _require_known(given, ("status", "label", "limit", "cursor"))
        limit = given.get("limit", 10)
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MOST_LISTED:
            raise InvalidParameter(f"limit must be a whole number from 1 to {MOST_LISTED}.", details={"field": "limit"})
        texts = {name: given.get(name) for name in ("status", "label", "cursor")}
        if not all(value is None or isinstance(value, str) for value in texts.values()):
            raise InvalidParameter("status, label and cursor are texts.")
        wanted = read_filter(texts["status"], texts["label"])
        page = self.services.store.list_jobs(self.agent.internal_id, read_cursor(texts["cursor"]), limit, wanted)
        outlooks = self.services.outlooks.of(page.jobs)
        shown = ("job_id", "batch_id", "label", "filename", "status", "progress", "eta_seconds", "created_at")
        jobs = [
            {
                name: value
                for name, value in describe_job(job, self.links, outlooks[job.id]).model_dump(mode="json").items()
                if name in shown and value is not None
            }
            for job in page.jobs
        ]
        more = {"next_cursor": page.next_cursor} if page.next_cursor else {}
        return plain_result({"jobs": jobs, **more})

    def _preview(self, given: Mapping[str, Any]) -> dict[str, Any]:
        found = self._found(given)
        if isinstance(found, Batch):
            raise JobNotFound("A preview is a job's; get_job names the jobs of a batch.")
        if not found.status.finished:
            raise JobUnfinished("The mesh is not made yet: call wait_for_job first.")
        if found.status is not Status.COMPLETED:
            raise job_failure(found)
        picture = self._picture(self.services.store.files.of(found), ("preview", "thumbnail"))
        if picture is None:
            raise ArtifactNotFound("This job has no preview: it was asked for without one, or its files were deleted.")
        return picture_result(found.id, picture)

    def _picture(self, files: tuple[JobFile, ...], kinds: tuple[str, ...]) -> Picture | None:
        """Return the first picture of these kinds that is there and not too large."""
        for kind in kinds:
            file = next((file for file in files if file.kind == kind), None)
            if file is None or (file.bytes or 0) > MOST_PICTURE_BYTES:
                continue
            try:
                return Picture(self.services.artifacts.read(file.name), file.format)
            except (ArtifactNotFound, Expired):
                continue
        return None


def _seconds(given: Mapping[str, Any]) -> float:
    seconds = given.get(WAIT, DEFAULT_WAIT_SECONDS)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds <= MOST_WAIT_SECONDS:
        raise InvalidParameter(f"{WAIT} must be a number from 0 to {MOST_WAIT_SECONDS}.", details={"field": WAIT})
    return seconds


def _require_known(given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        raise UnknownField(
            f"This tool has no argument {unknown[:40]!r}; it has {', '.join(known)}.", details={"allowed": list(known)}
        )
