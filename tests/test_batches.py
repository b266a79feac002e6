"""Batches through the whole app: bad images beside good ones, cancelling, what is said of each image."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backend.errors import OutOfMemory, StorageFull
from backend.jobs.janitor import Janitor
from backend.storage.files import LocalFiles
from tests.support.agent_service import (
    API,
    FORM,
    AgentService,
    Part,
    agent_service,
    encode_form,
    fail_with,
    field,
    good_png,
    image,
    refused,
)
from tests.support.picture_files import encode, gif, ramp
from tests.support.workshop import eventually

CUT = good_png()[:-30]
PARTIAL = field("accept_partial", "true")
PLAIN = (field("preview", "false"), field("color", "none"))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[AgentService]:
    """Give a service whose worker does not run."""
    with agent_service(tmp_path, max_image_bytes=100_000) as made:
        yield made


@pytest.fixture
def running(tmp_path: Path) -> Iterator[AgentService]:
    """Give a service whose worker runs."""
    with agent_service(tmp_path, running=True) as made:
        yield made


def named(content: bytes, filename: str) -> Part:
    return Part("images", content, filename, "image/png")


def status_of_batch(service: AgentService, answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = service.call("GET", answer["status_url"]).get_json()
    return found


def finished(service: AgentService, answer: dict[str, Any]) -> dict[str, Any]:
    eventually(lambda: status_of_batch(service, answer)["status"] not in ("queued", "processing"))
    return status_of_batch(service, answer)


# Bad images


def test_all_bad_images_are_named_in_one_answer(service: AgentService) -> None:
    response = service.batch(
        named(good_png(), "a.png"), named(CUT, "b.png"), named(b"", "c.png"), image("images"), named(CUT, "")
    )
    assert refused(response) == (400, "INVALID_IMAGE")
    answer = response.get_json()
    assert answer["details"]["images"] == [
        {"index": 1, "filename": "b.png", "code": "INVALID_IMAGE", "error": answer["details"]["images"][0]["error"]},
        {"index": 2, "filename": "c.png", "code": "INVALID_IMAGE", "error": "Picture 3 (c.png): it is empty."},
        {"index": 4, "filename": None, "code": "INVALID_IMAGE", "error": answer["details"]["images"][2]["error"]},
    ]
    for bad in answer["details"]["images"]:
        assert bad["error"] in answer["error"]
        assert bad["error"].startswith(f"Picture {bad['index'] + 1}")
    assert answer["details"]["field"] == "images"
    assert service.images() == []
    assert service.services.store.counts().queued == 0


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"%PDF-1.7", 415, "UNSUPPORTED_IMAGE"),
        (bytes(100_001), 413, "FILE_TOO_LARGE"),
        (CUT, 400, "INVALID_IMAGE"),
    ],
)
def test_bad_images_of_one_kind_are_answered_as_one_would_be(
    service: AgentService, content: bytes, status: int, code: str
) -> None:
    response = service.batch(named(content, "a"), image("images"), named(content, "b"))
    assert refused(response) == (status, code)
    assert [bad["code"] for bad in response.get_json()["details"]["images"]] == [code, code]


def test_bad_images_of_several_kinds_are_invalid_together(service: AgentService) -> None:
    response = service.batch(named(b"%PDF-1.7", "a.pdf"), named(bytes(100_001), "b.png"), named(CUT, "c.png"))
    assert refused(response) == (400, "INVALID_IMAGE")
    codes = [bad["code"] for bad in response.get_json()["details"]["images"]]
    assert codes == ["UNSUPPORTED_IMAGE", "FILE_TOO_LARGE", "INVALID_IMAGE"]


def test_after_a_bad_image_nothing_more_is_stored(service: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[str] = []
    put = LocalFiles.put

    def noted(self: LocalFiles, name: str, data: Any) -> None:
        stored.append(name)
        put(self, name, data)

    monkeypatch.setattr(LocalFiles, "put", noted)
    service.batch(image("images"), named(CUT, "b.png"), image("images"), image("images"))
    assert len(stored) == 1
    assert service.images() == []


def test_good_images_run_beside_bad_ones_when_that_was_asked(running: AgentService) -> None:
    parts = (named(CUT, "bad.png"), named(good_png(), "good.png"), named(b"%PDF", "x.pdf"))
    response = running.batch(*parts, PARTIAL, *PLAIN)
    assert response.status_code == 202
    answer = response.get_json()
    assert (answer["total_images"], len(answer["job_ids"])) == (3, 3)
    assert [(bad["index"], bad["filename"], bad["code"]) for bad in answer["refused"]] == [
        (0, "bad.png", "INVALID_IMAGE"),
        (2, "x.pdf", "UNSUPPORTED_IMAGE"),
    ]
    batch = finished(running, answer)
    assert (batch["status"], batch["progress"]) == ("completed", 100)
    assert batch["counts"] == {"queued": 0, "processing": 0, "completed": 1, "failed": 2, "cancelled": 0}
    assert [item["job_id"] for item in batch["items"]] == answer["job_ids"]
    assert [(item["index"], item["filename"], item["status"]) for item in batch["items"]] == [
        (0, "bad.png", "failed"),
        (1, "good.png", "completed"),
        (2, "x.pdf", "failed"),
    ]
    first = batch["items"][0]
    assert first["error"] == {
        "code": "INVALID_IMAGE",
        "error": answer["refused"][0]["error"],
        "details": {
            "field": "images",
            "image": 1,
            "reason": "it is damaged or truncated: it breaks off in its chunk IDAT",
        },
    }
    assert (first["started_at"], first["processing_time"], first["metadata"]) == (None, None, None)
    assert first["finished_at"] == first["created_at"]
    assert len(running.fake.calls) == 1
    assert len(running.images()) == 1  # the good one, until its job expires


def test_a_batch_waits_until_a_good_image_runs(service: AgentService) -> None:
    answer = service.batch(image("images"), named(CUT, "b.png"), PARTIAL).get_json()
    batch = status_of_batch(service, answer)
    assert (batch["status"], batch["queue_position"]) == ("queued", 1)
    assert batch["counts"] == {"queued": 1, "processing": 0, "completed": 0, "failed": 1, "cancelled": 0}
    assert (batch["download_url"], batch["expires_at"]) == (None, None)
    assert service.get(f"/status/{answer['job_ids'][1]}").get_json()["status"] == "failed"


def test_bad_images_count_towards_no_bound(tmp_path: Path) -> None:
    with agent_service(tmp_path, max_active_jobs=2, queue_limit=2) as service:
        bad = [named(CUT, "b.png")] * 4
        assert service.batch(image("images"), *bad, image("images"), PARTIAL).status_code == 202
        assert refused(service.batch(image("images"), *bad, PARTIAL)) == (429, "RATE_LIMITED")
        assert len(service.images()) == 2


def test_nothing_is_made_of_bad_images_alone(service: AgentService) -> None:
    response = service.batch(named(CUT, "a.png"), named(b"", "b.png"), PARTIAL)
    assert refused(response) == (400, "INVALID_IMAGE")
    assert [bad["index"] for bad in response.get_json()["details"]["images"]] == [0, 1]
    assert service.get("/jobs").get_json()["jobs"] == []


def test_a_full_disk_is_no_image_s_fault(service: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageFull

    monkeypatch.setattr(LocalFiles, "put", full)
    assert refused(service.batch(image("images"), named(CUT, "b.png"), PARTIAL)) == (507, "STORAGE_FULL")


def test_the_same_partial_batch_is_answered_alike(service: AgentService) -> None:
    parts = (image("images"), named(CUT, "b.png"), PARTIAL)
    first = service.batch(*parts, Idempotency_Key="key-1")
    assert service.batch(*parts, Idempotency_Key="key-1").get_json() == first.get_json()
    assert first.get_json()["refused"][0]["filename"] == "b.png"
    assert len(service.images()) == service.services.store.counts().queued == 1
    strict = service.batch(*parts[:2], Idempotency_Key="key-1")
    assert refused(strict) == (409, "IDEMPOTENCY_CONFLICT")


@pytest.mark.parametrize("value", ["yes", "1", ""])
def test_accept_partial_is_true_or_false(service: AgentService, value: str) -> None:
    response = service.batch(image("images"), image("images"), field("accept_partial", value))
    assert refused(response) == (400, "INVALID_ACCEPT_PARTIAL")
    assert response.get_json()["details"] == {"field": "accept_partial", "allowed": "true or false"}


def test_accept_partial_is_no_field_of_a_single_image(service: AgentService) -> None:
    assert refused(service.generate(image(), PARTIAL)) == (400, "UNKNOWN_FIELD")


def test_pictures_of_all_formats_run_where_others_of_theirs_are_bad(service: AgentService) -> None:
    good = {form: encode(ramp(), form) for form in ("AVIF", "GIF", "BMP", "TIFF", "WEBP")}
    bad = {
        "cut.avif": (good["AVIF"][:-40], "INVALID_IMAGE"),
        "cut.tiff": (good["TIFF"][:900], "INVALID_IMAGE"),
        "bomb.gif": (gif(screen=(60_000, 60_000)), "INVALID_IMAGE"),
        "picture.png": (b"%PDF-1.7", "UNSUPPORTED_IMAGE"),
    }
    parts = [named(content, f"good.{form}") for form, content in good.items()]
    answer = service.batch(*parts, *(named(content, name) for name, (content, _) in bad.items()), PARTIAL)
    assert answer.status_code == 202
    refusals = answer.get_json()["refused"]
    assert [(each["filename"], each["code"]) for each in refusals] == [(name, code) for name, (_, code) in bad.items()]
    assert [each["index"] for each in refusals] == [5, 6, 7, 8]
    assert len(service.images()) == service.services.store.counts().queued == len(good)
    strict = service.batch(parts[0], named(bad["cut.tiff"][0], "cut.tiff"))
    assert refused(strict) == (400, "INVALID_IMAGE")


def test_a_damaged_png_is_invalid_by_either_call(service: AgentService) -> None:
    damaged = bytearray(good_png())
    damaged[damaged.index(b"IDAT") + 8] ^= 1
    for response in (
        service.generate(image(content=bytes(damaged))),
        service.batch(image("images"), named(bytes(damaged), "b.png")),
    ):
        assert refused(response) == (400, "INVALID_IMAGE")
        assert "it is damaged or truncated: its pixels are damaged" in response.get_json()["error"]


# Cancelling


def test_a_batch_is_cancelled_by_its_id(service: AgentService) -> None:
    answer = service.batch(image("images"), named(CUT, "b.png"), image("images"), PARTIAL).get_json()
    other = service.submit()
    response = service.call("DELETE", f"{API}/jobs/{answer['batch_id']}")
    assert response.status_code == 200
    batch = response.get_json()
    assert batch["batch_id"] == answer["batch_id"]
    assert batch["counts"] == {"queued": 0, "processing": 0, "completed": 0, "failed": 1, "cancelled": 2}
    assert batch["status"] == "failed"
    assert service.get(f"/status/{other}").get_json()["status"] == "queued"
    assert len(service.images()) == 1


def test_what_of_a_batch_has_finished_stays(running: AgentService) -> None:
    answer = running.batch(image("images"), image("images"), *PLAIN).get_json()
    before = finished(running, answer)
    after = running.call("DELETE", f"{API}/jobs/{answer['batch_id']}").get_json()
    assert after == before
    assert running.call("GET", after["items"][0]["download_url"]).status_code == 200


def test_nobody_else_cancels_a_batch(service: AgentService) -> None:
    answer = service.batch().get_json()
    target = f"{API}/jobs/{answer['batch_id']}"
    assert refused(service.call("DELETE", target, agent="bob")) == (404, "JOB_NOT_FOUND")
    assert status_of_batch(service, answer)["counts"]["queued"] == 2


# What is said of a job


def test_what_was_sent_with_a_job_is_said_of_it(service: AgentService) -> None:
    fields = (field("label", "Set 7, Ärger"), field("seed", "5"), field("format", "glb,stl"))
    answer = service.batch(named(good_png(), "a/cüp.png"), named(good_png(), ""), *fields).get_json()
    batch = status_of_batch(service, answer)
    assert [(item["index"], item["filename"], item["label"]) for item in batch["items"]] == [
        (0, "cüp.png", "Set 7, Ärger"),
        (1, None, "Set 7, Ärger"),
    ]
    request = batch["items"][0]["request"]
    assert (request["format"], request["quality"], request["seed"], request["steps"]) == ("glb,stl", 7, 5, None)
    single = service.get(f"/status/{service.submit()}").get_json()
    assert (single["index"], single["filename"], single["label"]) == (None, "cat.png", None)
    assert isinstance(single["request"]["seed"], int)


def test_a_request_of_another_version_is_not_understood(service: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.validation.GenerationRequest.to_json", lambda _: '{"shape": "round"}')
    assert service.get(f"/status/{service.submit()}").get_json()["request"] is None


@pytest.mark.parametrize("label", ["x" * 201, "two\nlines", "nul\0", "\u0085"])
def test_a_label_has_a_form(service: AgentService, label: str) -> None:
    response = service.generate(image(), field("async", "true"), field("label", label))
    assert refused(response) == (400, "INVALID_LABEL")
    assert response.get_json()["details"] == {
        "field": "label",
        "allowed": "at most 200 characters, none of them a control character",
        "maxLength": 200,
    }


@pytest.mark.parametrize(("label", "shown"), [("", None), ("猫" * 200, "猫" * 200), (" ' OR 1=1 --", " ' OR 1=1 --")])
def test_a_label_is_kept_as_it_came(service: AgentService, label: str, shown: str | None) -> None:
    assert service.get(f"/status/{service.submit(field('label', label))}").get_json()["label"] == shown


def test_a_finished_job_says_when_it_expires(running: AgentService) -> None:
    job = running.get(f"/status/{running.made(*PLAIN)['job_id']}").get_json()
    ended = datetime.fromisoformat(job["finished_at"])
    assert datetime.fromisoformat(job["expires_at"]) == ended + timedelta(hours=24)
    answer = running.batch(image("images"), image("images"), *PLAIN).get_json()
    batch = finished(running, answer)
    assert batch["expires_at"] == min(item["expires_at"] for item in batch["items"])


def test_a_failed_job_s_error_has_the_form_of_any_error(running: AgentService) -> None:
    fail_with(running, OutOfMemory(details={"octree_resolution": 384}))
    response = running.generate(image())
    assert refused(response) == (503, "OUT_OF_MEMORY")
    answer = response.get_json()
    job = running.get(f"/status/{answer['details']['job_id']}").get_json()
    assert job["error"] == {
        "error": answer["error"],
        "code": "OUT_OF_MEMORY",
        "details": {"octree_resolution": 384},
    }
    assert answer["details"] == {"octree_resolution": 384, "job_id": job["job_id"]}


# The zip


def test_all_of_a_batch_is_one_zip(running: AgentService) -> None:
    parts = [
        named(good_png(), name) for name in ("Mug.png", "mug.PNG", "../../etc/pass:wd", "con.png", "", ".hidden.gif")
    ]
    fields = (PARTIAL, *PLAIN, field("format", "stl,ply"), field("label", "Set 7"))
    answer = running.batch(*parts, named(CUT, "bad.png"), *fields).get_json()
    batch = finished(running, answer)
    stems = ("Mug", "mug-2", "pass_wd", "_con", "image-5", "hidden")
    assert batch["download_url"] == f"{API}/download/{answer['batch_id']}.zip"
    response = running.call("GET", batch["download_url"])
    assert (response.status_code, response.mimetype) == (200, "application/zip")
    assert response.headers["Content-Disposition"] == f'attachment; filename="{answer["batch_id"]}.zip"'
    assert response.content_length == len(response.data)
    with zipfile.ZipFile(io.BytesIO(response.data)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        meshes = [archive.read(f"{stem}.stl") for stem in stems]
        manifest = json.loads(archive.read("batch.json"))
    assert names[0] == "batch.json"
    for ending in (".stl", ".ply", "-image.png"):
        assert [name for name in names if name.endswith(ending)] == [stem + ending for stem in stems]
    assert len({name.casefold() for name in names}) == len(names)
    assert meshes == [running.call("GET", item["download_url"]).data for item in batch["items"][:6]]
    assert manifest["batch_id"] == answer["batch_id"]
    assert [name for image in manifest["images"] for name in image["files"]] == names[1:]
    assert [bool(image["files"]) for image in manifest["images"]] == [True] * 6 + [False]
    last = manifest["images"][-1]
    assert (last["index"], last["filename"], last["status"], last["label"]) == (6, "bad.png", "failed", "Set 7")
    assert last["error"]["code"] == "INVALID_IMAGE"


def test_a_zip_is_fetched_in_parts_and_asked_for_by_head(running: AgentService) -> None:
    url = finished(running, running.batch(image("images"), image("images"), *PLAIN).get_json())["download_url"]
    whole = running.call("GET", url)
    head = running.call("HEAD", url)
    assert (head.status_code, head.content_length, head.data) == (200, len(whole.data), b"")
    assert head.headers["ETag"] == whole.headers["ETag"]
    middle = len(whole.data) // 2
    first = running.call("GET", url, Range=f"bytes=0-{middle - 1}")
    rest = running.call("GET", url, Range=f"bytes={middle}-", If_Range=whole.headers["ETag"])
    assert (first.status_code, rest.status_code) == (206, 206)
    assert first.data + rest.data == whole.data
    assert running.call("GET", url, If_None_Match=whole.headers["ETag"]).status_code == 304


def test_a_batch_that_is_not_finished_has_no_zip_yet(service: AgentService) -> None:
    answer = service.batch(image("images"), named(CUT, "b.png"), PARTIAL).get_json()
    target = f"{API}/download/{answer['batch_id']}.zip"
    response = service.call("GET", target)
    assert refused(response) == (409, "BATCH_UNFINISHED")
    assert response.get_json()["details"]["counts"]["queued"] == 1
    assert int(response.headers["Retry-After"]) > 0
    service.call("DELETE", f"{API}/jobs/{answer['batch_id']}")
    with zipfile.ZipFile(io.BytesIO(service.call("GET", target).data)) as archive:
        assert archive.namelist() == ["batch.json"]
        statuses = [image["status"] for image in json.loads(archive.read("batch.json"))["images"]]
        assert statuses == ["cancelled", "failed"]


def test_nobody_else_gets_a_zip(running: AgentService) -> None:
    url = finished(running, running.batch(image("images"), image("images"), *PLAIN).get_json())["download_url"]
    assert refused(running.call("GET", url, agent="bob")) == (404, "FILE_NOT_FOUND")
    job_id = running.made(*PLAIN)["job_id"]
    assert refused(running.call("GET", f"{API}/download/{job_id}.zip")) == (404, "FILE_NOT_FOUND")


def test_a_mesh_that_the_janitor_has_just_removed_has_expired(running: AgentService) -> None:
    batch = finished(running, running.batch(image("images"), image("images"), *PLAIN).get_json())
    url = batch["items"][0]["download_url"]
    running.services.artifacts.delete(url.rpartition("/")[2])
    assert refused(running.call("GET", url)) == (404, "FILE_NOT_FOUND")
    running.clock.advance(24 * 3600)
    assert refused(running.call("GET", url)) == (410, "EXPIRED")
    assert refused(running.call("GET", batch["download_url"])) == (410, "EXPIRED")


# What an error says of what was expected


def test_an_image_of_another_kind_learns_which_there_are(service: AgentService) -> None:
    response = service.generate(image(content=b"%PDF-1.7"), field("async", "true"))
    assert refused(response) == (415, "UNSUPPORTED_IMAGE")
    details = response.get_json()["details"]
    assert (details["field"], details["image"]) == ("image", 1)
    assert details["allowed"][:8] == ["PNG", "JPEG", "MPO", "WebP", "AVIF", "GIF", "BMP", "TIFF"]
    batch = service.batch(named(b"%PDF-1.7", "a.pdf"), image("images")).get_json()
    assert batch["details"]["allowed"] == details["allowed"]


@pytest.mark.parametrize(("path", "name"), [("/generate-3d", "image"), ("/batch", "images")])
def test_what_is_no_form_learns_what_is(service: AgentService, path: str, name: str) -> None:
    response = service.call("POST", API + path, b"{}", Content_Type="text/plain")
    assert refused(response) == (415, "UNSUPPORTED_MEDIA_TYPE")
    details = response.get_json()["details"]
    assert details.pop("type").startswith("a file in multipart/form-data, or ")
    allowed = ["multipart/form-data", "application/json"]
    assert details == {"field": name, "header": "Content-Type", "allowed": allowed, "docs": "/docs"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("quality", "11", {"minimum": 1, "maximum": 10}),
        ("steps", "x", {"minimum": 10, "maximum": 100}),
        ("acceleration", "x", {"enum": ["none", "balanced", "fast"]}),
        ("label", "x" * 201, {"maxLength": 200}),
    ],
)
def test_a_bad_field_learns_its_bounds(service: AgentService, name: str, value: str, expected: object) -> None:
    response = service.generate(image(), field(name, value))
    details = response.get_json()["details"]
    assert details.pop("field") == name
    assert details.pop("allowed")
    assert {key: details[key] for key in details if key in ("minimum", "maximum", "enum", "maxLength")} == expected


def test_a_bad_key_learns_its_form(service: AgentService) -> None:
    response = service.generate(Idempotency_Key="two words")
    assert response.get_json()["details"]["header"] == "Idempotency-Key"


# Lists


def ids(service: AgentService, query: str) -> list[str]:
    return [job["job_id"] for job in service.get(f"/jobs?{query}").get_json()["jobs"]]


def test_a_list_says_all_that_the_status_says(service: AgentService) -> None:
    service.batch(field("label", "both"), image("images"), named(CUT, "b.png"), image("images"), PARTIAL)
    cancelled = service.submit()
    service.call("DELETE", f"{API}/jobs/{cancelled}")
    listed = service.get("/jobs").get_json()["jobs"]
    assert len(listed) == 4
    for job in listed:
        status = service.get(f"/status/{job['job_id']}").get_json()
        assert status.pop("success") is True
        assert job == status
    assert [job["queue_position"] for job in listed] == [None, 2, None, 1]


def test_a_list_is_of_the_states_that_were_asked_for(service: AgentService) -> None:
    waiting, cancelled = service.submit(), service.submit()
    service.call("DELETE", f"{API}/jobs/{cancelled}")
    failed = service.batch(image("images"), named(CUT, "b.png"), PARTIAL).get_json()["job_ids"]
    assert ids(service, "status=queued") == [failed[0], waiting]
    assert ids(service, "status=cancelled") == [cancelled]
    assert ids(service, "status=failed,cancelled") == [failed[1], cancelled]
    assert ids(service, "status=failed%2Ccancelled") == [failed[1], cancelled]
    assert ids(service, "status=completed") == []


def test_a_list_is_of_the_labels_that_were_asked_for(service: AgentService) -> None:
    first = service.submit(field("label", "Ärger 100% mit_Tassen"))
    second = service.submit(field("label", "ärger mit Tassen"))
    service.submit()
    service.submit(field("label", "Ärger"), agent="bob")
    assert ids(service, "label=%C3%84RGER") == [second, first]
    assert ids(service, "label=t%5Ft") == [first]  # an underscore is no wildcard
    assert ids(service, "label=100%25") == [first]
    assert ids(service, "label=mit%20tassen&status=queued") == [second]
    assert ids(service, "label=mit&status=failed") == []


def test_pages_of_a_filtered_list_follow_each_other(service: AgentService) -> None:
    wanted = []
    for number in range(5):
        wanted.append(service.submit(field("label", f"Set {number}")))
        service.submit()
    found: list[str] = []
    cursor = ""
    while True:
        page = service.get(f"/jobs?label=set&limit=2{cursor}").get_json()
        found += [job["job_id"] for job in page["jobs"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == wanted[::-1]


@pytest.mark.parametrize(
    ("query", "code", "name"),
    [
        ("status=", "INVALID_STATUS", "status"),
        ("status=Queued", "INVALID_STATUS", "status"),
        ("status=queued,", "INVALID_STATUS", "status"),
        ("status=queued%0A", "INVALID_STATUS", "status"),
        ("status=queued&status=failed", "INVALID_STATUS", "status"),
        ("label=", "INVALID_LABEL", "label"),
        ("label=a%00", "INVALID_LABEL", "label"),
        (f"label={'x' * 201}", "INVALID_LABEL", "label"),
        ("label=a&label=a", "INVALID_LABEL", "label"),
        ("limit=5&limit=5", "INVALID_LIMIT", "limit"),
        ("limit=1.0", "INVALID_LIMIT", "limit"),
        (f"cursor={'0' * 32}&cursor={'0' * 32}", "INVALID_CURSOR", "cursor"),
        ("cursor=x", "INVALID_CURSOR", "cursor"),
        ("page=2", "UNKNOWN_FIELD", "page"),
        ("Limit=2", "UNKNOWN_FIELD", "Limit"),
        ("limit=2&wait=5", "UNKNOWN_FIELD", "wait"),
        ("limit[]=2", "UNKNOWN_FIELD", "limit[]"),
    ],
)
def test_a_query_is_as_strict_as_a_form(service: AgentService, query: str, code: str, name: str) -> None:
    response = service.get(f"/jobs?{query}")
    assert refused(response) == (400, code)
    details = response.get_json()["details"]
    assert details["field"] == name
    assert details["allowed"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/generate-3d"),
        ("POST", "/batch"),
        ("GET", f"/status/{'0' * 32}"),
        ("DELETE", f"/jobs/{'0' * 32}"),
        ("GET", f"/download/{'0' * 32}.glb"),
        ("GET", "/health"),
    ],
)
def test_a_call_without_query_parameters_takes_none(service: AgentService, method: str, path: str) -> None:
    response = service.call(method, f"{API}{path}?verbose=1", encode_form(image()), Content_Type=FORM)
    assert refused(response) == (400, "UNKNOWN_FIELD")
    assert response.get_json()["details"]["field"] == "verbose"
    assert "verbose" in response.get_json()["error"]


def test_whoever_is_not_let_in_learns_nothing_of_queries(service: AgentService) -> None:
    response = service.app.test_client().get(f"{API}/jobs?verbose=1")
    assert refused(response) == (401, "AUTH_MISSING")


# What is left of expired jobs


def expire(service: AgentService) -> None:
    """Let the time of every finished job be over, and sweep."""
    service.clock.advance(24 * 3600)
    services = service.services
    Janitor(services.store, services.artifacts, services.images, service.clock, timedelta(hours=24)).sweep()


def test_an_expired_job_is_gone_for_its_agent_and_unknown_to_others(running: AgentService) -> None:
    answer = running.made(*PLAIN)
    batch = running.batch(image("images"), image("images"), *PLAIN).get_json()
    finished(running, batch)
    expire(running)
    for method, target in (
        ("GET", f"{API}/status/{answer['job_id']}"),
        ("GET", f"{API}/status/{batch['batch_id']}"),
        ("GET", f"{API}/status/{batch['job_ids'][1]}"),
        ("DELETE", f"{API}/jobs/{answer['job_id']}"),
        ("DELETE", f"{API}/jobs/{batch['batch_id']}"),
        ("GET", answer["download_url"]),
        ("GET", f"{API}/download/{batch['batch_id']}.zip"),
    ):
        response = running.call(method, target)
        assert refused(response) == (410, "EXPIRED")
        assert response.get_json()["details"] == {"expired_at": running.clock().isoformat()}
        unknown = "FILE_NOT_FOUND" if "/download/" in target else "JOB_NOT_FOUND"
        assert refused(running.call(method, target, agent="bob")) == (404, unknown)
    assert running.get("/jobs").get_json()["jobs"] == []


def test_what_is_left_is_forgotten_after_a_week(running: AgentService) -> None:
    answer = running.made(*PLAIN)
    expire(running)
    running.clock.advance(7 * 86400 - 1)
    assert refused(running.get(f"/status/{answer['job_id']}")) == (410, "EXPIRED")
    running.clock.advance(1)
    assert refused(running.get(f"/status/{answer['job_id']}")) == (404, "JOB_NOT_FOUND")
    assert refused(running.call("GET", answer["download_url"])) == (404, "FILE_NOT_FOUND")
