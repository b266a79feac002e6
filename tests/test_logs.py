"""The log's lines: JSON, one each, with the request and the jobs they are about."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backend.batch_processor import BatchProcessor
from backend.errors import ArtifactStoreUnavailable, NoForeground
from backend.jobs.models import Status
from backend.runner.export_pool import ExportPool
from backend.telemetry.logs import (
    JsonFormatter,
    TextFormatter,
    configure_logging,
    log_context,
    log_jobs,
    log_request,
    logging_config,
)
from tests.support.agent_service import API, agent_service
from tests.support.store_backends import empty_database, open_database
from tests.support.workshop import Workshop, eventually, workshop


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Make a logger whose lines `lines` reads."""
    made = logging.Logger("test")
    log_request("")
    yield made
    log_request("")


class Lines(logging.Handler):
    """Keeps what is logged, as the service would write it."""

    def __init__(self, logger: logging.Logger, formatter: logging.Formatter | None = None) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.setFormatter(formatter or JsonFormatter())
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))

    @property
    def values(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts]


def test_line_is_json_with_time_level_and_message(logger: logging.Logger) -> None:
    lines = Lines(logger)
    logger.warning("%d of %s", 3, "them", extra={"route": "/x"})
    (line,) = lines.values
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "WARNING", "logger": "test", "message": "3 of them", "route": "/x"}


@pytest.mark.parametrize("message", ["a\nb", 'x"} {"level": "ERROR', "\u2028", "\x1b[31m", "\udcff", "gr\u00fcn"])
def test_no_message_fakes_a_line(logger: logging.Logger, message: str) -> None:
    lines = Lines(logger)
    logger.info(message)
    assert lines.texts[0].isascii()
    assert lines.texts[0].isprintable()
    assert lines.values[0]["message"] == message


@pytest.mark.parametrize("message", ["a\nb", "\u2028", "\x1b[31m", "\udcff"])
def test_no_message_fakes_a_line_of_text(logger: logging.Logger, message: str) -> None:
    lines = Lines(logger, TextFormatter())
    logger.info(message)
    assert lines.texts[0].isprintable()
    assert lines.texts[0].endswith(message.encode("unicode_escape").decode())


def test_line_of_text_says_what_a_person_wants_to_know(logger: logging.Logger) -> None:
    lines = Lines(logger, TextFormatter())
    with log_context("b3"):
        logger.warning("POST %s 429", "/x", extra={"code": "RATE_LIMITED", "agent": "", "route": "/<x>", "status": 429})
        logger.info("job b3 is gr\u00fcn")
    (refused, done) = lines.texts
    assert refused[8:] == " WARNING POST /x 429 code=RATE_LIMITED job=b3"
    assert done[8:] == " INFO    job b3 is gr\u00fcn"


def test_exception_is_told_below_a_line_of_text(logger: logging.Logger) -> None:
    lines = Lines(logger, TextFormatter())
    try:
        raise RuntimeError("broken\nand more")
    except RuntimeError:
        logger.exception("It broke.")
    first, *below = lines.texts[0].splitlines()
    assert first.endswith("ERROR   It broke.")
    assert "    RuntimeError: broken" in below
    assert all(line.startswith("    ") for line in below)


@pytest.mark.parametrize(
    ("log_format", "on_terminal", "formatter"),
    [
        ("auto", True, TextFormatter),
        ("auto", False, JsonFormatter),
        ("json", True, JsonFormatter),
        ("text", False, TextFormatter),
    ],
)
def test_a_person_at_a_terminal_reads_text_and_all_else_json(
    monkeypatch: pytest.MonkeyPatch, log_format: str, on_terminal: bool, formatter: type[logging.Formatter]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: on_terminal, raising=False)
    assert logging_config("INFO", log_format)["formatters"]["line"]["()"] is formatter


