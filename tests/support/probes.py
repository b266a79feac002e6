"""Raw bytes for a service's port, each with its one exact answer: request lines, headers, framing, pipelines, ends.

Signed ones are made when they are sent. This module does not know how a service is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.support.hostile import FORM, image_form
from tests.support.hostile_pictures import good_png
from tests.support.running import API, RunningService

HEALTH, JOBS, GENERATE = f"{API}/health", f"{API}/jobs", f"{API}/generate-3d"

Answer = tuple[int, str]
OK: Answer = (200, "")
BAD, FRAMING = (400, "BAD_REQUEST"), (400, "BAD_FRAMING")
LINE, HEADERS = (414, "URI_TOO_LONG"), (431, "HEADERS_TOO_LARGE")
EXPECT, CODING = (417, "EXPECTATION_FAILED"), (501, "UNSUPPORTED_TRANSFER_CODING")
UNSIGNED, INVALID, MISMATCH = (401, "AUTH_MISSING"), (401, "AUTH_INVALID"), (401, "AUTH_BODY_MISMATCH")
NOT_FOUND, METHOD, LARGE = (404, "NOT_FOUND"), (405, "METHOD_NOT_ALLOWED"), (413, "FILE_TOO_LARGE")
TAKEN, CONTINUE = (202, ""), (100, "")
HOST = b"Host: localhost\r\n"


@dataclass(frozen=True)
class Probe:
    """One connection's bytes and what comes back.

    answers : status and code of each, in their order; stays : whether the connection may have another request then
    ends : whether the caller says that it sends no more; head_only : whether the first answer has no body
    """

    name: str
    build: Callable[[RunningService], bytes]
    answers: tuple[Answer, ...]
    stays: bool = False
    ends: bool = False
    head_only: bool = False


def get(target: str = HEALTH, *headers: str, method: str = "GET", version: str = "1.1", host: bytes = HOST) -> bytes:
    """Return a request without a body; headers : whole lines."""
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"{method} {target} HTTP/{version}\r\n".encode() + host + lines.encode("latin-1") + b"\r\n"


def post(framing: str, body: bytes = b"", target: str = GENERATE, *, version: str = "1.1") -> bytes:
    """Return an unsigned POST; framing : header lines, with line feeds between."""
    lines = framing.replace("\n", "\r\n") + "\r\n" if framing else ""
    return f"POST {target} HTTP/{version}\r\n".encode() + HOST + lines.encode("latin-1") + b"\r\n" + body


def signed(
    method: str, target: str, *headers: str, content: bytes = b"", body: bytes | None = None, wrong: bool = False
) -> Callable[[RunningService], bytes]:
    """Return what makes a signed request.

    headers : whole lines beside the signature's; content : what is signed; body : what is sent, where that differs
    """

    def build(service: RunningService) -> bytes:
        given = service.sign(method, target, content)
        if wrong:
            given["X-Agent-Signature"] = "0" * 64
        lines = [f"{name}: {value}" for name, value in given.items()]
        if method == "POST":
            lines.append(f"Content-Type: {FORM}")
        return get(target, *lines, *headers, method=method) + (content if body is None else body)

    return build


def chunks(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """Return a body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


def probes() -> list[Probe]:
    """All of them."""
    found = [
        *_request_lines(),
        *_targets(),
        *_versions(),
        *_headers(),
        *_lengths(),
        *_chunks(),
        *_expectations(),
        *_pipelines(),
        *_ends(),
    ]
    assert len({probe.name for probe in found}) == len(found)
    return found


def _all(kind: str, table: dict[str, tuple[bytes, Answer]], **options: bool) -> Iterator[Probe]:
    for name, (raw, answer) in table.items():
        yield Probe(f"{kind}: {name}", lambda _, raw=raw: raw, (answer,), **options)  # type: ignore[misc]


