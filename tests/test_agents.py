"""Agents: what the file may hold, who may read it, how it changes and how changes are noticed."""

from __future__ import annotations

import io
import json
import logging
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from backend.auth.agents import AgentConfig, AgentDefaults, AgentRegistry, load_agents
from backend.auth.agents_file import add_agent, remove_agent, rotate_agent, set_enabled
from backend.auth.cli import run
from backend.errors import AgentExists, AgentNotFound, AgentsFileError

KEY = "secret-key-0123456789abcdef"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "agents.json"


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def document(**entry: Any) -> str:
    return json.dumps({"format": 1, "agents": {"a1": {"api_keys": [KEY], **entry}}})


def test_agent_of_one_line_gets_the_service_s_limits(path: Path) -> None:
    write(path, document())
    agent = AgentRegistry(path, AgentDefaults(7, 3, 2)).get("a1")
    assert agent == AgentConfig("a1", (KEY,), rate_limit=7, batch_rate_limit=3, max_active_jobs=2)
    assert agent.operations == {"generate", "batch", "status", "download"}
    assert agent.enabled


def test_every_field_of_an_entry_counts(path: Path) -> None:
    entry = {
        "name": "Anna's robot",
        "api_keys": [KEY + "2", KEY],
        "operations": ["status", "admin"],
        "rate_limit": 5,
        "batch_rate_limit": 1,
        "max_active_jobs": 9,
        "allowed_ips": ["10.0.0.0/8", "2001:db8::1"],
        "enabled": False,
    }
    write(path, document(**entry))
    agent = AgentRegistry(path).get("a1")
    assert agent == AgentConfig(
        "a1",
        (KEY + "2", KEY),
        "Anna's robot",
        frozenset({"status", "admin"}),
        5,
        1,
        9,
        (ip_network("10.0.0.0/8"), ip_network("2001:db8::1")),
        enabled=False,
    )
    assert agent.api_key == KEY + "2"


def test_unknown_agent_is_none(path: Path) -> None:
    write(path, document())
    assert AgentRegistry(path).get("a2") is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o777, 0o610])
def test_file_that_others_may_use_is_refused_with_the_way_out(path: Path, mode: int) -> None:
    write(path, document(), mode)
    with pytest.raises(AgentsFileError) as raised:
        AgentRegistry(path)
    assert f"`chmod 600 {path}`" in raised.value.message


def test_missing_file_is_refused_with_the_way_out(path: Path) -> None:
    with pytest.raises(AgentsFileError, match=r"orfeas agents add AGENT_ID"):
        AgentRegistry(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "[]",
        '{"format": 2, "agents": {}}',
        '{"format": 1}',
        '{"format": 1, "agents": []}',
        '{"format": 1, "agents": {}, "more": 1}',
        '{"format": 1, "agents": {"a1": []}}',
        document(api_keys=[]),
        document(api_keys=KEY),
        document(api_keys=[KEY] * 4),
        document(api_keys=["short"]),
        document(api_keys=[KEY + "ä"]),
        document(operations=["fly"]),
        document(operations="status"),
        document(rate_limit=0),
        document(rate_limit="5"),
        document(rate_limit=True),
        document(rate_limit=None),
        document(allowed_ips=["10.0.0.1/8"]),
        document(allowed_ips="10.0.0.1"),
        document(enabled="yes"),
        document(name=5),
        document(name="two\nlines"),
        document(api_key=KEY),
        document().replace('"a1"', '"a 1"'),
        document().replace('"a1"', '""'),
    ],
)
def test_file_that_makes_no_sense_is_refused_without_quoting_it(path: Path, text: str) -> None:
    write(path, text)
    with pytest.raises(AgentsFileError) as raised:
        AgentRegistry(path)
    assert KEY not in raised.value.message
    assert raised.value.__cause__ is None or KEY not in repr(vars(raised.value.__cause__))


