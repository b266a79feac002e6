"""Images of the next batch are prepared while this one runs, and nothing else of a job's way changes by that."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import DeviceLost, NoForeground
from backend.jobs.models import Status
from tests.support.fake_gpu import FakeCall
from tests.support.store_backends import empty_database, open_database
from tests.support.workshop import Workshop, eventually, workshop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    url = empty_database("sqlite", tmp_path)
    with open_database(url) as database, workshop(tmp_path, database, max_batch_size=2) as made:
        yield made


def until_prepared(shop: Workshop, *images: bytes) -> None:
    """Let the first call last until these images were prepared beside it."""

    def wait(_: FakeCall) -> None:
        if len(shop.fake.calls) == 1:
            eventually(lambda: set(images) <= set(shop.fake.prepared))

    shop.fake.before_call = wait


def test_the_next_batch_is_prepared_while_this_one_runs(shop: Workshop) -> None:
    ids = [shop.submit(bytes([k])) for k in range(4)]
    until_prepared(shop, b"\2", b"\3")
    assert shop.work_off() == 4
    assert [call.images for call in shop.fake.calls] == [[b"\0", b"\1"], [b"\2", b"\3"]]
    assert shop.fake.used_prepared == [b"\2", b"\3"]
    assert {shop.job(job_id).status for job_id in ids} == {Status.COMPLETED}
    assert shop.files("inputs") == sorted(shop.job(job_id).image_name for job_id in ids)


def test_what_is_still_being_prepared_is_waited_for(shop: Workshop) -> None:
    for k in range(4):
        shop.submit(bytes([k]))
    begun, go = threading.Event(), threading.Event()

    def prepare(_: list[bytes]) -> None:
        begun.set()
        assert go.wait(20)

    shop.fake.before_preparing = prepare
    shop.fake.before_call = lambda _: begun.wait(20)
    worker = shop.worker()
    assert worker.run_batch() == 2
    threading.Timer(0.3, go.set).start()
    assert worker.run_once() == 2
    assert shop.fake.used_prepared == [b"\2", b"\3"]


def test_jobs_that_come_while_a_batch_runs_are_prepared_too(shop: Workshop) -> None:
    shop.submit(b"first")

    def submit_second(call: FakeCall) -> None:
        if call.images == [b"first"]:
            shop.submit(b"second")
            eventually(lambda: shop.fake.prepared == [b"second"])

    shop.fake.before_call = submit_second
    assert shop.work_off() == 2
    assert shop.fake.used_prepared == [b"second"]


def test_what_is_prepared_is_not_leased_and_a_dead_worker_loses_none_of_it(shop: Workshop) -> None:
    ids = [shop.submit(bytes([k])) for k in range(4)]
    seen: list[tuple[Status, int]] = []

    def look(_: FakeCall) -> None:
        eventually(lambda: shop.fake.prepared == [b"\2", b"\3"])
        seen.extend((shop.job(job_id).status, shop.job(job_id).attempts) for job_id in ids[2:])
        raise KeyboardInterrupt

    shop.fake.before_call = look
    with pytest.raises(KeyboardInterrupt):
        shop.worker().run_batch()
    assert seen == [(Status.QUEUED, 0)] * 2
    shop.fake.before_call = lambda _: None
    assert shop.work_off() == 4
    assert {shop.job(job_id).status for job_id in ids} == {Status.COMPLETED}
    assert [shop.job(job_id).attempts for job_id in ids] == [1] * 4


def test_a_job_cancelled_after_its_image_was_prepared_does_not_run(shop: Workshop) -> None:
    ids = [shop.submit(bytes([k])) for k in range(4)]

    def cancel(_: FakeCall) -> None:
        if len(shop.fake.calls) == 1:
            eventually(lambda: shop.fake.prepared == [b"\2", b"\3"])
            shop.store.cancel(ids[2], "ann")

    shop.fake.before_call = cancel
    assert shop.work_off() == 3
    assert shop.job(ids[2]).status is Status.CANCELLED
    assert [call.images for call in shop.fake.calls] == [[b"\0", b"\1"], [b"\3"]]
    assert shop.fake.used_prepared == [b"\3"]


def test_a_worker_that_drains_leaves_what_it_prepared_in_the_queue(shop: Workshop) -> None:
    ids = [shop.submit(bytes([k])) for k in range(4)]
    worker = shop.worker()

    def drain(_: FakeCall) -> None:
        eventually(lambda: shop.fake.prepared == [b"\2", b"\3"])
        worker.drain(60)

    shop.fake.before_call = drain
    assert (worker.run_once(), worker.run_once()) == (2, 0)
    assert [shop.job(job_id).status for job_id in ids] == [Status.COMPLETED] * 2 + [Status.QUEUED] * 2


def test_an_image_that_cannot_be_prepared_is_its_own_jobs_failure(shop: Workshop) -> None:
    ids = [shop.submit(image) for image in (b"a", b"b", b"bad", b"c")]
    shop.fake.errors = {b"bad": NoForeground()}
    until_prepared(shop, b"bad", b"c")
    assert shop.work_off() == 4
    assert [shop.job(job_id).error_code for job_id in ids] == [None, None, "NO_FOREGROUND", None]


def test_a_preparation_that_blows_up_leaves_the_images_to_their_batch(shop: Workshop) -> None:
    ids = [shop.submit(bytes([k])) for k in range(4)]
    tried = threading.Event()

    def explode(_: list[bytes]) -> None:
        tried.set()
        raise RuntimeError("secret")

    shop.fake.before_preparing = explode
    shop.fake.before_call = lambda _: tried.wait(20)
    assert shop.work_off() == 4
    assert shop.fake.used_prepared == []
    assert [len(call.images) for call in shop.fake.calls] == [2, 2]
    assert {shop.job(job_id).status for job_id in ids} == {Status.COMPLETED}


def test_an_image_that_is_gone_is_found_out_by_its_own_run(shop: Workshop) -> None:
    ids = [shop.submit(bytes([k])) for k in range(4)]
    shop.images.delete(shop.job(ids[2]).image_name)
    until_prepared(shop, b"\3")
    assert shop.work_off() == 4
    assert [shop.job(job_id).error_code for job_id in ids] == [None, None, "PICTURE_LOST", None]


def test_no_more_is_prepared_than_a_batch_has(shop: Workshop) -> None:
    for k in range(9):
        shop.submit(bytes([k]))
    until_prepared(shop, b"\2", b"\3")
    worker = shop.worker()
    worker.run_once()
    assert shop.fake.prepared == [b"\2", b"\3"]
    # Another worker takes the two: what was prepared of them goes when the next are looked at.
    assert len(shop.store.lease("other", 2, 60)) == 2
    shop.fake.before_call = lambda _: eventually(lambda: shop.fake.prepared[2:] == [b"\6", b"\7"])
    worker.run_once()
    assert shop.fake.calls[1].images == [b"\4", b"\5"]
    assert len(worker._look_ahead._prepared) == 2


def test_only_jobs_that_may_run_together_are_prepared(shop: Workshop) -> None:
    for image, steps in ((b"a", 10), (b"b", 10), (b"c", 20), (b"d", 30), (b"e", 20)):
        shop.submit(image, steps=steps)
    until_prepared(shop, b"c", b"e")
    shop.worker().run_once()
    assert shop.fake.prepared == [b"c", b"e"]


def test_nothing_is_prepared_beside_a_job_whose_next_death_would_be_its_last(shop: Workshop) -> None:
    ids = [shop.submit(bytes([k])) for k in range(2)]
    for _ in range(2):
        assert len(shop.store.lease("doomed", 2, 60)) == 2
        shop.clock.advance(60)
    later = shop.submit(b"later")
    worker = shop.worker()
    assert [worker.run_once() for _ in range(3)] == [1, 1, 1]
    assert shop.fake.prepared == []
    assert {shop.job(job_id).status for job_id in (*ids, later)} == {Status.COMPLETED}


def test_a_job_whose_run_died_is_not_prepared_ahead(shop: Workshop) -> None:
    died = shop.submit(b"died")
    assert shop.store.lease("doomed", 1, 60)
    shop.clock.advance(60)
    shop.store.reclaim()
    shop.submit(b"other")
    assert shop.store.upcoming(4) == []
    assert shop.work_off() == 2
    assert shop.job(died).status is Status.COMPLETED


def test_an_isolated_job_waits_for_what_is_being_prepared_and_hangs_with_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = empty_database("sqlite", tmp_path)
    go, begun = threading.Event(), threading.Event()

    def hang(_: list[bytes]) -> None:
        begun.set()
        go.wait(20)

    with (
        open_database(url) as database,
        workshop(tmp_path, database, max_batch_size=1) as shop,
    ):
        shop.fake.before_preparing = hang
        shop.submit(b"first")
        shop.submit(b"hangs", agent_id="bob")
        shop.fake.before_call = lambda _: begun.wait(20)
        worker = shop.worker()
        settle = worker._look_ahead.settle
        monkeypatch.setattr(worker._look_ahead, "settle", lambda _: settle(0.2))
        assert worker.run_once() == 1
        isolated = shop.submit(b"isolated", agent_id="ann")
        hanging = next(job for job in shop.store.upcoming(1))
        shop.store.cancel(hanging.id, "bob")
        for _ in range(2):
            assert shop.store.lease("doomed", 1, 60)[0].id == isolated
            shop.clock.advance(60)
        with pytest.raises(DeviceLost):
            worker.run_once()
        assert [call.images for call in shop.fake.calls] == [[b"first"]]
        eventually(lambda: shop.job(isolated).status is Status.QUEUED)
        assert shop.job(isolated).attempts == 2
        go.set()


def test_a_processor_that_does_not_want_it_prepares_nothing_ahead(shop: Workshop) -> None:
    for k in range(4):
        shop.submit(bytes([k]))
    shop.fake.prepares_ahead = False
    assert shop.work_off() == 4
    assert (shop.fake.prepared, shop.fake.used_prepared) == ([], [])


def test_a_batch_that_fails_as_a_whole_runs_its_prepared_images_one_by_one(shop: Workshop) -> None:
    ids = [shop.submit(bytes([k])) for k in range(4)]

    def explode(call: FakeCall) -> None:
        if call.images == [b"\0", b"\1"]:
            eventually(lambda: shop.fake.prepared == [b"\2", b"\3"])
        if b"\3" in call.images:
            raise ValueError("secret")

    shop.fake.before_call = explode
    assert shop.work_off() == 4
    assert [shop.job(job_id).error_code for job_id in ids] == [None, None, None, "GENERATION_FAILED"]


def test_the_device_is_busy_from_the_prepared_images_to_the_fields(shop: Workshop) -> None:
    pause = threading.Event()
    shop.fake.before_call = lambda _: pause.wait(0.2)
    shop.fake.at_step = lambda _: pause.wait(0.05)
    shop.submit(steps=10)
    shop.worker().run_once()
    ((busy, wanted),) = shop.counts.device
    assert 0.5 <= busy <= wanted - 0.2


def test_time_without_jobs_is_not_counted_and_time_in_which_they_waited_is(shop: Workshop) -> None:
    ticks = [0.0]
    worker = shop.worker()
    times = worker._device_times
    times._monotonic = lambda: ticks[0]
    times.ready()
    ticks[0] = 10.0
    times.begin()
    ticks[0] = 13.0
    times.end()
    times.batch_done(begun=8.0, waited=3.0)
    ticks[0] = 20.0
    times.batch_done(begun=15.0, waited=100.0)
    assert shop.counts.device == [(3.0, 5.0 + 3.0), (0.0, 5.0 + 2.0)]