def test_exception_is_in_the_line(logger: logging.Logger) -> None:
    lines = Lines(logger)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logger.exception("It broke.")
    assert "RuntimeError: broken" in lines.values[0]["exception"]
    assert lines.texts[0].count("\n") == 0


def test_lines_are_about_a_request_until_it_is_over(logger: logging.Logger) -> None:
    lines = Lines(logger)
    log_request("r1")
    log_jobs("a", "b")
    logger.info("during")
    log_request("r2")
    logger.info("next")
    log_request("")
    logger.info("after")
    during, following, after = lines.values
    assert (during["request_id"], during["job_ids"]) == ("r1", ["a", "b"])
    assert following["request_id"] == "r2"
    assert "job_ids" not in following
    assert "request_id" not in after


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_what_stands_for_an_agent_is_masked(logger: logging.Logger, formatter: logging.Formatter) -> None:
    lines = Lines(logger, formatter)
    signature, token = "0123456789abcdef" * 4, f"orfeas_{'Ab-_9' * 8}xyz"
    link = f"/api/agent/download/x.glb?expires=1&signature={signature}"
    try:
        raise ValueError(link)
    except ValueError:
        logger.exception("%s came with %s", link, token, extra={"target": link})
    (line,) = lines.texts
    assert signature[:16] not in line
    assert token[8:20] not in line
    assert line.count("?expires=1&signature=***") >= 3
    assert "orfeas_***" in line


def test_jobs_of_a_block_are_forgotten_after_it(logger: logging.Logger) -> None:
    lines = Lines(logger)
    with log_context("a"):
        logger.info("in")
        with log_context("b"):
            logger.info("deeper")
        logger.info("in again")
    logger.info("out")
    assert [line.get("job_ids") for line in lines.values] == [["a"], ["b"], ["a"], None]


def test_other_threads_are_about_something_else(logger: logging.Logger) -> None:
    lines = Lines(logger)
    log_request("r1")
    thread = threading.Thread(target=logger.info, args=("elsewhere",))
    thread.start()
    thread.join()
    assert "request_id" not in lines.values[0]


def test_configuration_is_as_loud_as_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("backend", "backend.requests", "gunicorn.error", "gunicorn.access", "somebody.else")
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    try:
        configure_logging("INFO")
        for name in names:
            logging.getLogger(name).info("quiet from %s", name)
            logging.getLogger(name).warning("loud from %s", name)
    finally:
        root.handlers[:] = kept
        root.setLevel(level)
        for name in ("backend", "gunicorn.error", "gunicorn.access"):
            logging.getLogger(name).setLevel(logging.NOTSET)
    messages = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert messages == [
        "quiet from backend",
        "loud from backend",
        "quiet from backend.requests",
        "loud from backend.requests",
        "quiet from gunicorn.error",
        "loud from gunicorn.error",
        "loud from somebody.else",
    ]


def test_work_on_another_thread_is_about_the_jobs_of_whoever_submitted_it(logger: logging.Logger) -> None:
    lines = Lines(logger)
    pool = ExportPool(1, 2)
    for job_id in ("a", "b"):
        with log_context(job_id):
            pool.submit(partial(logger.info, "made"), lambda: False)
    assert pool.join(20)
    pool.stop()
    assert [line["job_ids"] for line in lines.values] == [["a"], ["b"]]


