"""`orfeas backup` and `orfeas restore`: a service that is at work is copied, and goes on in an empty place."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from backend.cli import backup
from backend.cli.backup.copies import MANIFEST
from backend.config import Settings
from backend.jobs.models import Status
from backend.jobs.schema import jobs
from backend.periodic import utc_now
from backend.storage.migrations import migrate, revisions
from tests.support.agent_service import API, AgentService, refused
from tests.support.store_backends import BACKENDS, fresh_database, open_database


def run(command: Callable[..., int], folder: Path, *options: str, **settings: object) -> str:
    """Run a command that goes well; return what it says."""
    output = io.StringIO()
    assert command([str(folder), *options], environment(settings), output) == 0
    return output.getvalue()


def environment(settings: dict[str, object]) -> dict[str, str]:
    names = {"data_dir": "ORFEAS_DATA_DIR", "database_url": "DATABASE_URL"}
    return {names[name]: str(value) for name, value in settings.items()}


def complaint(command: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str], **settings: object) -> str:
    """Run a command that cannot be done; return the sentence that says why."""
    assert command([str(folder)], environment(settings), io.StringIO()) == 1
    return capsys.readouterr().err


@contextmanager
def working(folder: Path, url: str) -> Iterator[AgentService]:
    """Run a service by the real time, as a restore goes by that."""
    service = AgentService(folder, database_url=url)
    service.clock.now = utc_now()
    service.services.start()
    try:
        yield service
    finally:
        service.services.stop()


@contextmanager
def load(service: AgentService) -> Iterator[threading.Event]:
    """Send jobs as fast as they are taken; the event is set once the first are made."""
    warm, over = threading.Event(), threading.Event()

    def send(agent: str) -> None:
        while not over.is_set():
            assert service.generate(agent=agent).status_code in (202, 429)
            if service.get("/jobs?status=completed", agent=agent).get_json()["jobs"]:
                warm.set()

    threads = [threading.Thread(target=send, args=(agent,)) for agent in ("ann", "bob")]
    for thread in threads:
        thread.start()
    try:
        yield warm
    finally:
        over.set()
        for thread in threads:
            thread.join()


def states(url: str) -> dict[str, tuple[Status, str]]:
    """Return the state and the owner of each job in a database."""
    with open_database(url) as database, database.read() as connection:
        rows = connection.execute(select(jobs.c.id, jobs.c.status, jobs.c.agent_id))
        return {row.id: (row.status, row.agent_id) for row in rows}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backup_under_load_goes_on_in_an_empty_place(backend: str, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    urls = [fresh_database(backend, place(tmp_path, name)) for name in ("one", "two")]
    with working(there, urls[0]) as service:
        with load(service) as warm:
            assert warm.wait(60)
            run(backup.run_backup, tmp_path / "copy", data_dir=there, database_url=urls[0])
        before = service.headers("GET", f"{API}/me")
        # What came after the copy is lost with this machine; what was made before it is compared below. What is still
        # being written has another name a moment later.
        made = [path for path in (there / "artifacts").iterdir() if path.suffix != ".part"]
        meshes = {path.name: path.read_bytes() for path in made}
        audit = (there / "audit.jsonl").read_text()

    told = run(backup.run_restore, tmp_path / "copy", data_dir=here, database_url=urls[1])
    assert "deleted" not in told, told
    found = states(urls[1])
    assert Status.COMPLETED in {status for status, _ in found.values()}
    assert audit.startswith((here / "audit.jsonl").read_text())
    with working(here, urls[1]) as restored:
        assert restored.keys == service.keys
        assert refused(replay(restored, before)) == (401, "AUTH_EXPIRED")
        # By then the leases of the machine that is gone have ended.
        restored.clock.now = utc_now() + timedelta(seconds=restored.settings.timestamp_tolerance)
        names = {restored.owner(name): name for name in ("ann", "bob")}
        for job_id, (status, owner) in found.items():
            agent = names[owner]
            # A wait ends with the next change, of which a job has several.
            for _ in range(50):
                answer = restored.get(f"/status/{job_id}?wait=60", agent=agent).get_json()
                if answer["status"] not in ("queued", "processing"):
                    break
            assert answer["status"] == "completed", answer
            mesh = restored.call("GET", answer["download_url"], agent=agent)
            assert mesh.status_code == 200
            if status is Status.COMPLETED:
                assert mesh.data == meshes[Path(answer["download_url"]).name]


def replay(service: AgentService, headers: dict[str, str]) -> TestResponse:
    return service.app.test_client().get(f"{API}/me", headers=headers)


def place(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Give the backup of a service that has one agent, one mesh and no jobs."""
    data = place(tmp_path, "data")
    migrate(Settings(data_dir=data).database_url)
    (data / "agents.json").write_text('{"agents": {}}')
    place(data, "artifacts")
    (data / "artifacts" / f"{'a' * 32}.glb").write_bytes(b"mesh")
    (data / "artifacts" / f"{'b' * 32}.glb.{'c' * 16}.part").write_bytes(b"half a me")
    folder = tmp_path / "copy"
    assert "has 3 files" in run(backup.run_backup, folder, data_dir=data)
    return folder


