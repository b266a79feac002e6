"""The multipart body: what a form parser reads in it, its length and digest, sent twice, files that change."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tracemalloc
from pathlib import Path

import pytest
from werkzeug.formparser import parse_form_data

from orfeas_client.errors import LocalFileError
from orfeas_client.upload import ImageUrl, MultipartBody, body_of


def parsed(body: MultipartBody) -> tuple[dict[str, str], list[tuple[str, str | None, bytes]]]:
    data = b"".join(body)
    environ = {
        "REQUEST_METHOD": "POST",
        "wsgi.input": io.BytesIO(data),
        "CONTENT_LENGTH": str(len(data)),
        "CONTENT_TYPE": body.content_type,
    }
    _, form, files = parse_form_data(environ)
    found = []
    for name, file in files.items(multi=True):
        found.append((name, file.filename, file.read()))
        file.close()
    return form.to_dict(), found


def test_form_parser_reads_fields_and_pictures_in_order(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(bytes(range(256)) * 3000)
    body = MultipartBody({"format": "glb", "async": "true"}, [path, b"\r\n--raw", str(path)], "images")
    fields, files = parsed(body)
    assert fields == {"format": "glb", "async": "true"}
    assert files == [
        ("images", "cat.png", path.read_bytes()),
        ("images", "picture", b"\r\n--raw"),
        ("images", "cat.png", path.read_bytes()),
    ]


def test_length_and_digest_are_those_of_the_bytes_each_time(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(os.urandom(700_000))
    body = MultipartBody({"format": "glb"}, [path, b"two"], "images")
    first, second = b"".join(body), b"".join(body)
    assert first == second
    assert (len(body), body.digest) == (len(first), hashlib.sha256(first).hexdigest())


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ('a"b.png', 'a"b.png'),
        ("a\r\nX-Evil: 1.png", "a%0D%0AX-Evil: 1.png"),
        ("Käse – 猫.png", "Käse – 猫.png"),
        ("not\udcff-utf8.png", "not?-utf8.png"),
    ],
)
def test_file_name_stays_within_its_quotes(tmp_path: Path, name: str, read: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    assert parsed(MultipartBody({}, [path], "image"))[1] == [("image", read, b"x")]


@pytest.mark.parametrize("later", [b"", b"shorter", b"longer than it was", None])
def test_file_that_changes_before_it_is_sent_is_named(tmp_path: Path, later: bytes | None) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(b"as it was")
    body = MultipartBody({}, [path], "image")
    if later is None:
        path.unlink()
    else:
        path.write_bytes(later)
    with pytest.raises(LocalFileError, match=r"cat\.png (changed while it was sent|cannot be read)"):
        b"".join(body)


@pytest.mark.parametrize("name", ["missing.png", "."])
def test_no_file_is_named_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(LocalFileError, match="There is no file"):
        MultipartBody({}, [tmp_path / name], "image")


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(32 << 20)
    tracemalloc.start()
    try:
        body = MultipartBody({}, [path, path], "images")
        size = sum(map(len, body))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == len(body) > 64 << 20
    assert peak < 2 << 20


def test_an_address_goes_into_json_beside_what_is_sent_itself(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    url = ImageUrl("https://pictures.test/the%20cat.png?x=1")
    assert (url.name, url.stem) == ("the cat.png", "the cat")
    one = body_of({"quality": "5"}, [url], ["image"])
    assert one.content_type == "application/json"
    assert json.loads(b"".join(one)) == {"quality": "5", "image": {"url": url.url}}
    assert (one.digest, len(one)) == (hashlib.sha256(b"".join(one)).hexdigest(), len(b"".join(one)))
    several = body_of({}, [url, tmp_path / "a.png", b"bytes"], ["images"] * 3)
    assert json.loads(b"".join(several)) == {"images": [{"url": url.url}, "cGljdHVyZQ==", "Ynl0ZXM="]}
    views = body_of({}, [b"front", url], ["view_front", "view_back"])
    assert json.loads(b"".join(views)) == {"views": {"front": "ZnJvbnQ=", "back": {"url": url.url}}}
    assert isinstance(body_of({}, [b"front"], ["image"]), MultipartBody)
