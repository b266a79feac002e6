"""`orfeas migrate`: brings the database to this version's schema, before a new version starts.

This module does not know what a migration changes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TextIO

from backend.command import EPILOG, report
from backend.config import Settings


def run(arguments: Sequence[str], environ: Mapping[str, str], output: TextIO) -> int:
    """Migrate, or list what would be done, and return the exit code, as `report` has them."""
    options = _parser().parse_args(arguments)

    def work() -> str:
        from backend.storage import migrations

        url = Settings.from_environment(environ).database_url
        revisions = migrations.pending(url) if options.only_list else migrations.migrate(url)
        done = "are pending" if options.only_list else "were run"
        return f"These revisions {done}: {', '.join(revisions)}.\n" if revisions else "The schema is the latest.\n"

    return report(work, output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orfeas migrate",
        description="Bring DATABASE_URL's database to this version's schema. No other process may use it meanwhile.",
        epilog=EPILOG,
    )
    parser.add_argument("--only-list", action="store_true", help="list the revisions that would be run, and end")
    return parser
