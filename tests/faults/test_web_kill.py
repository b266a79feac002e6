"""kill -9 of the processes that answer: what was accepted is completed, what was not leaves nothing behind."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.faults.harness import FAKE_SERVICE
from tests.support.faults.report import report
from tests.support.faults.web_harness import (
    Callers,
    Insistent,
    ServiceRecords,
    fake_worker,
    images,
    one_image,
    records_of,
    sized,
    until,
    web_service,
)
from tests.support.hostile_pictures import good_png
from tests.support.redis_backend import redis_server
from tests.support.running import RunningService
from tests.support.store_backends import empty_database

CALLERS = 6
FORMS: tuple[tuple[str, Callable[[], bytes]], ...] = (
    ("/generate-3d", lambda: one_image(good_png(), quality=1, steps=10)),
    ("/batch", lambda: images(good_png(), good_png(), quality=1, steps=10)),
)


class OwnWorker(RunningService):
    """The one process: its model takes seconds to load and to run only where that is waited for."""

    command = sized(FAKE_SERVICE, RunningService.command)


@contextmanager
def uploads(service: RunningService, kinds: int, slowly: float, per_caller: int | None = None) -> Iterator[Insistent]:
    """Callers that upload while the block runs, half of them slowly; each request gets its answer before the end."""
    insistent = [Insistent(service, service.agent, slowly=slowly * (k % 2)) for k in range(CALLERS)]
    total = Insistent(service, service.agent)
    with Callers() as callers:

        def upload(caller: Insistent, first: int) -> None:
            sent = 0
            while not callers.stopping and sent != per_caller:
                path, body = FORMS[(first + sent) % kinds]
                caller.submit(body(), path)
                sent += 1

        for number, caller in enumerate(insistent):
            callers.add_loop(lambda caller=caller, number=number: upload(caller, number))  # type: ignore[misc]
        yield total
        if per_caller is not None:
            until(lambda: sum(len(each.promised) for each in insistent) == CALLERS * per_caller, "all answered")
    for each in insistent:
        total.promised.update(each.promised)
        total.tries.update(each.tries)


def expect_nothing_lost(found: ServiceRecords, sent: Insistent, kills: int) -> int:
    """Return how many files were left to the janitor."""
    found.wait_until_done()
    found.expect_whole(sent.promised)
    # A process that died between storing a picture and noting its job leaves the picture to the janitor.
    assert len(found.files("inputs")) <= kills * 2 * CALLERS
    orphans = len(found.files("inputs"))
    found.sweep_later()
    assert (found.files("inputs"), found.files("artifacts"), found.rows()) == (set(), set(), {})
    return orphans


def told(sent: Insistent, orphans: int) -> str:
    again = sum(tries > 1 for tries in sent.tries.values())
    return (
        f"{len(sent.promised)} requests accepted and completed, {again} of them sent more than once and made once; "
        f"{orphans} pictures left to the janitor"
    )


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_killed_web_processes_lose_no_accepted_job(tmp_path: Path, database: str) -> None:
    kills = sized(6, 100)
    redis = redis_server()
    settings = {
        "DATABASE_URL": "" if database == "sqlite" else empty_database("postgresql", tmp_path),
        "RATE_LIMIT_STORAGE_URL": redis.url,
        "WEB_PROCESSES": 4,
        "QUEUE_LIMIT": 100_000,
    }
    chance = random.Random(4)
    with (
        web_service(tmp_path / "service", processes=4, works=False, **settings) as service,
        records_of(service) as found,
        fake_worker(service),
    ):
        with uploads(service, kinds=2, slowly=0.4) as sent:
            for _ in range(kills):
                time.sleep(chance.uniform(0.05, 0.4))
                kill_one(service, chance)
        assert max(sent.tries.values()) > 1
        orphans = expect_nothing_lost(found, sent, kills)
        service.wait_for_health()
    report(f"4 web processes killed during uploads ({database})", f"{kills} kills", told(sent, orphans))


@pytest.mark.slow
def test_killed_service_with_its_own_worker_loses_no_accepted_job(tmp_path: Path) -> None:
    kills = sized(2, 12)
    settings = {"LEASE_SECONDS": 5, "SWEEP_SECONDS": 1, "MAX_ATTEMPTS": 100}
    service = OwnWorker(tmp_path / "service", **settings)
    chance = random.Random(5)
    try:
        service.start()
        with records_of(service) as found:
            with uploads(service, kinds=1, slowly=1.5, per_caller=sized(1, 6)) as sent:
                for number in range(kills):
                    time.sleep(chance.uniform(0.3, 0.9))
                    if number % 2:
                        # With the process that watches over it, as when the machine stops.
                        service.kill()
                        service.start()
                    else:
                        service.kill_web_processes()
                        until(lambda: bool(service.web_processes()), "a new process")
                        service.wait_for_health()
            assert max(sent.tries.values()) > 1
            orphans = expect_nothing_lost(found, sent, kills)
        service.stop()
        report("the one process, with its worker, killed during uploads", f"{kills} kills", told(sent, orphans))
    finally:
        service.kill()


def kill_one(service: RunningService, chance: random.Random) -> None:
    alive = service.web_processes()
    if alive:
        try:
            chance.choice(alive).send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return
