"""The log's lines: JSON, one each, with the request and the jobs they are about."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backend.errors import ArtifactStoreUnavailable
from backend.runner.export_pool import ExportPool
from backend.telemetry.logs import JsonFormatter, configure_logging, log_context, log_jobs, log_request
from tests.support.store_backends import empty_database, open_database
from tests.support.workshop import Workshop, workshop


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Make a logger whose lines `lines` reads."""
    made = logging.Logger("test")
    log_request("")
    yield made
    log_request("")


class Lines(logging.Handler):
    """Keeps what is logged, as the service would write it."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.setFormatter(JsonFormatter())
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
    finally:
        root.removeHandler(lines)
    found = {line["message"]: line.get("job_ids") for line in lines.values}
    assert found["drawing good"] == [good]
    assert found["drawing bad"] == found[f"job {bad} failed"] == [bad]
    assert found["on the device"] == [taken]
    for job_id in (good, bad, taken):
        # Of the last one the heartbeats' thread says it.
        assert found[f"the image of job {job_id} stays: {ArtifactStoreUnavailable()}"] == [job_id]


def cancel_and_wait(shop: Workshop, job_id: str) -> None:
    shop.store.cancel(job_id, "ann")
    time.sleep(0.8)


def refuse(_name: str) -> None:
    raise ArtifactStoreUnavailable
