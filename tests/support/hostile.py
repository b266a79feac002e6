"""Uploads that mean harm, and odd ones that mean none: whole request bodies with the one answer each must get.

Everything is made here, from fixed numbers, and small. This module does not know how an upload is handled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tests.support.hostile_pictures import ACCEPTED, INVALID, UNSUPPORTED, good_png, hostile_pictures

BOUNDARY = "orfeas-7d83"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
BAD_FORM = (400, "INVALID_FORM")


@dataclass(frozen=True)
class HostileUpload:
    """One POST of a form.

    operation : "generate" (asked for asynchronously) or "batch"
    status, code : what it must be answered with; 202 and "" where it is odd but sound
    """

    name: str
    operation: str
    content_type: str
    build: Callable[[], bytes]
    status: int
    code: str

    @property
    def body(self) -> bytes:
        """The request's body, made anew each time: some are large."""
        return self.build()


@dataclass(frozen=True)
class Part:
    """One part of a form; filename None = a field. head : its head as raw bytes, in place of the usual one."""

    name: str
    content: bytes
    filename: str | None = None
    media_type: str = ""
    head: bytes | None = None

    def encode(self) -> bytes:
        """Return the part's head and body, without boundaries."""
        return (self.head if self.head is not None else self._head()) + b"\r\n\r\n" + self.content

    def _head(self) -> bytes:
        text = f'Content-Disposition: form-data; name="{self.name}"'
        text += "" if self.filename is None else f'; filename="{self.filename}"'
        text += f"\r\nContent-Type: {self.media_type}" if self.media_type else ""
        return text.encode("utf-8", "surrogateescape")


def encode_form(*parts: Part, boundary: str = BOUNDARY) -> bytes:
    """Return the body of a form with these parts."""
    edge = b"--" + boundary.encode()
    return b"".join(edge + b"\r\n" + part.encode() + b"\r\n" for part in parts) + edge + b"--\r\n"


ASYNC = Part("async", b"true")


def image_form(content: bytes, filename: str = "cat.png", media_type: str = "image/png") -> bytes:
    """Return a request for one mesh from one picture."""
    return encode_form(ASYNC, Part("image", content, filename, media_type))


def hostile_uploads(max_image_bytes: int = 50_000_000) -> list[HostileUpload]:
    """All of them; max_image_bytes : what the service takes, so that one can be a byte larger."""
    uploads = [
        *_images(),
        *_named(),
        *_fields(),
        *_forms(),
        *_batches(),
        *_sizes(max_image_bytes),
    ]
    assert len({upload.name for upload in uploads}) == len(uploads)
    return uploads


def _images() -> Iterator[HostileUpload]:
    for name, content, (status, code) in hostile_pictures():
        yield HostileUpload(name, "generate", FORM, _in_form(content), status, code)


