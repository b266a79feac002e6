"""Meshes are made behind whoever answers, in the one process that does both."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from backend.runner.thread_priority import NICE, run_after_others
from tests.support.agent_service import agent_service
from tests.support.fake_gpu import FakeProcessor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells threads of one process apart")


def nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_the_device_s_thread_and_those_that_make_files_run_after_all_others(tmp_path: Path) -> None:
    before, found = nice(), dict[str, int]()
    fake = FakeProcessor()
    fake.before_call = lambda _call: found.setdefault("device", nice())
    fake.before_finish = lambda _image: found.setdefault("files", nice())
    with agent_service(tmp_path, running=True, processor=fake) as service:
        service.made()
    expected = max(before, NICE)
    assert found == {"device": expected, "files": expected}
    assert nice() == before


def test_who_is_behind_already_stays_there() -> None:
    found = []

    def go() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE + 5)
        run_after_others()
        found.append(nice())

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    assert found == [NICE + 5]
