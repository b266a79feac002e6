"""Fields are read strictly, refused by name, and make one request."""

from __future__ import annotations

import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from backend.errors import (
    InvalidAcceleration,
    InvalidAsync,
    InvalidBackgroundMode,
    InvalidCandidates,
    InvalidColor,
    InvalidCompress,
    InvalidFormat,
    InvalidGuidance,
    InvalidKeep,
    InvalidObjects,
    InvalidOctreeResolution,
    InvalidOutline,
    InvalidParameter,
    InvalidPlace,
    InvalidPreview,
    InvalidQuality,
    InvalidScale,
    InvalidSeed,
    InvalidSteps,
    InvalidTargetFaces,
    InvalidTurntable,
    InvalidUpright,
    RequestUnreadable,
    UnknownField,
)
from backend.hunyuan3d.checkpoint.config import PipelineDefaults
from backend.hunyuan3d.octree_resolutions import Resolutions
from backend.hunyuan3d.options import GenerationOptions, ImageOptions
from backend.jobs.idempotency import fingerprint
from backend.limits import default_target_faces
from backend.validation import (
    GenerateFields,
    GenerationFields,
    GenerationRequest,
    read_fields,
    resolve,
)


def read(**texts: str) -> GenerateFields:
    return read_fields(GenerateFields, {name.rstrip("_"): (text,) for name, text in texts.items()})


def request(**texts: str) -> GenerationRequest:
    return resolve(read(**texts), lambda: 99)


def test_every_field_may_be_left_out() -> None:
    fields = read()
    assert fields == GenerateFields()
    assert (fields.formats, fields.quality, fields.remove_background, fields.run_async) == (("glb",), 7, "auto", False)
    assert (fields.steps, fields.guidance_scale, fields.seed, fields.octree_resolution) == (None, None, None, None)
    assert (fields.target_faces, fields.scale_mm, fields.acceleration) == (None, 100, "none")
    assert (fields.objects, fields.color, fields.place, fields.upright) == ("all", "auto", "ground", "auto")
    assert fields.outline == "auto"
    assert (fields.compress, fields.preview, fields.turntable) == ("none", True, False)


def test_every_field_is_read() -> None:
    fields = read(
        format="ply,3mf",
        quality="10",
        octree_resolution="160",
        steps="50",
        guidance_scale="7.5",
        seed="4294967295",
        target_faces="2000000",
        remove_background="never",
        scale_mm="120.5",
        acceleration="balanced",
        objects="largest",
        outline="off",
        color="vertex",
        place="as_is",
        upright="off",
        compress="draco",
        preview="false",
        turntable="true",
        candidates="3",
        keep="all",
        prompt="a red mug",
        image_seed="9",
        label="Set 7",
        webhook_url="https://hooks.example/7",
        async_="True",
    )
    assert fields == GenerateFields(
        format=("ply", "3mf"),
        quality=10,
        octree_resolution=160,
        steps=50,
        guidance_scale=7.5,
        seed=2**32 - 1,
        target_faces=2_000_000,
        remove_background="never",
        scale_mm=120.5,
        acceleration="balanced",
        objects="largest",
        outline="off",
        color="vertex",
        place="as_is",
        upright="off",
        compress="draco",
        preview=False,
        turntable=True,
        candidates=3,
        keep="all",
        prompt="a red mug",
        image_seed=9,
        label="Set 7",
        webhook_url="https://hooks.example/7",
        **{"async": True},
    )


@pytest.mark.parametrize(
    ("name", "texts", "values"),
    [
        ("quality", ["1", "10"], [1, 10]),
        ("steps", ["10", "100"], [10, 100]),
        ("octree_resolution", ["16", "1024"], [16, 1024]),
        ("seed", ["0", "-0", "007", "-1"], [0, 0, 7, -1]),
        ("target_faces", ["100", "none"], [100, "none"]),
        ("format", ["usdz", "stl,glb", "glb,stl,glb"], [("usdz",), ("stl", "glb"), ("glb", "stl")]),
        ("guidance_scale", ["0", "20", "20.0", "1e1", "0.30000000000000004"], [0, 20, 20, 10, 0.1 + 0.2]),
        ("scale_mm", ["10000", "0.1", "1E-1"], [10000, 0.1, 0.1]),
        ("async", ["true", "FALSE"], [True, False]),
    ],
)
def test_values_at_the_ends_of_their_ranges_are_taken(name: str, texts: list[str], values: list[object]) -> None:
    read_back = [read_fields(GenerateFields, {name: [text]}).model_dump(by_alias=True)[name] for text in texts]
    assert read_back == values


