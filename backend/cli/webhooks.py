"""`orfeas webhooks`: the log of what was sent to agents, and the way to send it again.

This module does not know how a webhook is sent: the service's web processes do that.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, TextIO

from backend.command import EPILOG, CommandError, report
from backend.config import Settings

if TYPE_CHECKING:
    from backend.jobs.webhooks import Delivery, WebhookTable

_DEFAULT_LIMIT = 50


def run(arguments: Sequence[str], environ: Mapping[str, str], output: TextIO) -> int:
    """Do what the command line asks and return the exit code, as `report` has them."""
    options = _parser().parse_args(arguments)

    def work() -> str:
        from backend.jobs.webhooks import WebhookTable
        from backend.periodic import utc_now
        from backend.storage.migrations import open_latest

        settings = Settings.from_environment(environ)
        with closing(open_latest(settings.database_url)) as database:
            table = WebhookTable(database, utc_now)
            if options.command == "replay":
                return _replay(table, options.id)
            return _list(table, settings, options)

    return report(work, output)


def _list(table: WebhookTable, settings: Settings, options: argparse.Namespace) -> str:
    from backend.auth.agents_file import find_agent

    agent = None if options.agent is None else find_agent(settings.agents_file, options.agent).internal_id
    found = table.latest(options.limit, agent, options.state)
    return "".join(json.dumps(_shown(delivery)) + "\n" if options.json else _line(delivery) for delivery in found)


def _line(delivery: Delivery) -> str:
    outcome = delivery.last_error or ("" if delivery.last_status is None else f"answered {delivery.last_status}")
    next_try = "" if delivery.due_at is None else f"next {delivery.due_at:%Y-%m-%d %H:%M:%S}"
    tries = f"{delivery.attempts} {'try' if delivery.attempts == 1 else 'tries'}"
    parts = (
        f"{delivery.created_at:%Y-%m-%d %H:%M:%S}",
        delivery.id,
        delivery.state,
        delivery.type,
        delivery.subject_id,
        delivery.url,
        tries,
        next_try,
        outcome,
    )
    return "  ".join(part for part in parts if part) + "\n"


def _shown(delivery: Delivery) -> dict[str, object]:
    times = ("created_at", "due_at", "ended_at")
    return {
        name: value.isoformat() if name in times and value is not None else value
        for name, value in vars(delivery).items()
        if name != "body"
    }


def _replay(table: WebhookTable, delivery_id: str) -> str:
    found = delivery_id.removeprefix("msg_")
    if not table.replay(found):
        raise CommandError(f"There is no delivery {delivery_id[:80]}: see `orfeas webhooks list`.")
    return f"{found} is sent again by the service, under the same webhook-id, from the first try on.\n"


def _parser() -> argparse.ArgumentParser:
    from backend.jobs.webhooks import STATES

    parser = argparse.ArgumentParser(
        prog="orfeas webhooks",
        description="What was sent to agents' webhooks, or is yet to be; the log remembers 30 days.",
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="list deliveries, newest first", description="List deliveries.")
    listing.add_argument("--agent", metavar="ID", help="of one agent")
    listing.add_argument("--state", choices=STATES, help="in one state")
    limit_help = "at most so many (default: %(default)s)"
    listing.add_argument("--limit", type=int, default=_DEFAULT_LIMIT, metavar="N", help=limit_help)
    listing.add_argument("--json", action="store_true", help="a line of JSON each")
    text = "send a delivery again, whatever came of it"
    replay = commands.add_parser("replay", help=text, description=f"{text.capitalize()}.")
    replay.add_argument("id", help="of the delivery, or its webhook-id")
    return parser
