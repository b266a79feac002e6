"""Several views of one object: taken as a form, kept as one file, run with what fits, and refused where nobody can."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image, ImageSequence

from backend.batch_inference_extension import add_batch_inference_to_processor
from backend.errors import InvalidImage, ViewsUnsupported
from backend.hunyuan3d.checkpoint.defaults import configured_views
from backend.hunyuan3d.device.batch_sizing import measure_costs
from backend.hunyuan3d.device.memory import HostMemory
from backend.hunyuan3d.image.view_pages import ViewPages, split_views
from backend.hunyuan_integration import Hunyuan3DProcessor
from backend.jobs.worker_registry import WorkerState, WorkerStatus
from backend.limits import VIEWS
from tests.support.agent_service import AgentService, agent_service, field, image, refused
from tests.support.golden import GOLDEN, VIEW_NAMES, load_golden, load_pipeline
from tests.support.hostile import FORM, Part, encode_form
from tests.support.hostile_pictures import good_png
from tests.support.picture_files import encode

MULTI_VIEW = str(GOLDEN / "tiny-2mv")
ASYNC = field("async", "true")
SMALL = {"octree_resolution": "16", "steps": "10", "seed": "3", "remove_background": "never", "format": "stl"}
PLAIN = {"color": "none", "upright": "off", "place": "as_is", "target_faces": "none"}


def view(name: str, content: bytes | None = None) -> Part:
    return image(f"view_{name}", content)


def shade(level: int, side: int = 16) -> bytes:
    """Return a picture that is told from others by its colour and size."""
    return encode(Image.new("RGB", (side, side), (level, 0, 0)), "PNG")


def golden_views(number: int) -> tuple[Part, ...]:
    views = load_golden("tiny-2mv").images[number]
    assert isinstance(views, dict)
    return tuple(view(name, path.read_bytes()) for name, path in views.items())


def wait_for(service: AgentService, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = service.get(f"/status/{job_id}?wait=30").get_json()
    while job["status"] in ("queued", "processing"):
        job = service.get(f"/status/{job_id}?wait=30").get_json()
    assert job["status"] == "completed", job["error"]
    return job


@pytest.fixture
def service(tmp_path: Path) -> Iterator[AgentService]:
    """Give a service for a multi-view checkpoint, whose worker does not run."""
    with agent_service(tmp_path, model_path=MULTI_VIEW) as made:
        yield made


def test_views_are_kept_as_the_pages_of_one_file(service: AgentService) -> None:
    parts = (view("right", shade(4, 40)), view("front", shade(1)), view("back", encode_clear()))
    accepted = service.generate(ASYNC, *parts)
    assert accepted.status_code == 202
    (name,) = service.images()
    assert name.endswith(".tiff")
    kept = split_views((service.settings.data_dir / "inputs" / name).read_bytes(), ("front", "back", "right"))
    assert {seen: (page.mode, page.size) for seen, page in kept.items()} == {
        "front": ("RGB", (16, 16)), "back": ("RGBA", (24, 16)), "right": ("RGB", (40, 40)),
    }  # fmt: skip
    assert kept["front"].getpixel((3, 3)) == (1, 0, 0)
    assert kept["back"].getpixel((3, 3)) == (9, 8, 7, 66)
    job = service.get(f"/status/{accepted.get_json()['job_id']}").get_json()
    assert job["request"]["views"] == "front,back,right"
    assert job["filename"] == "cat.png"


def encode_clear() -> bytes:
    return encode(Image.new("RGBA", (24, 16), (9, 8, 7, 66)), "PNG")


def test_a_single_image_says_nothing_of_views(service: AgentService) -> None:
    job = service.get(f"/status/{service.submit()}").get_json()
    assert "views" not in job["request"]


def test_an_object_is_one_image_or_its_views(service: AgentService) -> None:
    both = service.generate(ASYNC, image(), view("front"))
    assert refused(both) == (400, "CONFLICTING_INPUTS")
    assert both.get_json()["details"]["fields"] == ["image", "view_front"]
    assert refused(service.generate(ASYNC, view("left"), view("left"))) == (400, "TOO_MANY_IMAGES")
    assert refused(service.generate(ASYNC)) == (400, "MISSING_IMAGE")
    unknown = service.generate(ASYNC, image("view_top"))
    assert refused(unknown) == (400, "UNKNOWN_FIELD")
    assert "view_left" in unknown.get_json()["details"]["allowed"]
    assert refused(service.batch(view("front"), view("back"))) == (400, "UNKNOWN_FIELD")
    cutout = service.call("POST", "/api/agent/cutout", encode_form(image(), view("left")), Content_Type=FORM)
    assert refused(cutout) == (400, "UNKNOWN_FIELD")
    assert service.images() == []


def test_all_bad_views_are_named_and_nothing_is_kept(service: AgentService) -> None:
    answer = service.generate(ASYNC, view("front"), view("left", b"no picture"), view("back", good_png()[:40]))
    assert refused(answer) == (400, "INVALID_IMAGE")
    said = answer.get_json()
    assert [(each["code"], each["index"]) for each in said["details"]["images"]] == [
        ("UNSUPPORTED_IMAGE", 1),
        ("INVALID_IMAGE", 2),
    ]
    assert "view_left (cat.png)" in said["error"]
    assert "view_back (cat.png)" in said["error"]
    assert refused(service.generate(ASYNC, view("front", b"no picture"))) == (415, "UNSUPPORTED_IMAGE")
    assert service.images() == []


def test_a_repeated_request_is_known_by_its_views(service: AgentService) -> None:
    first = service.generate(ASYNC, view("front", shade(1)), view("left", shade(2)), Idempotency_Key="k")
    again = service.generate(ASYNC, view("left", shade(2)), view("front", shade(1)), Idempotency_Key="k")
    assert again.get_json()["job_id"] == first.get_json()["job_id"]
    assert len(service.images()) == 1
    turned = service.generate(ASYNC, view("front", shade(1)), view("right", shade(2)), Idempotency_Key="k")
    assert refused(turned) == (409, "IDEMPOTENCY_CONFLICT")


def test_views_go_with_a_cancelled_job(service: AgentService) -> None:
    job_id = service.generate(ASYNC, view("front"), view("left")).get_json()["job_id"]
    assert len(service.images()) == 1
    service.call("DELETE", f"/api/agent/jobs/{job_id}")
    assert service.images() == []


def test_another_checkpoint_is_told_of_before_anything_is_stored(tmp_path: Path) -> None:
    with agent_service(tmp_path, model_path="demo") as service:
        assert service.get("/me").get_json()["capabilities"]["views"] is False
        answer = service.generate(ASYNC, view("front"), view("back"))
        assert refused(answer) == (400, "VIEWS_UNSUPPORTED")
        assert answer.get_json()["details"]["fields"] == ["view_front", "view_back"]
        assert service.images() == []


@pytest.mark.parametrize("says", [True, False])
def test_what_a_worker_says_counts_more_than_the_configuration(tmp_path: Path, says: bool) -> None:
    with agent_service(tmp_path, model_path="demo" if says else MULTI_VIEW) as service:
        assert service.get("/me").get_json()["capabilities"]["views"] is not says
        service.services.registry.beat(WorkerState("w", WorkerStatus.READY, takes_views=says), 60)
        assert service.get("/me").get_json()["capabilities"]["views"] is says
        assert service.generate(ASYNC, view("front"), view("back")).status_code == (202 if says else 400)


@pytest.mark.parametrize(
    ("path", "takes"),
    [("demo", False), (MULTI_VIEW, True), (str(GOLDEN / "tiny-2.0"), False), ("/nowhere", False),
     ("hunyuan3d-2mv-turbo", True), ("tencent/Hunyuan3D-2mv/hunyuan3d-dit-v2-mv", True), ("hunyuan3d-2.1", False)],
)  # fmt: skip
def test_a_configuration_says_whether_there_may_be_views(path: str, takes: bool) -> None:
    assert configured_views(path) is takes


def test_jobs_run_with_those_of_the_same_views(tmp_path: Path) -> None:
    with agent_service(tmp_path, model_path=MULTI_VIEW, batch_wait_seconds=0.0) as service:
        pairs = [("front", "back"), ("front",), ("back", "front"), ("left", "back")]
        for k, names in enumerate(pairs):
            service.generate(ASYNC, *(view(name, shade(10 * k + len(name))) for name in names))
        service.submit()
    with agent_service(tmp_path, running=True, model_path=MULTI_VIEW) as again:
        for job in again.get("/jobs").get_json()["jobs"]:
            wait_for(again, job["job_id"])
        ran = [sorted(call.images) for call in again.fake.calls]
    # Of the views the order in the form is nothing to them; the front alone is as good as an image.
    assert sorted(map(len, ran)) == [1, 2, 2]
    (together,) = (images for images in ran if len(images) == 2 and b"back" in images[0])
    assert [each.decode() for each in together] == [
        "front 16×16 (25, 0, 0) back 16×16 (24, 0, 0)",
        "front 16×16 (5, 0, 0) back 16×16 (4, 0, 0)",
    ]


@pytest.fixture(scope="module")
def processor() -> Hunyuan3DProcessor:
    """Give a tiny multi-view model with random weights."""
    return add_batch_inference_to_processor(Hunyuan3DProcessor(load_pipeline("tiny-2mv"), HostMemory(), 4))


def test_views_become_a_mesh_alone_and_in_company_and_after_a_restart(
    tmp_path: Path, processor: Hunyuan3DProcessor
) -> None:
    wanted = (ASYNC, *(field(name, value) for name, value in {**SMALL, **PLAIN}.items()))
    with agent_service(tmp_path, model_path=MULTI_VIEW) as service:
        ids = [service.generate(*wanted, *golden_views(k)).get_json()["job_id"] for k in (0, 1)]
        front = service.generate(*wanted, image(content=golden_views(0)[0].content)).get_json()["job_id"]
    with agent_service(tmp_path, running=True, processor=processor, model_path=MULTI_VIEW) as service:
        together, _, single = (wait_for(service, job_id) for job_id in (*ids, front))
        assert (together["metadata"]["batch_size"], single["metadata"]["batch_size"]) == (2, 1)
        alone = wait_for(service, service.generate(*wanted, *golden_views(0)).get_json()["job_id"])
        assert alone["metadata"]["batch_size"] == 1
        meshes = [fetched(service, job["download_url"]) for job in (together, alone, single)]
        assert service.get("/me").get_json()["capabilities"]["views"] is True
        kept = service.call("GET", alone["image_url"])
        assert kept.mimetype == "image/tiff"
        assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(kept.data))))) == len(VIEW_NAMES)
        assert alone["cutout_url"]
    assert meshes[0].vertices.shape == meshes[1].vertices.shape
    assert np.abs(meshes[0].vertices - meshes[1].vertices).max() < 1e-2
    assert meshes[0].vertices.shape != meshes[2].vertices.shape


def fetched(service: AgentService, url: str) -> trimesh.Trimesh:
    return trimesh.load(io.BytesIO(service.call("GET", url).data), file_type="stl")


def test_a_model_of_single_images_fails_a_job_of_views_by_name(processor: Hunyuan3DProcessor) -> None:
    views = load_golden("tiny-2mv").images[0]
    single = Hunyuan3DProcessor(load_pipeline("tiny-2.1"), HostMemory(), 4)
    assert (single.takes_views, processor.takes_views) == (False, True)
    (result,) = add_batch_inference_to_processor(single).generate_shape_batch([views], seeds=1)
    assert isinstance(result.error, ViewsUnsupported)


def test_room_is_measured_with_all_views(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, seen = load_golden("tiny-2mv").pipeline(), list[int]()
    encode_images = pipeline.encode_images

    def noted(images: Any, *more: Any) -> Any:
        seen.append(images.shape[1])
        return encode_images(images, *more)

    monkeypatch.setattr(pipeline, "encode_images", noted)
    measure_costs(pipeline, HostMemory(), 16)
    assert set(seen) == {4}


def test_stored_views_that_are_damaged_are_named() -> None:
    pages = ViewPages()
    pages.add(Image.new("RGB", (16, 16)))
    data = pages.finish().read()
    assert list(split_views(data, ("back",))) == ["back"]
    front, both = (VIEWS[0],), (VIEWS[0], VIEWS[2])
    for damaged, names in ((data, both), (b"II*\0", front), (b"", front)):
        with pytest.raises(InvalidImage, match="stored views"):
            split_views(damaged, names)
