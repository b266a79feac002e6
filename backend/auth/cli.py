"""`orfeas agents`: the operator's way to add, list, update, rotate, disable, enable and remove agents, and tokens.

This module does not know how a request is checked.
"""

from __future__ import annotations

import argparse
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from backend.auth.agents import DEFAULT_OPERATIONS, OPERATIONS, AgentConfig, AgentDefaults, load_agents
from backend.auth.agents_file import (
    add_agent,
    add_token,
    find_agent,
    new_webhook_secret,
    remove_agent,
    revoke_tokens,
    rotate_agent,
    set_enabled,
    update_agent,
)
from backend.auth.bearer_tokens import hash_of, name_of
from backend.command import EPILOG, report
from backend.config import Settings
from backend.errors import AgentsFileError

_DEFAULT = "default"
_NONE = "none"
_ANYWHERE = "anywhere"
_ALL = "all"
_LIMITS = {
    "rate_limit": "requests a minute, of every kind; the service's RATE_LIMIT where none is given",
    "batch_rate_limit": "batches a minute, which also count as requests; the service's BATCH_RATE_LIMIT where none is "
    "given",
    "status_rate_limit": "requests a minute that only follow (GET, HEAD, DELETE: status, events, lists, downloads, "
    "cancelling), which then don't count towards --rate-limit; where none is given they do",
    "max_active_jobs": "unfinished jobs at once; the service's MAX_ACTIVE_JOBS where none is given",
    "daily_jobs": "jobs in any 24 hours; where none is given there is no such bound",
}
_COLUMNS = (
    ("agent id", "agent_id"),
    ("enabled", "enabled"),
    ("keys", "keys"),
    ("a minute", "rate_limit"),
    ("batches", "batch_rate_limit"),
    ("following", "status_rate_limit"),
    ("active jobs", "max_active_jobs"),
    ("jobs a day", "daily_jobs"),
    ("operations", "operations"),
    ("from", "allowed_ips"),
    ("name", "name"),
)


def run(arguments: Sequence[str], environ: Mapping[str, str], output: TextIO) -> int:
    """Do what the command line asks and return the exit code, as `report` has them."""
    options = _parser().parse_args(arguments)

    def work() -> str:
        settings = Settings.from_environment(environ)
        return _act(options, options.file or settings.agents_file, settings)

    return report(work, output)


def _act(options: argparse.Namespace, path: Path, settings: Settings) -> str:
    command = options.command
    agent_id: str = getattr(options, "agent_id", None) or f"agent-{secrets.token_hex(4)}"
    longer: Mapping[str, Callable[[], str]] = {
        "add": lambda: _add(options, path, agent_id),
        "list": lambda: _list_agents(path, settings, as_json=options.json),
        "update": lambda: _update(options, path, agent_id),
        "token": lambda: _token(options, path, settings),
    }
    if command in longer:
        return longer[command]()
    if command == "rotate":
        return _shown_once(agent_id, rotate_agent(path, agent_id, options.keep))
    if command == "remove":
        remove_agent(path, agent_id)
        return f"Removed {agent_id}. A service that runs cancels its unfinished jobs, another does at its start.\n"
    set_enabled(path, agent_id, command == "enable")
    return f"{'Enabled' if command == 'enable' else 'Disabled'} {agent_id}.\n"


def _add(options: argparse.Namespace, path: Path, agent_id: str) -> str:
    key = add_agent(
        path,
        agent_id,
        name=options.name,
        operations=options.operations,
        allowed_ips=options.allow_ip,
        webhook_prefixes=options.webhook_prefix,
        **{limit: getattr(options, limit) for limit in _LIMITS},
    )
    return _shown_once(agent_id, key)


def _update(options: argparse.Namespace, path: Path, agent_id: str) -> str:
    """Change what was given; an option that was not given is no attribute of the options."""
    given = vars(options)
    changes: dict[str, object] = {name: given[name] for name in ("name", *_LIMITS) if name in given}
    if "operations" in given:
        changes["operations"] = list(given["operations"])
    for option, field, nothing in (
        ("allow_ip", "allowed_ips", _ANYWHERE),
        ("webhook_prefix", "webhook_prefixes", _NONE),
    ):
        if option in given:
            changes[field] = [] if given[option] == [nothing] else given[option]
    secret = new_webhook_secret() if given.get("webhook_secret") == "new" else None
    if "webhook_secret" in given:
        changes["webhook_secret"] = secret
    if not changes:
        raise AgentsFileError("Nothing to change was given; `orfeas agents update --help` shows what can be.")
    update_agent(path, agent_id, changes)
    shown = f"webhook secret  {secret}\nKeep the secret now: it is not shown again.\n" if secret else ""
    return f"Updated {agent_id}.\n{shown}"


def _token(options: argparse.Namespace, path: Path, settings: Settings) -> str:
    """Make an agent a token, or list or revoke those that it has."""
    agent_id: str = options.agent_id
    if options.list:
        names = [name_of(token_hash) for token_hash in find_agent(path, agent_id).token_hashes]
        return "".join(f"{name}\n" for name in names) or f"{agent_id} has no tokens.\n"
    if options.revoke is not None:
        count = revoke_tokens(path, agent_id, None if options.revoke == _ALL else options.revoke)
        return f"Revoked {count} {'token' if count == 1 else 'tokens'} of {agent_id}.\n"
    token = add_token(path, agent_id)
    off = "" if settings.bearer_tokens else "No token is taken yet: the service needs BEARER_TOKENS=true.\n"
    return (
        f"agent id    {agent_id}\ntoken       {token}\nits name    {name_of(hash_of(token))}\n"
        f"Keep the token now: it is not shown again.\n{off}"
    )


