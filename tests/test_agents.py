"""Agents: what the file may hold, who may read it, how it changes and how changes are noticed."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import secrets
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from backend.auth.agents import AgentConfig, AgentDefaults, AgentRegistry, load_agents
from backend.auth.agents_file import (
    MAX_REMOVED,
    add_agent,
    new_webhook_secret,
    remove_agent,
    rotate_agent,
    set_enabled,
    update_agent,
)
from backend.auth.cli import run
from backend.errors import AgentExists, AgentNotFound, AgentsFileError
from tests.support.running import REPOSITORY

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


def test_every_field_of_format_2_counts(path: Path) -> None:
    secret = new_webhook_secret()
    more = {
        "internal_id": "f00d",
        "status_rate_limit": 300,
        "daily_jobs": 1000,
        "webhook_prefixes": ["https://example.org/hooks", "http://10.0.0.1:8080"],
        "webhook_secret": secret,
        "token_hashes": ["ab" * 32],
    }
    write(path, document(**more).replace('"format": 1', '"format": 2'))
    agent = AgentRegistry(path).get("a1")
    assert agent == AgentConfig(
        "a1",
        (KEY,),
        internal_id="f00d",
        status_rate_limit=300,
        daily_jobs=1000,
        webhook_prefixes=("https://example.org/hooks", "http://10.0.0.1:8080"),
        webhook_secret=secret,
        token_hashes=("ab" * 32,),
    )
    assert secret not in repr(agent)
    assert "abab" not in repr(agent)


def test_format_1_is_read_and_becomes_format_2_with_the_first_change(path: Path) -> None:
    write(path, document(name="Anna", rate_limit=5))
    before = load_agents(path)["a1"]
    assert before.internal_id == "a1"
    assert path.read_text() == document(name="Anna", rate_limit=5)
    add_agent(path, "a2")
    assert json.loads(path.read_text())["format"] == 2
    assert load_agents(path)["a1"] == before
    assert load_agents(path)["a2"].internal_id not in ("a1", "a2")


def test_the_documented_way_back_takes_out_what_format_1_does_not_know() -> None:
    text = (REPOSITORY / "docs" / "operations.md").read_text()
    (command,) = re.findall(r"jq '(.*?)' agents\.json", text, re.DOTALL)
    taken_out = set(re.findall(r"\.(\w+)[,)]", command.partition("del(")[2]))
    known = {"agent_id", "api_keys", "name", "operations", "allowed_ips", "enabled", *vars(AgentDefaults())}
    assert taken_out == {field.name for field in fields(AgentConfig)} - known


def test_two_agents_never_own_the_same_jobs(path: Path) -> None:
    write(path, document(internal_id="a2"))
    add_agent(path, "a3")
    entries = json.loads(path.read_text())["agents"]
    twice = {"format": 2, "agents": {**entries, "a3": {**entries["a3"], "internal_id": "a2"}}, "removed": []}
    write(path, json.dumps(twice))
    with pytest.raises(AgentsFileError, match="the same internal_id"):
        AgentRegistry(path)


def test_no_key_looks_like_an_option_of_a_command(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = ["-" + 42 * "k", 43 * "-", "k" + 42 * "-"]
    monkeypatch.setattr(secrets, "token_urlsafe", lambda _: drawn.pop(0))
    assert add_agent(path, "ann") == "k" + 42 * "-"


def test_an_agent_that_is_added_anew_is_another(path: Path) -> None:
    write(path, document())
    registry = AgentRegistry(path)
    assert registry.removed() == frozenset()
    remove_agent(path, "a1")
    assert registry.removed() == {"a1"}
    add_agent(path, "a1")
    again = registry.get("a1")
    assert again is not None
    assert again.internal_id != "a1"
    remove_agent(path, "a1")
    assert registry.removed() == {"a1", again.internal_id}
    # Whoever starts later learns of them from the file.
    assert AgentRegistry(path).removed() == {"a1", again.internal_id}


def test_an_entry_that_disappears_by_hand_is_a_removed_agent_until_it_is_back(path: Path) -> None:
    add_agent(path, "a1")
    add_agent(path, "a2")
    whole = json.loads(path.read_text())
    registry = AgentRegistry(path)
    removed = {**whole, "agents": {"a2": whole["agents"]["a2"]}}
    write(path, json.dumps(removed))
    assert registry.removed() == {whole["agents"]["a1"]["internal_id"]}
    write(path, json.dumps(whole))
    assert registry.removed() == frozenset()


def test_the_file_forgets_the_oldest_of_many_removed_agents(path: Path) -> None:
    removed = [f"r{k}" for k in range(MAX_REMOVED)]
    write(
        path, json.dumps({"format": 2, "agents": {"a1": {"internal_id": "i1", "api_keys": [KEY]}}, "removed": removed})
    )
    remove_agent(path, "a1")
    assert json.loads(path.read_text())["removed"] == [*removed[1:], "i1"]


def test_update_changes_what_is_named_and_nothing_else(path: Path) -> None:
    add_agent(path, "a1", name="Anna", rate_limit=5, daily_jobs=9)
    before = load_agents(path)["a1"]
    update_agent(path, "a1", {"status_rate_limit": 300, "rate_limit": None, "allowed_ips": ["10.0.0.0/8"]})
    after = load_agents(path, AgentDefaults(rate_limit=7))["a1"]
    assert after == replace(before, status_rate_limit=300, rate_limit=7, allowed_ips=(ip_network("10.0.0.0/8"),))
    with pytest.raises(AgentsFileError, match="its limits"):
        update_agent(path, "a1", {"daily_jobs": 0})
    with pytest.raises(AgentNotFound):
        update_agent(path, "a2", {"daily_jobs": 1})
    assert load_agents(path)["a1"].daily_jobs == 9


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
        '{"format": 3, "agents": {}}',
        '{"format": true, "agents": {}}',
        '{"format": 1, "agents": {}, "removed": []}',
        '{"format": 2, "agents": {}, "removed": {}}',
        '{"format": 2, "agents": {}, "removed": [5]}',
        document().replace('"format": 1', '"format": 2'),
        document(internal_id="a b"),
        document(internal_id=7),
        document(status_rate_limit=0),
        document(daily_jobs="5"),
        document(webhook_prefixes="https://example.org"),
        document(webhook_prefixes=["ftp://example.org"]),
        document(webhook_prefixes=["https://"]),
        document(webhook_prefixes=["https://user@example.org/"]),
        document(webhook_prefixes=["https://example.org/?" + KEY]),
        document(webhook_prefixes=["https://example.org/#a"]),
        document(webhook_prefixes=["https://example.org:99999/"]),
        document(webhook_prefixes=["https://[::1"]),
        document(webhook_prefixes=["https://exämple.org"]),
        document(webhook_prefixes=["https://example.org/" + "a" * 500]),
        document(webhook_prefixes=["https://example.org"] * 11),
        document(webhook_secret=KEY),
        document(webhook_secret="whsec_" + "AAAA" * 7),
        document(webhook_secret="whsec_!" + "A" * 43),
        document(token_hashes=["A" * 64]),
        document(token_hashes=["a" * 63]),
        document(token_hashes=["a" * 64] * 11),
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
    added = load_agents(path)["a1"]
    assert added == AgentConfig(
        "a1",
        (key,),
        "Anna",
        frozenset({"status"}),
        rate_limit=5,
        allowed_ips=(ip_network("10.0.0.0/8"),),
        internal_id=added.internal_id,
    )


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
    row = ["a1", "yes", "1", "5", "10", "-", "20", "-", "status,download", "anywhere", "Anna"]
    assert table.splitlines()[1].split() == row


def test_command_line_rotates_disables_enables_and_removes(path: Path) -> None:
    command(path, "add", "a1")
    assert load_agents(path)["a1"].api_key not in command(path, "rotate", "a1", "--keep", "0")
    assert command(path, "disable", "a1") == "Disabled a1.\n"
    assert not load_agents(path)["a1"].enabled
    assert command(path, "enable", "a1") == "Enabled a1.\n"
    assert load_agents(path)["a1"].enabled
    assert command(path, "remove", "a1").startswith("Removed a1. ")
    assert load_agents(path) == {}


def test_command_line_gives_tokens_lists_and_revokes_them(path: Path) -> None:
    command(path, "add", "a1")
    shown = [command(path, "token", "a1") for _ in range(2)]
    hashes = load_agents(path)["a1"].token_hashes
    tokens = [re.findall(r"token +(orfeas_\S{43})\n", text)[0] for text in shown]
    assert tuple(hashlib.sha256(token.encode()).hexdigest() for token in tokens) == hashes
    assert all("BEARER_TOKENS=true" in text for text in shown)
    assert command(path, "token", "a1", "--list") == f"{hashes[0][:12]}\n{hashes[1][:12]}\n"
    (listed,) = json.loads(command(path, "list", "--json"))
    assert (listed["tokens"], listed["token_names"]) == (2, [each[:12] for each in hashes])
    assert not any(token in path.read_text() for token in tokens)
    assert command(path, "token", "a1", "--revoke", hashes[0][:12]) == "Revoked 1 token of a1.\n"
    assert load_agents(path)["a1"].token_hashes == hashes[1:]
    command(path, "rotate", "a1", "--keep", "0")
    assert load_agents(path)["a1"].token_hashes == hashes[1:]
    assert command(path, "token", "a1", "--revoke", "all") == "Revoked 1 token of a1.\n"
    assert command(path, "token", "a1", "--list") == "a1 has no tokens.\n"


def test_command_line_updates_and_lists_for_programs(path: Path) -> None:
    command(path, "add", "a1", "--daily-jobs", "100", "--allow-ip", "10.0.0.1", "--webhook-prefix", "https://a.example")
    before = load_agents(path)["a1"]
    options = ["--name", "Anna", "--rate-limit", "50", "--status-rate-limit", "600", "--daily-jobs", "default"]
    options += ["--operations", "status,admin", "--allow-ip", "anywhere", "--webhook-prefix", "https://b.example/hooks"]
    shown = command(path, "update", "a1", *options, "--webhook-secret", "new")
    agent = load_agents(path)["a1"]
    assert f"webhook secret  {agent.webhook_secret}\n" in shown
    listed = command(path, "list", "--json")
    assert json.loads(listed) == [
        {
            "agent_id": "a1",
            "internal_id": before.internal_id,
            "name": "Anna",
            "enabled": True,
            "keys": 1,
            "operations": ["status", "admin"],
            "rate_limit": 50,
            "batch_rate_limit": 10,
            "status_rate_limit": 600,
            "max_active_jobs": 20,
            "daily_jobs": None,
            "allowed_ips": [],
            "webhook_prefixes": ["https://b.example/hooks"],
            "webhook_secret": True,
            "tokens": 0,
            "token_names": [],
        }
    ]
    assert agent.api_keys == before.api_keys
    assert agent.webhook_secret not in listed
    command(path, "update", "a1", "--webhook-prefix", "none", "--webhook-secret", "none")
    assert (load_agents(path)["a1"].webhook_prefixes, load_agents(path)["a1"].webhook_secret) == ((), "")


def test_command_line_refuses_an_update_of_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(path, "add", "a1")
    assert run(["update", "a1"], {"AGENTS_FILE": str(path)}, io.StringIO()) == 1
    assert "Nothing to change was given" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(["update", "a1", "--rate-limit", "many"], {"AGENTS_FILE": str(path)}, io.StringIO())
    assert "'many' is neither a whole number nor `default`" in capsys.readouterr().err


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
