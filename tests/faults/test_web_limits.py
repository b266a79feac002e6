"""Four web processes are one service to those who call it: limits and nonces hold over all of them, to the request."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.faults.report import report
from tests.support.faults.web_harness import images, send_nonces, sized, web_service
from tests.support.hostile import FORM
from tests.support.hostile_pictures import good_png
from tests.support.own_process import own_processes
from tests.support.redis_backend import redis_server
from tests.support.running import API
from tests.support.store_backends import empty_database

PROCESSES = 4
LIMITED = (429, "RATE_LIMITED")


@pytest.mark.slow
def test_four_web_processes_admit_exactly_the_limit(tmp_path: Path) -> None:
    settings = {
        "RATE_LIMIT_STORAGE_URL": redis_server().url,
        "NONCE_STORE": redis_server().url,
        "WEB_PROCESSES": PROCESSES,
    }
    with web_service(tmp_path, processes=PROCESSES, works=False, **settings) as service:
        reader, sender = service.add_agent(rate_limit=100), service.add_agent(batch_rate_limit=10)
        body = images(good_png(), good_png())

        def send_batch() -> tuple[int, str]:
            headers = {"Content-Type": FORM}
            return service.call("POST", f"{API}/batch", body, agent=sender, headers=headers).refusal

        before = {each.pid: sum(each.cpu_times()) for each in service.web_processes()}
        with ThreadPoolExecutor(16) as pool:
            read = Counter(pool.map(lambda _: service.get("/jobs", agent=reader).refusal, range(600)))
            sent = Counter(pool.map(lambda _: send_batch(), range(sized(40, 200))))
        assert read == {(200, ""): 100, LIMITED: 500}
        assert sent == {(202, ""): 10, LIMITED: sized(30, 190)}
        # All of them had work, or nothing was shown.
        worked = {each.pid: sum(each.cpu_times()) - before[each.pid] for each in service.web_processes()}
        assert len(worked) == PROCESSES
        assert min(worked.values()) > 0.05
    report("4 web processes, limit 100", "600 requests", "exactly 100 admitted")
    report("4 web processes, batch limit 10", f"{sized(40, 200)} batches", "exactly 10 admitted")


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "postgresql", "redis"])
def test_eight_processes_that_send_the_same_nonces_use_each_once(tmp_path: Path, store: str) -> None:
    settings = {
        "DATABASE_URL": empty_database("postgresql", tmp_path) if store == "postgresql" else "",
        "NONCE_STORE": redis_server().url if store == "redis" else "database",
        "RATE_LIMIT_STORAGE_URL": redis_server().url,
        "WEB_PROCESSES": PROCESSES,
        # Or replays are answered 429 before they are looked at.
        "UNAUTHENTICATED_RATE_LIMIT": 1_000_000,
    }
    names = [f"nonce-{k:04d}" for k in range(sized(20, 500))]
    turns = [names[k:] + names[:k] for k in range(8)]
    with web_service(tmp_path / "service", processes=PROCESSES, works=False, **settings) as service:
        work = [(service.port, service.agent, turn) for turn in turns]
        with own_processes().Pool(8) as pool:
            answers = pool.starmap_async(send_nonces, work, chunksize=1).get(timeout=300)
    statuses = Counter(status for some in answers for _, status in some)
    assert sorted(nonce for some in answers for nonce, status in some if status == 200) == names
    assert statuses == {200: len(names), 401: 7 * len(names)}
    made = f"the same {len(names)} nonces from 8 processes"
    report(f"4 web processes, nonces in {store}", made, f"exactly {statuses[200]} admitted")