def _request_lines() -> Iterator[Probe]:
    tail = b"\r\n" + HOST + b"\r\n"
    yield from _all(
        "line",
        {
            "nothing but an end": (b"\r\n\r\n", BAD),
            "two ends before it": (b"\r\n\r\n" + get(), BAD),
            "rubbish": (b"rubbish\r\n\r\n", BAD),
            "binary": (bytes(range(256)), BAD),
            "zero bytes": (bytes(64) + b"\r\n\r\n", BAD),
            "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BAD),
            "an SSH banner": (b"SSH-2.0-OpenSSH_9.0\r\n\r\n", BAD),
            "an SMTP greeting": (b"EHLO localhost\r\n\r\n", BAD),
            "a SOCKS greeting": (b"\x05\x01\x00\r\n\r\n", BAD),
            "a PROXY line": (b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + get(), BAD),
            "the HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD),
            "an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", BAD),
            "no version": (b"GET /api/agent/health" + tail, BAD),
            "no target": (b"GET HTTP/1.1" + tail, BAD),
            "no method": (b"/api/agent/health HTTP/1.1" + tail, BAD),
            "lower-case method": (b"get /api/agent/health HTTP/1.1" + tail, BAD),
            "mixed-case method": (b"Get /api/agent/health HTTP/1.1" + tail, BAD),
            "method of two letters": (b"GE /api/agent/health HTTP/1.1" + tail, BAD),
            "method of 21 letters": (b"A" * 21 + b" /api/agent/health HTTP/1.1" + tail, BAD),
            "method with a comma": (b"GET,HEAD /api/agent/health HTTP/1.1" + tail, BAD),
            "method with a zero byte": (b"GET\0 /api/agent/health HTTP/1.1" + tail, BAD),
            "two blanks": (b"GET  /api/agent/health HTTP/1.1" + tail, BAD),
            "a tab": (b"GET\t/api/agent/health\tHTTP/1.1" + tail, BAD),
            "blank at its end": (b"GET /api/agent/health HTTP/1.1 " + tail, BAD),
            "blank before it": (b" GET /api/agent/health HTTP/1.1" + tail, BAD),
            "two targets": (b"GET /api/agent/health /x HTTP/1.1" + tail, BAD),
            "line feed alone": (b"GET /api/agent/health HTTP/1.1\nHost: a\n\n", BAD),
            "line feed in it": (b"GET /api/agent/health HTTP/1.1\nX: y" + tail, BAD),
            "return alone in it": (b"GET /api/agent/\rhealth HTTP/1.1" + tail, BAD),
            "longest that is taken, and a byte": (b"GET /" + b"a" * 4081 + b" HTTP/1.1" + tail, LINE),
            "long without an end": (b"GET /" + b"a" * 70_000, LINE),
            "of a megabyte": (b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1" + tail, LINE),
        },
    )
    yield from _all(
        "line",
        {
            "an end before it": (b"\r\n" + get(), OK),
            "unknown method": (get(method="FROB"), METHOD),
            "TRACE": (get(method="TRACE"), METHOD),
            "DELETE": (get(method="DELETE"), METHOD),
            "longest that is taken": (b"GET /" + b"a" * 4080 + b" HTTP/1.1" + tail, NOT_FOUND),
        },
        stays=True,
    )
    yield Probe("line: HEAD", lambda _: get(method="HEAD"), (OK,), stays=True, head_only=True)
    yield Probe("line: CONNECT", lambda _: get("localhost:80", method="CONNECT"), (NOT_FOUND,))