def _shown_once(agent_id: str, key: str) -> str:
    return f"agent id  {agent_id}\napi key   {key}\nKeep the key now: it is not shown again.\n"


def _list_agents(path: Path, settings: Settings, *, as_json: bool) -> str:
    defaults = AgentDefaults(settings.rate_limit, settings.batch_rate_limit, settings.max_active_jobs)
    found = [_description(agent) for agent in load_agents(path, defaults).values()]
    if as_json:
        return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    rows = [tuple(title for title, _ in _COLUMNS)]
    rows += [tuple(_cell(agent[field], field) for _, field in _COLUMNS) for agent in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def _description(agent: AgentConfig) -> dict[str, Any]:
    """Return what may be shown of an agent: neither keys nor secrets, nor what could be made of them."""
    return {
        "agent_id": agent.agent_id,
        "internal_id": agent.internal_id,
        "name": agent.name,
        "enabled": agent.enabled,
        "keys": len(agent.api_keys),
        "operations": [operation for operation in OPERATIONS if operation in agent.operations],
        **{limit: getattr(agent, limit) for limit in _LIMITS},
        "allowed_ips": list(map(str, agent.allowed_ips)),
        "webhook_prefixes": list(agent.webhook_prefixes),
        "webhook_secret": bool(agent.webhook_secret),
        "tokens": len(agent.token_hashes),
        "token_names": [name_of(token_hash) for token_hash in agent.token_hashes],
    }


def _cell(value: object, field: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(value) or (_ANYWHERE if field == "allowed_ips" else "-")
    return "-" if value is None else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orfeas agents", description="Who may use this service.", epilog=EPILOG)
    parser.add_argument("--file", type=Path, help="the agents file; default AGENTS_FILE, or agents.json in the data")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = commands.add_parser("add", help="add an agent and show its key, once")
    add.add_argument("agent_id", nargs="?", help="drawn when absent")
    add.add_argument("--name", default="", help="for people")
    add.add_argument("--operations", type=_list, default=DEFAULT_OPERATIONS, help=_OPERATIONS_HELP)
    _add_limits(add, int, "")
    add.add_argument("--allow-ip", action="append", default=[], help="address or network it may call from; repeatable")
    add.add_argument("--webhook-prefix", action="append", default=[], help=f"{_PREFIX_HELP}; repeatable")
    listing = commands.add_parser("list", help="show every agent, without keys")
    listing.add_argument("--json", action="store_true", help="as JSON, for programs")
    text = "change an agent's name, operations, limits, addresses or webhooks"
    _add_update(commands.add_parser("update", help=text, argument_default=argparse.SUPPRESS))
    rotate = commands.add_parser("rotate", help="give an agent a new key and show it, once")
    rotate.add_argument("--keep", type=int, default=1, help="older keys that stay accepted (default 1)")
    token = commands.add_parser("token", help="give an agent a bearer token and show it, once; list or revoke them")
    token.description = "A token stands for the agent, without replay protection: for tools that cannot sign."
    others = token.add_mutually_exclusive_group()
    others.add_argument("--list", action="store_true", help="show the names of its tokens instead")
    others.add_argument("--revoke", metavar="NAME", help=f"take the token of this name away instead, or `{_ALL}`")
    disable = commands.add_parser("disable", help="keep an agent out; its jobs go on")
    enable = commands.add_parser("enable", help="let an agent in again")
    remove = commands.add_parser("remove", help="forget an agent; its unfinished jobs are cancelled")
    for command in (rotate, token, disable, enable, remove):
        command.add_argument("agent_id")
    return parser


_OPERATIONS_HELP = f"some of {','.join(OPERATIONS)}; admin reads /metrics, signed, from any address"
_PREFIX_HELP = "what a webhook's address must begin with (https://example.org/hooks)"


def _add_update(update: argparse.ArgumentParser) -> None:
    update.description = "What is not given stays as it is."
    update.add_argument("agent_id")
    update.add_argument("--name", help="for people")
    update.add_argument("--operations", type=_list, help=_OPERATIONS_HELP)
    _add_limits(update, _limit, f"; `{_DEFAULT}` takes the agent's own away")
    update.add_argument(
        "--allow-ip",
        action="append",
        help=f"address or network it may call from, in place of those before; repeatable; `{_ANYWHERE}` for all",
    )
    update.add_argument(
        "--webhook-prefix",
        action="append",
        help=f"{_PREFIX_HELP}, in place of those before; repeatable; `{_NONE}` for none",
    )
    update.add_argument(
        "--webhook-secret", choices=("new", _NONE), help="draw a new secret and show it, once; or take it away"
    )


def _add_limits(parser: argparse.ArgumentParser, kind: Callable[[str], int | None], note: str) -> None:
    for limit, text in _LIMITS.items():
        parser.add_argument(f"--{limit.replace('_', '-')}", type=kind, metavar="N", help=text + note)


def _limit(text: str) -> int | None:
    if text == _DEFAULT:
        return None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor `{_DEFAULT}`") from None


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
