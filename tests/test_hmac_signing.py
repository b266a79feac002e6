"""Signatures: the known answer, and that nothing signed can be changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backend.auth.hmac_signing import SignedRequest, read_signed_request, sign_request, signature_matches
from backend.errors import AuthInvalid, AuthMissing, InvalidParameter
from orfeas_client.signing import EMPTY_DIGEST, digest_body, hmac_hex

KEY = "test-key-0123456789abcdef"
KNOWN_SIGNATURE = "20acd918990406a3a1641c7861a12405faecec7c93f4180d20c999aa82587605"
KNOWN_DIGEST = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


@dataclass(frozen=True)
class Sent:
    """A request on the wire, part by part."""

    method: str = "POST"
    path: str = "/api/agent/batch"
    query: str = "x=1&a=%20b"
    agent_id: str = "agent-7"
    timestamp: str = "1760000000"
    nonce: str = "n-00000001"
    body_digest: str = KNOWN_DIGEST
    signature: str = KNOWN_SIGNATURE

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def headers(self) -> dict[str, str]:
        return {
            "X-Agent-ID": self.agent_id,
            "X-Agent-Timestamp": self.timestamp,
            "X-Agent-Nonce": self.nonce,
            "X-Agent-Content-SHA256": self.body_digest,
            "X-Agent-Signature": self.signature,
        }

    def read(self) -> SignedRequest:
        return read_signed_request(self.method, self.target, self.headers.get)

    def signed(self) -> Sent:
        signature = sign_request(
            KEY,
            self.method,
            self.path,
            self.query,
            self.agent_id,
            int(self.timestamp),
            self.nonce,
            self.body_digest,
        )
        return replace(self, signature=signature)


def is_accepted(sent: Sent) -> bool:
    try:
        return signature_matches(sent.read(), [KEY])
    except (AuthMissing, AuthInvalid):
        return False


def test_known_answer_of_the_contract() -> None:
    assert digest_body(b"hello") == KNOWN_DIGEST
    assert Sent().signed().signature == KNOWN_SIGNATURE
    assert Sent().read().text.decode().split("\n") == [
        "v1",
        "POST",
        "/api/agent/batch",
        "x=1&a=%20b",
        "agent-7",
        "1760000000",
        "n-00000001",
        KNOWN_DIGEST,
    ]
    assert is_accepted(Sent())


def test_request_without_body_and_query_signs_empty_ones() -> None:
    sent = Sent(method="GET", path="/api/agent/jobs", query="", body_digest=EMPTY_DIGEST).signed()
    assert sent.read().text.split(b"\n")[3] == b""
    assert is_accepted(sent)


_url_text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?#"), max_size=30)
_token = st.text("ABCxyz019._-", min_size=8, max_size=20)
_requests = st.builds(
    Sent,
    method=st.sampled_from(["GET", "POST", "DELETE", "PUT"]),
    path=_url_text.map(lambda text: "/" + text),
    query=_url_text,
    agent_id=_token.map(lambda text: "a" + text),
    timestamp=st.integers(0, 10**12 - 1).map(str),
    nonce=_token,
    body_digest=st.binary(max_size=16).map(digest_body),
)
_CHARACTERS = st.characters(min_codepoint=0x20, max_codepoint=0x17F, exclude_characters="?")
PARTS = ("method", "path", "query", "agent_id", "timestamp", "nonce", "body_digest", "signature")


@st.composite
def _changes(draw: st.DrawFn) -> tuple[Sent, Sent]:
    """Draw a signed request, and the same with one part changed: a little, in its letter case, or altogether."""
    sent = draw(_requests).signed()
    part = draw(st.sampled_from(PARTS))
    value: str = getattr(sent, part)
    index = draw(st.integers(0, max(0, len(value) - 1)))
    way = draw(st.sampled_from(["replace", "insert", "delete", "cut", "case", "twice", "other"]))
    character = draw(_CHARACTERS) if way in ("replace", "insert") else ""
    ways: dict[str, Callable[[], str]] = {
        "replace": lambda: value[:index] + character + value[index + 1 :],
        "insert": lambda: value[:index] + character + value[index:],
        "delete": lambda: value[:index] + value[index + 1 :],
        "cut": lambda: value[:index],
        "case": value.swapcase,
        "twice": lambda: value + value,
        "other": lambda: getattr(draw(_requests).signed(), part),
    }
    changed = ways[way]()
    # A path begins with a slash; what does not is a target of another form, for the same path.
    return sent, replace(sent, **{part: "/" + changed.lstrip("/") if part == "path" else changed})


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, derandomize=True)
@given(_changes())
def test_any_change_of_any_signed_part_is_refused(change: tuple[Sent, Sent]) -> None:
    sent, changed = change
    assume(changed != sent)
    assert is_accepted(sent)
    assert not is_accepted(changed)


@pytest.mark.parametrize("parts", [("path", "query"), ("query", "agent_id"), ("agent_id", "nonce")])
def test_text_cannot_move_from_one_part_to_the_next(parts: tuple[str, str]) -> None:
    first, second = parts
    sent = Sent()
    moved = getattr(sent, first) + "\n" + getattr(sent, second)
    assert not is_accepted(replace(sent, **{first: moved, second: ""}))
    assert not is_accepted(replace(sent, **{first: "/" if first == "path" else "", second: moved}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Agent-ID", ""),
        ("X-Agent-ID", "agent 7"),
        ("X-Agent-ID", "agent/7"),
        ("X-Agent-ID", "agent-7,agent-7"),
        ("X-Agent-ID", "a" * 65),
        ("X-Agent-ID", "agent-7\n"),
        ("X-Agent-Timestamp", "now"),
        ("X-Agent-Timestamp", "-1"),
        ("X-Agent-Timestamp", "+1760000000"),
        ("X-Agent-Timestamp", "1760000000.5"),
        ("X-Agent-Timestamp", "٣٤٥"),
        ("X-Agent-Timestamp", "1" * 13),
        ("X-Agent-Nonce", "short"),
        ("X-Agent-Nonce", "n" * 129),
        ("X-Agent-Nonce", "n-0000/0001"),
        ("X-Agent-Content-SHA256", KNOWN_DIGEST.upper()),
        ("X-Agent-Content-SHA256", KNOWN_DIGEST[:-1]),
        ("X-Agent-Signature", KNOWN_SIGNATURE.upper()),
        ("X-Agent-Signature", "g" * 64),
    ],
)
def test_malformed_header_is_named(name: str, value: str) -> None:
    headers = {**Sent().headers, name: value}
    with pytest.raises(AuthMissing) as raised:
        read_signed_request("POST", Sent().target, headers.get)
    assert raised.value.details == {"header": name}


@pytest.mark.parametrize("name", list(Sent().headers))
def test_missing_header_is_named(name: str) -> None:
    headers = {key: value for key, value in Sent().headers.items() if key != name}
    with pytest.raises(AuthMissing, match=f"The header {name} is missing"):
        read_signed_request("POST", Sent().target, headers.get)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a?b", "/a", "b"),
        ("/a", "/a", ""),
        ("/a?", "/a", ""),
        ("/a?b?c", "/a", "b?c"),
        ("//host/a?b", "//host/a", "b"),
        ("http://host:1/a?b", "/a", "b"),
        ("http://host?b", "", "b"),
        ("/x?u=http://host/a", "/x", "u=http://host/a"),
    ],
)
def test_target_is_parted_at_its_first_question_mark(target: str, path: str, query: str) -> None:
    signed = read_signed_request("POST", target, Sent().headers.get)
    assert (signed.path, signed.query) == (path, query)


@pytest.mark.parametrize("target", ["/a\nb", "/a b", "/a\x00", "/a?\r"])
def test_target_with_control_characters_is_refused(target: str) -> None:
    with pytest.raises(AuthInvalid):
        read_signed_request("POST", target, Sent().headers.get)


def test_bytes_of_a_target_that_are_not_utf8_are_signed_as_they_are() -> None:
    target = b"/caf\xe9".decode("utf-8", "surrogateescape")
    assert b"/caf\xe9\n" in read_signed_request("GET", target, Sent().headers.get).text


def test_every_key_is_tried_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    made = hmac_hex

    def recorded(key: str, text: bytes) -> str:
        tried.append(key)
        return made(key, text)

    monkeypatch.setattr("backend.auth.hmac_signing.hmac_hex", recorded)
    assert signature_matches(Sent().read(), [KEY, "b" * 24, "c" * 24])
    assert tried == [KEY, "b" * 24, "c" * 24]


def test_no_key_matches_nothing() -> None:
    assert not signature_matches(Sent().read(), [])


@pytest.mark.parametrize(
    ("part", "value"), [("nonce", "short"), ("path", "/a b"), ("query", "a\nb"), ("body_digest", "x"), ("agent_id", "")]
)
def test_client_is_told_what_it_cannot_sign(part: str, value: str) -> None:
    with pytest.raises(InvalidParameter):
        replace(Sent(), **{part: value}).signed()