def _targets() -> Iterator[Probe]:
    yield from _all(
        "target",
        {
            "with a zero byte": (b"GET /api/agent/health\0 HTTP/1.1\r\n" + HOST + b"\r\n", BAD),
            "in UTF-8": (get("/api/agent/h\u00e9alth"), BAD),
            "in Latin-1": (b"GET /api/agent/h\xe9alth HTTP/1.1\r\n" + HOST + b"\r\n", BAD),
            "a star": (get("*"), BAD),
            "an authority": (get("localhost:80"), BAD),
            "without a slash": (get("api/agent/health"), BAD),
            "a bad address": (get("http://[::1/api/agent/health"), BAD),
        },
    )
    yield from _all(
        "target",
        {
            "whole address": (get(f"http://localhost{HEALTH}"), OK),
            "whole address of another": (get(f"http://example.org{HEALTH}"), OK),
            "encoded": (get("/api/agent/%68ealth"), OK),
            "encoded slash": (get("/api%2Fagent/health"), OK),
            "encoded zero byte": (get("/api/agent/health%00"), NOT_FOUND),
            "encoded line end": (get("/api/agent/health%0d%0aX:%20y"), NOT_FOUND),
            "broken encoding": (get("/api/agent/%zz"), NOT_FOUND),
            "two slashes": (get(f"/{JOBS}"), UNSIGNED),
            "climbing": (get("/api/agent/../../etc/passwd"), NOT_FOUND),
            "with a fragment": (get(f"{HEALTH}#x"), OK),
            "root": (get("/nowhere"), NOT_FOUND),
        },
        stays=True,
    )
    yield Probe("target: signed, whole address", _elsewhere(signed("GET", JOBS)), (OK,), stays=True)


def _elsewhere(build: Callable[[RunningService], bytes]) -> Callable[[RunningService], bytes]:
    """Return what makes a request whose target is a whole address; what is signed is its path."""
    return lambda service: build(service).replace(b"GET ", b"GET http://localhost", 1)


def _versions() -> Iterator[Probe]:
    yield from _all(
        "version",
        {
            "0.9": (b"GET /api/agent/health\r\n\r\n", BAD),
            "HTTP/0.9": (get(version="0.9"), BAD),
            "HTTP/2.0": (get(version="2.0"), BAD),
            "HTTP/3": (get(version="3"), BAD),
            "HTTP/1.10": (get(version="1.10"), BAD),
            "HTTP/01.1": (get(version="01.1"), BAD),
            "HTTP/1.1 in small letters": (b"GET /api/agent/health http/1.1\r\n" + HOST + b"\r\n", BAD),
            "ICY/1.1": (b"GET /api/agent/health ICY/1.1\r\n" + HOST + b"\r\n", BAD),
            "1.0": (get(version="1.0"), OK),
            "1.0 without a host": (get(version="1.0", host=b""), OK),
            "1.0 with chunks": (post("Transfer-Encoding: chunked", b"0\r\n\r\n", version="1.0"), FRAMING),
        },
    )
    kept = {
        "1.0 kept": (get(HEALTH, "Connection: keep-alive", version="1.0"), OK),
        "1.2": (get(version="1.2"), OK),
    }
    yield from _all("version", kept, stays=True)


