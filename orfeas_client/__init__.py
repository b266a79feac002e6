"""The client of an ORFEAS service: pictures in, meshes out, every request signed.

    client = AgentClient("http://127.0.0.1:5000", agent_id, api_key)
    job = client.wait(client.generate("chair.png", format="stl", scale_mm=80).id)
    client.download(job.download_url, "chair.stl")

`orfeas-client generate chair.png -o chair.stl` does the same. Calls need requests, and the command line rich; importing
this package loads neither. The modules `signing`, `retries` and `atomic_file` need nothing but the standard library:
the service stands on them too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "AgentClient",
    "Batch",
    "ClientError",
    "Cutout",
    "Fields",
    "Health",
    "ImageUrl",
    "Job",
    "JobPage",
    "LocalFileError",
    "MeshFile",
    "NothingToLink",
    "Scored",
    "ServiceRefused",
    "ServiceUnreachable",
    "UnexpectedAnswer",
    "WaitedTooLong",
    "Warned",
]

if TYPE_CHECKING:
    from orfeas_client.client import AgentClient
    from orfeas_client.errors import (
        ClientError,
        LocalFileError,
        NothingToLink,
        ServiceRefused,
        ServiceUnreachable,
        UnexpectedAnswer,
        WaitedTooLong,
    )
    from orfeas_client.models import Batch, Cutout, Fields, Health, Job, JobPage, MeshFile, Scored, Warned
    from orfeas_client.upload import ImageUrl
else:
    _MODELS = ("Batch", "Cutout", "Fields", "Health", "Job", "JobPage", "MeshFile", "Scored", "Warned")

    def __getattr__(name: str) -> object:
        """Import a public name's module when the name is first asked for (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        homes = {"AgentClient": "client", "ImageUrl": "upload"}
        home = homes.get(name) or ("models" if name in _MODELS else "errors")
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