NO_WHOLE_NUMBER = (
    "",
    " ",
    " 7",
    "7 ",
    "7.0",
    "0x17",
    "1e1",
    "٧",
    "７",
    "+7",
    "1_0",
    "seven",
    "7\n",
    "7\0",
    "--7",
    "NaN",
)
NO_NUMBER = (
    "",
    " 1",
    "1 ",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "Infinity",
    "1e999",
    "-1e999",
    "0x1",
    "1_0",
    "٧",
    ".5",
    "5.",
    "1,5",
)


@pytest.mark.parametrize(
    ("name", "error", "texts"),
    [
        ("format", InvalidFormat, ("", "GLB", "gltf", "glb ", "glb\0", "../glb", "fbx", "glb,", ",", "glb, stl")),
        ("quality", InvalidQuality, ("0", "11", "-1", "9" * 400, *NO_WHOLE_NUMBER)),
        ("steps", InvalidSteps, ("9", "101", "-10", "9" * 400, *NO_WHOLE_NUMBER)),
        ("octree_resolution", InvalidOctreeResolution, ("15", "1025", "-16", *NO_WHOLE_NUMBER)),
        ("seed", InvalidSeed, ("-2", "4294967296", "9" * 400, *NO_WHOLE_NUMBER[:1], *NO_WHOLE_NUMBER[2:])),
        ("target_faces", InvalidTargetFaces, ("99", "2000001", "0", "-1", "None", "all", *NO_WHOLE_NUMBER)),
        ("guidance_scale", InvalidGuidance, ("-0.001", "20.001", "1" * 400, *NO_NUMBER)),
        ("scale_mm", InvalidScale, ("0", "-0", "-1", "0.0999", "10000.1", "1e-999", *NO_NUMBER)),
        ("objects", InvalidObjects, ("", "All", "each", "1")),
        ("candidates", InvalidCandidates, ("0", "9", "-1", *NO_WHOLE_NUMBER)),
        ("keep", InvalidKeep, ("", "Best", "none", "2")),
        ("outline", InvalidOutline, ("", "on", "Auto", "true")),
        ("color", InvalidColor, ("", "Auto", "true", "red")),
        ("place", InvalidPlace, ("", "Ground", "as is", "floor")),
        ("upright", InvalidUpright, ("", "on", "true", "false")),
        ("compress", InvalidCompress, ("", "zip", "true", "Draco")),
        ("preview", InvalidPreview, ("", "1", "auto")),
        ("turntable", InvalidTurntable, ("", "0", "yes")),
        ("acceleration", InvalidAcceleration, ("", "Fast", "fast ", "turbo", "true")),
        ("remove_background", InvalidBackgroundMode, ("", "Auto", "yes", "true")),
        ("async", InvalidAsync, ("", "1", "0", "yes", " true", "falſe", "null")),
    ],
)
def test_other_values_are_refused_by_the_fields_own_error(
    name: str, error: type[InvalidParameter], texts: tuple[str, ...]
) -> None:
    for text in texts:
        with pytest.raises(InvalidParameter) as refused:
            read_fields(GenerateFields, {name: [text]})
        assert type(refused.value) is error, text
        assert refused.value.details["field"] == name
        assert refused.value.message.isprintable()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("quality", "11", "quality must be a whole number from 1 to 10, not '11'."),
        ("seed", "-2", "seed must be a whole number from -1 to 4294967295, not '-2'."),
        ("target_faces", "1", "target_faces must be a whole number from 100 to 2000000 or none, not '1'."),
        ("guidance_scale", "21", "guidance_scale must be a number from 0 to 20, not '21'."),
        ("scale_mm", "0", "scale_mm must be a number from 0.1 to 10000, not '0'."),
        (
            "format",
            "x\u202ey",
            "format must be one of glb, stl, obj, ply, 3mf, usdz, or several with commas between, not 'x?y'.",
        ),
        ("async", "x" * 99, f"async must be true or false, not '{'x' * 39}…'."),
    ],
)
def test_messages_say_what_is_allowed(name: str, text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        read_fields(GenerateFields, {name: [text]})
    assert refused.value.message == message


ONCE = [name for name in GenerateFields.model_json_schema()["properties"] if name != "format"]


@pytest.mark.parametrize(("name", "count"), [*product(ONCE, (0, 2)), ("format", 0)])
def test_a_field_is_given_once(name: str, count: int) -> None:
    with pytest.raises(InvalidParameter, match=f"{name} must be given once, not {count} times") as refused:
        read_fields(GenerateFields, {name: ["7"] * count})
    assert refused.value.code == f"INVALID_{name.upper()}"


def test_formats_may_be_repeated() -> None:
    fields = read_fields(GenerationFields, {"format": ["3mf", "glb,stl", "3mf"]})
    assert fields.formats == ("3mf", "glb", "stl")
    assert resolve(fields, lambda: 1).format == "3mf"


@pytest.mark.parametrize(
    "name", ["colour", "", "Quality", "quality ", "run_async", "__class__", "image", "x" * 500, "a\0b"]
)
def test_unknown_fields_are_refused(name: str) -> None:
    with pytest.raises(UnknownField) as refused:
        read_fields(GenerateFields, {"quality": ["7"], name: ["7"]})
    assert refused.value.details["field"] == name[:40]
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 360


def test_a_batch_has_no_async() -> None:
    with pytest.raises(UnknownField):
        read_fields(GenerationFields, {"async": ["true"]})


@given(st.sampled_from(list(GenerateFields.model_json_schema()["properties"])), st.text(max_size=60))
def test_any_text_is_read_or_refused_by_name(name: str, text: str) -> None:
    try:
        fields = read_fields(GenerateFields, {name: [text]})
    except InvalidParameter as refused:
        assert refused.code == f"INVALID_{name.upper()}"  # noqa: PT017
        return
    assert GenerateFields.model_validate(fields.model_dump()) == fields


def test_values_are_frozen() -> None:
    with pytest.raises(ValidationError):
        read().quality = 3
    with pytest.raises(ValidationError):
        request().quality = 3


def test_the_schema_allows_no_null_and_nothing_unknown() -> None:
    schema = GenerateFields.model_json_schema()
    assert schema["additionalProperties"] is False
    assert "required" not in schema
    for name, field in schema["properties"].items():
        kinds = {each["type"] for each in field.get("anyOf", [field])}
        assert kinds <= {"integer", "number", "string", "boolean", "array"}, name
        assert field["description"].endswith("."), name
        assert field.get("default", 0) is not None, name


@pytest.mark.parametrize(
    ("own", "most", "expected"),
    [
        (384, 512, [128, 176, 208, 256, 304, 336, 384, 432, 464, 512]),
        (128, 512, [48, 64, 64, 80, 96, 112, 128, 144, 160, 176]),
        (384, 300, [128, 176, 208, 256, 300, 300, 300, 300, 300, 300]),
        (16, 512, [16, 16, 16, 16, 16, 16, 16, 16, 16, 16]),
    ],
)
def test_resolution_is_a_third_to_four_thirds_of_the_checkpoints(own: int, most: int, expected: list[int]) -> None:
    resolutions = Resolutions(own, most)
    assert [resolutions.of_quality(quality) for quality in range(1, 11)] == expected
    assert resolve(read(quality="4"), lambda: 1, resolutions).octree_resolution == expected[3]
    assert request(quality="4").octree_resolution == 256


def test_a_resolution_may_be_asked_for_instead_of_a_quality() -> None:
    asked = read(octree_resolution="72", quality="4")
    assert resolve(asked, lambda: 1).octree_resolution == 72
    Resolutions(most=72).check(asked.octree_resolution)
    Resolutions(most=16).check(None)
    with pytest.raises(InvalidOctreeResolution, match="a whole number from 16 to 71, not '72'") as refused:
        Resolutions(most=71).check(asked.octree_resolution)
    assert refused.value.details["field"] == "octree_resolution"


def test_faces_grow_with_quality() -> None:
    found = [default_target_faces(quality) for quality in range(1, 11)]
    assert found == [10_000, 14_678, 21_544, 31_623, 46_416, 68_129, 100_000, 146_780, 215_443, None]
    assert request().target_faces == 100_000
    assert request(quality="1", target_faces="none").target_faces is None
    assert request(quality="10", target_faces="100").target_faces == 100


def test_a_seed_is_drawn_only_where_none_is_given() -> None:
    assert request().seed == 99
    assert request(seed="0").seed == 0
    assert request(seed="-1").seed == 99


def test_a_request_comes_back_from_its_text() -> None:
    made = request(
        format="stl,glb",
        color="none",
        quality="3",
        steps="20",
        guidance_scale="0.1",
        target_faces="5000",
        scale_mm="80",
    )
    assert GenerationRequest.from_json(made.to_json()) == made
    assert GenerationRequest.from_json(request().to_json()) == request()


@pytest.mark.parametrize("change", [{"quality": 11}, {"quality": "7"}, {"seed": None}, {"new": 1}, {"steps": True}])
def test_requests_of_another_kind_are_unreadable(change: dict[str, object]) -> None:
    text = json.dumps({**json.loads(request().to_json()), **change})
    with pytest.raises(RequestUnreadable):
        GenerationRequest.from_json(text)


@pytest.mark.parametrize("text", ["", "{}", "null", "[]", "{", "\0", "nan"])
def test_what_is_no_request_is_unreadable(text: str) -> None:
    with pytest.raises(RequestUnreadable):
        GenerationRequest.from_json(text)


@pytest.mark.parametrize(
    ("quality", "default", "expected"),
    [
        (1, 50, 25),
        (4, 50, 38),
        (7, 50, 50),
        (10, 50, 75),
        (1, 30, 15),
        (1, 10, 10),
        (1, 12, 10),
        (1, 5, 5),
        (7, 5, 5),
        (10, 5, 8),
        (10, 100, 100),
        (10, 200, 200),
        (1, 1, 1),
    ],
)
def test_default_steps_follow_quality(quality: int, default: int, expected: int) -> None:
    assert request(quality=str(quality)).inference_steps(default) == expected


def test_a_request_becomes_the_options_of_its_image() -> None:
    defaults = PipelineDefaults(num_inference_steps=50, guidance_scale=4.5)
    silent = request(quality="1", seed="7").options(defaults)
    assert silent == ImageOptions(GenerationOptions(25, 4.5, 128), 7, 10_000)
    asked = request(
        quality="4", steps="33", guidance_scale="0", acceleration="fast", seed="8", target_faces="500",
        remove_background="never", objects="largest", outline="off",
    ).options(defaults)  # fmt: skip
    assert asked == ImageOptions(GenerationOptions(33, 0.0, 256, "fast"), 8, 500, "never", "largest", "off")


def test_steps_that_were_asked_for_are_taken() -> None:
    assert request(quality="1", steps="33").inference_steps(50) == 33
    with pytest.raises(InvalidSteps):
        request().inference_steps(0)


def test_jobs_run_together_when_model_resolution_steps_and_guidance_agree() -> None:
    plain = request().batch_key("demo")
    same = [
        request(format="stl"),
        request(target_faces="500"),
        request(seed="1"),
        request(scale_mm="5"),
        request(remove_background="never"),
        request(objects="largest"),
        request(outline="off"),
        request(color="none", place="as_is", upright="off"),
        request(compress="meshopt", preview="false", turntable="true"),
        request(octree_resolution="384"),
    ]
    assert {each.batch_key("demo") for each in same} == {plain}
    others = [request(quality="6"), request(steps="50"), request(guidance_scale="0"), request(guidance_scale="7.5")]
    keys = {plain, request().batch_key("other"), *(each.batch_key("demo") for each in others)}
    assert len(keys) == 6
    assert request(guidance_scale="-0").batch_key("m") == request(guidance_scale="0.0").batch_key("m")
    assert request(quality="10", steps="20").batch_key("m") != request(quality="9", steps="20").batch_key("m")


def test_jobs_of_another_acceleration_run_apart() -> None:
    keys = {request(acceleration=name).batch_key("demo") for name in ("none", "balanced", "fast")}
    assert len(keys) == 3
    assert request(acceleration="none").batch_key("demo") == request().batch_key("demo")


def test_a_request_of_an_earlier_version_is_read() -> None:
    old = (
        '{"format":"stl","quality":7,"octree_resolution":384,"steps":null,"guidance_scale":null,"seed":1,'
        '"target_faces":null,"remove_background":"auto","scale_mm":null}'
    )
    read_back = GenerationRequest.from_json(old)
    assert (read_back.formats, read_back.format, read_back.scale_mm, read_back.objects) == (("stl",), "stl", 100, "all")
    assert GenerationRequest.from_json(old.replace("null}", "0.001}")).scale_mm == 0.001


def test_a_request_that_names_no_acceleration_has_none() -> None:
    values = json.loads(request(acceleration="fast").to_json())
    assert values.pop("acceleration") == "fast"
    assert GenerationRequest.from_json(json.dumps(values)).acceleration == "none"


def test_the_same_request_has_the_same_fingerprint() -> None:
    first = fingerprint("generate", read(seed="7", quality="3"), ["a", "b"])
    assert first == fingerprint("generate", read(quality="3", seed="007"), ["a", "b"])
    assert len(first) == 64


def test_other_requests_have_other_fingerprints() -> None:
    images = ["a", "b"]
    prints = [
        fingerprint("generate", read(seed="7"), images),
        fingerprint("batch", read(seed="7"), images),
        fingerprint("generate", read(seed="8"), images),
        fingerprint("generate", read(), images),
        fingerprint("generate", read(async_="true", seed="7"), images),
        fingerprint("generate", read(seed="7"), images[::-1]),
        fingerprint("generate", read(seed="7"), images[:1]),
        fingerprint("generate", read(seed="7"), ["ab"]),
    ]
    assert len(set(prints)) == len(prints)
