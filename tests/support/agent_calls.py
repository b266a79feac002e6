"""What the integration tests send to a watched service, and the answers that they know by name."""

from __future__ import annotations

from typing import Any

from tests.support.hostile import FORM, Part, encode_form
from tests.support.hostile_pictures import good_png
from tests.support.running import API, Agent, Answer
from tests.support.watched import WatchedService

UNKNOWN = "0" * 32
QUICK: dict[str, Any] = {"quality": 1, "steps": 10}
OK = (200, "")
TAKEN = (202, "")
NO_FILE = (404, "FILE_NOT_FOUND")
NO_JOB = (404, "JOB_NOT_FOUND")


def image(name: str = "image", content: bytes | None = None) -> Part:
    """Return a part with a picture, a small good one unless another is given."""
    return Part(name, good_png() if content is None else content, "cat.png", "image/png")


def post(service: WatchedService, path: str, *parts: Part) -> Answer:
    """Send a signed form."""
    return service.call("POST", API + path, encode_form(*parts), headers={"Content-Type": FORM})


def job_ids(service: WatchedService, agent: Agent) -> list[str]:
    """List an agent's newest jobs."""
    return [job["job_id"] for job in service.get("/jobs?limit=100", agent=agent).json()["jobs"]]


def cancel(service: WatchedService, job_id: str, agent: Agent | None = None) -> Answer:
    """Cancel a job, as its agent or another one."""
    return service.call("DELETE", f"{API}/jobs/{job_id}", agent=agent)


def made(answer: Answer) -> dict[str, Any]:
    """Return what is said of a mesh that was waited for."""
    assert answer.refusal == OK, answer.body
    return answer.json()
