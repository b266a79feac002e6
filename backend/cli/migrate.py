"""`orfeas migrate`: brings the database to this version's schema, before a new version starts.

This module does not know what a migration changes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from backend.config import Settings
from backend.errors import ServiceError

CANNOT_MIGRATE = 1


def run(arguments: Sequence[str], environ: Mapping[str, str], output: TextIO) -> int:
    """Migrate, or list what would be done, and return the exit code: 0, or 1 with a sentence on standard error."""
    from backend.storage import migrations

    options = _parser().parse_args(arguments)
    try:
        url = Settings.from_environment(environ).database_url
        revisions = migrations.pending(url) if options.only_list else migrations.migrate(url)
    except ServiceError as error:
        sys.stderr.write(f"{error.message}\n")
        return CANNOT_MIGRATE
    done = "are pending" if options.only_list else "were run"
    output.write(f"These revisions {done}: {', '.join(revisions)}.\n" if revisions else "The schema is the latest.\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orfeas migrate",
        description="Bring DATABASE_URL's database to this version's schema. No other process may use it meanwhile.",
        epilog="Exit codes: 0 the schema is the latest, or its pending revisions are listed; 1 it cannot be migrated.",
    )
    parser.add_argument("--only-list", action="store_true", help="list the revisions that would be run, and end")
    return parser
