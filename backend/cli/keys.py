"""`orfeas keys`: the operator's way to change the key that links to files are signed with.

This module does not know what a link is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import TextIO

from backend.config import Settings
from backend.errors import SchemaMismatch, ServiceError

CANNOT_ROTATE = 1


def run(arguments: Sequence[str], environ: Mapping[str, str], output: TextIO) -> int:
    """Do what the command line asks and return the exit code: 0, or 1 with a sentence on standard error."""
    _parser().parse_args(arguments)
    try:
        before = rotate(Settings.from_environment(environ).database_url)
    except ServiceError as error:
        sys.stderr.write(f"{error.message}\n")
        return CANNOT_ROTATE
    kept = (
        f"Those signed with the one before, made at {before:%Y-%m-%d %H:%M} UTC, are good until their time is over; "
        "older ones end now. Rotate once more to end all that were made so far."
        if before
        else "There was none before."
    )
    output.write(f"Links are signed with a new key from now on. {kept}\n")
    return 0


def rotate(database_url: str) -> datetime | None:
    """Make a new key in a database of this version's schema; return when the one before was made, if any.

    Raises SchemaMismatch for another version's, StoreUnavailable, StorageFull.
    """
    from backend.auth.link_keys import SqlLinkKeys
    from backend.periodic import utc_now
    from backend.storage.database import Database
    from backend.storage.migrations import pending

    missing = pending(database_url)
    if missing:
        raise SchemaMismatch(f"The database lacks the revisions {', '.join(missing)}: run `orfeas migrate` first.")
    with closing(Database.open(database_url)) as database:
        return SqlLinkKeys(database, utc_now).rotate()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orfeas keys",
        description="The keys that links to files (`signed_url`) are signed with: they lie in DATABASE_URL's database.",
        epilog="Exit codes: 0 done; 1 it cannot be done, for the reason that is said.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = "sign with a new key from now on; links of the one before stay good until their time is over"
    commands.add_parser("rotate", help=text, description=f"{text[:1].upper()}{text[1:]}.")
    return parser
