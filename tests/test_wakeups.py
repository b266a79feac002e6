"""What another process writes is heard at once where the database tells of it."""

from __future__ import annotations

from pathlib import Path

from backend.jobs.changes import Changes
from backend.jobs.store import JobStore
from backend.storage.database import Database
from backend.storage.wakeups import Wakeups
from tests.support.store_backends import ManualClock, empty_database, submit
from tests.support.workshop import eventually


def test_postgresql_tells_of_what_another_process_wrote(tmp_path: Path) -> None:
    url = empty_database("postgresql", tmp_path)
    database, heard, changes = Database.open(url), [0], Changes()

    def hear() -> None:
        heard[0] += 1

    changes.listen(hear)
    wakeups = Wakeups(url, changes.hear)
    wakeups.start()
    eventually(lambda: heard[0] == 1)
    submit(JobStore(database, ManualClock()), "ann")
    eventually(lambda: heard[0] >= 2)
    # It is no write of this process.
    assert changes.count == 0
    wakeups.stop()
    database.close()


def test_sqlite_has_nothing_to_tell(tmp_path: Path) -> None:
    wakeups = Wakeups(f"sqlite:///{tmp_path / 'x.sqlite3'}", lambda: None)
    wakeups.start()
    assert wakeups._thread is None
    wakeups.stop()
