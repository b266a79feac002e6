"""`orfeas doctor`: it tells each thing that can be wrong, in a sentence that says what to do, and never hangs."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from sqlalchemy import text

import backend
from backend.auth.agents_file import add_agent, set_enabled
from backend.cli import doctor
from backend.cli.doctor import clock, machine, parts, ports, stores
from backend.cli.doctor.checks import Check, WrongError, examine
from backend.cli.doctor.environment import near_misses, read_settings
from backend.config import Settings
from backend.errors import AgentsFileError, CheckpointNotFound, ConfigurationError
from backend.storage.database import Database
from benchmarks.support.ports import free_port
from benchmarks.support.redis import RedisServer
from tests.support.s3 import S3Server
from tests.support.store_backends import fresh_database
from tests.support.tiny_service import TinyService


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Give the settings of a service that was never started."""
    return Settings(data_dir=tmp_path / "data", port=0)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Be somebody who takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """Start a Redis of the test's own."""
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.destroy()


def port_of(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


def wrong(look: Callable[[], str]) -> str:
    """Return what a check finds wrong; it has to."""
    with pytest.raises(WrongError) as caught:
        look()
    return str(caught.value)


# The command


def run(environ: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    output = io.StringIO()
    return doctor.run(arguments, environ, output), output.getvalue()


def test_a_machine_that_is_well_is_told_so_in_lines(tmp_path: Path) -> None:
    code, told = run({"ORFEAS_DATA_DIR": str(tmp_path / "data"), "PORT": "0", "DEVICE": "cpu"})
    lines = told.splitlines()
    assert (code, lines[-1]) == (0, "All is well.")
    names = "settings python torch device checkpoint previews memory disk data agents database files port metrics clock"
    assert [line.split()[1] for line in lines[:-2]] == names.split()
    assert {line.split()[0] for line in lines[:-2]} == {"ok"}
    assert not (tmp_path / "data").exists()


def test_what_is_wrong_ends_with_1_and_stands_in_the_json(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    code, told = run({"ORFEAS_DATA_DIR": str(tmp_path / "data"), "PORT": "0", "WORKER_ENABLED": "false"}, "--json")
    answer = json.loads(told)
    assert (code, answer["ok"]) == (1, False)
    found = {check["name"]: check for check in answer["checks"]}
    assert found["data folder"] == {
        "name": "data folder",
        "ok": False,
        "message": f"{tmp_path / 'data'} is a file: name a folder with ORFEAS_DATA_DIR.",
    }
    assert found["python"]["ok"] is True


def test_lines_count_what_is_wrong(tmp_path: Path) -> None:
    code, told = run({"ORFEAS_DATA_DIR": str(tmp_path), "PORT": "many", "WORKER_ENABLED": "false"})
    assert code == 1
    assert "wrong  settings      PORT must be a whole number, not 'many'.\n" in told
    assert told.splitlines()[-1].endswith(" are wrong.")


# How checks are done


def test_a_check_that_hangs_is_given_up_and_the_others_are_told() -> None:
    hang = threading.Event()
    began = time.monotonic()
    try:
        slow, quick = examine([Check("slow", lambda: str(hang.wait(60)), 0.2), Check("quick", lambda: "Well.")])
    finally:
        hang.set()
    assert time.monotonic() - began < 5
    assert (slow.ok, quick.ok, quick.message) == (False, True, "Well.")
    assert slow.message == "There was no answer within 0.2 s: see what it waits for, then look again."


def test_a_check_that_fails_in_an_unknown_way_does_not_take_the_others_along() -> None:
    def fail() -> str:
        raise ZeroDivisionError("by zero")

    def refuse() -> str:
        raise ConfigurationError("Set it right.")

    found = examine([Check("a", fail), Check("b", refuse), Check("c", lambda: "Well.")])
    assert [one.message for one in found] == [
        "This could not be looked at: ZeroDivisionError: by zero.",
        "Set it right.",
        "Well.",
    ]


# Settings


def test_every_setting_that_cannot_be_used_is_told_and_stands_at_its_default() -> None:
    read = read_settings({"PORT": "x", "MAX_ATTEMPTS": "0", "LOG_LEVEL": "LOUD", "QUEUE_LIMIT": "7", "NONCE_TTL": "5"})
    told = " ".join(read.problems)
    for name in ("PORT must be", "MAX_ATTEMPTS must be", "LOG_LEVEL must be", "NONCE_TTL is 5"):
        assert told.count(name) == 1
    assert (read.settings.port, read.settings.queue_limit) == (5000, 7)


def test_settings_that_do_not_go_together_are_told_once() -> None:
    read = read_settings({"HOST": "0.0.0.0", "AGENT_AUTH_ENABLED": "false"})  # noqa: S104
    assert [problem.split()[0] for problem in read.problems] == ["AGENT_AUTH_ENABLED=false"]
    assert read.settings.auth_enabled


def test_names_that_nothing_reads_are_told_with_what_was_meant() -> None:
    names = ["ORFEAS_DATADIR", "RATE_LIMT", "ORFEAS_SOMETHING", "ORFEAS_URL", "PATH", "HOSTNAME", "HOST", "EXPORT"]
    assert near_misses(names) == [
        "Nothing reads the variable ORFEAS_DATADIR: did you mean ORFEAS_DATA_DIR?",
        "Nothing reads the variable ORFEAS_SOMETHING; README.md lists every setting.",
        "Nothing reads the variable RATE_LIMT: did you mean RATE_LIMIT?",
    ]


# The machine


def test_an_old_python_is_told() -> None:
    assert wrong(lambda: machine.look_at_python((3, 9, 1))).startswith("This is Python 3.9.1: make the environment")


def test_torch_that_cannot_be_imported_is_told_where_it_is_needed(settings: Settings, tmp_path: Path) -> None:
    def missing() -> None:
        raise ImportError("No module named 'torch'")

    told = wrong(lambda: machine.look_at_torch(settings, missing))
    assert told == "torch cannot be imported (No module named 'torch'): pip install -r requirements.txt"
    web = Settings(data_dir=tmp_path, worker_enabled=False)
    assert machine.look_at_torch(web, missing) == "torch is not there, and with WORKER_ENABLED=false it is not needed."


def test_a_cpu_build_beside_an_nvidia_driver_is_told(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.version.cuda", None)
    driver = tmp_path / "version"
    assert "built for the CPU alone." in machine.look_at_torch(settings, driver=driver)
    driver.touch()
    assert "this machine has an NVIDIA driver" in wrong(lambda: machine.look_at_torch(settings, driver=driver))
    on_cpu = Settings(data_dir=tmp_path, device="cpu")
    assert "built for the CPU alone." in machine.look_at_torch(on_cpu, driver=driver)


def test_a_device_that_torch_does_not_see_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    cuda = Settings(data_dir=tmp_path, device="cuda:1")
    assert wrong(lambda: machine.look_at_device(cuda)).startswith("DEVICE=cuda:1, but torch sees no CUDA device")
    mps = Settings(data_dir=tmp_path, device="mps")
    assert wrong(lambda: machine.look_at_device(mps)).startswith("DEVICE=mps, but torch sees no Apple GPU")
    assert machine.look_at_device(Settings(data_dir=tmp_path)).startswith("CPU with ")


def test_a_gpu_that_is_full_or_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [8 * machine.GIB]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "A GPU")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (free[0], 24 * machine.GIB))
    assert machine.look_at_device(Settings(data_dir=tmp_path)) == "A GPU, 8.0 of 24 GiB free."
    free[0] = machine.GIB
    assert wrong(lambda: machine.look_at_device(Settings(data_dir=tmp_path))).startswith("Only 1.0 of 24 GiB of A GPU")
    second = Settings(data_dir=tmp_path, device="cuda:1")
    assert wrong(lambda: machine.look_at_device(second)).startswith("DEVICE=cuda:1, but there are only 1 CUDA devices")


def test_too_little_memory_is_told() -> None:
    assert wrong(lambda: machine.look_at_memory(machine.GIB)).startswith("Only 1.0 GiB of main memory are free")
    assert machine.look_at_memory(8 * machine.GIB) == "8.0 GiB of main memory are free."


def test_a_containers_bound_counts_as_memory(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
    assert machine.free_memory(meminfo, tmp_path) == 8_000_000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert machine.free_memory(meminfo, tmp_path) == 8_000_000 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert machine.free_memory(meminfo, tmp_path) == 4000
    assert machine.free_memory(tmp_path / "absent", tmp_path) is None


def test_a_disk_that_is_nearly_full_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LEAST_DISK", 2**80)
    assert "are free on the disk of data" in wrong(lambda: machine.look_at_disk(settings))


def test_a_checkpoint_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "empty").mkdir()
    empty = Settings(data_dir=tmp_path, model_path=str(tmp_path / "empty"))
    with pytest.raises(CheckpointNotFound):
        machine.look_at_checkpoint(empty)
    nowhere = Settings(data_dir=tmp_path, model_path="nowhere")
    assert wrong(lambda: machine.look_at_checkpoint(nowhere)).startswith("MODEL_PATH='nowhere' is no folder here")
    hub = Settings(data_dir=tmp_path, model_path="hunyuan3d-2.1")
    assert "is not on this machine yet: the first start fetches it" in machine.look_at_checkpoint(hub)


def test_weights_that_were_not_fetched_from_lfs_are_told(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {}\n")
    (tmp_path / "model.fp16.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    settings = Settings(data_dir=tmp_path, model_path=str(tmp_path))
    assert wrong(lambda: machine.look_at_checkpoint(settings)).endswith("fetch them with `git lfs pull`.")


# What outlives a process


def test_a_data_folder_that_others_may_read_is_told(settings: Settings) -> None:
    settings.data_dir.mkdir(mode=0o755)
    settings.data_dir.chmod(0o755)
    assert wrong(lambda: stores.look_at_data_folder(settings)).endswith(f"(mode 0755): chmod 700 {settings.data_dir}")
    settings.data_dir.chmod(0o700)
    assert stores.look_at_data_folder(settings) == f"{settings.data_dir} can be written, by its owner alone."


def test_a_data_folder_that_cannot_be_written_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    for look in (stores.look_at_data_folder, stores.look_at_files, stores.look_at_database):
        assert f"may not write in {settings.data_dir.parent}" in wrong(lambda look=look: look(settings))  # type: ignore[misc]


def test_agents_that_cannot_call_are_told(settings: Settings) -> None:
    assert stores.look_at_agents(settings).startswith("There is none yet")
    add_agent(settings.agents_file, "a1")
    assert stores.look_at_agents(settings) == f"1 of 1 in {settings.agents_file} may call."
    set_enabled(settings.agents_file, "a1", False)
    assert wrong(lambda: stores.look_at_agents(settings)).startswith(f"No agent in {settings.agents_file} may call")
    settings.agents_file.chmod(0o644)
    assert wrong(lambda: stores.look_at_agents(settings)).endswith(f"chmod 600 {settings.agents_file}")
    settings.agents_file.write_text("{")
    settings.agents_file.chmod(0o600)
    with pytest.raises(AgentsFileError):
        stores.look_at_agents(settings)


def test_a_database_of_another_version_is_told(url: str, database: Database, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=url)
    assert "as it is wanted" in stores.look_at_database(settings)
    for revision, told in (("9999", "has revision 9999, which a later release"), ("0001", "`orfeas migrate`")):
        with database.write() as connection:
            latest = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
            oldest = connection.execute(text("SELECT version FROM schema_version")).scalar_one()
            connection.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": revision})
            connection.execute(text("UPDATE schema_version SET version = :it"), {"it": int(revision)})
        try:
            assert told in wrong(lambda: stores.look_at_database(settings))
        finally:
            with database.write() as connection:
                connection.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": latest})
                connection.execute(text("UPDATE schema_version SET version = :it"), {"it": oldest})


def test_a_database_without_tables_is_no_trouble(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=fresh_database("postgresql", tmp_path))
    assert stores.look_at_database(settings).endswith("no tables yet; the first start makes them.")


def test_a_database_that_is_away_is_told_without_its_password(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url="postgresql://me:secret@127.0.0.1:1/jobs")
    told = wrong(lambda: stores.look_at_database(settings))
    assert told.startswith("The database at 127.0.0.1 does not answer (")
    assert told.endswith("start it, or name one that runs in DATABASE_URL.")
    assert "secret" not in told


def test_a_database_file_that_is_none_is_told(settings: Settings) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "orfeas.sqlite3").write_bytes(b"nonsense" * 1000)
    found = examine([Check("database", lambda: stores.look_at_database(settings))])
    assert (found[0].ok, "is not a database" in found[0].message) == (False, True)
    assert "put a backup in its place" in found[0].message


def test_a_redis_that_is_away_or_mute_is_told_in_time_without_its_password(listener: socket.socket) -> None:
    for port in (1, port_of(listener)):
        began = time.monotonic()
        told = wrong(lambda port=port: stores.look_at_redis(f"redis://:secret@127.0.0.1:{port}/0", "NONCE_STORE"))  # type: ignore[misc]
        assert time.monotonic() - began < 5
        assert told.startswith(f"Redis at 127.0.0.1:{port} does not answer (")
        assert told.endswith("see NONCE_STORE.")
        assert "secret" not in told


def test_every_redis_is_looked_at_once_with_the_settings_that_name_it(tmp_path: Path) -> None:
    first, second = "redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/1"
    settings = Settings(data_dir=tmp_path, nonce_store=first, rate_limit_storage=first, broker_url=second)
    assert stores.redis_addresses(settings) == {
        first: "NONCE_STORE and RATE_LIMIT_STORAGE_URL",
        second: "CELERY_BROKER_URL",
    }
    names = [check.name for check in doctor.checks(read_settings({"NONCE_STORE": first, "CELERY_BROKER_URL": second}))]
    assert names.count("redis") == 2


def test_a_redis_that_wants_a_password_is_told(redis_server: RedisServer) -> None:
    plain, right = redis_server.url, redis_server.url.replace("redis://", "redis://:right@")
    assert stores.look_at_redis(plain, "NONCE_STORE").endswith("answers (NONCE_STORE).")
    with redis_server.client() as client:
        client.config_set("requirepass", "right")
    assert wrong(lambda: stores.look_at_redis(plain, "NONCE_STORE")).endswith(
        "wants another password: see NONCE_STORE."
    )
    assert stores.look_at_redis(right, "NONCE_STORE").endswith("answers (NONCE_STORE).")


def test_a_bucket_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = S3Server()
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        bucket = server.new_bucket()
        here = Settings(data_dir=tmp_path, files_url=f"s3://{bucket}/prefix")
        assert stores.look_at_files(here) == f"In s3://{bucket}/prefix, written, read and cleared."
        assert server.filesystem().find(bucket) == []
        gone = Settings(data_dir=tmp_path, files_url="s3://no-such-bucket/prefix")
        told = wrong(lambda: stores.look_at_files(gone))
        assert told.startswith("s3://no-such-bucket/prefix of FILES_URL cannot be written, read and cleared (")
    finally:
        server.stop()


# Ports


def test_a_port_that_another_program_holds_is_told(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path, port=port_of(listener), metrics_port=port_of(listener))
    monkeypatch.setattr(ports, "_ANSWER_SECONDS", 0.2)
    with pytest.raises(ConfigurationError, match="is taken by another program"):
        ports.look_at_port(settings)
    assert "choose another with METRICS_PORT" in wrong(lambda: ports.look_at_metrics_port(settings))


def test_a_port_that_our_own_service_holds_is_well(tmp_path: Path) -> None:
    with TinyService(tmp_path / "data").serving() as port:
        settings = Settings(data_dir=tmp_path, port=port)
        assert ports.look_at_port(settings) == f"Port {port} of 127.0.0.1 is held by a running ORFEAS 0.1.0."


# The clock


def test_a_clock_that_jumps_is_told(settings: Settings) -> None:
    times = iter([1.8e9, 1.8e9 + 7])
    assert wrong(lambda: clock.look_at_clock(settings, wall=lambda: next(times))).startswith(
        "This machine's clock jumps"
    )


def test_a_clock_that_was_never_set_is_told(settings: Settings) -> None:
    began = time.monotonic()
    told = wrong(lambda: clock.look_at_clock(settings, wall=lambda: time.monotonic() - began))
    assert told == "This machine's clock says 1970-01-01: set it by NTP."


@pytest.mark.parametrize(("offset", "side"), [(-60.0, "ahead of"), (60.0, "behind")])
def test_a_clock_that_is_off_is_told(settings: Settings, offset: float, side: str) -> None:
    others = {"the database": time.time, "Redis": lambda: time.time() + offset}
    told = wrong(lambda: clock.look_at_clock(settings, others=others))
    assert told == f"This machine's clock is 60 s {side} that of Redis: set both by NTP."


def test_a_server_that_tells_no_time_is_left_out(settings: Settings) -> None:
    def silent() -> float:
        raise OSError

    told = clock.look_at_clock(settings, others={"Redis": silent, "the database": time.time})
    assert told == "It runs evenly and agrees with that of the database."


def test_real_servers_tell_their_time(url: str, tmp_path: Path, redis_server: RedisServer) -> None:
    settings = Settings(data_dir=tmp_path, database_url=url, nonce_store=redis_server.url)
    told = clock.look_at_clock(settings)
    assert "Redis at 127.0.0.1:" in told
    assert ("the database" in told) == url.startswith("postgresql")


# What one part needs


def test_a_part_is_looked_at_by_itself(tmp_path: Path) -> None:
    read = read_settings({"ORFEAS_DATA_DIR": str(tmp_path)})
    named = {part: {check.name for check in doctor.checks(read, part)} for part in doctor.PARTS}
    every = {check.name for check in doctor.checks(read)}
    assert set().union(*named.values()) - every == {"broker", "programs", "proxy"}
    assert "torch" not in named["web"]
    assert {"device", "broker"} <= named["worker"]


def test_a_worker_without_a_broker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CELERY_BROKER_URL" in wrong(lambda: parts.look_at_broker(Settings()))
    assert "wakes it" in parts.look_at_broker(Settings(broker_url="redis://127.0.0.1/0"))
    monkeypatch.setitem(sys.modules, "celery", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "celery" else True)
    assert "celery are missing: run `make cluster`" in wrong(lambda: parts.look_at_broker(Settings()))


def test_programs_that_copy_the_database_are_looked_for(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path, database_url=url)
    if url.startswith("sqlite"):
        assert "without any other program" in parts.look_at_backup_programs(settings)
        return
    assert "pg_dump and pg_restore are there" in parts.look_at_backup_programs(settings)
    (tmp_path / "pg_dump").write_text("#!/bin/sh\necho pg_dump 9.6\n")
    (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert "is of version 9, the server of" in wrong(lambda: parts.look_at_backup_programs(settings))
    (tmp_path / "pg_dump").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "pg_dump is not here" in wrong(lambda: parts.look_at_backup_programs(settings))


@pytest.fixture
def proxy() -> Iterator[tuple[str, dict[str, tuple[int, object]]]]:
    """Be a proxy: its address, and what it answers by path, which the test changes."""
    answers: dict[str, tuple[int, object]] = {
        "/api/agent/health": (200, {"version": backend.__version__}),
        "/api/agent/me": (401, {"code": "AUTH_MISSING"}),
        "/metrics": (403, {}),
    }

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, told = answers[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, format: str, *values: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", answers
        server.shutdown()
        thread.join()


def test_the_way_through_the_proxy_is_tried(proxy: tuple[str, dict[str, tuple[int, object]]]) -> None:
    address, answers = proxy
    settings = Settings(public_url=address)
    assert "leads here" in parts.look_at_proxy(settings)
    for path, answer, sentence in (
        ("/api/agent/me", (404, "no"), "see that /api is passed on"),
        ("/metrics", (200, "orfeas_"), "is shown to whoever asks"),
        ("/api/agent/health", (200, {"version": "9"}), "leads to version 9"),
        ("/api/agent/health", (200, "hello"), "something else than ORFEAS"),
    ):
        answers[path] = answer
        assert sentence in wrong(lambda: parts.look_at_proxy(settings))
    assert "PUBLIC_URL is not set" in wrong(lambda: parts.look_at_proxy(Settings()))
    away = Settings(public_url=f"http://127.0.0.1:{free_port()}")
    assert "does not answer (ConnectionError)" in wrong(lambda: parts.look_at_proxy(away))
