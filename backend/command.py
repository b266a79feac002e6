"""How a command for operators ends, whichever it is: 0 and what it says, or 1 and one sentence on standard error.

A command line that is wrong ends with 2, as argparse has it. This module does not know what a command does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO

from backend.errors import ServiceError

CANNOT = 1
EPILOG = "Exit codes: 0 done; 1 it cannot be done, for the reason that is said; 2 the command line is wrong."


class CommandError(Exception):
    """It cannot be done; the message says in a sentence why, and what to do."""


def report(work: Callable[[], str], output: TextIO) -> int:
    """Do a command's work, say what it returns, whole lines, and return the exit code.

    What is raised beside ServiceError and CommandError is a fault of the program, and shown as one.
    """
    try:
        output.write(work())
    except ServiceError as error:
        return _refused(error.message)
    except CommandError as error:
        return _refused(str(error))
    return 0


def _refused(sentence: str) -> int:
    sys.stderr.write(f"{sentence}\n")
    return CANNOT