def test_every_line_about_a_run_names_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: bytes) -> None:
        logging.getLogger("somebody.else").warning("drawing %s", image.decode())
        if image == b"bad":
            raise ValueError("no mesh")

    root = logging.getLogger()
    lines = Lines(root)
    try:
        with open_database(empty_database("sqlite", tmp_path)) as database, workshop(tmp_path, database) as shop:
            good, bad = shop.submit(b"good"), shop.submit(b"bad")
            shop.fake.before_finish = fail
            monkeypatch.setattr(shop.images, "delete", refuse)
            shop.worker().run_once()
            taken = shop.submit(b"taken")
            shop.fake.before_call = lambda _call: logging.getLogger("somebody.else").warning("on the device")
            shop.fake.at_step = lambda _step: cancel_and_wait(shop, taken)
            shop.worker().run_once()
            images = {job_id: shop.job(job_id).image_name for job_id in (bad, taken)}
    finally:
        root.removeHandler(lines)
    found = {line["message"]: line.get("job_ids") for line in lines.values}
    assert found["drawing good"] == [good]
    assert found["drawing bad"] == found[f"job {bad} failed: GENERATION_FAILED"] == [bad]
    assert found["on the device"] == [taken]
    for job_id, image in images.items():
        # Of the last one the heartbeats' thread says it. The good one's image is kept beside its mesh.
        assert found[f"The file {image} stays, which no job needs: {ArtifactStoreUnavailable()}"] == [job_id]


def test_a_worker_logs_its_start_and_each_job_s_start_and_end_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="backend")
    with open_database(empty_database("sqlite", tmp_path)) as database, workshop(tmp_path, database) as shop:
        good, bad = shop.submit(b"good"), shop.submit(b"bad")
        shop.fake.errors[b"bad"] = NoForeground()
        worker = shop.worker()
        worker.load()
        worker.run_once()
        stopped = shop.submit(b"stopped")
        shop.fake.at_step = lambda _step: hand_back(shop, worker, stopped)
        worker.run_once()
        worker.stop()
        died = shop.submit(b"died")
        shop.store.lease("gone", 1, 1)
        shop.store.lease("gone", 1, 1)
        shop.clock.advance(9)
        shop.store.lease("next", 1, 60)
    found = Counter(
        message.rpartition(" in ")[0] if "loaded" in message else message
        for message in caplog.messages
        if "job " in message or "model " in message
    )
    assert found == {
        "model fake model is loaded, ready": 1,
        f"job {good} begins": 1,
        f"job {bad} begins": 1,
        f"job {good} is completed": 1,
        f"job {bad} failed: NO_FOREGROUND": 1,
        f"job {stopped} begins": 1,
        f"job {stopped} is handed back: it waits again, unharmed, for the next worker": 1,
        f"a run of job {stopped} died; it is queued again": 1,
        f"a run of job {died} died; it is queued again": 1,
    }
    levels = {record.getMessage(): record.levelname for record in caplog.records}
    assert levels[f"job {good} is completed"] == "INFO"
    assert levels[f"job {bad} failed: NO_FOREGROUND"] == "WARNING"


def test_what_is_asked_again_and_again_is_quiet_while_it_goes_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="backend.requests")
    with agent_service(tmp_path) as service:
        job_id = service.submit()
        service.get(f"/status/{job_id}")
        caplog.clear()
        service.submit()
        for path in (f"/status/{job_id}", "/jobs", "/health", f"/status/{'0' * 32}"):
            service.get(path)
        client = service.app.test_client()
        client.get("/metrics")
        client.get("/metrics", environ_overrides={"REMOTE_ADDR": "192.0.2.7"})
    levels = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert levels == [
        ("INFO", f"POST {API}/generate-3d 202"),
        ("DEBUG", f"GET {API}/status/{job_id} 200"),
        ("DEBUG", f"GET {API}/jobs 200"),
        ("DEBUG", f"GET {API}/health 503"),
        ("INFO", f"GET {API}/status/{'0' * 32} 404"),
        ("DEBUG", "GET /metrics 200"),
        ("INFO", "GET /metrics 403"),
    ]


def hand_back(shop: Workshop, worker: BatchProcessor, job_id: str) -> None:
    worker.drain(0)
    eventually(lambda: shop.job(job_id).status is Status.QUEUED)


def cancel_and_wait(shop: Workshop, job_id: str) -> None:
    shop.store.cancel(job_id, "ann")
    time.sleep(0.8)


def refuse(_name: str) -> None:
    raise ArtifactStoreUnavailable
