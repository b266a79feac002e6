"""`orfeas keys`: the operator's way to change the key that links to files are signed with.

This module does not know what a link is.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import TextIO

from backend.command import EPILOG, report
from backend.config import Settings


def run(arguments: Sequence[str], environ: Mapping[str, str], output: TextIO) -> int:
    """Do what the command line asks and return the exit code, as `report` has them."""
    _parser().parse_args(arguments)
    return report(lambda: _told(rotate(Settings.from_environment(environ).database_url)), output)


def _told(before: datetime | None) -> str:
    kept = (
        f"Those signed with the one before, made at {before:%Y-%m-%d %H:%M} UTC, are good until their time is over; "
        "older ones end now. Rotate once more to end all that were made so far."
        if before
        else "There was none before."
    )
    return f"Links are signed with a new key from now on. {kept}\n"


def rotate(database_url: str) -> datetime | None:
    """Make a new key in a database of this version's schema; return when the one before was made, if any.

    Raises SchemaMismatch for another version's, StoreUnavailable, StorageFull.
    """
    from backend.auth.link_keys import SqlLinkKeys
    from backend.periodic import utc_now
    from backend.storage.migrations import open_latest

    with closing(open_latest(database_url)) as database:
        return SqlLinkKeys(database, utc_now).rotate()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orfeas keys",
        description="The keys that links to files (`signed_url`) are signed with: they lie in DATABASE_URL's database.",
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = "sign with a new key from now on; links of the one before stay good until their time is over"
    commands.add_parser("rotate", help=text, description=f"{text[:1].upper()}{text[1:]}.")
    return parser
