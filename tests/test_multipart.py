"""Forms read the same however they are cut, and come back byte for byte."""

from __future__ import annotations

import io
from typing import BinaryIO, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend.api import multipart
from backend.api.multipart import Part as ReadPart
from backend.api.multipart import read_parts
from backend.errors import InvalidForm, ServiceError, UnsupportedMediaType
from tests.support.hostile import BOUNDARY, FORM, Part, encode_form, hostile_uploads

HEAD_BYTES = 8192
Read = list[tuple[str, str | None, bytes]]


def read(body: bytes, content_type: str = FORM, head_bytes: int = HEAD_BYTES) -> Read:
    """Return name, file name and content of each part."""
    parts = list(read_parts(io.BytesIO(body), content_type, head_bytes))
    return [(part.name, part.filename, body[part.start : part.start + part.size]) for part in parts]


class Dribble(io.BytesIO):
    """A stream that gives a byte at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(1 if size is None or size < 0 else min(size, 1))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.integers(1, 300))
@example([b"\r", b"\n", b"\r\n", b"--", b"\r\n--" + BOUNDARY.encode()[:-1]], 1)
@example([b"\r\n\r\n", b"", b"-", b"--" + BOUNDARY.encode()], 7)
def test_contents_come_back_whatever_they_are(contents: list[bytes], chunk: int) -> None:
    body = encode_form(*(Part(f"p{k}", content, f"{k}.bin") for k, content in enumerate(contents)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multipart, "_CHUNK_BYTES", chunk)
        parts = read(body)
    assert parts == [(f"p{k}", f"{k}.bin", content) for k, content in enumerate(contents)]


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 17, 64, 1000])
def test_a_form_reads_the_same_however_it_is_cut(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [(upload.body, upload.content_type) for upload in hostile_uploads(1000)]
    short = [(body, content_type) for body, content_type in bodies if len(body) < 5000]
    assert len(short) > 100
    whole = [_outcome(body, content_type) for body, content_type in short]
    monkeypatch.setattr(multipart, "_CHUNK_BYTES", chunk)
    assert [_outcome(body, content_type) for body, content_type in short] == whole


def _outcome(body: bytes, content_type: str) -> object:
    try:
        return read(body, content_type)
    except ServiceError as error:
        return error.code, error.message


def test_a_stream_that_gives_little_at_a_time_is_read_to_its_end() -> None:
    body = encode_form(Part("a", b"1"), Part("b", b"\r\n", "b.bin"))
    parts = list(read_parts(cast(BinaryIO, Dribble(body)), FORM, HEAD_BYTES))
    ends = [body.index(b"1"), body.index(b"\r\n\r\n\r\n") + 4]
    assert parts == [ReadPart("a", None, ends[0], 1), ReadPart("b", "b.bin", ends[1], 2)]
    assert sum(part.size for part in parts) == 3


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_forms_are_read_or_refused_by_name(data: st.DataObject) -> None:
    body = bytearray(encode_form(Part("seed", b"7"), Part("image", b"abc", "a.png", "image/png")))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(body)))
        bits = (
            b"\r",
            b"\n",
            b"\r\n",
            b"--",
            b'"',
            b";",
            b"=",
            b"\\",
            b"\0",
            b"\xff",
            b"%",
            b"*",
            b"'",
            b"\x85",
            b"*0*=",
        )
        body[at : at + data.draw(st.integers(0, 8))] = data.draw(st.sampled_from(bits))
    try:
        parts = read(bytes(body))
    except InvalidForm:
        return
    assert all(isinstance(name, str) for name, _, _ in parts)


def test_heads_are_bounded_to_the_byte() -> None:
    head = b'Content-Disposition: form-data; name="a"'
    body = encode_form(Part("a", b"x", head=head))
    assert read(body, head_bytes=len(head)) == [("a", None, b"x")]
    with pytest.raises(InvalidForm):
        read(body, head_bytes=len(head) - 1)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=b", "b"),
        ('Multipart/Form-Data; Boundary="a b"', "a b"),
        ("multipart/form-data; charset=UTF-8; boundary=" + "b" * 70, "b" * 70),
        ('multipart/form-data; boundary="--+?=:"', "--+?=:"),
    ],
)
def test_boundaries_of_many_forms(content_type: str, boundary: str) -> None:
    assert read(encode_form(Part("a", b"x"), boundary=boundary), content_type) == [("a", None, b"x")]


@pytest.mark.parametrize("content_type", ["", "text/plain", "multipart/related; boundary=b", "multipart/form-data2"])
def test_other_media_types_are_unsupported(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        read(encode_form(Part("a", b"x")), content_type)


def test_reading_stops_at_the_last_boundary() -> None:
    stream = io.BytesIO(encode_form(Part("a", b"x")) + b"y" * 1_000_000)
    list(read_parts(stream, FORM, HEAD_BYTES))
    assert stream.tell() < 100_000
