"""Webhooks: to whom they may go, that each end is told of exactly as promised, and what the log says of it."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from backend.api.webhook_sender import WebhookSender
from backend.api.webhooks import require_webhook
from backend.auth.agent_config import AgentConfig
from backend.auth.agents_file import new_webhook_secret, update_agent
from backend.cli.webhooks import run
from backend.errors import InvalidWebhookUrl
from backend.jobs.models import NewJob
from backend.jobs.store import JobStore
from backend.jobs.webhooks import PAUSES, NewDelivery, WebhookTable
from backend.storage.database import Database
from tests.support.agent_service import API, AgentService, agent_service, image, refused
from tests.support.agent_service import field as form_field
from tests.support.store_backends import ManualClock
from tests.support.workshop import eventually

SECRET = new_webhook_secret()


@dataclass
class Receiver:
    """A server that takes webhooks, and answers as it is told."""

    answers: list[Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/ann"

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]


def says(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def hangs(handler: BaseHTTPRequestHandler) -> None:
    handler.rfile.read(1)


def breaks_off(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def receiving(*answers: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Receiver]:
    receiver = Receiver(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            (receiver.answers.pop(0) if receiver.answers else says(204))(self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield receiver
    server.shutdown()
    server.server_close()


class Sending:
    """A service whose webhooks go to a receiver, with a sender that is moved by hand."""

    def __init__(self, service: AgentService, receiver: Receiver) -> None:
        self.service, self.receiver = service, receiver
        service.clock.now = datetime.now(UTC)
        prefix = receiver.url.removesuffix("/ann")
        update_agent(service.settings.agents_file, "ann", {"webhook_prefixes": [prefix], "webhook_secret": SECRET})
        self.sender = WebhookSender(service.services, service.app.url_map.bind(""))

    @property
    def table(self) -> WebhookTable:
        return self.service.services.webhooks

    def round(self) -> None:
        """Enter what has ended and make every try that is due."""
        self.sender.enter_ended()
        while (delivery := self.table.take([])) is not None:
            self.sender.send(delivery)

    def cancelled(self, *parts: Any) -> str:
        job_id = self.service.submit(form_field("webhook_url", self.receiver.url), *parts)
        self.service.services.store.cancel(job_id, self.service.owner("ann"))
        return job_id


@contextmanager
def sending(folder: Path, *answers: Callable[[BaseHTTPRequestHandler], None], **settings: Any) -> Iterator[Sending]:
    given = {"webhook_private_hosts": "127.0.0.1", **settings}
    with receiving(*answers) as receiver, agent_service(folder, **given) as service:
        yield Sending(service, receiver)


def test_the_end_of_a_job_is_told_of_signed_and_as_its_status_has_it(tmp_path: Path) -> None:
    with sending(tmp_path) as at:
        job_id = at.cancelled()
        at.round()
        at.round()
        ((headers, body),) = at.receiver.got
        told = Webhook(SECRET).verify(body, headers)
        assert (told["type"], told["data"]) == ("job.cancelled", at.service.get(f"/status/{job_id}").get_json())
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body + b" ", headers)
        (logged,) = at.table.latest(10)
        assert (logged.state, logged.attempts, logged.last_status) == ("delivered", 1, 204)


def test_links_in_it_are_good_until_the_files_go(tmp_path: Path) -> None:
    with sending(tmp_path) as at:
        at.service.services.start()
        at.service.made(form_field("webhook_url", at.receiver.url), form_field("color", "none"))
        eventually(lambda: len(at.receiver.got) == 1)
        (told,) = at.receiver.bodies()
        assert told["type"] == "job.completed"
        at.service.clock.advance(at.service.settings.link_ttl_seconds + 60)
        link = told["data"]["signed_url"]
        assert at.service.app.test_client().get(link, buffered=True).data[:4] == b"glTF"


def test_a_batch_is_told_of_once_after_its_jobs(tmp_path: Path) -> None:
    with sending(tmp_path) as at:
        parts = (image("images"), image("images"), form_field("webhook_url", at.receiver.url))
        batch_id = at.service.batch(*parts).get_json()["batch_id"]
        at.service.services.store.cancel_batch(batch_id, at.service.owner("ann"))
        at.round()
        types = [body["type"] for body in at.receiver.bodies()]
        assert sorted(types) == ["batch.finished", "job.cancelled", "job.cancelled"]
        assert next(b for b in at.receiver.bodies() if b["type"] == "batch.finished")["data"]["batch_id"] == batch_id


@pytest.mark.parametrize(
    "answer",
    [says(500), says(302, Location="http://169.254.169.254/latest/"), hangs, breaks_off],
    ids=["fails", "redirects", "hangs", "breaks off"],
)
def test_what_did_not_arrive_comes_again_when_it_is_time(
    tmp_path: Path, answer: Callable[[BaseHTTPRequestHandler], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.api.webhook_sender._CALL_SECONDS", 0.5)
    with sending(tmp_path, answer) as at:
        at.cancelled()
        at.round()
        at.round()
        assert len(at.receiver.got) == 1
        (logged,) = at.table.latest(10)
        assert (logged.state, logged.attempts) == ("pending", 1)
        assert logged.last_error
        at.service.clock.advance(PAUSES[0])
        at.round()
        (first, second) = at.receiver.got
        assert (first[0]["webhook-id"], first[1]) == (second[0]["webhook-id"], second[1])
        assert at.table.latest(10)[0].state == "delivered"


def test_after_the_last_try_it_is_given_up_and_may_be_replayed(tmp_path: Path) -> None:
    with sending(tmp_path, *[says(503)] * (len(PAUSES) + 1)) as at:
        at.cancelled()
        at.round()
        for pause in PAUSES:
            at.service.clock.advance(pause - 1)
            at.round()
            at.service.clock.advance(1)
            at.round()
        assert len(at.receiver.got) == len(PAUSES) + 1
        (logged,) = at.table.latest(10, state="failed")
        at.service.clock.advance(1e6)
        at.round()
        assert len(at.receiver.got) == len(PAUSES) + 1
        output = io.StringIO()
        environ = {"ORFEAS_DATA_DIR": str(tmp_path)}
        assert run(["replay", f"msg_{logged.id}"], environ, output) == 0
        at.service.clock.now = datetime.now(UTC)
        at.round()
        assert at.receiver.got[-1][1] == at.receiver.got[0][1]
        assert run(["list", "--agent", "ann", "--json"], environ, output) == 0
        line = json.loads(output.getvalue().splitlines()[-1])
        assert (line["id"], line["state"], line["last_status"]) == (logged.id, "delivered", 204)
        assert "body" not in line
        assert run(["replay", "0" * 32], environ, output) == 1


def test_410_ends_it(tmp_path: Path) -> None:
    with sending(tmp_path, says(410)) as at:
        at.cancelled()
        at.round()
        assert at.table.latest(10)[0].state == "failed"


def test_without_leave_no_private_address_is_called(tmp_path: Path) -> None:
    with sending(tmp_path, webhook_private_hosts="") as at:
        at.cancelled()
        at.round()
        assert at.receiver.got == []
        assert "not public" in (at.table.latest(10)[0].last_error or "")


def test_a_process_that_dies_while_it_sends_leaves_it_to_others(tmp_path: Path) -> None:
    with sending(tmp_path) as at:
        at.cancelled()
        at.sender.enter_ended()
        assert at.table.take([]) is not None
        assert at.table.take([]) is None
        at.service.clock.advance(61)
        at.round()
        assert (len(at.receiver.got), at.table.latest(10)[0].attempts) == (1, 2)


AGENT = AgentConfig(
    "ann", ("k" * 32,), webhook_prefixes=("https://a.example/hooks", "http://b.example:8080"), webhook_secret=SECRET
)


@pytest.mark.parametrize(
    "url", ["https://a.example/hooks", "https://A.example:443/hooks/x?y=1", "http://b.example:8080/any/where"]
)
def test_addresses_below_a_prefix_are_taken(url: str) -> None:
    require_webhook(AGENT, url)


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/hooks",
        "https://a.example:8443/hooks",
        "https://a.example/hooksters",
        "https://a.example/",
        "https://a.example/hooks/../admin",
        "https://a.example/hooks/%2e%2E/admin",
        "https://a.example.evil.example/hooks",
        "https://user@a.example/hooks",
        "https://evil.example#@a.example/hooks",
        "https://evil.example\\@a.example/hooks",
        "ftp://a.example/hooks",
        "http://b.example/",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(InvalidWebhookUrl) as refusal:
        require_webhook(AGENT, url)
    assert refusal.value.details["allowed"] == list(AGENT.webhook_prefixes)


def test_a_form_with_such_an_address_is_refused_before_anything_is_kept(tmp_path: Path) -> None:
    with agent_service(tmp_path) as service:
        answer = service.generate(image(), form_field("webhook_url", "https://evil.example/"))
        assert refused(answer) == (400, "INVALID_WEBHOOK_URL")
        assert service.images() == []
        assert service.call("GET", f"{API}/jobs").get_json()["jobs"] == []


def test_each_end_is_entered_once_by_whichever_process(database: Database, clock: ManualClock) -> None:
    store, first, second = JobStore(database, clock), WebhookTable(database, clock), WebhookTable(database, clock)
    new = [NewJob("{}", "key", "a.png", webhook_url="https://a.example/")] * 2
    submitted = store.submit("ann", new, queue_limit=9, agent_limit=9)
    assert first.ended() == []
    store.cancel(submitted.job_ids[0], "ann")
    (job,) = first.ended()
    assert not first.is_last_of_batch(job)
    entered = NewDelivery("ann", job.id, "job.cancelled", "https://a.example/", "{}")
    assert [table.enter(job, [entered]) for table in (first, second)] == [True, False]
    assert first.ended() == []
    store.cancel_batch(str(submitted.batch_id), "ann")
    (last,) = second.ended()
    assert second.is_last_of_batch(last)
    taken = first.take([])
    assert taken is not None
    assert (taken.subject_id, second.take([])) == (job.id, None)
    first.delivered(taken, 200)
    # What an earlier try learns late is nothing any more.
    second.failed(taken, "late", None)
    clock.advance(40 * 86400)
    assert (first.latest(9)[0].state, first.prune(clock(), 10), first.latest(9)) == ("delivered", 1, [])