def test_folder_in_the_file_s_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AgentsFileError):
        AgentRegistry(tmp_path)


def test_keys_stay_out_of_a_value_s_text() -> None:
    assert KEY not in repr(AgentConfig("a1", (KEY,)))


def test_changes_are_seen_at_the_next_look(path: Path) -> None:
    add_agent(path, "a1")
    registry = AgentRegistry(path)
    key = add_agent(path, "a2")
    added = registry.get("a2")
    assert added is not None
    assert added.api_keys == (key,)
    set_enabled(path, "a2", False)
    disabled = registry.get("a2")
    assert disabled is not None
    assert not disabled.enabled
    remove_agent(path, "a2")
    assert registry.get("a2") is None
    assert registry.get("a1") is not None


def test_change_of_the_same_length_in_place_is_seen(path: Path) -> None:
    write(path, document(rate_limit=5))
    os.utime(path, ns=(1, 1))
    registry = AgentRegistry(path)
    with path.open("r+") as file:
        file.write(document(rate_limit=6))
    agent = registry.get("a1")
    assert agent is not None
    assert agent.rate_limit == 6


def test_file_that_is_not_changed_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, document())
    registry = AgentRegistry(path)
    monkeypatch.setattr("backend.auth.agents.load_agents", lambda *_: pytest.fail("read again"))
    assert registry.get("a1") is not None


@pytest.mark.parametrize("damage", ["broken", "readable", "gone"])
def test_damaged_file_keeps_the_last_good_set_and_is_logged_once(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, document())
    registry = AgentRegistry(path)
    if damage == "broken":
        write(path, "{" + KEY)
    elif damage == "readable":
        path.chmod(0o644)
    else:
        path.unlink()
    with caplog.at_level(logging.ERROR):
        agents = [registry.get("a1") for _ in range(3)]
    assert [agent is not None for agent in agents] == [True] * 3
    assert len(caplog.records) == 1
    assert "The agents known before stay in force." in caplog.text
    assert KEY not in caplog.text
    write(path, document(enabled=False))
    repaired = registry.get("a1")
    assert repaired is not None
    assert not repaired.enabled


def test_added_agent_s_file_is_its_owner_s_alone(path: Path) -> None:
    key = add_agent(path, "a1", name="Anna", operations=["status"], rate_limit=5, allowed_ips=["10.0.0.0/8"])
    assert len(key) == 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    expected = AgentConfig(
        "a1", (key,), "Anna", frozenset({"status"}), rate_limit=5, allowed_ips=(ip_network("10.0.0.0/8"),)
    )
    assert load_agents(path) == {"a1": expected}


def test_limit_that_was_not_given_follows_the_service(path: Path) -> None:
    add_agent(path, "a1", rate_limit=100)
    agent = load_agents(path, AgentDefaults(rate_limit=7, batch_rate_limit=3))["a1"]
    assert (agent.rate_limit, agent.batch_rate_limit) == (100, 3)


@pytest.mark.parametrize(
    "wrong", [{"operations": ["fly"]}, {"rate_limit": 0}, {"allowed_ips": ["nowhere"]}, {"name": "a\nb"}]
)
def test_impossible_agent_is_not_written(path: Path, wrong: dict[str, Any]) -> None:
    add_agent(path, "a1")
    before = path.read_bytes()
    with pytest.raises(AgentsFileError):
        add_agent(path, "a2", **wrong)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["agents.json", "agents.json.lock"]


def test_agent_is_added_once(path: Path) -> None:
    add_agent(path, "a1")
    with pytest.raises(AgentExists):
        add_agent(path, "a1")


def test_rotation_puts_the_newest_key_first_and_keeps_some(path: Path) -> None:
    first = add_agent(path, "a1")
    second = rotate_agent(path, "a1")
    assert load_agents(path)["a1"].api_keys == (second, first)
    third = rotate_agent(path, "a1", keep=2)
    assert load_agents(path)["a1"].api_keys == (third, second, first)
    fourth = rotate_agent(path, "a1", keep=0)
    assert load_agents(path)["a1"].api_keys == (fourth,)
    assert len({first, second, third, fourth}) == 4
    with pytest.raises(AgentsFileError):
        rotate_agent(path, "a1", keep=3)


