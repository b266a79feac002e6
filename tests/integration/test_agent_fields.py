"""What an agent sends with a request: every field at its ends and beyond, pictures, forms and keys."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.agent_calls import TAKEN, image, job_ids, post
from tests.support.hostile import Part
from tests.support.hostile_pictures import good_png
from tests.support.running import API
from tests.support.watched import WatchedService

BAD_VALUES = {
    "format": ("INVALID_FORMAT", ["gltf", "GLB", "", "glb ", "../glb", "glb,", "glb,fbx"]),
    "quality": ("INVALID_QUALITY", ["0", "11", "-1", "7.0", " 7", "", "0x7", "٧", "high"]),
    "steps": ("INVALID_STEPS", ["9", "101", "0", "1e1", "20.5", ""]),
    "guidance_scale": ("INVALID_GUIDANCE_SCALE", ["-0.1", "20.1", "nan", "inf", "1e999", "five"]),
    "acceleration": ("INVALID_ACCELERATION", ["", "Fast", "turbo", "true"]),
    "seed": ("INVALID_SEED", ["-2", "4294967296", "1.0", "1_0", "seven"]),
    "target_faces": ("INVALID_TARGET_FACES", ["99", "2000001", "1e3", "-100", "all"]),
    "remove_background": ("INVALID_REMOVE_BACKGROUND", ["maybe", "true", ""]),
    "scale_mm": ("INVALID_SCALE_MM", ["0", "-5", "0.09", "10000.1", "nan", "5 mm"]),
    "octree_resolution": ("INVALID_OCTREE_RESOLUTION", ["15", "513", "128.0"]),
    "objects": ("INVALID_OBJECTS", ["each", ""]),
    "outline": ("INVALID_OUTLINE", ["on", ""]),
    "color": ("INVALID_COLOR", ["red", ""]),
    "place": ("INVALID_PLACE", ["floor", ""]),
    "upright": ("INVALID_UPRIGHT", ["on", "true"]),
    "compress": ("INVALID_COMPRESS", ["zip", "true"]),
    "preview": ("INVALID_PREVIEW", ["1", "auto"]),
    "turntable": ("INVALID_TURNTABLE", ["0", ""]),
}
GOOD_VALUES = {
    "format": ["glb", "stl", "obj", "ply", "3mf", "stl,glb"],
    "quality": ["1", "10"],
    "steps": ["10", "100"],
    "guidance_scale": ["0", "20", "7.5"],
    "acceleration": ["none", "balanced", "fast"],
    "seed": ["0", "4294967295", "-1"],
    "target_faces": ["100", "2000000", "none"],
    "remove_background": ["auto", "always", "never"],
    "scale_mm": ["0.1", "10000"],
    "octree_resolution": ["16", "512"],
    "objects": ["all", "largest"],
    "outline": ["auto", "off"],
    "color": ["auto", "none", "vertex", "texture"],
    "place": ["ground", "center", "as_is"],
    "upright": ["auto", "off"],
    "compress": ["none", "meshopt"],
    "preview": ["true", "false"],
    "turntable": ["true", "false"],
}


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [(field, value, code) for field, (code, values) in BAD_VALUES.items() for value in values],
)
def test_a_bad_value_is_refused(waiting: WatchedService, field: str, value: Any, code: str) -> None:
    single = waiting.generate(good_png(), async_="true", **{field: value})
    several = waiting.batch(good_png(), good_png(), **{field: value})
    assert single.refusal == several.refusal == (400, code)
    assert single.json()["details"]["field"] == field


@pytest.mark.parametrize("value", ["yes", "1", ""])
def test_whether_to_wait_is_true_or_false(waiting: WatchedService, value: str) -> None:
    assert waiting.generate(good_png(), async_=value).refusal == (400, "INVALID_ASYNC")


@pytest.mark.parametrize(
    ("field", "value"), [(name, value) for name, values in GOOD_VALUES.items() for value in values]
)
def test_a_value_at_either_end_is_taken(queue: WatchedService, field: str, value: Any) -> None:
    assert queue.generate(good_png(), async_="True", **{field: value}).refusal == TAKEN


@pytest.mark.parametrize("field", ["colour", "Quality", "octree", "images", "quality[]"])
def test_an_unknown_field_is_refused(waiting: WatchedService, field: str) -> None:
    fields: dict[str, Any] = {field: "7"}
    assert waiting.generate(good_png(), **fields).refusal == (400, "UNKNOWN_FIELD")


def test_a_batch_is_never_waited_for_so_it_cannot_be_asked_to_be(waiting: WatchedService) -> None:
    assert waiting.batch(good_png(), good_png(), async_="true").refusal == (400, "UNKNOWN_FIELD")


def test_a_field_may_be_given_once(waiting: WatchedService) -> None:
    twice = (Part("quality", b"7"), Part("quality", b"7"), image())
    assert post(waiting, "/generate-3d", *twice).refusal == (400, "INVALID_QUALITY")


def test_one_picture_is_needed_for_one_mesh(waiting: WatchedService) -> None:
    assert post(waiting, "/generate-3d", Part("seed", b"1")).refusal == (400, "MISSING_IMAGE")
    assert post(waiting, "/generate-3d", image(), image()).refusal == (400, "TOO_MANY_IMAGES")


@pytest.mark.parametrize(
    ("count", "refusal"),
    [
        (0, (400, "MISSING_IMAGE")),
        (1, (400, "TOO_FEW_IMAGES")),
        (2, TAKEN),
        (10, TAKEN),
        (11, (400, "TOO_MANY_IMAGES")),
    ],
)
def test_a_batch_has_two_to_ten_pictures(queue: WatchedService, count: int, refusal: tuple[int, str]) -> None:
    agent = queue.add_agent()
    answer = queue.batch(*[good_png()] * count, agent=agent)
    assert answer.refusal == refusal
    assert len(job_ids(queue, agent)) == (count if refusal == TAKEN else 0)
    if refusal == TAKEN:
        said = answer.json()
        assert (said["total_images"], len(set(said["job_ids"]))) == (count, count)
        assert said["status_url"] == f"{API}/status/{said['batch_id']}"


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"", (400, "INVALID_IMAGE")),
        (good_png()[:60], (400, "INVALID_IMAGE")),
        (b"GIF89a" + bytes(100), (400, "INVALID_IMAGE")),
        (b"%PDF-1.7", (415, "UNSUPPORTED_IMAGE")),
        (good_png() + bytes(12_000_000), (413, "FILE_TOO_LARGE")),
    ],
    ids=["empty", "cut", "GIF", "PDF", "too large"],
)
def test_what_is_no_picture_is_refused_by_name(queue: WatchedService, content: bytes, refusal: tuple[int, str]) -> None:
    agent = queue.add_agent()
    kept = queue.files("inputs")
    assert queue.generate(content, agent=agent).refusal == refusal
    batch = queue.batch(good_png(), content, agent=agent)
    assert batch.refusal == refusal
    assert "2" in batch.json()["error"]
    assert job_ids(queue, agent) == []
    assert queue.files("inputs") == kept


@pytest.mark.parametrize("content_type", ["text/json", "application/x-www-form-urlencoded", "image/png"])
def test_what_is_no_form_is_refused(waiting: WatchedService, content_type: str) -> None:
    answer = waiting.call("POST", f"{API}/generate-3d", b"{}", headers={"Content-Type": content_type})
    assert answer.refusal == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("key", ["a b", "a" * 129, "schlüssel"])
def test_a_key_that_is_none_is_refused(waiting: WatchedService, key: str) -> None:
    refused = waiting.generate(good_png(), headers={"Idempotency-Key": key})
    assert refused.refusal == (400, "INVALID_IDEMPOTENCY_KEY")


@pytest.mark.parametrize(
    ("method", "path", "refusal"),
    [
        ("GET", "/generate-3d", (405, "METHOD_NOT_ALLOWED")),
        ("DELETE", "/jobs", (405, "METHOD_NOT_ALLOWED")),
        ("POST", "/health", (405, "METHOD_NOT_ALLOWED")),
        ("OPTIONS", "/jobs", (405, "METHOD_NOT_ALLOWED")),
        ("GET", "", (404, "NOT_FOUND")),
        ("GET", "/jobs/", (404, "NOT_FOUND")),
        ("GET", "//jobs", (404, "NOT_FOUND")),
        ("GET", "/status/", (404, "NOT_FOUND")),
    ],
)
def test_what_is_not_offered_is_refused(
    waiting: WatchedService, method: str, path: str, refusal: tuple[int, str]
) -> None:
    answer = waiting.call(method, API + path)
    assert answer.refusal == refusal
    assert ("Allow" in answer.headers) == (refusal[0] == 405)