def _headers() -> Iterator[Probe]:
    yield from _all(
        "header",
        {
            "no host": (get(host=b""), BAD),
            "two hosts": (get(host=HOST + HOST), BAD),
            "host with a zero byte": (get(host=b"Host: a\0b\r\n"), BAD),
            "two content types": (get(HEALTH, "Content-Type: a/b", "Content-Type: a/b"), BAD),
            "folded": (get(HEALTH, "X-A: b", " c"), BAD),
            "folded with a tab": (get(HEALTH, "X-A: b", "\tc"), BAD),
            "folded first": (get(host=b" a: b\r\n"), BAD),
            "blank before the colon": (get(HEALTH, "X-A : b"), BAD),
            "tab before the colon": (get(HEALTH, "X-A\t: b"), BAD),
            "no name": (get(HEALTH, ": b"), BAD),
            "no colon": (get(HEALTH, "X-A"), BAD),
            "name with a blank": (get(HEALTH, "X A: b"), BAD),
            "name with a bracket": (get(HEALTH, "X[A]: b"), BAD),
            "name not ASCII": (get(HEALTH, "X-\xe9: b"), BAD),
            "name with a zero byte": (get(HEALTH, "X\0A: b"), BAD),
            "value with a zero byte": (get(HEALTH, "X-A: b\0c"), BAD),
            "value with a return": (get(HEALTH, "X-A: b\rc"), BAD),
            "value with a line feed": (get(HEALTH, "X-A: b\nX-B: c"), BAD),
            "value with an escape": (get(HEALTH, "X-A: \x1b[2J"), BAD),
            "value with DEL": (get(HEALTH, "X-A: \x7f"), BAD),
            "line feeds for ends": (b"GET /api/agent/health HTTP/1.1\r\nHost: a\n\r\n\r\n", BAD),
            "65 of them": (get(HEALTH, *["X-A: b"] * 64), HEADERS),
            "thousands of them": (get(HEALTH, *["X-A: b"] * 9000), HEADERS),
            "one of 8,191": (get(HEALTH, "X-A: " + "b" * 8184), HEADERS),
            "one of a megabyte": (get(HEALTH, "X-A: " + "b" * (1 << 20)), HEADERS),
            "all of 64 KB": (get(HEALTH, *["X-A: " + "b" * 8000] * 9), HEADERS),
            "one without an end": (b"GET /api/agent/health HTTP/1.1\r\nX-A: " + b"b" * 70_000, HEADERS),
            "closes": (get(HEALTH, "Connection: close"), OK),
        },
    )
    yield from _all(
        "header",
        {
            "64 of them": (get(HEALTH, *["X-A: b"] * 63), OK),
            "one of 8,190": (get(HEALTH, "X-A: " + "b" * 8183), OK),
            "underscore": (get(HEALTH, "X_A: b"), OK),
            "value in Latin-1": (get(HEALTH, "X-A: \xe9"), OK),
            "empty value": (get(HEALTH, "X-A:"), OK),
            "tabs around the value": (get(HEALTH, "X-A:\tb\t"), OK),
            "no blank": (get(HEALTH, "X-A:b"), OK),
            "empty host": (get(host=b"Host:\r\n"), OK),
            "host of another": (get(host=b"Host: example.org\r\n"), OK),
            "asks for another protocol": (get(HEALTH, "Connection: Upgrade", "Upgrade: h2c"), OK),
            "asks for a web socket": (get(HEALTH, "Connection: Upgrade", "Upgrade: websocket"), BAD),
            "claims a mount": (get(HEALTH, "SCRIPT-NAME: /api"), OK),
        },
        stays=True,
    )


