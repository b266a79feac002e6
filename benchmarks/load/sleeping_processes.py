"""A service and a worker whose model sleeps as long as an H100 works: the web's app for gunicorn, and a worker's main.

    gunicorn --config python:backend.serve.gunicorn_conf "benchmarks.load.sleeping_processes:make_app()"
    python -m benchmarks.load.sleeping_processes

This module does not know how much is asked of them.
"""

from __future__ import annotations

import os
import random
import sys
from functools import cache

from flask import Flask

from backend.config import Settings
from backend.main import create_app
from backend.services import AgentServices
from benchmarks.support.sleeping_model import Pace, SleepingModel


@cache
def model() -> SleepingModel:
    """Return the one model of this process."""
    return SleepingModel(Pace(random.Random(7)))


def make_app() -> Flask:
    """As backend.main.create_app, with the settings of the environment."""
    settings = Settings.from_environment(os.environ)
    return create_app(settings, AgentServices.from_settings(settings, open_processor=model))


def main() -> int:
    from backend.worker import serve

    return serve(Settings.from_environment(os.environ), model)


if __name__ == "__main__":
    sys.exit(main())
