"""`orfeas studio`, and what a start on a terminal prints: an address that opens the studio once, or why not."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path

import pytest

from backend.auth.agents import load_agents
from backend.auth.agents_file import add_agent
from backend.auth.studio_codes import StudioCodes
from backend.cli.studio import run
from backend.config import Settings
from backend.periodic import utc_now
from backend.serve import run as serve
from backend.storage.database import Database
from backend.storage.migrations import migrate
from backend.studio.invitation import AGENT_ID, LOOPBACK


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def invited(folder: Path, **settings: str) -> str:
    output = io.StringIO()
    assert run([], {"ORFEAS_DATA_DIR": str(folder), **settings}, output) == 0
    return output.getvalue().strip()


def redeem(folder: Path, address: str) -> None:
    with closing(Database.open(Settings(data_dir=folder).database_url)) as database:
        StudioCodes(database, utc_now).redeem(address.partition("#code=")[2])


def test_an_address_is_printed_with_a_code_for_an_agent_of_this_machine(tmp_path: Path) -> None:
    migrate(Settings(data_dir=tmp_path).database_url)
    assert invited(tmp_path).startswith("http://127.0.0.1:5000/studio#code=")
    address = invited(tmp_path, HOST="0.0.0.0", PORT="8080")  # noqa: S104
    assert address.startswith("http://127.0.0.1:8080/studio#code=")
    redeem(tmp_path, address)
    agent = load_agents(tmp_path / "agents.json")[AGENT_ID]
    assert [str(network) for network in agent.allowed_ips] == list(LOOPBACK)


def test_without_signatures_no_code_is_needed(tmp_path: Path) -> None:
    assert invited(tmp_path, AGENT_AUTH_ENABLED="false", HOST="::1") == "http://[::1]:5000/studio"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"TRUSTED_PROXIES": "127.0.0.1"}, "Behind a proxy"),
        ({"PORT": "0"}, "PORT is 0"),
        ({"HOST": "192.0.2.1"}, "listens on 192.0.2.1 alone"),
        ({}, "start the service once"),
    ],
)
def test_where_there_is_none_it_is_said_why(
    tmp_path: Path, settings: dict[str, str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([], {"ORFEAS_DATA_DIR": str(tmp_path), **settings}, io.StringIO()) == 1
    assert sentence in capsys.readouterr().err


def test_an_agent_of_that_name_that_calls_from_elsewhere_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    migrate(Settings(data_dir=tmp_path).database_url)
    add_agent(tmp_path / "agents.json", AGENT_ID)
    assert run([], {"ORFEAS_DATA_DIR": str(tmp_path)}, io.StringIO()) == 1
    assert "its key is given to nobody" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_start_prints_the_address_on_a_terminal_alone(tmp_path: Path, kind: type[io.StringIO]) -> None:
    from benchmarks.support.ports import free_port

    output = kind()
    environ = {"ORFEAS_DATA_DIR": str(tmp_path), "PORT": str(free_port())}
    assert serve([], environ, output, lambda _program, _words: None) == 0
    lines = [line.strip() for line in output.getvalue().splitlines() if "#code=" in line]
    assert len(lines) == (1 if kind is Terminal else 0)
    for address in lines:
        redeem(tmp_path, address)