def _lengths() -> Iterator[Probe]:
    yield from _all(
        "length",
        {
            "two": (post("Content-Length: 3\nContent-Length: 4", b"abcd"), FRAMING),
            "twice the same": (post("Content-Length: 3\nContent-Length: 3", b"abc"), FRAMING),
            "a list": (post("Content-Length: 3, 3", b"abc"), FRAMING),
            "with a sign": (post("Content-Length: +3", b"abc"), FRAMING),
            "negative": (post("Content-Length: -1"), FRAMING),
            "hexadecimal": (post("Content-Length: 0x3", b"abc"), FRAMING),
            "a fraction": (post("Content-Length: 3.0", b"abc"), FRAMING),
            "with an underscore": (post("Content-Length: 1_0", b"abc"), FRAMING),
            "with a blank inside": (post("Content-Length: 1 0", b"abc"), FRAMING),
            "empty": (post("Content-Length:"), FRAMING),
            "a superscript": (post("Content-Length: \xb2", b"ab"), FRAMING),
            "of 5,000 digits": (post("Content-Length: " + "9" * 5000), FRAMING),
            "and chunks": (post("Content-Length: 5\nTransfer-Encoding: chunked", b"0\r\n\r\n"), FRAMING),
            "chunks and it": (post("Transfer-Encoding: chunked\nContent-Length: 5", b"0\r\n\r\n"), FRAMING),
            "of zero and chunks": (post("Content-Length: 0\nTransfer-Encoding: chunked", b"0\r\n\r\n"), FRAMING),
            "unsigned body": (post("Content-Length: 3", b"abc"), UNSIGNED),
            "unsigned body that never comes": (post("Content-Length: 300000"), UNSIGNED),
            "unsigned body of a terabyte": (post("Content-Length: 1000000000000"), UNSIGNED),
            "body where none is read": (get(HEALTH, "Content-Length: 3") + b"abc", OK),
        },
    )
    kept = {
        "none": (post(""), UNSIGNED),
        "zero": (post("Content-Length: 0"), UNSIGNED),
        "zeros before it": (post("Content-Length: 000"), UNSIGNED),
    }
    yield from _all("length", kept, stays=True)
    form = image_form(good_png())
    length = f"Content-Length: {len(form)}"
    yield Probe("length: signed", signed("POST", GENERATE, length, content=form), (TAKEN,), stays=True)
    yield Probe("length: signed, other body", signed("POST", GENERATE, length, content=form, body=form[:-1] + b"?"),
                (MISMATCH,), stays=True)  # fmt: skip
    for name, sent in (("a byte short", form[:-1]), ("half", form[: len(form) // 2]), ("nothing", b"")):
        yield Probe(
            f"length: {name} and an end",
            signed("POST", GENERATE, length, content=form, body=sent),
            (FRAMING,),
            ends=True,
        )
    yield Probe("length: signed, too large", signed("POST", GENERATE, "Content-Length: 900000000"), (LARGE,))
    yield Probe("length: signed, endless", signed("POST", GENERATE, "Content-Length: 1" + "0" * 3000), (LARGE,))


def _chunks() -> Iterator[Probe]:
    yield from _all(
        "coding",
        {
            "gzip, chunked": (post("Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"), CODING),
            "gzip and chunked in two headers": (post("Transfer-Encoding: gzip\nTransfer-Encoding: chunked"), CODING),
            "identity, chunked": (post("Transfer-Encoding: identity, chunked"), CODING),
            "identity and chunked in two headers": (
                post("Transfer-Encoding: identity\nTransfer-Encoding: chunked"),
                CODING,
            ),
            "deflate, chunked": (post("Transfer-Encoding: deflate, chunked"), CODING),
            "unknown": (post("Transfer-Encoding: xchunked"), CODING),
            "unknown before it": (post("Transfer-Encoding: rot13, chunked"), CODING),
            "with a parameter": (post("Transfer-Encoding: chunked;q=1"), CODING),
            "in quotes": (post('Transfer-Encoding: "chunked"'), CODING),
            "with a zero byte": (post("Transfer-Encoding: chunked\0"), BAD),
            "with a vertical tab": (post("Transfer-Encoding: \x0bchunked"), BAD),
            "empty": (post("Transfer-Encoding:"), CODING),
            "gzip alone": (post("Transfer-Encoding: gzip"), FRAMING),
            "identity alone": (post("Transfer-Encoding: identity"), FRAMING),
            "chunked twice": (post("Transfer-Encoding: chunked, chunked"), FRAMING),
            "chunked in two headers": (post("Transfer-Encoding: chunked\nTransfer-Encoding: chunked"), FRAMING),
            "chunked, gzip": (post("Transfer-Encoding: chunked, gzip"), FRAMING),
            "chunked, identity": (post("Transfer-Encoding: chunked, identity"), FRAMING),
            "hidden by an underscore": (post("Transfer_Encoding: chunked\nContent-Length: 5", b"0\r\n\r\n"), UNSIGNED),
            "hidden by a blank": (post("Transfer-Encoding : chunked\nContent-Length: 5", b"0\r\n\r\n"), BAD),
            "unsigned chunks": (post("Transfer-Encoding: chunked", b"0\r\n\r\n"), UNSIGNED),
            "unsigned rubbish for chunks": (post("Transfer-Encoding: chunked", b"rubbish"), UNSIGNED),
        },
    )
    form = image_form(good_png())
    middle = len(form) // 2
    sound = {
        "one": chunks(form),
        "two": chunks(form[:middle], form[middle:]),
        "of a byte each": chunks(*(form[k : k + 1] for k in range(len(form)))),
        "upper-case size": chunks(form[:-10]) [:-5] + b"A\r\n" + form[-10:] + b"\r\n0\r\n\r\n",
        "zeros before the size": b"0000" + chunks(form),
        "extension": b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(form), form),
        "extension in quotes": b'%x;a="b;c"\r\n%s\r\n0\r\n\r\n' % (len(form), form),
        "trailer": chunks(form, end=b"0\r\nX-A: b\r\n\r\n"),
    }  # fmt: skip
    for name, body in sound.items():
        yield Probe(f"chunks: {name}", _chunked(form, body), (TAKEN,), stays=True)
    whole = chunks(form)[:-5]
    broken = {
        "no size": b"\r\n" + form,
        "size that is no number": b"xyz\r\n" + form,
        "negative size": b"-1\r\n" + form,
        "size with 0x": b"0x5\r\nabcde\r\n0\r\n\r\n",
        "size with an underscore": b"1_0\r\n" + form,
        "size with a blank before it": b" 5\r\nabcde\r\n0\r\n\r\n",
        "size with a blank behind it": b"5 \r\nabcde\r\n0\r\n\r\n",
        "size larger than its chunk": b"6\r\nabcde\r\n0\r\n\r\n",
        "size smaller than its chunk": b"4\r\nabcde\r\n0\r\n\r\n",
        "line feed for an end": b"5\nabcde\n0\n\n" + b"x" * 9000,
        "size line of 70,000 bytes": b"5;a=" + b"b" * 70_000 + b"\r\nabcde\r\n0\r\n\r\n",
        "extension with a zero byte": b"5;a=\0\r\nabcde\r\n0\r\n\r\n",
        "extension with a return": b"5;a=\rb\r\nabcde\r\n0\r\n\r\n",
        "trailer that is a length": whole + b"0\r\nContent-Length: 5\r\n\r\n",
        "trailer that is a coding": whole + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "trailer without a colon": whole + b"0\r\nrubbish\r\n\r\n",
        "trailer with a line feed": whole + b"0\r\nX-A: b\nX-B: c\r\n\r\n",
        "100 trailers": whole + b"0\r\n" + b"X-A: b\r\n" * 100 + b"\r\n",
        "trailers of a megabyte": whole + b"0\r\n" + b"X-A: b\r\n" * 130_000 + b"\r\n",
        "extensions of five megabytes": (b"1;a=" + b"b" * 8000 + b"\r\nx\r\n") * 650,
    }
    for name, body in broken.items():
        yield Probe(f"chunks: {name}", _chunked(form, body), (FRAMING,))
    cut = {
        "no last chunk": whole,
        "cut in a chunk": whole[:-9],
        "cut in a size": b"1",
        "no end of trailers": whole + b"0\r\n",
    }
    for name, body in cut.items():
        yield Probe(f"chunks: {name} and an end", _chunked(form, body), (FRAMING,), ends=True)
    yield Probe("chunks: another body", _chunked(form, chunks(form + b"?")), (MISMATCH,), stays=True)


def _chunked(content: bytes, body: bytes) -> Callable[[RunningService], bytes]:
    return signed("POST", GENERATE, "Transfer-Encoding: chunked", content=content, body=body)


def _expectations() -> Iterator[Probe]:
    yield from _all(
        "expect",
        {
            "something else": (get(HEALTH, "Expect: 200-ok"), EXPECT),
            "both": (get(HEALTH, "Expect: 100-continue, 200-ok"), EXPECT),
            "nothing": (get(HEALTH, "Expect:"), EXPECT),
            "unsigned": (post("Expect: 100-continue\nContent-Length: 300000"), UNSIGNED),
            "unsigned, in chunks": (post("Expect: 100-continue\nTransfer-Encoding: chunked"), UNSIGNED),
        },
    )
    yield from _all("expect", {"no body": (get(HEALTH, "Expect: 100-continue"), OK)}, stays=True)
    form = image_form(good_png())
    length, expects = f"Content-Length: {len(form)}", "Expect: 100-continue"
    capitals = "EXPECT: 100-Continue"
    yield Probe("expect: wrong signature", signed("POST", GENERATE, length, expects, wrong=True), (INVALID,))
    yield Probe("expect: too large", signed("POST", GENERATE, "Content-Length: 900000000", expects), (LARGE,))
    for name, line in (("signed", expects), ("in capitals", capitals)):
        yield Probe(
            f"expect: {name}", signed("POST", GENERATE, length, line, content=form), (CONTINUE, TAKEN), stays=True
        )


def _pipelines() -> Iterator[Probe]:
    inner = get(JOBS)
    yield Probe("pipeline: two", lambda _: get() + get(JOBS), (OK, UNSIGNED), stays=True)
    yield Probe("pipeline: fifty", lambda _: get() * 50, (OK,) * 50, stays=True)
    yield Probe("pipeline: ends within", lambda _: get() + get(HEALTH, "Connection: close") + get(), (OK, OK))
    yield Probe("pipeline: rubbish behind", lambda _: get() + b"\0rubbish", (OK, BAD))
    yield Probe("pipeline: an end behind", lambda _: get() + b"\r\n" + get(), (OK, OK), stays=True)
    yield Probe("pipeline: bad framing behind", lambda _: get() + post("Content-Length: x"), (OK, FRAMING))
    yield Probe(
        "pipeline: behind an unsigned body", lambda _: post(f"Content-Length: {len(inner)}", inner) + get(), (UNSIGNED,)
    )
    yield Probe(
        "pipeline: behind a body nobody reads", lambda _: get(HEALTH, "Content-Length: 3") + b"abc" + get(), (OK,)
    )
    yield Probe(
        "pipeline: behind an unsigned chunk",
        lambda _: post("Transfer-Encoding: chunked", b"0\r\n\r\n") + get(),
        (UNSIGNED,),
    )
    yield Probe(
        "pipeline: hidden behind two lengths",
        lambda _: post(f"Content-Length: 0\nContent-Length: {len(inner)}", inner),
        (FRAMING,),
    )
    yield Probe(
        "pipeline: hidden behind length and chunks",
        lambda _: post("Content-Length: 6\nTransfer-Encoding: chunked", b"0\r\n\r\nG"),
        (FRAMING,),
    )
    yield Probe("pipeline: behind no length", lambda _: post("") + get(), (UNSIGNED, OK), stays=True)
    form = image_form(good_png())
    length = f"Content-Length: {len(form)}"
    yield Probe(
        "pipeline: behind a signed body",
        _then(signed("POST", GENERATE, length, content=form), get()),
        (TAKEN, OK),
        stays=True,
    )
    yield Probe("pipeline: behind signed chunks", _then(_chunked(form, chunks(form)), get()), (TAKEN, OK), stays=True)
    yield Probe(
        "pipeline: inside a signed body",
        signed("GET", JOBS, f"Content-Length: {len(inner)}", content=inner),
        (OK,),
        stays=True,
    )


def _then(first: Callable[[RunningService], bytes], more: bytes) -> Callable[[RunningService], bytes]:
    return lambda service: first(service) + more


def _ends() -> Iterator[Probe]:
    yield Probe("end: nothing", lambda _: b"", (), ends=True)
    yield Probe("end: a blank line", lambda _: b"\r\n", (FRAMING,), ends=True)
    yield Probe("end: half a line", lambda _: b"GET /api", (FRAMING,), ends=True)
    yield Probe("end: half a head", lambda _: get()[:-2], (FRAMING,), ends=True)
    yield Probe("end: a return", lambda _: get()[:-1], (FRAMING,), ends=True)
    yield Probe("end: whole request", lambda _: get(), (OK,), ends=True)
    yield Probe("end: two whole requests", lambda _: get() * 2, (OK, OK), ends=True)
    yield Probe("end: a request and a half", lambda _: get() + get()[:20], (OK, FRAMING), ends=True)
    yield Probe("end: unsigned body", lambda _: post("Content-Length: 9", b"abc"), (UNSIGNED,), ends=True)
