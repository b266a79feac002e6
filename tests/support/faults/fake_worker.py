"""`python tests/support/faults/fake_worker.py`: a real worker but for its model; and that model, for a service.

The model makes spheres, slowly; a picture that says so kills its process. Imported before the fork, so that a child
that takes a dead one's place is ready at once.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import backend.hunyuan3d.mesh.export  # noqa: F401
from backend.config import Settings
from tests.support.fake_gpu import FakeCall, FakeProcessor

KILLER = b"kills its worker on the device"
LATE_KILLER = b"kills its worker while its mesh is drawn"
DEVICE_LOSER = b"makes the device answer no more"
HANGER = b"makes the device hang"
STEP_SECONDS = "FAKE_STEP_SECONDS"
MESH_SECONDS = "FAKE_MESH_SECONDS"


def fake_model() -> FakeProcessor:
    """Return the one model of this process; a test says in the environment how long a step or a mesh takes."""
    if not _models:
        seconds = float(os.environ.get(STEP_SECONDS, "0.1"))
        _models.append(
            FakeProcessor(before_call=_look, before_finish=_look_late, at_step=lambda _step: time.sleep(seconds))
        )
    return _models[0]


def main() -> int:
    from backend.worker import serve

    return serve(Settings.from_environment(os.environ), fake_model)


def _look(call: FakeCall) -> None:
    if KILLER in call.images:
        os.kill(os.getpid(), signal.SIGKILL)
    if HANGER in call.images:
        time.sleep(86400)
    if DEVICE_LOSER in call.images:
        fake_model().lost = True
        raise RuntimeError("device-side assert triggered")


def _look_late(image: bytes) -> None:
    time.sleep(float(os.environ.get(MESH_SECONDS, "0")))
    if image == LATE_KILLER:
        os.kill(os.getpid(), signal.SIGKILL)


_models: list[FakeProcessor] = []

if __name__ == "__main__":
    sys.exit(main())
