"""Requests in JSON: the same mesh as of a form, images in every dress, and a sentence for what is wrong."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from backend.api.image_urls import ImageUrls
from backend.api.json_form import read_json_form
from backend.api.multipart import FormLimits
from backend.api.submissions import Submitter
from backend.errors import ServiceError
from tests.support.agent_service import (
    API,
    FORM,
    AgentService,
    Part,
    agent_service,
    encode_form,
    field,
    good_png,
    image,
    refused,
)
from tests.support.outside_world import World, outside_world, page, redirect

JSON = "application/json"
PNG = base64.b64encode(good_png()).decode()
MUG = (Path(__file__).parents[1] / "samples" / "mug.png").read_bytes()
ONE = FormLimits("image", 1, ("view_front", "view_left", "view_back", "view_right"))
SEVERAL = FormLimits("images", 3)
FILES = ExitStack()


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    FILES.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentService]:
    """Give a service whose worker does not run."""
    with agent_service(tmp_path_factory.mktemp("service"), max_active_jobs=1000, queue_limit=1000) as made:
        yield made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with outside_world(tmp_path_factory.mktemp("world")) as made:
        yield made


def send(service: AgentService, value: object, path: str = "/generate-3d", **headers: str) -> TestResponse:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return service.call("POST", API + path, body, Content_Type=JSON, **headers)


def read(value: object, limits: FormLimits = ONE) -> Any:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_json_form(io.BytesIO(body), JSON, limits, FILES)


@pytest.mark.parametrize(
    "text",
    [
        PNG,
        f"data:image/png;base64,{PNG}",
        f"data:;base64,{PNG}",
        PNG.rstrip("="),
        PNG.replace("+", "-").replace("/", "_"),
        "\n".join(PNG[at : at + 76] for at in range(0, len(PNG), 76)),
    ],
    ids=["base64", "data URL", "data URL without a type", "no padding", "URL-safe", "in lines"],
)
def test_an_image_in_base64_is_the_image(text: str) -> None:
    (file,) = read({"image": text}).files
    assert (file.field, file.size, file.stream.read()) == ("image", len(good_png()), good_png())
    # Some writers put a backslash before each slash.
    escaped = json.dumps({"image": text}).replace("/", "\\/").encode()
    assert read(escaped).files[0].digest() == hashlib.sha256(good_png()).hexdigest()


@pytest.mark.parametrize("size", [*range(3060, 3090), 65_535, 65_536, 150_001])
def test_images_of_any_size_come_out_as_they_went_in(size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    (file,) = read({"label": 'a "quoted\\" text', "image": base64.b64encode(content[:size]).decode()}).files
    assert (file.size, file.stream.read()) == (size, content[:size])


def test_fields_are_read_as_those_of_a_form_are() -> None:
    form = read(
        {"quality": 3, "scale_mm": 1.5, "async": True, "format": ["glb", "stl"], "label": 'é \\ "', "image": PNG}
    )
    assert form.fields == {
        "quality": ("3",),
        "scale_mm": ("1.5",),
        "async": ("true",),
        "format": ("glb", "stl"),
        "label": ('é \\ "',),
    }


def test_views_and_lists_keep_their_names_and_order() -> None:
    assert [file.field for file in read({"views": {"left": PNG, "front": PNG}}).files] == ["view_left", "view_front"]
    files = read({"images": [PNG, {"url": "https://pictures.test/a.png"}]}, SEVERAL).files
    assert [(file.number, file.url) for file in files] == [(1, None), (2, "https://pictures.test/a.png")]


def test_a_large_body_takes_little_memory() -> None:
    # An emoji makes a text of four bytes a character of all that stands beside it.
    body = io.BytesIO(b'{"label": "\xf0\x9f\xa6\x8a", "image": "' + b"QUJD" * 8_000_000 + b'"}')
    tracemalloc.start()
    try:
        (file,) = read_json_form(body, JSON, ONE, FILES).files
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert file.size == 24_000_000
    assert peak < 8_000_000


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "INVALID_FORM"),
        (b"[]", "INVALID_FORM"),
        (b'{"image": "', "INVALID_FORM"),
        (b'{"a": NaN}', "INVALID_FORM"),
        (b'{"a": 1, "a": 2}', "INVALID_FORM"),
        (b'{"a": "\xff"}', "INVALID_FORM"),
        (b"[" * 100_000, "INVALID_FORM"),
        (b'{"a": ' + b"1" * 5000 + b"}", "INVALID_FORM"),
        (b'{"a": [' + b"1," * 200_000 + b"1]}", "INVALID_FORM"),
        (json.dumps({str(number): 1 for number in range(50)}).encode(), "INVALID_FORM"),
        (json.dumps({"label": None}).encode(), "INVALID_FORM"),
        (json.dumps({"label": {"a": 1}}).encode(), "INVALID_FORM"),
        (json.dumps({"label": "x" * 5000}).encode(), "INVALID_FORM"),
        (json.dumps({"image": 7}).encode(), "INVALID_IMAGE"),
        (json.dumps({"image": "a cat!"}).encode(), "INVALID_IMAGE"),
        (json.dumps({"image": "QUJD=QUJD"}).encode(), "INVALID_IMAGE"),
        (json.dumps({"image": "QUJDR"}).encode(), "INVALID_IMAGE"),
        (json.dumps({"image": PNG + "!" + PNG}).encode(), "INVALID_IMAGE"),
        (json.dumps({"image": "data:image/png,abc"}).encode(), "INVALID_IMAGE"),
        (json.dumps({"image": "https://pictures.test/a.png"}).encode(), "INVALID_IMAGE"),
        (json.dumps({"image": {"url": 1}}).encode(), "INVALID_IMAGE"),
        (json.dumps({"image": [PNG]}).encode(), "INVALID_IMAGE"),
        (json.dumps({"views": []}).encode(), "INVALID_FORM"),
        (json.dumps({"views": {"top": PNG}}).encode(), "UNKNOWN_FIELD"),
        (json.dumps({"views": {"front": PNG}, "image": PNG}).encode(), "CONFLICTING_INPUTS"),
    ],
)
def test_what_is_no_request_is_refused_by_name(body: bytes, code: str) -> None:
    with pytest.raises(ServiceError) as caught:
        read(body)
    assert caught.value.code == code


def test_a_request_in_json_is_taken_and_repeats_the_form_that_asks_for_the_same(service: AgentService) -> None:
    asked = {"image": PNG, "quality": 2, "seed": 7, "format": ["glb", "stl"], "preview": False, "async": True}
    first = send(service, asked, Idempotency_Key="same")
    assert first.status_code == 202
    parts = [field("quality", "2"), field("seed", "7"), field("format", "glb,stl"), field("async", "true")]
    second = service.generate(image(), *parts, Idempotency_Key="same")
    assert second.get_json()["job_id"] == first.get_json()["job_id"]
    described = service.get(f"/status/{first.get_json()['job_id']}").get_json()
    assert (described["request"]["quality"], described["request"]["seed"]) == (2, 7)


def test_every_call_that_takes_a_form_takes_json(service: AgentService) -> None:
    batch = send(service, {"images": [PNG, PNG], "quality": 1}, "/batch")
    assert (batch.status_code, batch.get_json()["total_images"]) == (202, 2)
    assert send(service, {"image": base64.b64encode(MUG).decode()}, "/cutout").status_code == 200
    job = send(service, {"image": PNG, "async": True}).get_json()["job_id"]
    assert send(service, {"quality": 1, "async": True}, f"/jobs/{job}/again").status_code == 202
    assert refused(send(service, {"format": "stl"}, f"/jobs/{job}/files")) == (409, "JOB_UNFINISHED")


def test_wrong_values_get_their_fields_own_error(service: AgentService) -> None:
    assert refused(send(service, {"image": PNG, "quality": 70})) == (400, "INVALID_QUALITY")
    assert refused(send(service, {"image": PNG, "qualty": 7})) == (400, "UNKNOWN_FIELD")
    assert refused(send(service, {"quality": 7})) == (400, "MISSING_IMAGE")
    assert refused(send(service, {"images": [PNG, "AAAA"]}, "/batch"))[1] in ("INVALID_IMAGE", "UNSUPPORTED_IMAGE")


def test_a_type_that_is_neither_is_told_what_is_expected(service: AgentService) -> None:
    answer = service.call("POST", f"{API}/generate-3d", b"image=a", Content_Type="application/x-www-form-urlencoded")
    assert refused(answer) == (415, "UNSUPPORTED_MEDIA_TYPE")
    details = answer.get_json()["details"]
    assert (details["field"], details["docs"]) == ("image", "/docs")
    assert "base64" in details["type"]


@pytest.mark.parametrize("text", [PNG, f"data:image/png;base64,{PNG}"], ids=["base64", "data URL"])
def test_base64_in_a_forms_field_is_recognised(service: AgentService, text: str) -> None:
    body = encode_form(Part("image", text.encode()))
    answer = service.call("POST", f"{API}/generate-3d", body, Content_Type=FORM)
    assert answer.status_code in (400, 415)
    assert "base64 in application/json" in answer.get_json()["details"]["hint"]


def test_a_body_that_is_too_large_for_json_is_told_of_forms(tmp_path: Path) -> None:
    with agent_service(tmp_path, max_json_bytes=65_536) as service:
        answer = send(service, {"image": "QUJD" * 20_000})
        assert refused(answer) == (413, "FILE_TOO_LARGE")
        assert "multipart/form-data" in answer.get_json()["error"]


def test_addresses_are_refused_where_they_are_off_and_before_anything_is_asked(service: AgentService) -> None:
    for url in ("https://pictures.test/a.png", "http://127.0.0.1/", "nonsense"):
        assert refused(send(service, {"image": {"url": url}})) == (400, "IMAGE_URL_REFUSED")
    assert not service.get("/me").get_json()["capabilities"]["image_urls"]


def fetching(service: AgentService, world: World) -> None:
    """Have a service's images be fetched from this world."""
    image_urls = ImageUrls(service.settings, world.outgoing())
    service.app.extensions |= {
        "agent_image_urls": image_urls,
        "agent_submitter": Submitter(replace(service.services), image_urls),
    }


