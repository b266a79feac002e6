"""Words in place of a picture: drawn by a model that the operator names, kept, linked, and made a mesh of."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from backend.errors import CheckpointError, OutOfMemory
from backend.jobs.models import Status
from backend.text_to_image import TextToImage
from tests.support.agent_service import API, FORM, AgentService, agent_service, encode_form, field, image, refused
from tests.support.store_backends import empty_database, open_database
from tests.support.tiny_painter import save_tiny_painter
from tests.support.workshop import Workshop, workshop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    with open_database(empty_database("sqlite", tmp_path)) as database, workshop(tmp_path, database) as made:
        yield made


@pytest.fixture
def service(tmp_path: Path) -> Iterator[AgentService]:
    with agent_service(tmp_path, running=True, text_to_image_model="painter") as made:
        yield made


class FullMemory:
    """A device's memory in which nothing is free."""

    released = 0

    def state(self) -> Any:
        return type("State", (), {"memory_free": 0})

    def release(self) -> None:
        self.released += 1


def test_a_tiny_model_draws_the_same_picture_of_the_same_seed(tmp_path: Path) -> None:
    save_tiny_painter(tmp_path)
    painter = TextToImage(str(tmp_path), torch.device("cpu"), torch.float32, FullMemory())
    with warnings.catch_warnings():
        # What diffusers and transformers warn of among themselves.
        warnings.simplefilter("ignore")
        first, again, other = (painter.draw("a red mug", seed) for seed in (1, 1, 2))
    assert first == again != other
    assert Image.open(io.BytesIO(first)).mode == "RGB"


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    painter = TextToImage(str(tmp_path), torch.device("cpu"), torch.float32, FullMemory())
    with pytest.raises(CheckpointError, match="TEXT_TO_IMAGE_MODEL"):
        painter.draw("a red mug", 1)


def test_a_picture_is_drawn_kept_and_linked(service: AgentService) -> None:
    answer = service.generate(field("prompt", "a red mug"), field("image_seed", "5")).get_json()
    assert service.fake.drawn == [("a red mug", 5)]
    drawn = service.call("GET", answer["image_url"])
    assert drawn.data == b"a red mug by 5"
    request = service.get(f"/status/{answer['job_id']}").get_json()["request"]
    assert (request["prompt"], request["image_seed"]) == ("a red mug", 5)
    assert service.get("/me").get_json()["capabilities"]["prompt"]


def test_a_seed_for_the_picture_is_drawn_and_told(service: AgentService) -> None:
    body = json.dumps({"prompt": "a red mug"}).encode()
    answer = service.call("POST", f"{API}/generate-3d", body, Content_Type="application/json").get_json()
    ((_, seed),) = service.fake.drawn
    assert service.get(f"/status/{answer['job_id']}").get_json()["request"]["image_seed"] == seed


def test_again_takes_the_picture_or_draws_another(service: AgentService) -> None:
    first = service.generate(field("prompt", "a red mug"), field("image_seed", "5")).get_json()["job_id"]

    def again(job_id: str, *parts: Any) -> Any:
        body = encode_form(*parts, field("preview", "false"))
        return service.call("POST", f"{API}/jobs/{job_id}/again", body, Content_Type=FORM)

    assert again(first, field("seed", "3")).status_code == 200
    assert again(first, field("image_seed", "6")).status_code == 200
    assert again(first, field("prompt", "a blue mug")).status_code == 200
    assert service.fake.drawn == [("a red mug", 5), ("a red mug", 6), ("a blue mug", 5)]
    of_picture = service.made()["job_id"]
    assert refused(again(of_picture, field("prompt", "a mug"))) == (400, "CONFLICTING_INPUTS")


def test_words_are_refused_where_nothing_draws(tmp_path: Path) -> None:
    with agent_service(tmp_path, running=True) as service:
        assert refused(service.generate(field("prompt", "a red mug"))) == (400, "PROMPT_UNAVAILABLE")


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ((field("prompt", "a mug"), image()), "CONFLICTING_INPUTS"),
        ((field("image_seed", "1"), image()), "INVALID_IMAGE_SEED"),
        ((field("prompt", ""),), "INVALID_PROMPT"),
        ((field("prompt", "x" * 1001),), "INVALID_PROMPT"),
        ((), "MISSING_IMAGE"),
    ],
)
def test_other_forms_are_refused(service: AgentService, parts: tuple[Any, ...], code: str) -> None:
    assert refused(service.generate(field("quality", "1"), *parts)) == (400, code)


def test_prompts_run_together_and_apart_from_pictures(shop: Workshop) -> None:
    told = [submit(shop, prompt) for prompt in ("mug", "chair")]
    shown = shop.submit(b"picture")
    worker = shop.worker()
    assert (worker.run_once(), worker.run_once()) == (2, 1)
    assert [call.images for call in shop.fake.calls] == [[b"mug by 1", b"chair by 1"], [b"picture"]]
    assert {shop.job(job_id).status for job_id in (*told, shown)} == {Status.COMPLETED}


def test_a_run_that_comes_again_finds_its_picture(shop: Workshop) -> None:
    job_id = submit(shop, "mug")
    shop.images.put(shop.job(job_id).image_name, b"drawn before")
    shop.work_off()
    assert shop.fake.drawn == []
    assert shop.fake.calls[0].images == [b"drawn before"]


def test_a_picture_that_cannot_be_drawn_fails_its_job_alone(shop: Workshop) -> None:
    bad, good = submit(shop, "too large"), submit(shop, "mug")
    shop.fake.undrawable = {"too large": OutOfMemory("Too large.")}
    shop.work_off()
    assert (shop.job(bad).error_code, shop.job(good).status) == ("OUT_OF_MEMORY", Status.COMPLETED)


def submit(shop: Workshop, prompt: str) -> str:
    """Submit a job of words; its picture's name is there, and nothing under it."""
    job_id = shop.submit_prompt(prompt, image_seed=1)
    assert shop.job(job_id).image_name not in shop.files("inputs")
    return job_id
