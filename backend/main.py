"""The service put together: `create_app()` for a WSGI server, `python -m backend.main` for development.

This module does not know what the parts do.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from flask import Flask
from werkzeug.serving import make_server

from backend.agent_api import register_agent_api, services_of
from backend.config import Settings
from backend.errors import ServiceError
from backend.services import AgentServices
from backend.studio.pages import register_studio
from backend.telemetry.logs import configure_logging


def create_app(settings: Settings | None = None, services: AgentServices | None = None) -> Flask:
    """Return the service as a Flask app; `services_of(app).start()` makes it run jobs, in the process that serves.

    settings : the environment's when absent; services : those that the settings describe when absent
    Raises ConfigurationError, AgentsFileError, StoreUnavailable, SchemaMismatch.
    """
    app = Flask("orfeas", static_folder=None)
    # A redirect would be to an address that its sender has not signed.
    app.url_map.merge_slashes = False
    settings = settings or Settings.from_environment(os.environ)
    register_studio(app, register_agent_api(app, services or AgentServices.from_settings(settings), whole_app=True))
    return app


def main() -> int:
    """Serve until SIGTERM or SIGINT, with the settings of the environment; 2 when it cannot start."""
    try:
        settings = Settings.from_environment(os.environ)
        configure_logging(settings.log_level, settings.log_format)
        app = create_app(settings)
    except ServiceError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    services = services_of(app)
    server = make_server(settings.host, settings.port, app, threaded=True)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        services.begin_drain(None if services.draining.since is None else 0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # On another thread: it waits for the loop that this one is in.
    services.call_when_drained(server.shutdown)
    services.start()
    sys.stdout.write(f"Serving on http://{server.host}:{server.port}; for development only.\n")
    sys.stdout.flush()
    try:
        server.serve_forever()
    finally:
        services.stop()
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
