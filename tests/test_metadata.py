"""What was done for a job survives the job table, and nothing else passes for it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from backend.errors import ServiceError
from backend.jobs.metadata import BackgroundOut, JobMetadata, StageSecondsOut, WarningOut

DONE = JobMetadata(
    format="glb",
    vertices=162,
    faces=320,
    target_faces=500,
    watertight=True,
    bounds=((-0.5, 0.25, -1.0), (0.5, 0.75, 1.0)),
    unit="model",
    seed=2**32 - 1,
    steps=20,
    guidance_scale=5.0,
    octree_resolution=256,
    quality=4,
    model="demo",
    batch_size=4,
    background=BackgroundOut(method="flood", score=0.97, border=0.01, objects=2),
    warnings=(WarningOut(code="SEVERAL_OBJECTS", message="Two."),),
    fallbacks=("batch 8→4",),
    seconds=StageSecondsOut(queued=0.1, preprocess=0.2, encode=0.3, sample=4, decode=2, mesh=1, export=0.1, total=7.7),
    file_size=12_345,
)


def test_metadata_is_read_as_it_was_written() -> None:
    assert JobMetadata.from_json(DONE.to_json()) == DONE


def test_the_background_that_an_earlier_version_noted_is_read() -> None:
    old = '{"format":"stl","seed":1,"octree_resolution":128,"quality":1,"background":"flood"}'
    assert JobMetadata.from_json(old).background == BackgroundOut(method="flood")


def test_a_failed_job_states_what_is_known() -> None:
    metadata = JobMetadata(format="stl", seed=1, octree_resolution=128, quality=1)
    assert JobMetadata.from_json(metadata.to_json()) == metadata
    assert metadata.to_json() == (
        '{"format":"stl","seed":1,"octree_resolution":128,"quality":1,"candidates":[],"fallbacks":[],"warnings":[],"notes":[],'
        '"seconds":{}}'
    )


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": "glb", "seed": 1, "surprise": 2}'])
def test_other_texts_are_refused_by_name(text: str) -> None:
    with pytest.raises(ServiceError, match="metadata cannot be read"):
        JobMetadata.from_json(text)


def test_metadata_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        DONE.faces = 3


def test_every_field_says_what_it_means() -> None:
    schema = JobMetadata.model_json_schema()
    described = {**schema["properties"], **schema["$defs"]["StageSecondsOut"]["properties"]}
    described |= schema["$defs"]["BackgroundOut"]["properties"]
    assert [name for name, field in described.items() if not field.get("description")] == []
