"""The start of the service: what is looked at first, the first agent, and gunicorn in this process's place."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from backend.auth.agents import load_agents
from backend.auth.agents_file import add_agent, remove_agent
from backend.errors import ConfigurationError
from backend.serve import FIRST_AGENT_ID, GUNICORN, run
from backend.serve.checks import check_address

REPOSITORY = Path(__file__).parent.parent


class Start:
    """One start of the service with nothing in gunicorn's place: what it printed, gave back and became."""

    def __init__(self, folder: Path, *arguments: str, **settings: str) -> None:
        self.became: list[list[str]] = []
        output = io.StringIO()
        environ = {"ORFEAS_DATA_DIR": str(folder), "PORT": "0", **settings}
        self.status = run(arguments, environ, output, lambda program, words: self.became.append([program, *words]))
        self.printed = output.getvalue()

    @property
    def keys(self) -> list[str]:
        return keys_in(self.printed)


def keys_in(printed: str) -> list[str]:
    return [line.partition("=")[2] for line in printed.splitlines() if line.strip().startswith("export ORFEAS_API_KEY")]


def test_the_first_start_makes_an_agent_and_shows_its_key(tmp_path: Path) -> None:
    start = Start(tmp_path)

    agents = load_agents(tmp_path / "agents.json")
    assert start.status == 0
    assert start.keys == [agents[FIRST_AGENT_ID].api_key]
    assert start.printed.count(FIRST_AGENT_ID) == 1
    assert start.became == [[sys.executable, sys.executable, *GUNICORN]]


def test_the_key_lies_in_no_file_but_the_agents_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        (key,) = Start(tmp_path).keys

    holders = [path.name for path in tmp_path.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert holders == ["agents.json"]
    assert key not in caplog.text


def test_the_second_start_shows_no_key(tmp_path: Path) -> None:
    Start(tmp_path)
    before = (tmp_path / "agents.json").read_bytes()

    second = Start(tmp_path)

    assert second.status == 0
    assert second.keys == []
    assert len(second.became) == 1
    assert (tmp_path / "agents.json").read_bytes() == before


def test_a_file_without_agents_gets_one(tmp_path: Path) -> None:
    add_agent(tmp_path / "agents.json", "old")
    remove_agent(tmp_path / "agents.json", "old")

    assert len(Start(tmp_path).keys) == 1


def test_no_agent_is_made_where_requests_are_not_signed(tmp_path: Path) -> None:
    start = Start(tmp_path, AGENT_AUTH_ENABLED="false")

    assert start.status == 0
    assert start.keys == []
    assert not (tmp_path / "agents.json").exists()


def test_a_new_data_folder_is_its_owners_alone(tmp_path: Path) -> None:
    Start(tmp_path / "deep" / "data")

    assert stat.S_IMODE((tmp_path / "deep" / "data").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ('{"format": 1, "agents": {}}', 0o644, "chmod 600"),
        ("{", 0o600, "is not JSON"),
        (json.dumps({"format": 1, "agents": {"a": {"api_keys": ["short"]}}}), 0o600, "from 24 to 128"),
    ],
)
def test_an_agents_file_that_cannot_be_used_stops_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, mode: int, said: str
) -> None:
    path = tmp_path / "agents.json"
    path.write_text(content)
    path.chmod(mode)

    start = Start(tmp_path)

    assert (start.status, start.became, start.printed) == (2, [], "")
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1
    assert path.read_text() == content


def test_a_taken_port_is_told_before_an_agent_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        start = Start(tmp_path, PORT=str(port))

    assert (start.status, start.became) == (2, [])
    assert f"Port {port} of 127.0.0.1 is taken by another program" in capsys.readouterr().err
    assert not (tmp_path / "agents.json").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"PORT": "five"}, "PORT must be a whole number"),
        ({"HOST": "192.0.2.1"}, "This machine has no address '192.0.2.1'"),
        ({"MODEL_PATH": "/no/such/folder"}, "No checkpoint '/no/such/folder'"),
        ({"MODEL_SUBFOLDER": "none"}, "There is no config.yaml in"),
        ({"AGENTS_FILE": "/dev/null"}, "is not a plain file"),
    ],
)
def test_a_service_that_cannot_boot_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, str], said: str
) -> None:
    start = Start(tmp_path / "data", **settings)

    assert (start.status, start.became, start.printed) == (2, [], "")
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [0, 99])
def test_a_database_of_another_release_is_told_before_an_agent_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: int
) -> None:
    with closing(sqlite3.connect(tmp_path / "orfeas.sqlite3")) as database:
        database.execute("CREATE TABLE schema_version (version INTEGER PRIMARY KEY)")
        database.execute("INSERT INTO schema_version VALUES (?)", [version])
        database.commit()

    start = Start(tmp_path)

    assert (start.status, start.became, start.printed) == (2, [], "")
    assert "another version of ORFEAS" in capsys.readouterr().err
    assert not (tmp_path / "agents.json").exists()


@pytest.mark.parametrize("has_agent", [False, True])
def test_a_damaged_database_stops_every_start_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], has_agent: bool
) -> None:
    if has_agent:
        add_agent(tmp_path / "agents.json", "someone")
    (tmp_path / "orfeas.sqlite3").write_bytes(b"nonsense" * 1000)

    start = Start(tmp_path)

    assert (start.status, start.became, start.printed) == (2, [], "")
    complaint = capsys.readouterr().err
    assert "put a backup in its place" in complaint
    assert complaint.count("\n") == 1


