"""A full disk: a named refusal and no partial file, whatever was being written; service again when there is room."""

from __future__ import annotations

import secrets
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.faults.report import report
from tests.support.faults.web_harness import (
    ServiceRecords,
    fill_disk,
    images,
    one_image,
    records_of,
    sized,
    until,
    web_service,
)
from tests.support.hostile import FORM
from tests.support.hostile_pictures import good_png
from tests.support.picture_files import encode
from tests.support.redis_backend import redis_server
from tests.support.running import API, Answer, RunningService
from tests.support.small_disk import small_disk

FULL = (507, "STORAGE_FULL")
UNNOTED = (503, "AUTH_UNAVAILABLE")
HEALTHY, UNHEALTHY = (200, ""), (503, "STORAGE_FULL")
KILOBYTE = 1024
# Of a disk as small as this one, the part that must be free for the service to call itself healthy.
FREE_SHARE = 0.02


def noise_png(side: int = 600) -> bytes:
    """Return a picture of about a megabyte, which no compression makes smaller."""
    values = np.random.default_rng(3).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return encode(Image.fromarray(values), "PNG")


def upload(service: RunningService, body: bytes, path: str) -> Answer:
    headers = {"Content-Type": FORM, "Idempotency-Key": secrets.token_hex(8)}
    return service.call("POST", API + path, body, headers=headers)


def health(service: RunningService) -> tuple[int, str]:
    """Return what the service says of itself, as it was at most a second ago."""
    return service.send("GET", f"{API}/health", {}).refusal


def health_with(disk: Path) -> tuple[int, str]:
    """Return what it has to say with what is free on its disk."""
    usage = shutil.disk_usage(disk)
    return UNHEALTHY if usage.free < FREE_SHARE * usage.total else HEALTHY


def expect_nothing_partial(found: ServiceRecords, accepted: int) -> None:
    rows = found.rows()
    assert found.files("inputs") == {image for _, image, _ in rows.values()}
    assert found.files("spool") == set()
    assert len(rows) == accepted
    assert sorted(job_id for ids in found.keys().values() for job_id in ids) == sorted(rows)


@pytest.mark.slow
@pytest.mark.parametrize("nonces", ["database", "redis"])
def test_full_disk_is_told_and_leaves_nothing_half_written(tmp_path: Path, nonces: str) -> None:
    redis = redis_server()
    settings = {"NONCE_STORE": redis.url if nonces == "redis" else "", "QUEUE_LIMIT": 100_000}
    bodies = (
        ("/generate-3d", one_image(noise_png()), 1),
        ("/batch", images(noise_png(), noise_png(300)), 2),
        ("/generate-3d", one_image(good_png()), 1),
    )
    with (
        small_disk(tmp_path / "disk", "40m") as disk,
        web_service(disk / "service", works=False, **settings) as service,
        records_of(service) as found,
    ):
        accepted, seen, healths = 0, Counter[tuple[int, str]](), set[tuple[int, str]]()
        steps = sized(12, 120)
        for step in range(steps):
            # From no room at all to room for everything: each stage of an upload meets the end in some step.
            ballast = fill_disk(disk, 3500 * KILOBYTE * step * step // (steps * steps))
            for path, body, count in bodies:
                answer = upload(service, body, path)
                seen[answer.refusal] += 1
                accepted += count if answer.status == 202 else 0
            until(lambda: health(service) == health_with(disk), "health says how the disk is")
            healths.add(health_with(disk))
            ballast.unlink()
            expect_nothing_partial(found, accepted)
            assert upload(service, bodies[2][1], bodies[2][0]).refusal == (202, "")
            accepted += 1
        assert UNHEALTHY in healths
        until(lambda: health(service) == HEALTHY, "healthy again")
        assert set(seen) - {(202, "")} == ({FULL} if nonces == "redis" else {FULL, UNNOTED})
        assert seen[FULL] >= steps
    figure = f"{seen[FULL]} times STORAGE_FULL, no partial file; then each time service again"
    report(f"disk full during uploads, nonces in {nonces}", f"{steps} fillings", figure)
