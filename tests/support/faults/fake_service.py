"""The app of a service whose model is fake_worker's, for gunicorn: `tests.support.faults.fake_service:make_app()`."""

from __future__ import annotations

import os

from flask import Flask

from backend.config import Settings
from backend.main import create_app
from backend.services import AgentServices
from tests.support.faults.fake_worker import fake_model


def make_app() -> Flask:
    """As backend.main.create_app, with the settings of the environment."""
    settings = Settings.from_environment(os.environ)
    return create_app(settings, AgentServices.from_settings(settings, open_processor=fake_model))
