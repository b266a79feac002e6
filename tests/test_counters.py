"""Numbers that grow, of one process and of several: what is told of them, whoever counts and whoever dies."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from backend.telemetry.counters import CounterFamily, Counts, HistogramFamily, OwnCounts, Tally
from backend.telemetry.service_metrics import ServiceMetrics
from backend.telemetry.shared_memory import SharedCounts, SharedTable
from tests.support.exposition import metric
from tests.support.server_process import REPOSITORY

SEEN = CounterFamily("seen", "What was seen.", ("what", "where"))
ALL = CounterFamily("all", "All of it.")
SIZES = HistogramFamily("sizes", "How large.", (0.5, 1, 20), ("what",))
WEIGHTS = HistogramFamily("weights", "How heavy.", (1, 2))


def shared() -> Counts:
    return SharedCounts(SharedTable(3), 1)


@pytest.mark.parametrize("make", [OwnCounts, shared])
def test_prometheus_own_counters_tell_the_same(make: Callable[[], Counts]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = Tally((SEEN, ALL, SIZES, WEIGHTS))
    tally.share(make())
    ours.register(tally)
    seen = Counter("seen", "What was seen.", ("what", "where"), registry=theirs)
    Counter("all", "All of it.", registry=theirs)
    sizes = Histogram("sizes", "How large.", ("what",), buckets=(0.5, 1, 20), registry=theirs)
    Histogram("weights", "How heavy.", buckets=(1, 2), registry=theirs)
    for what, where in (("a", 'quo"te\n'), ("b", "ü"), ("a", 'quo"te\n')):
        tally.add(SEEN.steps(what, where))
        seen.labels(what, where).inc()
    for size in (0.2, 0.5, 0.7, 20, 21, 300):
        tally.add(SIZES.steps(size, "a"))
        sizes.labels("a").observe(size)
    # Theirs also tell when each counter began.
    lines = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
    assert sorted(generate_latest(ours).decode().splitlines()) == sorted(lines)


def test_processes_tell_their_sum_and_each_tells_the_same() -> None:
    table = SharedTable(2)
    one, other = SharedCounts(table, 0), SharedCounts(table, 1)
    one.add([(("a",), 1.0), (("b", "x"), 2.5)])
    other.add([(("a",), 10.0)])
    one.add([(("a",), 100.0)])
    assert one.totals() == other.totals() == {("a",): 111.0, ("b", "x"): 2.5}


def test_who_takes_a_dead_one_s_place_goes_on_with_its_numbers() -> None:
    table = SharedTable(2)
    SharedCounts(table, 0).add([(("a",), 5.0)])
    successor = SharedCounts(table, 0)
    successor.add([(("a",), 1.0), (("b",), 1.0)])
    assert successor.totals() == {("a",): 6.0, ("b",): 1.0}


def test_a_number_that_was_being_begun_by_a_dead_one_is_not_there() -> None:
    table = SharedTable(1)
    dead = SharedCounts(table, 0)
    dead.add([(("a",), 1.0)])
    used = table._words[0]
    dead.add([(("b",), 1.0)])
    table._words[0] = used
    successor = SharedCounts(table, 0)
    assert successor.totals() == {("a",): 1.0}
    successor.add([(("c",), 2.0)])
    assert successor.totals() == {("a",): 1.0, ("c",): 2.0}


def test_a_place_is_free_when_nobody_has_it() -> None:
    table = SharedTable(3)
    assert [table.free_slot(taken) for taken in ([], [0], [0, 2], [2, 1, 0])] == [0, 1, 1, None]


def test_a_process_has_a_place_of_its_own_or_one_that_a_dead_one_had() -> None:
    from backend.serve import gunicorn_conf

    server = SimpleNamespace(shared_table=SharedTable(2), WORKERS={})
    workers = [SimpleNamespace(shared_counts=None) for _ in range(3)]
    for pid in (0, 1):
        gunicorn_conf.pre_fork(server, workers[pid])
        server.WORKERS[pid] = workers[pid]
    workers[0].shared_counts.add([(("a",), 1.0)])
    del server.WORKERS[0]
    gunicorn_conf.pre_fork(server, workers[2])
    assert [worker.shared_counts.slot for worker in workers] == [0, 1, 0]
    assert workers[2].shared_counts.totals() == {("a",): 1.0}


def test_what_has_no_room_is_said_once_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    table = SharedTable(2)
    full, beside = SharedCounts(table, 0), SharedCounts(table, 1)
    with caplog.at_level(logging.WARNING):
        for k in range(6000):
            full.add([(("x" * 100, str(k)), 1.0)])
    assert caplog.text.count("no room") == 1
    kept = len(full.totals())
    assert 3000 < kept < 6000
    full.add([(("x" * 100, "0"), 1.0)])
    beside.add([(("b",), 1.0)])
    totals = full.totals()
    assert (totals["x" * 100, "0"], totals["b",], len(totals)) == (2.0, 1.0, kept + 1)


def test_who_has_no_place_tells_of_the_others() -> None:
    table = SharedTable(1)
    SharedCounts(table, 0).add([(("a",), 1.0)])
    without = SharedCounts(table, None)
    without.add([(("a",), 1.0)])
    assert without.totals() == {("a",): 1.0}


FORKED = """
import os, threading
from backend.telemetry.shared_memory import SharedCounts, SharedTable

def count(counts):
    for k in range(4000):
        counts.add([(("n", str(k % 10)), 1.0)])

table = SharedTable(2)
child = os.fork()
ours = SharedCounts(table, 0 if child else 1)
if child == 0:
    count(ours)
    os._exit(0)
seen = []
threads = [threading.Thread(target=count, args=(ours,)) for _ in range(2)]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    seen.append(ours.totals().get(("n", "0"), 0.0))
assert os.waitpid(child, 0)[1] == 0
assert seen == sorted(seen), "a number fell"
assert ours.totals() == {("n", str(k)): 3 * 400.0 for k in range(10)}
"""


def test_threads_and_forked_processes_lose_no_count() -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", FORKED], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_service_that_shares_tells_of_all_its_processes_and_of_none_alone() -> None:
    table = SharedTable(2)
    one, other = ServiceMetrics(), ServiceMetrics()
    assert metric(one.exposition(), "process_resident_memory_bytes") is not None
    for place, metrics in enumerate((one, other)):
        metrics.share(SharedCounts(table, place))
        metrics.request_answered("/jobs", "GET", 200, "", 0.1)
    for metrics in (one, other):
        text = metrics.exposition()
        assert metric(text, "orfeas_requests_total", route="/jobs", status="200") == 2
        assert metric(text, "orfeas_request_seconds_count", route="/jobs") == 2
        assert metric(text, "process_resident_memory_bytes") is None