def test_changes_of_an_agent_that_is_not_there_are_refused(path: Path) -> None:
    add_agent(path, "a1")
    with pytest.raises(AgentNotFound):
        rotate_agent(path, "a2")
    with pytest.raises(AgentNotFound):
        set_enabled(path, "a2", False)
    with pytest.raises(AgentNotFound):
        remove_agent(path, "a2")


def test_file_that_others_may_use_is_not_changed(path: Path) -> None:
    write(path, document(), 0o644)
    with pytest.raises(AgentsFileError, match="chmod 600"):
        add_agent(path, "a2")


def test_link_to_the_file_stays_a_link(path: Path, tmp_path: Path) -> None:
    add_agent(path, "a1")
    link = tmp_path / "agents.json"
    link.symlink_to(path)
    add_agent(link, "a2")
    assert link.is_symlink()
    assert set(load_agents(path)) == {"a1", "a2"}


def test_changes_at_the_same_time_are_all_kept(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: add_agent(path, f"a{k}"), range(24)))
    assert set(load_agents(path)) == {f"a{k}" for k in range(24)}


def test_reader_never_sees_half_a_change(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_agent(path, "a0")
    registry = AgentRegistry(path)
    with caplog.at_level(logging.ERROR), ThreadPoolExecutor(2) as pool:
        writing = pool.submit(lambda: [add_agent(path, f"b{k}") for k in range(10)])
        while not writing.done():
            assert registry.get("a0") is not None
    assert caplog.records == []
    assert registry.get("b9") is not None


def command(path: Path, *arguments: str) -> str:
    output = io.StringIO()
    assert run(arguments, {"AGENTS_FILE": str(path)}, output) == 0
    return output.getvalue()


def test_command_line_shows_a_key_once_and_never_again(path: Path) -> None:
    shown = command(path, "add", "a1", "--name", "Anna", "--operations", "status,download", "--rate-limit", "5")
    key = load_agents(path)["a1"].api_key
    assert f"api key   {key}\n" in shown
    table = command(path, "list")
    assert key not in table
    assert table.splitlines()[1].split() == ["a1", "yes", "1", "5", "10", "20", "status,download", "anywhere", "Anna"]


def test_command_line_rotates_disables_enables_and_removes(path: Path) -> None:
    command(path, "add", "a1")
    assert load_agents(path)["a1"].api_key not in command(path, "rotate", "a1", "--keep", "0")
    assert command(path, "disable", "a1") == "Disabled a1.\n"
    assert not load_agents(path)["a1"].enabled
    assert command(path, "enable", "a1") == "Enabled a1.\n"
    assert load_agents(path)["a1"].enabled
    assert command(path, "remove", "a1") == "Removed a1.\n"
    assert load_agents(path) == {}


def test_command_line_draws_an_id_when_none_is_given(path: Path) -> None:
    command(path, "add")
    (agent_id,) = load_agents(path)
    assert agent_id.startswith("agent-")
    assert len(agent_id) == 14


def test_command_line_answers_a_mistake_with_one_sentence(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(path, "add", "a1")
    assert run(["rotate", "a2"], {"AGENTS_FILE": str(path)}, io.StringIO()) == 1
    assert capsys.readouterr().err == f"There is no agent 'a2' in {path}.\n"


def test_module_runs_as_a_program(path: Path) -> None:
    program = [sys.executable, "-m", "backend.agent_auth", "--file", str(path), "add", "a1"]
    done = subprocess.run(program, check=True, capture_output=True, text=True)  # noqa: S603
    assert load_agents(path)["a1"].api_key in done.stdout
    assert done.stderr == ""
