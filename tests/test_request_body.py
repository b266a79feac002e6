"""Bodies behind the guard: on disk, hashed while they arrive, bounded, and gone with their request."""

from __future__ import annotations

import errno
import io
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from backend.auth import request_body as body_spool
from orfeas_client.signing import digest_body
from tests.support.guarded_service import (
    Service,
    Zeros,
    answer,
)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def test_body_mismatch_stores_nothing(service: Service) -> None:
    headers = service.headers("POST", "/generate", b"hello")
    response = service.client.post("/generate", data=b"hello!", headers=headers)
    assert answer(response) == (401, "AUTH_BODY_MISMATCH")
    assert list(service.settings.spool_dir.iterdir()) == []


def test_form_is_parsed_from_the_verified_body(service: Service) -> None:
    body = (
        b'--edge\r\nContent-Disposition: form-data; name="seed"\r\n\r\n7\r\n'
        b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\npng\r\n--edge--\r\n'
    )
    headers = {**service.headers("POST", "/batch", body), "Content-Type": "multipart/form-data; boundary=edge"}
    response = service.client.post("/batch", data=body, headers=headers)
    assert response.get_json() == {"files": ["image"], "fields": {"seed": "7"}}


def post_stream(service: Service, stream: io.RawIOBase, digest: str, **environ: Any) -> TestResponse:
    headers = service.headers("POST", "/generate", body_digest=digest)
    overrides = {"wsgi.input": stream, **environ}
    return service.client.post("/generate", headers=headers, environ_overrides=overrides)


@pytest.mark.parametrize("environ", [{"CONTENT_LENGTH": "66000000"}, {"wsgi.input_terminated": True}])
def test_body_larger_than_the_bound_is_refused(service: Service, environ: dict[str, Any]) -> None:
    response = post_stream(service, Zeros(66_000_000), digest_body(b""), **environ)
    assert answer(response) == (413, "FILE_TOO_LARGE")
    assert "51048576 bytes" in response.get_json()["error"]


def test_declared_length_is_refused_before_a_byte_is_read(service: Service) -> None:
    stream = Zeros(66_000_000, lambda: pytest.fail("read"))
    assert post_stream(service, stream, digest_body(b""), CONTENT_LENGTH="66000000").status_code == 413


@pytest.mark.parametrize(("target", "size", "code"), [("/batch", 200_000, 200), ("/status/x", 65_537, 413)])
def test_bound_follows_the_operation(tmp_path: Path, target: str, size: int, code: int) -> None:
    service = Service(tmp_path, max_image_bytes=1024)
    method = "GET" if target.startswith("/status") else "POST"
    assert service.call(method, target, bytes(size)).status_code == code


def test_chunked_body_is_read_where_the_server_ends_it(service: Service) -> None:
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    response = post_stream(service, Zeros(1000), digest_body(bytes(1000)), **chunked)
    assert response.status_code == 200
    assert response.get_json()["size"] == 1000


def test_chunked_body_is_refused_where_the_server_does_not_end_it(service: Service) -> None:
    response = post_stream(service, Zeros(1000), digest_body(bytes(1000)), HTTP_TRANSFER_ENCODING="chunked")
    assert answer(response) == (411, "LENGTH_REQUIRED")


@pytest.mark.parametrize("breaks", [True, False])
def test_body_that_breaks_off_is_refused(service: Service, breaks: bool) -> None:
    response = post_stream(service, Zeros(1000, breaks=breaks), digest_body(bytes(2000)), CONTENT_LENGTH="2000")
    assert answer(response) == (400, "BAD_FRAMING")


def test_body_lies_on_disk_in_a_private_folder_without_a_name(service: Service) -> None:
    folder = service.settings.spool_dir
    seen: list[list[Path]] = []
    stream = Zeros(3 << 20, lambda: seen.append(list(folder.iterdir()) if folder.exists() else []))
    response = post_stream(service, stream, digest_body(bytes(3 << 20)), CONTENT_LENGTH=str(3 << 20))
    assert response.status_code == 200
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(seen) > 3
    assert all(names == [] for names in seen)
    assert list(folder.iterdir()) == []


def test_memory_does_not_grow_with_the_body(tmp_path: Path) -> None:
    size = 16 << 20
    environ = {"wsgi.input": Zeros(size), "CONTENT_LENGTH": str(size)}
    digest = digest_body(bytes(size))
    tracemalloc.start()
    try:
        body, length = body_spool.spool_body(environ, tmp_path, size, digest)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert length == size
    assert body.read(2) == b"\0\0"
    body.close()
    assert peak < 2 << 20


def test_body_is_closed_when_the_request_ends(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    real = body_spool._open_file

    def recorded(folder: Path) -> Any:
        opened.append(real(folder))
        return opened[-1]

    monkeypatch.setattr(body_spool, "_open_file", recorded)
    headers = service.headers("POST", "/generate", b"hello")
    assert service.call(body=b"hello").status_code == 200
    assert service.client.post("/generate", data=b"hallo", headers=headers).status_code == 401
    assert post_stream(service, Zeros(9, breaks=True), digest_body(b""), CONTENT_LENGTH="10").status_code == 400
    assert [file.closed for file in opened] == [True, True, True]


def test_full_disk_is_a_clear_answer(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    file = Full()
    monkeypatch.setattr(body_spool, "_open_file", lambda _folder: file)
    assert answer(service.call(body=b"hello")) == (507, "STORAGE_FULL")
    assert file.closed


@pytest.mark.parametrize("size", [5, 1_000_000])
def test_disk_that_is_full_only_when_it_is_written_to_is_a_clear_answer(
    size: int, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_folder: Path) -> Any:
        return Path("/dev/full").open("r+b")

    monkeypatch.setattr(body_spool, "_open_file", full)
    assert answer(service.call(body=b"x" * size)) == (507, "STORAGE_FULL")
