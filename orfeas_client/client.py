"""One agent's calls to one service, as methods.

This module does not know how a request is signed, sent or tried again, nor how its answer is laid out.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TextIO, Unpack
from urllib.parse import SplitResult, quote, urljoin, urlsplit, urlunsplit

import requests

from orfeas_client.download import download_file, download_name
from orfeas_client.errors import ClientError, NoEvents, NothingToLink, ServiceRefused, WaitedTooLong
from orfeas_client.listening import listen
from orfeas_client.mcp_bridge import Bridge
from orfeas_client.models import (
    Batch,
    Cutout,
    Fields,
    Health,
    Job,
    JobPage,
    Json,
    MeshFile,
    read_cutout,
    read_files,
    read_health,
    read_page,
    read_status,
    read_submitted_batch,
    read_submitted_job,
)
from orfeas_client.retries import PassingFailure, RetryPolicy
from orfeas_client.transport import API_PATH, Outgoing, Transport, read_json, refusal_of
from orfeas_client.upload import Body, ImageSource, MultipartBody, body_of

VIEWS = ("front", "left", "back", "right")
"""From where an object may be shown in a picture of its own."""

Progress = Callable[[Job | Batch], None]

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 5.0
_LONGEST_ASKED = 60.0
_LONGEST_OUTAGE_PAUSE = 10.0
_LONG_POLL = 25
"""Seconds for which the service is asked to hold an answer back while nothing changes; proxies often allow 60."""
_ANSWER_SECONDS = 2
"""What an answer takes beside that, at most."""


class AgentClient:
    """One agent at one service; any thread may use it, at the same time as others.

    Calls raise ServiceRefused when the service answers with an error, ServiceUnreachable when it does not answer,
    UnexpectedAnswer when something else does, LocalFileError when a file here cannot be read or written. What may pass
    (a broken connection, 429, 503) is tried again first: a job is made once, whatever was lost on the way. Errors about
    a job that was accepted name it in `job_id`.
    """

    def __init__(
        self,
        base_url: str,
        agent_id: str,
        api_key: str,
        *,
        timeout: tuple[float, float] = (10.0, 180.0),
        retries: int = 5,
        outage_seconds: float = 300.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        session: requests.Session | None = None,
        on_retry: Callable[[str, float], None] | None = None,
    ) -> None:
        """Check what is given; nothing is sent yet.

        timeout : seconds to connect, and to wait for bytes; retries : tries after the first; clock : unix seconds
        outage_seconds : for so long `wait` goes on asking for a job that was accepted while the service is away
        on_retry : called with what failed and the seconds until the next try
        Raises ClientError for an unusable address, id or key.
        """
        self._sleep = sleep
        self._on_retry = on_retry
        self._outage_seconds = outage_seconds
        self._may_hold_answers = self._may_listen = True
        self._public: SplitResult | None = None
        self._transport = Transport(
            base_url,
            agent_id,
            api_key,
            timeout=timeout,
            retry_policy=RetryPolicy(sleep, retries, on_retry=on_retry),
            clock=clock,
            session=session,
        )

    def __enter__(self) -> AgentClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._transport.close()

    def generate(
        self,
        image: ImageSource | None = None,
        *,
        views: Mapping[str, ImageSource] | None = None,
        run_async: bool = True,
        idempotency_key: str | None = None,
        **fields: Unpack[Fields],
    ) -> Job:
        """Send one picture, a path, a file's bytes or an ImageUrl, and return its job.

        views : several pictures of one object in its place, by `front`, `left`, `back` and `right`, for a service whose
            model takes them: `capabilities.views` of `/me`
        prompt : words in its place, for a service that draws pictures of such: `capabilities.prompt` of `/me`; the same
            `image_seed` draws the same picture of them
        run_async : False waits at the service for as long as that lets a request wait; the job may be done then
        idempotency_key : the request's name, drawn when absent; give one to repeat a request after a crash of yours
        Raises ClientError unless there is exactly one of image, views and prompt, and every view is of the four.
        """
        texts = {**_texts(fields), "async": _text(run_async)}
        body = body_of(texts, *_inputs(image, views or {}, "prompt" in fields))
        return read_submitted_job(self._post("/generate-3d", body, idempotency_key))

    def batch(
        self,
        images: Sequence[ImageSource],
        *,
        accept_partial: bool = False,
        idempotency_key: str | None = None,
        **fields: Unpack[Fields],
    ) -> Batch:
        """Send 2 to 10 pictures, in order, and return their batch at once. idempotency_key : as for `generate`.

        accept_partial : whether the good pictures are to run when others are bad, which are failed jobs of the batch
            then; otherwise a bad one refuses them all, and `details["images"]` of ServiceRefused names every bad one
        """
        texts = {**_texts(fields), **({"accept_partial": "true"} if accept_partial else {})}
        body = body_of(texts, images, ["images"] * len(images))
        return read_submitted_batch(self._post("/batch", body, idempotency_key))

    def cutout(
        self,
        image: ImageSource,
        *,
        remove_background: str | None = None,
        objects: str | None = None,
        idempotency_key: str | None = None,
    ) -> Cutout:
        """Have the object cut out of one picture, at once; `download(cutout.url, …)` fetches it.

        remove_background, objects, idempotency_key : as for `generate`
        """
        given = {"remove_background": remove_background, "objects": objects}
        texts = {name: value for name, value in given.items() if value is not None}
        return read_cutout(self._post("/cutout", body_of(texts, [image], ["image"]), idempotency_key))

    def again(
        self,
        job_id: str,
        *,
        run_async: bool = True,
        idempotency_key: str | None = None,
        **fields: Unpack[Fields],
    ) -> Job:
        """Have the mesh of an earlier job's picture made anew, and return the new job.

        fields : those that are to be other than they were; seed=-1 draws a new one
        run_async, idempotency_key : as for `generate`
        """
        body = MultipartBody({**_texts(fields), "async": _text(run_async)}, [], "image")
        return read_submitted_job(self._post(f"/jobs/{_segment(job_id)}/again", body, idempotency_key))

    def link(self, job_or_batch_id: str, format: str | None = None) -> str:
        """Return an address at which whoever has it may fetch a mesh, or all of a batch, for about an hour.

        format : of a job's meshes, None for the main one. Raises NothingToLink.
        """
        value = self.status(job_or_batch_id)
        found = value.signed_url
        if format is not None:
            files = value.files if isinstance(value, Job) else ()
            found = next((file.signed_url for file in files if file.format == format), None)
        if found is None:
            what = "zip" if isinstance(value, Batch) and format is None else f"{format or 'mesh'} file"
            raise NothingToLink(
                f"{job_or_batch_id} is {value.status}; there is no {what} that a link could be given to."
            )
        return urljoin(urlunsplit(self._transport.base), found)

    def status(self, job_or_batch_id: str) -> Job | Batch:
        """Ask for a job, or a batch with its jobs."""
        return self._poll(job_or_batch_id)[0]

    def events(self, job_or_batch_id: str) -> Generator[Job | Batch, None, None]:
        """Give each state of a job or batch as it comes, until it has finished; the last one given is its end.

        A stream that breaks off is opened again where it broke off, for as long as `wait` sits an outage out, so that
        each state is given once. Raises NoEvents where the service, or something on the way, has no streams.
        """
        try:
            yield from self._events(job_or_batch_id, None)
        except ClientError as failure:
            failure.job_id = job_or_batch_id
            raise

    def _events(self, job_or_batch_id: str, end: float | None) -> Iterator[Job | Batch]:
        def policy(left: float | None) -> RetryPolicy:
            return self._outage_policy(job_or_batch_id, left)

        path = f"/status/{_segment(job_or_batch_id)}/events"
        for answer in listen(self._transport, path, policy, end, self._sleep):
            value = read_status(answer)
            yield value
            if value.finished:
                return

    def wait(
        self, job_or_batch_id: str, on_progress: Progress | None = None, timeout: float | None = None
    ) -> Job | Batch:
        """Wait until a job or batch has finished, well or not, and return it; an outage of the service is sat out.

        Listens to its events where there are any; otherwise polls.

        on_progress : called with each state on the way; timeout : seconds, None = for ever
        Raises WaitedTooLong.
        """
        try:
            return self._wait(job_or_batch_id, on_progress, timeout)
        except ClientError as failure:
            failure.job_id = job_or_batch_id
            raise

    def _wait(self, job_or_batch_id: str, on_progress: Progress | None, timeout: float | None) -> Job | Batch:
        end = None if timeout is None else time.monotonic() + timeout
        heard = self._listened(job_or_batch_id, on_progress, end) if self._may_listen else None
        if heard is not None:
            return heard
        pause = _FIRST_PAUSE
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            policy = self._outage_policy(job_or_batch_id, left)
            value, retry_after = self._poll(job_or_batch_id, policy, self._longest_hold(left))
            if on_progress:
                on_progress(value)
            if value.finished:
                return value
            pause = min(pause * 1.5, _LONGEST_PAUSE) if retry_after is None else min(retry_after, _LONGEST_ASKED)
            if end is not None and time.monotonic() + pause > end:
                raise WaitedTooLong(f"{job_or_batch_id} is still {value.status} after {timeout:g} seconds.")
            self._sleep(pause)

    def _listened(self, job_or_batch_id: str, on_progress: Progress | None, end: float | None) -> Job | Batch | None:
        """Return a job or batch once its events say that it has finished; None where they cannot, or time is over."""
        try:
            for value in self._events(job_or_batch_id, end):
                if on_progress:
                    on_progress(value)
                if value.finished:
                    return value
        except NoEvents:
            self._may_listen = False
        return None

    def preview(self, job_id: str, to: str | Path) -> Path:
        """Fetch the picture of a finished job's mesh, and return its path. to : as for `download`.

        Raises NothingToLink for a job that has none.
        """
        job = self.status(job_id)
        url = job.preview_url if isinstance(job, Job) else None
        if url is None:
            raise NothingToLink(f"{job_id} is {job.status} and has no preview.")
        return self.download(url, to)

    def mcp_bridge(self, folders: Sequence[Path], output: TextIO) -> Bridge:
        """Return what speaks the Model Context Protocol for a host, by this agent's signature.

        folders : below which pictures may be named by their paths; output : where answers are written
        """
        return Bridge(self._transport, folders, output)

    def download(self, source: str, to: str | Path, *, size: int | None = None) -> Path:
        """Fetch a file, whole or not at all, and return its path.

        source : a job's download_url or signed_url, a batch's for the zip of all its files, or a file's name
        to : a file's path, or a folder that is there; size : how many bytes it must have (metadata's file_size), None =
            as many as the service says
        """
        name = download_name(source, self._transport.base, *filter(None, [self._public]))
        target = Path(to)
        return download_file(self._transport, name, target / name if target.is_dir() else target, size)

    def cancel(self, job_or_batch_id: str) -> Job | Batch:
        """Cancel a job or what is left of a batch; return it as it is then.

        What waits ends at once, what runs between two denoising steps.
        """
        answer = self._call(Outgoing("DELETE", f"/jobs/{_segment(job_or_batch_id)}"))[0]
        return read_status({"job_id": job_or_batch_id, **answer})

    def add_format(self, job_id: str, format: str) -> dict[str, MeshFile]:
        """Have a finished job's mesh in one more format, which needs no device; return all its files by format."""
        body = MultipartBody({"format": format}, [], "image")
        return {file.format: file for file in read_files(self._post(f"/jobs/{_segment(job_id)}/files", body, None))}

    def delete_files(self, job_id: str) -> None:
        """Delete a finished job's files and its picture at the service, now and for good."""
        self._transport.call(Outgoing("DELETE", f"/jobs/{_segment(job_id)}/files"))

    def jobs(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        status: str | None = None,
        label: str | None = None,
    ) -> JobPage:
        """Return a page of this agent's jobs, newest first.

        limit : 1–100, None = 20; cursor : an earlier page's next_cursor
        status : only jobs in this state, or in one of several with commas between; label : only with this text in it
        """
        query = {"limit": limit, "cursor": cursor, "status": status, "label": label}
        given = {name: str(value) for name, value in query.items() if value is not None}
        return read_page(self._call(Outgoing("GET", "/jobs", given))[0])

    def health(self) -> Health:
        """Ask once how the service is; one that cannot serve answers too."""
        try:
            with self._transport.send(Outgoing("GET", "/health", signed=False)) as response:
                answer = read_json(response)
        except PassingFailure as failure:
            raise failure.error from failure.__cause__
        if "status" not in answer:
            raise refusal_of(response, answer)
        return read_health(answer, response.status_code == 200)

    def _post(self, path: str, body: Body, idempotency_key: str | None) -> Json:
        headers = {"Idempotency-Key": secrets.token_hex(16) if idempotency_key is None else idempotency_key}
        return self._call(Outgoing("POST", path, headers=headers, body=body))[0]

    def _call(self, outgoing: Outgoing, policy: RetryPolicy | None = None) -> tuple[Json, float | None]:
        """Send a request; learn from what is answered where the service says that it is."""
        answer, retry_after = self._transport.call(outgoing, policy)
        listed = answer.get("jobs")
        said = listed[0] if isinstance(listed, list) and listed else answer
        address = said.get("status_url") if isinstance(said, Mapping) else None
        if isinstance(address, str) and address.startswith(("https://", "http://")):
            url = urlsplit(address)
            self._public = SplitResult(url.scheme, url.netloc, API_PATH, "", "")
        return answer, retry_after

    def _poll(
        self, job_or_batch_id: str, policy: RetryPolicy | None = None, hold: int = 0
    ) -> tuple[Job | Batch, float | None]:
        """Ask for a job or batch. hold : seconds that the answer may be held back while nothing changes."""
        path = f"/status/{_segment(job_or_batch_id)}"
        try:
            answer, retry_after = self._call(Outgoing("GET", path, {"wait": str(hold)} if hold else {}), policy)
        except ServiceRefused as refusal:
            if not hold or refusal.code != "UNKNOWN_FIELD":
                raise
            # An older service.
            self._may_hold_answers = False
            answer, retry_after = self._call(Outgoing("GET", path), policy)
        return read_status(answer), retry_after

    def _longest_hold(self, left: float | None) -> int:
        """Return for how many seconds an answer may be held back; left : until nobody waits any more."""
        longest = min(_LONG_POLL, int(self._transport.timeout[1]) - _ANSWER_SECONDS)
        if left is not None:
            longest = min(longest, int(left))
        return max(0, longest) if self._may_hold_answers else 0

    def _outage_policy(self, job_id: str, left: float | None) -> RetryPolicy:
        on_retry = self._on_retry
        longest = self._outage_seconds if left is None else min(left, self._outage_seconds)

        def report(problem: str, pause: float) -> None:
            if on_retry is not None:
                on_retry(f"{job_id}: {problem}", pause)

        return replace(
            self._transport.retry_policy,
            retries=None,
            outage_seconds=longest,
            longest_pause=_LONGEST_OUTAGE_PAUSE,
            longest_asked=longest,
            on_retry=report,
        )


def _inputs(
    image: ImageSource | None, views: Mapping[str, ImageSource], is_told: bool
) -> tuple[list[ImageSource], list[str]]:
    """Return the pictures of one object, and the fields that they are sent as; none of one that words tell of.

    Raises ClientError.
    """
    if [image is not None, bool(views), is_told].count(True) != 1:
        raise ClientError("An object is made of one picture, several views of it, or a prompt: give exactly one.")
    unknown = sorted(set(views) - set(VIEWS))
    if unknown:
        raise ClientError(f"There is no view {', '.join(unknown)}; the views are {', '.join(VIEWS)}.")
    if image is not None:
        return [image], ["image"]
    return list(views.values()), [f"view_{view}" for view in views]


def _segment(text: str) -> str:
    return quote(text, safe="")


def _texts(fields: Fields) -> dict[str, str]:
    return {name: _text(value) for name, value in fields.items() if value is not None}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