def _in_form(content: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: image_form(content())


def _named() -> Iterator[HostileUpload]:
    names = {
        "climbs": "../../../../etc/passwd",
        "climbs in Windows": "..\\..\\windows\\system32\\evil.png",
        "absolute": "/etc/cron.d/evil",
        "drive": "C:\\evil.png",
        "UNC": "\\\\127.0.0.1\\share\\evil.png",
        "percent": "%2e%2e%2f%2e%2e%2fevil.png",
        "device": "/dev/null",
        "CON": "CON.png",
        "stream": "evil.png::$DATA",
        "dots": "..",
        "slash": "/",
        "blank": " ",
        "tilde": "~/.ssh/authorized_keys",
        "shell": "$(touch evil);`touch evil`|evil.png",
        "format": "%s%n{0.__class__}${jndi:ldap://127.0.0.1/a}",
        "two endings": "evil.php.png",
        "long": "a" * 4000 + ".png",
        "turned round": "evil\u202egnp.exe",
        "combining": "e" + "\u0301" * 500 + ".png",
        "emoji": "\U0001f431\u200d\U0001f464.png",
        "wrong ending": "cat.gif",
        "none": "",
    }
    for name, filename in names.items():
        yield HostileUpload(f"name: {name}", "generate", FORM, _named_form(filename), *ACCEPTED)
    broken = {
        "zero byte": b"evil.png\0.txt",
        "line feed": b"evil\nX-Evil: 1.png",
        "lone return": b"evil\rX-Evil: 1.png",
        "not UTF-8": b"\xff\xfe.png",
    }
    for name, raw in broken.items():
        yield _headed(f"name: {name}", b'form-data; name="image"; filename="' + raw + b'"', BAD_FORM)


def _named_form(filename: str) -> Callable[[], bytes]:
    return lambda: image_form(good_png(), filename.replace("\\", "\\\\"))


def _headed(name: str, disposition: bytes, answer: tuple[int, str], more: bytes = b"") -> HostileUpload:
    """Return a form whose picture has this Content-Disposition, and more lines in its head."""
    part = Part("", good_png(), head=b"Content-Disposition: " + disposition + more)
    return HostileUpload(name, "generate", FORM, lambda: encode_form(ASYNC, part), *answer)


def _fields() -> Iterator[HostileUpload]:
    image = Part("image", good_png(), "cat.png", "image/png")
    cases: dict[str, tuple[Part, tuple[int, str]]] = {
        "unknown": (Part("colour", b"red"), (400, "UNKNOWN_FIELD")),
        "dunder": (Part("__class__", b"x"), (400, "UNKNOWN_FIELD")),
        "no name": (Part("", b"x"), (400, "UNKNOWN_FIELD")),
        "charset": (Part("_charset_", b"utf-16"), (400, "UNKNOWN_FIELD")),
        "of 10 MB": (Part("seed", b"7" * 10_000_000), BAD_FORM),
        "just over its bound": (Part("seed", b"7" * 4097), BAD_FORM),
        "not UTF-8": (Part("format", b"gl\xff"), BAD_FORM),
        "UTF-16": (Part("format", "glb".encode("utf-16"), media_type="text/plain; charset=utf-16"), BAD_FORM),
        "UTF-7": (Part("format", b"glb", media_type="text/plain; charset=utf-7"), BAD_FORM),
        "nested form": (Part("format", b"--x--", media_type="multipart/mixed; boundary=x"), BAD_FORM),
        "zero byte": (Part("format", b"glb\0"), (400, "INVALID_FORMAT")),
        "climbs": (Part("format", b"../glb"), (400, "INVALID_FORMAT")),
        "other digits": (Part("seed", "٧".encode()), (400, "INVALID_SEED")),
        "not a number": (Part("guidance_scale", b"NaN"), (400, "INVALID_GUIDANCE_SCALE")),
        "endless number": (Part("scale_mm", b"1e999"), (400, "INVALID_SCALE_MM")),
        "second async": (Part("async", b"false"), (400, "INVALID_ASYNC")),
        "file as a field": (Part("quality", b"7", "q.txt"), (400, "UNKNOWN_FIELD")),
        "picture under another name": (Part("images", good_png(), "b.png"), (400, "UNKNOWN_FIELD")),
        "second picture": (Part("image", good_png(), "b.png"), (400, "TOO_MANY_IMAGES")),
    }
    for name, (part, answer) in cases.items():
        yield HostileUpload(f"field: {name}", "generate", FORM, _form_of(ASYNC, image, part), *answer)
    many = [Part("seed", b"7")] * 10_000
    yield HostileUpload("field: ten thousand", "generate", FORM, _form_of(*many, image), *BAD_FORM)
    text = Part("image", b"https://127.0.0.1/cat.png")
    yield HostileUpload("field: an address as picture", "generate", FORM, _form_of(ASYNC, text), *UNSUPPORTED)
    unnamed = Part("image", good_png(), None, "image/png")
    yield HostileUpload("field: picture without file name", "generate", FORM, _form_of(ASYNC, unnamed), *ACCEPTED)


def _form_of(*parts: Part) -> Callable[[], bytes]:
    return lambda: encode_form(*parts)


def _forms() -> Iterator[HostileUpload]:
    whole = image_form(good_png())
    edge = b"--" + BOUNDARY.encode()
    media = (415, "UNSUPPORTED_MEDIA_TYPE")
    missing = (400, "MISSING_IMAGE")
    types = {
        "no boundary": ("multipart/form-data", BAD_FORM),
        "empty boundary": ('multipart/form-data; boundary=""', BAD_FORM),
        "another boundary": ("multipart/form-data; boundary=other", BAD_FORM),
        "boundary of 71": (f"multipart/form-data; boundary={'b' * 71}", BAD_FORM),
        "boundary not ASCII": ("multipart/form-data; boundary=\xe9", BAD_FORM),
        "UTF-16 form": (FORM + "; charset=utf-16", BAD_FORM),
        "multipart/mixed": (f"multipart/mixed; boundary={BOUNDARY}", media),
        "urlencoded": ("application/x-www-form-urlencoded", media),
        "JSON": ("application/json", BAD_FORM),
        "no type": ("", media),
        "type of rubbish": (";;;=,\t", media),
    }
    for name, (content_type, answer) in types.items():
        yield HostileUpload(f"form: {name}", "generate", content_type, _constant(whole), *answer)
    bodies = {
        "empty": (b"", BAD_FORM),
        "only the last boundary": (edge + b"--\r\n", missing),
        "no picture": (encode_form(ASYNC), missing),
        "no last boundary": (whole[: -len(edge) - 6], BAD_FORM),
        "last boundary not closed": (whole[:-4], BAD_FORM),
        "ends after its dashes": (whole[:-2], ACCEPTED),
        "cut in a part's head": (whole[:90], BAD_FORM),
        "line feeds only": (_line_feeds(), BAD_FORM),
        "returns only": (whole.replace(b"\r\n", b"\r"), BAD_FORM),
        "no first boundary": (encode_form(Part("image", good_png(), "a.png"))[len(edge) :], missing),
        "text before it": (b"This is a form.\r\n" + whole, ACCEPTED),
        "a megabyte before it": (b"x" * 1_000_000 + b"\r\n" + whole, BAD_FORM),
        "a megabyte behind it": (whole + b"x" * 1_000_000, ACCEPTED),
        "a second form behind it": (whole + encode_form(Part("image", b"evil", "e.png")), ACCEPTED),
        "boundary that goes on": (whole.replace(edge + b"\r\n", edge + b"evil\r\n"), BAD_FORM),
        "boundary with blanks": (whole.replace(edge + b"\r\n", edge + b" \t \r\n"), ACCEPTED),
        "a thousand blanks": (whole.replace(edge + b"\r\n", edge + b" " * 1000 + b"\r\n"), BAD_FORM),
        "rubbish": (np.random.default_rng(3).bytes(100_000), BAD_FORM),
        "boundaries only": ((edge + b"\r\n") * 5000, BAD_FORM),
        "part without a head": (edge + b"\r\n\r\nx\r\n" + whole, BAD_FORM),
    }
    for name, (body, answer) in bodies.items():
        yield HostileUpload(f"form: {name}", "generate", FORM, _constant(body), *answer)
    yield from _heads()


def _line_feeds() -> bytes:
    return image_form(b"picture").replace(b"\r\n", b"\n")


def _heads() -> Iterator[HostileUpload]:
    image = b'form-data; name="image"; filename="cat.png"'
    heads: dict[str, tuple[bytes, bytes, tuple[int, str]]] = {
        "of 100 KB": (image, b"\r\nX-Long: " + b"x" * 100_000, BAD_FORM),
        "of 5000 lines": (image, b"\r\nX-A: 1" * 5000, BAD_FORM),
        "with a second disposition": (image, b'\r\nContent-Disposition: form-data; name="format"', BAD_FORM),
        "folded": (image, b"\r\n\tfilename=evil.png", BAD_FORM),
        "with a line that is no header": (image, b"\r\nevil", BAD_FORM),
        "with a blank before its colon": (image, b"\r\nX-A : 1", BAD_FORM),
        "of an attachment": (b'attachment; name="image"; filename="cat.png"', b"", BAD_FORM),
        "without a name": (b'form-data; filename="cat.png"', b"", BAD_FORM),
        "in base64": (image, b"\r\nContent-Transfer-Encoding: base64", BAD_FORM),
        "of a nested form": (image, b"\r\nContent-Type: multipart/mixed; boundary=x", BAD_FORM),
        "with an extended name": (image + b"; filename*=utf-8''..%2F..%2Fevil%00.png", b"", ACCEPTED),
        "with an unknown charset": (image + b"; filename*=evil''%ff.png", b"", ACCEPTED),
        "with a broken extended name": (image + b"; filename*=utf-8''%ff%fe%", b"", ACCEPTED),
        "with two file names": (image + b'; filename="/etc/passwd"', b"", ACCEPTED),
        "with two names": (b'form-data; name="format"; name="image"; filename="cat.png"', b"", ACCEPTED),
        "with an open quote": (b'form-data; name="image"; filename="cat.png', b"", ACCEPTED),
        "of another type": (image, b"\r\nContent-Type: text/html", ACCEPTED),
    }
    for name, (disposition, more, answer) in heads.items():
        yield _headed(f"head: {name}", disposition, answer, more)


def _batches() -> Iterator[HostileUpload]:
    sound = Part("images", good_png(), "../a.png", "image/png")
    broken = Part("images", good_png()[:60], "b.png", "image/png")
    page = Part("images", b"<html>", "c.png", "image/png")
    empty = Part("images", b"", "", "application/octet-stream")
    single = Part("image", good_png(), "a.png", "image/png")
    cases: dict[str, tuple[tuple[Part, ...], tuple[int, str]]] = {
        "no picture": ((Part("seed", b"1"),), (400, "MISSING_IMAGE")),
        "one picture": ((sound,), (400, "TOO_FEW_IMAGES")),
        "two pictures": ((sound, sound), ACCEPTED),
        "ten pictures": ((sound,) * 10, ACCEPTED),
        "eleven pictures": ((sound,) * 11, (400, "TOO_MANY_IMAGES")),
        "ten thousand pictures": ((sound,) * 10_000, (400, "TOO_MANY_IMAGES")),
        "the second damaged": ((sound, broken), INVALID),
        "the third a page": ((sound, sound, page), UNSUPPORTED),
        "an empty one": ((sound, empty, sound), INVALID),
        "under the other name": ((single, single), (400, "UNKNOWN_FIELD")),
        "asked for asynchronously": ((sound, sound, ASYNC), (400, "UNKNOWN_FIELD")),
    }
    for name, (parts, (status, code)) in cases.items():
        yield HostileUpload(f"batch: {name}", "batch", FORM, _form_of(*parts), status, code)


def _sizes(max_image_bytes: int) -> Iterator[HostileUpload]:
    def padded(size: int) -> bytes:
        return image_form(good_png() + bytes(size - len(good_png())))

    large = (413, "FILE_TOO_LARGE")
    yield HostileUpload("size: as much as is taken", "generate", FORM, lambda: padded(max_image_bytes), *ACCEPTED)
    yield HostileUpload("size: a byte more", "generate", FORM, lambda: padded(max_image_bytes + 1), *large)


def _constant(content: bytes) -> Callable[[], bytes]:
    return lambda: content
