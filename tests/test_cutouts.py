"""A cut-out alone: made at once without a device, its owner's, said of what is doubtful, and gone when its time is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from werkzeug.test import TestResponse

from backend.errors import StoreUnavailable
from tests.support.agent_service import API, FORM, AgentService, Part, agent_service, encode_form, field, refused
from tests.support.workshop import eventually


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentService]:
    """Give a service whose worker does not run: a cut-out needs none."""
    with agent_service(tmp_path_factory.mktemp("service")) as made:
        yield made


def discs(*places: tuple[int, int, int], size: tuple[int, int] = (200, 160)) -> bytes:
    """Return a PNG of red discs on white. places : x, y and radius of each."""
    image = Image.new("RGB", size, "white")
    for x, y, radius in places:
        ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=(190, 40, 30))
    return _png(image)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def ask(service: AgentService, content: bytes, *parts: Part, agent: str = "ann", **headers: str) -> TestResponse:
    body = encode_form(Part("image", content, "cat.png", "image/png"), *parts)
    return service.call("POST", f"{API}/cutout", body, agent=agent, Content_Type=FORM, **headers)


def made(service: AgentService, content: bytes, *parts: Part, **headers: str) -> dict[str, Any]:
    response = ask(service, content, *parts, **headers)
    assert response.status_code == 200
    answer: dict[str, Any] = response.get_json()
    return answer


def shown(service: AgentService, answer: dict[str, Any]) -> Image.Image:
    got = service.call("GET", answer["cutout_url"])
    assert (got.status_code, got.mimetype) == (200, "image/png")
    return Image.open(io.BytesIO(got.data))


def stored(service: AgentService) -> int:
    return len(list((service.settings.data_dir / "artifacts").glob("*")))


def test_an_object_is_cut_out_at_once_at_its_pictures_own_size(service: AgentService) -> None:
    answer = made(service, discs((100, 80, 50)))
    image = shown(service, answer)
    assert (image.mode, image.size) == ("RGBA", (200, 160))
    assert np.asarray(image)[80, 100].tolist() == [190, 40, 30, 255]
    assert np.asarray(image)[5, 5, 3] == 0
    background = answer["metadata"]["background"]
    assert (background["method"], background["border"], background["objects"]) == ("flood", 0, 1)
    assert background["score"] > 0.5
    assert answer["warnings"] == []
    assert service.images() == []


def test_several_objects_are_counted_and_the_largest_can_be_had_alone(service: AgentService) -> None:
    content = discs((60, 80, 40), (160, 80, 20))
    both = made(service, content)
    assert both["metadata"]["background"]["objects"] == 2
    assert [warning["code"] for warning in both["warnings"]] == ["SEVERAL_OBJECTS"]
    assert "2 objects" in both["warnings"][0]["message"]
    largest = made(service, content, field("objects", "largest"))
    assert largest["metadata"]["background"]["objects"] == 1
    assert largest["warnings"] == []
    alpha = np.asarray(shown(service, largest))[..., 3]
    assert (alpha[80, 60], alpha[80, 160]) == (255, 0)


def test_alpha_that_cuts_is_taken_unless_it_is_told_otherwise(service: AgentService) -> None:
    image = Image.open(io.BytesIO(discs((100, 80, 50)))).convert("RGBA")
    pixels = np.array(image)
    pixels[:, :30, 3] = 0
    content = _png(Image.fromarray(pixels))
    methods = {
        mode: made(service, content, field("remove_background", mode))["metadata"]["background"]["method"]
        for mode in ("auto", "always", "never")
    }
    assert methods == {"auto": "alpha", "always": "flood", "never": "none"}


def test_what_holds_no_object_is_refused_and_nothing_is_kept(service: AgentService) -> None:
    before = stored(service)
    assert refused(ask(service, _png(Image.new("RGB", (64, 64), "white")))) == (422, "NO_FOREGROUND")
    assert refused(ask(service, b"no picture")) == (415, "UNSUPPORTED_IMAGE")
    assert refused(ask(service, discs((100, 80, 50)), field("objects", "some"))) == (400, "INVALID_OBJECTS")
    assert refused(ask(service, discs((100, 80, 50)), field("quality", "7"))) == (400, "UNKNOWN_FIELD")
    assert stored(service) == before


def test_a_cutout_is_its_owners_alone(service: AgentService) -> None:
    url = made(service, discs((100, 80, 50)))["cutout_url"]
    assert refused(service.call("GET", url, agent="bob")) == (404, "FILE_NOT_FOUND")
    part = service.call("GET", url, Range="bytes=0-3")
    assert (part.status_code, part.data) == (206, b"\x89PNG")


def test_a_request_sent_again_gets_its_first_answer(service: AgentService) -> None:
    content = discs((90, 80, 50))
    first = made(service, content, Idempotency_Key="cut-1")
    before = stored(service)
    assert made(service, content, Idempotency_Key="cut-1") == first
    assert stored(service) == before
    other = ask(service, discs((100, 70, 30)), Idempotency_Key="cut-1")
    assert refused(other) == (409, "IDEMPOTENCY_CONFLICT")
    assert refused(ask(service, content, Idempotency_Key="a b")) == (400, "INVALID_IDEMPOTENCY_KEY")


def test_a_cutout_that_cannot_be_entered_leaves_no_file(service: AgentService, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> str:
        raise StoreUnavailable

    before = stored(service)
    monkeypatch.setattr(service.services.cutouts, "add", away)
    assert refused(ask(service, discs((100, 80, 50)))) == (503, "STORE_UNAVAILABLE")
    assert stored(service) == before


def test_a_cutout_expires_as_other_files_do(tmp_path: Path) -> None:
    with agent_service(tmp_path, artifact_ttl_hours=2, sweep_seconds=0.1) as service:
        answer = made(service, discs((100, 80, 50)), Idempotency_Key="cut-2")
        service.clock.advance(timedelta(hours=1, minutes=59).total_seconds())
        assert service.services.cutouts.prune(service.clock(), 10) == 0
        assert service.call("GET", answer["cutout_url"]).status_code == 200
        service.clock.advance(61)
        service.services.resources.janitor.start()
        eventually(lambda: stored(service) == 0)
        eventually(lambda: service.call("GET", answer["cutout_url"]).status_code == 410)
        assert refused(service.call("GET", answer["cutout_url"])) == (410, "EXPIRED")
        assert refused(ask(service, discs((100, 80, 50)), Idempotency_Key="cut-2")) == (410, "EXPIRED")
        assert refused(service.call("GET", answer["cutout_url"], agent="bob")) == (404, "FILE_NOT_FOUND")
