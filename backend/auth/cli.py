"""`orfeas agents`: the operator's way to add, list, rotate, disable, enable and remove agents.

This module does not know how a request is checked.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from backend.auth.agents import DEFAULT_OPERATIONS, OPERATIONS, AgentDefaults, load_agents
from backend.auth.agents_file import add_agent, remove_agent, rotate_agent, set_enabled
from backend.config import Settings
from backend.errors import ServiceError


def run(arguments: Sequence[str], environ: Mapping[str, str], output: TextIO) -> int:
    """Do what the command line asks and give the exit status: 0, or 1 with one sentence on standard error."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.from_environment(environ)
        path: Path = options.file or settings.agents_file
        output.write(_act(options, path, settings))
    except ServiceError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


def _act(options: argparse.Namespace, path: Path, settings: Settings) -> str:
    command = options.command
    agent_id: str = getattr(options, "agent_id", None) or f"agent-{secrets.token_hex(4)}"
    if command == "add":
        key = add_agent(
            path,
            agent_id,
            name=options.name,
            operations=options.operations,
            rate_limit=options.rate_limit,
            batch_rate_limit=options.batch_rate_limit,
            max_active_jobs=options.max_active_jobs,
            allowed_ips=options.allow_ip,
        )
        return _shown_once(agent_id, key)
    if command == "list":
        return _table(path, settings)
    if command == "rotate":
        return _shown_once(agent_id, rotate_agent(path, agent_id, options.keep))
    if command == "remove":
        remove_agent(path, agent_id)
        return f"Removed {agent_id}.\n"
    set_enabled(path, agent_id, command == "enable")
    return f"{'Enabled' if command == 'enable' else 'Disabled'} {agent_id}.\n"


def _shown_once(agent_id: str, key: str) -> str:
    return f"agent id  {agent_id}\napi key   {key}\nKeep the key now: it is not shown again.\n"


def _table(path: Path, settings: Settings) -> str:
    defaults = AgentDefaults(settings.rate_limit, settings.batch_rate_limit, settings.max_active_jobs)
    rows = [("agent id", "enabled", "keys", "a minute", "batches", "active jobs", "operations", "from", "name")]
    rows += [
        (
            agent.agent_id,
            "yes" if agent.enabled else "no",
            str(len(agent.api_keys)),
            str(agent.rate_limit),
            str(agent.batch_rate_limit),
            str(agent.max_active_jobs),
            ",".join(operation for operation in OPERATIONS if operation in agent.operations),
            ",".join(map(str, agent.allowed_ips)) or "anywhere",
            agent.name,
        )
        for agent in load_agents(path, defaults).values()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orfeas agents", description="Who may use this service.")
    parser.add_argument("--file", type=Path, help="the agents file; default AGENTS_FILE, or agents.json in the data")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = commands.add_parser("add", help="add an agent and show its key, once")
    add.add_argument("agent_id", nargs="?", help="drawn when absent")
    add.add_argument("--name", default="", help="for people")
    add.add_argument("--operations", type=_list, default=DEFAULT_OPERATIONS, help=f"some of {','.join(OPERATIONS)}")
    add.add_argument("--rate-limit", type=int, help="requests a minute")
    add.add_argument("--batch-rate-limit", type=int, help="batches a minute")
    add.add_argument("--max-active-jobs", type=int, help="unfinished jobs at once")
    add.add_argument("--allow-ip", action="append", default=[], help="address or network it may call from; repeatable")
    commands.add_parser("list", help="show every agent, without keys")
    rotate = commands.add_parser("rotate", help="give an agent a new key and show it, once")
    rotate.add_argument("--keep", type=int, default=1, help="older keys that stay accepted (default 1)")
    disable = commands.add_parser("disable", help="keep an agent out")
    enable = commands.add_parser("enable", help="let an agent in again")
    remove = commands.add_parser("remove", help="forget an agent")
    for command in (rotate, disable, enable, remove):
        command.add_argument("agent_id")
    return parser


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
