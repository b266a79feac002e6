"""`orfeas backup` and `orfeas restore`: all that outlives a machine, in one folder, taken while the service runs.

The database is copied first and the files after it: a job's row is written once its files are there, so a copy has each
file that its rows name, but for those that were deleted meanwhile. A restore goes the other way, the database last, so
that no service finds jobs whose files are yet to come. This module does not know how a database is copied.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from backend.command import EPILOG, CommandError, report
from backend.config import Settings


def run_backup(arguments: Sequence[str], environ: Mapping[str, str], output: TextIO) -> int:
    """Make a backup and return the exit code, as `report` has them."""
    options = _backup_parser().parse_args(arguments)

    def work() -> str:
        from backend.cli.backup.making import make

        return make(Settings.from_environment(environ), options.folder, with_database=not options.without_database)

    return report(lambda: _with_disk(work), output)


def run_restore(arguments: Sequence[str], environ: Mapping[str, str], output: TextIO) -> int:
    """Restore a backup and return the exit code, as `report` has them."""
    options = _restore_parser().parse_args(arguments)

    def work() -> str:
        from backend.cli.backup.restoring import check, restore

        settings = Settings.from_environment(environ)
        return check(options.folder) if options.only_check else restore(settings, options.folder)

    return report(lambda: _with_disk(work), output)


def _with_disk(work: Callable[[], str]) -> str:
    """Do work that fails with a sentence where the disk does. Raises CommandError, and what the work raises."""
    try:
        return f"{work()}\n"
    except (OSError, shutil.Error) as error:
        raise CommandError(
            f"The disk would not do it: {error}. Make room, or name another folder, and run this again."
        ) from error


def _backup_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orfeas backup",
        description="Copy the database, pictures and meshes, the agents and the audit log into a new folder, whole or "
        "not at all, while the service runs. The folder holds keys: keep it as you keep those.",
        epilog=EPILOG,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a folder that is not there yet")
    parser.add_argument(
        "--without-database",
        action="store_true",
        help="leave the database out, where its server has a backup of its own; take that one first",
    )
    return parser


def _restore_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orfeas restore",
        description="Put a backup into the empty places that the settings name: a database without tables, and no "
        "agents file. Start the service afterwards. Run again, it goes on where it stopped.",
        epilog=EPILOG,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a folder that `orfeas backup` made")
    parser.add_argument("--only-check", action="store_true", help="see that the backup is whole, restore nothing")
    return parser
