"""The service through its starts and ends: what was accepted goes on, and what its operator changes holds at once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backend.auth.agents import load_agents
from backend.auth.agents_file import remove_agent, rotate_agent, set_enabled
from backend.jobs.models import Job, Status
from backend.jobs.store import JobStore
from tests.support.faults.fake_worker import STEP_SECONDS
from tests.support.faults.harness import FAKE_SERVICE
from tests.support.hostile_pictures import good_png
from tests.support.running import API, Agent, running_service
from tests.support.watched import WatchedService, sample

QUICK: dict[str, Any] = {"quality": 1, "steps": 10}
LONG: dict[str, Any] = {"quality": 1, "steps": 100}


class QuickService(WatchedService):
    """The whole service but for its model, a fake that is ready at once and denoises as it is told: a step takes 30 ms.

    That the real one stops between steps is test_pipeline's affair.
    """

    command = FAKE_SERVICE

    def __init__(self, folder: Path, *, processes: int = 1, **settings: object) -> None:
        super().__init__(folder, processes=processes, **{STEP_SECONDS: 0.03, **settings})


def job_of(service: WatchedService, job_id: str, owner: str = "") -> Job:
    """Return a job as the table has it, whether or not the service runs; owner : the service's agent's internal id."""
    owner = owner or internal_id(service, service.agent)
    with service.database() as database:
        return JobStore(database, lambda: datetime.now(UTC)).get(job_id, owner)


def internal_id(service: WatchedService, agent: Agent) -> str:
    return load_agents(service.agents_file)[agent.agent_id].internal_id


def test_a_change_of_the_agents_holds_at_once(waiting: WatchedService) -> None:
    agent = waiting.add_agent()
    assert waiting.get("/jobs", agent=agent).status == 200
    set_enabled(waiting.agents_file, agent.agent_id, False)
    assert waiting.get("/jobs", agent=agent).refusal == (403, "AGENT_DISABLED")
    set_enabled(waiting.agents_file, agent.agent_id, True)
    assert waiting.get("/jobs", agent=agent).status == 200
    rotate_agent(waiting.agents_file, agent.agent_id, keep=0)
    assert waiting.get("/jobs", agent=agent).refusal == (401, "AUTH_INVALID")
    remove_agent(waiting.agents_file, agent.agent_id)
    assert waiting.get("/jobs", agent=agent).refusal == (401, "AUTH_INVALID")


def test_a_removed_agent_s_jobs_are_cancelled_while_the_service_runs(waiting: WatchedService) -> None:
    agent = waiting.add_agent()
    owner = internal_id(waiting, agent)
    job_id = waiting.generate(good_png(), agent=agent, async_="true").json()["job_id"]
    assert job_of(waiting, job_id, owner).status is Status.QUEUED
    remove_agent(waiting.agents_file, agent.agent_id)
    waiting.wait_until(lambda: job_of(waiting, job_id, owner).status is Status.CANCELLED)


def test_agents_stay_as_they_were_while_their_file_is_damaged(tmp_path: Path) -> None:
    with running_service(tmp_path, WatchedService, works=False) as service:
        whole = service.agents_file.read_bytes()
        service.agents_file.write_bytes(whole[: len(whole) // 2])
        assert service.get("/jobs").status == 200
        assert "The agents known before stay in force." in service.log
        assert service.agent.api_key not in service.log
        service.agents_file.write_bytes(whole)
        assert service.get("/jobs").status == 200


def test_what_waits_when_the_service_ends_waits_when_it_starts_again(tmp_path: Path) -> None:
    with running_service(tmp_path, WatchedService, works=False) as service:
        batch = service.batch(good_png(), good_png()).json()
        service.stop()
        service.start()
        assert service.status(batch["batch_id"])["status"] == "queued"
        service.kill()
        service.start()
        assert [item["job_id"] for item in service.status(batch["batch_id"])["items"]] == batch["job_ids"]


@pytest.mark.slow
def test_a_job_that_runs_at_the_end_of_the_service_is_finished_or_waits_again(tmp_path: Path) -> None:
    with running_service(tmp_path, QuickService, LEASE_SECONDS=5, SWEEP_SECONDS=0.5) as service:
        drained = service.generate(sample(), async_="true", **LONG).json()["job_id"]
        service.wait(drained, until=("processing",))
        service.stop()
        job = job_of(service, drained)
        assert (job.status, job.attempts) == (Status.COMPLETED, 1)
        assert f"artifacts/{job.artifact}" in service.files("artifacts")
        assert service.files("inputs") == [f"inputs/{job.image_name}"]

        service.settings["DRAIN_SECONDS"] = "0"
        service.start()
        assert service.call("GET", f"{API}/download/{job.artifact}").status == 200
        handed_back = service.generate(sample(), async_="true", **LONG).json()["job_id"]
        service.wait(handed_back, until=("processing",))
        service.stop()
        job = job_of(service, handed_back)
        assert (job.status, job.attempts) == (Status.QUEUED, 0)

        service.start()
        assert service.wait(handed_back)["status"] == "completed"
        broken_off = service.generate(sample(), async_="true", **LONG).json()["job_id"]
        service.wait(broken_off, until=("processing",))
        service.kill()
        assert job_of(service, broken_off).status is Status.PROCESSING

        service.start()
        assert service.wait(broken_off)["status"] == "completed"
        assert job_of(service, broken_off).attempts == 2
        assert sum(name.endswith(".glb") for name in service.files("artifacts")) == 3
        assert len(service.files("inputs")) == 3
        service.check_logs()


@pytest.mark.slow
def test_a_service_takes_over_what_another_accepted(tmp_path: Path) -> None:
    with running_service(tmp_path, QuickService, works=False) as service:
        batch_id = service.batch(sample(), sample("car"), **QUICK).json()["batch_id"]
        service.stop()
        del service.settings["WORKER_ENABLED"]
        service.start()
        batch = service.wait(batch_id)
        assert [(item["status"], item["metadata"]["batch_size"]) for item in batch["items"]] == [("completed", 2)] * 2
