"""Removed agents: their jobs are cancelled, whoever takes them out of the file and whenever a service learns of it."""

from __future__ import annotations

from pathlib import Path

from backend.auth.agents_file import add_agent, remove_agent
from backend.jobs.models import Status
from backend.jobs.removal import cancel_jobs
from backend.jobs.store import JobStore
from tests.support.agent_service import AgentService, agent_service, refused
from tests.support.store_backends import submit
from tests.support.workshop import eventually


class Images:
    """Images that are only counted."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    def delete(self, name: str) -> None:
        self.deleted.append(name)


def sweep(service: AgentService) -> int:
    services = service.services
    return cancel_jobs(services.store, services.images, services.guard.removed_agents())


def test_waiting_jobs_are_cancelled_at_once_and_running_ones_asked_to_stop(store: JobStore) -> None:
    ann = submit(store, "ann", 3)
    bob = submit(store, "bob", 1)
    (running,) = [job for job in store.lease("worker", 1, 60) if job.agent_id == "ann"] or store.lease("worker", 1, 60)
    images = Images()
    assert cancel_jobs(store, images, {"ann", "nobody"}) == 3
    jobs = {job_id: store.get(job_id, "ann") for job_id in ann}
    assert {job.status for job in jobs.values()} == {Status.CANCELLED, Status.PROCESSING}
    assert jobs[running.id].cancel_requested
    assert sorted(images.deleted) == sorted(job.image_name for job in jobs.values() if job.id != running.id)
    assert store.get(bob[0], "bob").status is Status.QUEUED
    # What was asked once is not asked again.
    assert cancel_jobs(store, images, {"ann", "nobody"}) == 0
    assert cancel_jobs(store, images, ()) == 0


def test_a_running_service_notices_and_a_new_agent_of_the_same_id_inherits_nothing(tmp_path: Path) -> None:
    with agent_service(tmp_path) as service:
        job_id = service.submit()
        assert len(service.images()) == 1
        remove_agent(service.settings.agents_file, "ann")
        service.services.agents_task.start()
        eventually(lambda: service.services.store.counts().queued == 0 and service.images() == [])
        assert refused(service.get("/jobs")) == (401, "AUTH_INVALID")
        service.keys["ann"] = add_agent(service.settings.agents_file, "ann")
        assert refused(service.get(f"/status/{job_id}")) == (404, "JOB_NOT_FOUND")
        assert service.get("/jobs").get_json()["jobs"] == []
        service.submit()
        assert sweep(service) == 0
        assert service.services.store.counts().queued == 1


def test_an_agent_that_was_removed_while_no_service_ran_has_no_job_at_the_next_start(tmp_path: Path) -> None:
    with agent_service(tmp_path) as service:
        service.submit()
        settings = service.settings
    remove_agent(settings.agents_file, "ann")
    remove_agent(settings.agents_file, "bob")
    with agent_service(tmp_path) as service:
        assert sweep(service) == 1
        assert service.services.store.counts().queued == 0
