"""/metrics, for those addresses that may read it. This module does not know what is counted."""

from __future__ import annotations

from flask import Blueprint, Response, request

from backend.auth.client_address import client_address, is_allowed
from backend.errors import IpNotAllowed
from backend.services import AgentServices
from backend.telemetry.worker_metrics import CONTENT_TYPE


def metrics_page(services: AgentServices) -> Blueprint:
    """The page, for any Flask app that answers ServiceErrors."""
    page = Blueprint("service_metrics", __name__)

    def metrics() -> Response:
        settings = services.settings
        address = client_address(
            request.environ.get("REMOTE_ADDR", ""),
            request.headers.get("X-Forwarded-For", ""),
            settings.trusted_proxies,
        )
        # No networks at all would mean any address there; here it means nobody.
        if not settings.metrics_allowed or not is_allowed(address, settings.metrics_allowed):
            raise IpNotAllowed("Metrics may not be read from this address.")
        return Response(services.metrics.exposition(), content_type=CONTENT_TYPE)

    page.add_url_rule("/metrics", view_func=metrics, provide_automatic_options=False)
    return page