def test_a_database_that_is_away_stops_only_a_start_that_would_make_an_agent(tmp_path: Path) -> None:
    away = "postgresql://me@127.0.0.1:1/jobs"
    assert Start(tmp_path, DATABASE_URL=away).status == 2
    assert not (tmp_path / "agents.json").exists()

    add_agent(tmp_path / "agents.json", "someone")
    assert Start(tmp_path, DATABASE_URL=away).status == 0


def test_lines_to_copy_are_shell_and_name_a_picture_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    monkeypatch.chdir(REPOSITORY)
    here = copied(Start(tmp_path / "a", PORT=str(port), HOST="0.0.0.0"))  # noqa: S104
    assert here[0] == f"export ORFEAS_URL=http://127.0.0.1:{port}"
    assert here[1] == f"export ORFEAS_AGENT_ID={FIRST_AGENT_ID}"
    assert here[2].startswith("export ORFEAS_API_KEY=")
    assert shlex.split(here[3])[-4:] == ["generate", "samples/mug.png", "-o", "mug.glb"]
    monkeypatch.chdir(tmp_path)
    assert shlex.split(copied(Start(tmp_path / "b", PORT=str(port)))[3])[-4:] == [
        "generate",
        "picture.png",
        "-o",
        "mug.glb",
    ]


def test_the_client_that_is_named_can_be_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    command = shlex.split(copied(Start(tmp_path))[-1])
    called = [*command[: command.index("generate")], "--help"]
    assert subprocess.run(called, cwd=REPOSITORY, capture_output=True, check=False).returncode == 0  # noqa: S603


def copied(start: Start) -> list[str]:
    """Return the lines to copy."""
    return [line.strip() for line in start.printed.splitlines() if line.startswith("  ")]


def test_a_port_that_was_just_left_is_free(tmp_path: Path) -> None:
    # The side that closes first keeps the connection in TIME_WAIT.
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        with closing(socket.create_connection(("127.0.0.1", port))) as client:
            served, _ = server.accept()
            served.close()
            assert client.recv(1) == b""

    assert Start(tmp_path, PORT=str(port)).status == 0


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_foreign_address_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str) -> None:
    assert Start(tmp_path, HOST=host).status == 2
    assert f"This machine has no address '{host}'" in capsys.readouterr().err


def test_a_port_of_the_administrators_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(13, f"Permission denied: {address}")

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(ConfigurationError, match="may not listen on port 80: choose one from 1024 up"):
        check_address("127.0.0.1", 80)


def test_a_data_folder_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")

    start = Start(tmp_path / "file" / "data")

    assert (start.status, start.became) == (2, [])
    assert "cannot be written (Not a directory)" in capsys.readouterr().err


def test_a_setting_that_makes_no_sense_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Start(tmp_path, PORT="five").status == 2
    assert capsys.readouterr().err.startswith("PORT must be a whole number")


def test_only_check_makes_nothing_and_becomes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without = Start(tmp_path, "--only-check")
    assert (without.status, without.printed, without.became) == (2, "", [])
    assert "orfeas agents add" in capsys.readouterr().err

    add_agent(tmp_path / "agents.json", "someone")
    with_one = Start(tmp_path, "--only-check")
    assert (with_one.status, with_one.printed, with_one.became) == (0, "", [])


@contextmanager
def served(folder: Path, port: int, printed: Path, logged: Path) -> Iterator[subprocess.Popen[bytes]]:
    environ = {**os.environ, "ORFEAS_DATA_DIR": str(folder), "PORT": str(port), "HOST": "127.0.0.1", "DEVICE": "cpu"}
    with printed.open("wb") as out, logged.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend.serve"], cwd=REPOSITORY, env=environ, stdout=out, stderr=err
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def health_status(port: int, process: subprocess.Popen[bytes], wanted: int) -> int:
    """Return the health's status once it is the wanted one, or the last seen after two minutes."""
    status = 0
    for _ in range(600):
        assert process.poll() is None, "the service ended"
        try:
            with urlopen(f"http://127.0.0.1:{port}/api/agent/health", timeout=10) as answer:
                status = answer.status
        except HTTPError as error:
            status = error.code
            error.close()
        except OSError:
            status = 0
        if status == wanted:
            break
        time.sleep(0.2)
    return status


@pytest.mark.slow
def test_the_service_starts_shows_one_key_answers_and_ends(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    keys = []
    for attempt in ("first", "second"):
        printed, logged = tmp_path / f"{attempt}.out", tmp_path / f"{attempt}.err"
        with served(tmp_path / "data", port, printed, logged) as process:
            assert health_status(port, process, 200) == 200, logged.read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0, logged.read_text()
        keys.append(keys_in(printed.read_text()))
        assert printed.read_text().splitlines()[-1] == f"Ready: http://127.0.0.1:{port}"
        assert load_agents(tmp_path / "data" / "agents.json")[FIRST_AGENT_ID].api_key not in logged.read_text()
    assert keys == [[load_agents(tmp_path / "data" / "agents.json")[FIRST_AGENT_ID].api_key], []]