def test_an_image_is_fetched_from_its_address_where_that_is_allowed(tmp_path: Path, world: World) -> None:
    world.pages |= {
        "/a.png": page(good_png()),
        "/mug.png": page(MUG),
        "/inside": redirect("https://127.0.0.1/a.png"),
        "/page": page(b"<html>"),
    }
    with agent_service(tmp_path, image_urls="public") as service:
        fetching(service, world)
        assert service.get("/me").get_json()["capabilities"]["image_urls"]

        def of(path: str) -> TestResponse:
            return send(service, {"image": {"url": f"https://pictures.test{path}"}, "async": True})

        assert of("/a.png").status_code == 202
        assert len(service.images()) == 1
        assert refused(of("/inside")) == (400, "IMAGE_URL_REFUSED")
        assert refused(of("/nothing")) == (502, "IMAGE_URL_FAILED")
        assert refused(of("/page")) == (415, "UNSUPPORTED_IMAGE")
        assert send(service, {"image": {"url": "https://pictures.test/mug.png"}}, "/cutout").status_code == 200
        urls = [{"url": f"https://pictures.test{path}"} for path in ("/a.png", "/inside", "/nothing")]
        partial = send(service, {"images": urls, "accept_partial": True}, "/batch")
        codes = [bad["code"] for bad in partial.get_json()["refused"]]
        assert (partial.status_code, codes) == (202, ["IMAGE_URL_REFUSED", "IMAGE_URL_FAILED"])


def test_a_repeated_key_fetches_nothing_again(tmp_path: Path, world: World) -> None:
    world.pages["/a.png"] = page(good_png())
    with agent_service(tmp_path, image_urls="pictures.test, other.test") as service:
        fetching(service, world)
        asked = {"image": {"url": "https://pictures.test/a.png"}, "async": True}
        first = send(service, asked, Idempotency_Key="once")
        before = len(world.seen)
        assert send(service, asked, Idempotency_Key="once").get_json()["job_id"] == first.get_json()["job_id"]
        assert len(world.seen) == before
        elsewhere = {"image": {"url": "https://third.test/a.png"}, "async": True}
        assert refused(send(service, elsewhere)) == (400, "IMAGE_URL_REFUSED")
        assert refused(send(service, elsewhere, Idempotency_Key="once")) == (409, "IDEMPOTENCY_CONFLICT")