def test_a_backup_is_its_owners_alone_and_says_what_it_holds(copied: Path) -> None:
    files = [path for path in copied.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert copied.stat().st_mode & 0o777 == 0o700
    told = json.loads((copied / MANIFEST).read_text())
    assert (told["database"], told["revision"]) == ("sqlite", revisions.head())
    assert {str(path.relative_to(copied)) for path in files} == {MANIFEST, *told["files"]}
    assert "3 files and a sqlite database" in run(backup.run_restore, copied, "--only-check")


def test_what_is_restored_is_its_owners_alone(copied: Path, tmp_path: Path) -> None:
    run(backup.run_restore, copied, data_dir=tmp_path / "fresh")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "fresh", tmp_path / "fresh/artifacts")}
    assert modes == {0o700}
    files = [path for path in (tmp_path / "fresh").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_a_restore_that_was_cut_off_goes_on(copied: Path, tmp_path: Path) -> None:
    (place(place(tmp_path, "here"), "artifacts") / f"{'a' * 32}.glb").write_bytes(b"me")
    run(backup.run_restore, copied, data_dir=tmp_path / "here")
    assert (tmp_path / "here/artifacts" / f"{'a' * 32}.glb").read_bytes() == b"mesh"


def test_nothing_is_replaced(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    assert "there already" in complaint(backup.run_backup, copied, capsys, data_dir=data)
    assert "has tables already" in complaint(backup.run_restore, copied, capsys, data_dir=data)
    (data / "agents.json").write_text("{}")
    assert "AGENTS_FILE" in complaint(backup.run_restore, copied, capsys, data_dir=data)


def test_a_backup_that_was_changed_is_refused(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = copied / MANIFEST
    whole = manifest.read_text()
    for written, sentence in (
        (whole.replace('"format": 1', '"format": 2'), "later release"),
        (whole.replace(f'"revision": "{revisions.head()}"', '"revision": "9999"'), "does not know"),
        (whole.replace("agents.json", "../agents.json"), "damaged"),
        (whole.replace('"sqlite"', '"postgresql"'), "a postgresql database"),
        ("{", "damaged"),
        (re.sub(r'"sha256": "\w', '"sha256": "x', whole), "was changed"),
    ):
        manifest.write_text(written)
        assert sentence in complaint(backup.run_restore, copied, capsys, data_dir=tmp_path / "here")
    manifest.unlink()
    assert "is no backup" in complaint(backup.run_restore, copied, capsys, data_dir=tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_backup_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = place(tmp_path, "copies") / "copy"
    assert "no tables yet" in complaint(backup.run_backup, folder, capsys, data_dir=tmp_path)
    url = fresh_database("postgresql", tmp_path)
    migrate(url)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = complaint(backup.run_backup, folder, capsys, data_dir=tmp_path, database_url=url)
    assert "apt install postgresql-client" in said
    assert list(folder.parent.iterdir()) == []


@pytest.mark.usefixtures("copied")
def test_a_database_with_a_backup_of_its_own_may_be_left_out(tmp_path: Path) -> None:
    told = run(backup.run_backup, tmp_path / "files", "--without-database", data_dir=tmp_path / "data")
    assert "The database is not among them." in told
    told = run(backup.run_restore, tmp_path / "files", data_dir=tmp_path / "here")
    assert "restore the database by its server's means" in told
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["agents.json", "artifacts"]
