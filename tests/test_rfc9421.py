"""RFC 9421: its own vector, a library as the client, refusals as for the first scheme, and nothing can be changed."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from http_message_signatures import HTTPMessageSigner
from http_message_signatures.algorithms import HMAC_SHA256
from http_message_signatures.resolvers import MappingKeyResolver
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from backend.agent_auth import verify
from backend.auth.agents import MAX_KEYS, AgentConfig
from backend.auth.hmac_signing import SignedRequest, signature_matches
from backend.auth.rfc9421 import Message, MessageSignature, read_message_signature, signature_base
from backend.errors import AuthInvalid, AuthMissing
from orfeas_client.signing import digest_body, hmac_hex
from tests.support.guarded_service import AGENT, FAULTS, KEY, NOW, PAIRS, Service, Zeros, answer, set_up_faults

WHOLE = ("@method", "@target-uri")
OTHER_KEY = "another-key-0123456789abcdef"


@dataclass
class Sent:
    """A request as the library sees it, and as it goes over the wire; url : absolute."""

    method: str = "POST"
    url: str = "http://localhost/generate"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def sign(
        self,
        components: Sequence[str] = WHOLE,
        *,
        agent_id: str = "a1",
        key: str = KEY,
        nonce: str | None = "nonce-000001",
        created: float = NOW,
        **options: Any,
    ) -> Sent:
        keys = {agent_id: key.encode()}
        signer = HTTPMessageSigner(
            signature_algorithm=HMAC_SHA256, key_resolver=MappingKeyResolver(public_keys=keys, private_keys=keys)
        )
        signer.sign(
            self,
            key_id=agent_id,
            created=datetime.fromtimestamp(created, UTC),
            nonce=nonce,
            covered_component_ids=components,
            **{"body": self.body or None, **options},
        )
        return self

    def to(self, service: Service, body: bytes | None = None, **options: Any) -> TestResponse:
        scheme, _, rest = self.url.partition("://")
        host, slash, target = rest.partition("/")
        return service.client.open(
            slash + target,
            base_url=f"{scheme}://{host}",
            method=self.method,
            data=self.body if body is None else body,
            headers=self.headers,
            **options,
        )

    def read(self) -> MessageSignature:
        """Return what the service makes of it."""
        scheme, _, rest = self.url.partition("://")
        host, slash, target = rest.partition("/")
        headers = {"host": host, **{name.lower(): value for name, value in self.headers.items()}}
        return read_message_signature(
            Message(self.method, slash + target, scheme, bool(self.body), lambda name: headers.get(name.lower()))
        )

    def is_accepted(self) -> bool:
        try:
            return signature_matches(self.read(), [KEY])
        except (AuthMissing, AuthInvalid):
            return False


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def refusal(sent: Sent) -> str:
    with pytest.raises(AuthMissing) as refused:
        sent.read()
    return refused.value.message


def test_known_answer_of_the_standard() -> None:
    """RFC 9421, appendix B.2.5."""
    headers = {"date": "Tue, 20 Apr 2021 02:07:55 GMT", "host": "example.com", "content-type": "application/json"}
    message = Message("POST", "/foo?param=Value&Pet=dog", "https", True, lambda name: headers.get(name.lower()))
    text = signature_base(
        message, ["date", "@authority", "content-type"], {"created": 1618884473, "keyid": "test-shared-secret"}
    )
    assert text.decode().split("\n") == [
        '"date": Tue, 20 Apr 2021 02:07:55 GMT',
        '"@authority": example.com',
        '"content-type": application/json',
        '"@signature-params": ("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"',
    ]
    key = base64.b64decode("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==")
    signature = hmac.new(key, text, hashlib.sha256).digest()
    assert base64.b64encode(signature) == b"pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8="


def test_request_signed_by_a_library_reaches_the_view_with_its_body(service: Service) -> None:
    response = Sent(body=b"hello").sign().to(service)
    assert response.status_code == 200
    assert response.get_json() == {"agent": "a1", "body": "hello", "size": 5, "digest": digest_body(b"hello")}


@pytest.mark.parametrize(
    "components",
    [
        ("@method", "@target-uri"),
        ("@method", "@request-target"),
        ("@method", "@path", "@query"),
        ("@query", "@authority", "@scheme", "@path", "@method", "host", "x-colour", "content-type", "@target-uri"),
    ],
)
@pytest.mark.parametrize("query", ["", "?", "?x=1&a=%20b&%C3%A9=%2F"])
def test_request_may_be_covered_in_several_ways(service: Service, components: tuple[str, ...], query: str) -> None:
    headers = {"Host": "localhost:8080", "X-Colour": " deep\tblue ", "Content-Type": "text/plain"}
    sent = Sent(url=f"http://localhost:8080/status/a%2Fb{query}", method="GET", headers=headers)
    assert sent.sign(components).to(service).status_code == 200


def test_what_need_not_be_there_may_be_left_out_or_given(service: Service) -> None:
    assert Sent().sign(nonce="nonce-1-bare", include_alg=False).to(service).status_code == 200
    sent = Sent().sign(nonce="nonce-2-full", tag="orfeas", label="mine", expires=datetime.fromtimestamp(NOW + 9, UTC))
    assert sent.to(service).status_code == 200


def test_every_accepted_key_signs_and_no_other(service: Service) -> None:
    assert Sent().sign(key=AGENT.api_keys[1]).to(service).status_code == 200
    assert answer(Sent().sign(key=OTHER_KEY).to(service)) == (401, "AUTH_INVALID")


def faulty_call(service: Service, faults: set[str]) -> TestResponse:
    """Return a request that is wrong in each of these ways at once."""
    set_up_faults(service, faults)
    sent = Sent(body=b"hello").sign(
        key=OTHER_KEY if "invalid" in faults else KEY,
        nonce="nonce-seen" if "replayed" in faults else "nonce-first" if not faults else "nonce-second",
        created=NOW - 301 if "expired" in faults else NOW,
    )
    if "missing" in faults:
        del sent.headers["Content-Digest"]
    return sent.to(service, body=b"hallo" if "body" in faults else None)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_status_and_code(service: Service, fault: str) -> None:
    assert faulty_call(service, set()).status_code == 200
    assert answer(faulty_call(service, {fault})) == FAULTS[fault]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_of_two_faults_the_earlier_one_is_answered(service: Service, first: str, second: str) -> None:
    assert answer(faulty_call(service, {first, second})) == FAULTS[first]


def test_unknown_agent_is_answered_like_a_wrong_signature(service: Service) -> None:
    unknown, wrong = Sent().sign(agent_id="a2").to(service), Sent().sign(key=OTHER_KEY).to(service)
    assert answer(unknown) == answer(wrong) == (401, "AUTH_INVALID")
    assert unknown.data == wrong.data


def test_a_wrong_signature_is_shown_what_it_covers_and_no_value(service: Service) -> None:
    sent = Sent(url="http://localhost/status/x?a=sesame", method="GET", headers={"X-Colour": "sesame"})
    response = sent.sign(("@method", "@target-uri", "x-colour"), key=OTHER_KEY).to(service)
    assert answer(response) == (401, "AUTH_INVALID")
    assert response.get_json()["details"] == {"components": ["@method", "@target-uri", "x-colour"]}
    assert b"sesame" not in response.data


@pytest.mark.parametrize("agent", [None, replace(AGENT, api_keys=(KEY,)), AGENT])
def test_unknown_agent_costs_as_many_comparisons(agent: AgentConfig | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = hmac_hex

    def counted(key: str, text: bytes) -> str:
        made.append(key)
        return real(key, text)

    monkeypatch.setattr("backend.auth.hmac_signing.hmac_hex", counted)
    signed = Sent().sign(key=OTHER_KEY).read()
    with pytest.raises(AuthInvalid):
        verify(signed, agent, datetime.fromtimestamp(NOW, UTC), 300, ["dummy-key-0123456789abcdef"] * MAX_KEYS)
    assert len(made) == MAX_KEYS


@pytest.mark.parametrize(("off", "expected"), [(-300, 200), (300, 200), (-301, 401), (301, 401)])
def test_created_may_be_five_minutes_off(service: Service, off: int, expected: int) -> None:
    assert Sent().sign(created=NOW + off).to(service).status_code == expected


def test_signature_s_own_end_holds(service: Service) -> None:
    def expiring(seconds: int) -> TestResponse:
        sent = Sent().sign(nonce=f"nonce-{seconds:03d}", expires=datetime.fromtimestamp(NOW + seconds, UTC))
        return sent.to(service)

    assert expiring(0).status_code == 200
    service.now += 1
    assert answer(expiring(0)) == (401, "AUTH_EXPIRED")
    # It makes no signature live longer than others.
    service.now += 300
    assert answer(expiring(900)) == (401, "AUTH_EXPIRED")


def test_nonce_of_one_scheme_is_used_in_the_other(service: Service) -> None:
    assert service.call(nonce="nonce-first").status_code == 200
    assert answer(Sent().sign(nonce="nonce-first").to(service)) == (401, "AUTH_REPLAYED")
    assert Sent().sign(nonce="nonce-second").to(service).status_code == 200
    assert answer(service.call(nonce="nonce-second")) == (401, "AUTH_REPLAYED")


def test_request_signed_twice_is_refused_whichever_is_right(service: Service) -> None:
    sent = Sent().sign()
    both = {**service.headers("POST", "/generate"), **sent.headers}
    assert answer(replace(sent, headers=both).to(service)) == (401, "AUTH_MISSING")
    for name in ("Signature", "Signature-Input"):
        left = {key: value for key, value in both.items() if key != name}
        assert answer(replace(sent, headers=left).to(service)) == (401, "AUTH_MISSING")


@pytest.mark.parametrize("name", ["Signature", "Signature-Input"])
def test_half_a_signature_is_missing_the_other(service: Service, name: str) -> None:
    sent = Sent().sign()
    del sent.headers[name]
    response = sent.to(service)
    assert answer(response) == (401, "AUTH_MISSING")
    assert response.get_json()["error"] == f"The header {name} is missing."


SIGNATURE = f"s=:{base64.b64encode(bytes(32)).decode()}:"
PARAMETERS = f'created={NOW};keyid="a1";nonce="nonce-000001"'
COVERED = '"@method" "@target-uri"'


@pytest.mark.parametrize(
    ("covered", "parameters", "why"),
    [
        ('"@method"', PARAMETERS, "@target-uri or @request-target"),
        ('"@method" "@path"', PARAMETERS, "@target-uri or @request-target"),
        ('"@method" "@query"', PARAMETERS, "@target-uri or @request-target"),
        ('"@target-uri"', PARAMETERS, "@method"),
        ("", PARAMETERS, "@method"),
        (f'{COVERED} "@method"', PARAMETERS, "covered twice"),
        (f'{COVERED} "@query-param";name="x"', PARAMETERS, "must be one of"),
        (f'{COVERED} "@method";req', PARAMETERS, "must be one of"),
        (f'{COVERED} "content-digest";sf', PARAMETERS, "must be one of"),
        (f'{COVERED} "@status"', PARAMETERS, "must be one of"),
        (f'{COVERED} "@signature-params"', PARAMETERS, "must be one of"),
        (f'{COVERED} "Date"', PARAMETERS, "must be one of"),
        (f'{COVERED} "x_y"', PARAMETERS, "must be one of"),
        (f'{COVERED} "signature"', PARAMETERS, "must be one of"),
        (f'{COVERED} "signature-input"', PARAMETERS, "must be one of"),
        (f"{COVERED} date", PARAMETERS, "must be one of"),
        (f"{COVERED} 7", PARAMETERS, "must be one of"),
        (f'{COVERED} "x-absent"', PARAMETERS, "The covered header x-absent is missing."),
        (f'{COVERED} "content-digest"', PARAMETERS, "The header Content-Digest is missing."),
        (" ".join([COVERED, *(f'"x-{k}"' for k in range(31))]), PARAMETERS, "more than 32 components"),
        (COVERED, 'keyid="a1";nonce="nonce-000001"', "created is missing"),
        (COVERED, f'created={NOW};nonce="nonce-000001"', "the parameter keyid"),
        (COVERED, f'created={NOW};keyid="a 1";nonce="nonce-000001"', "the parameter keyid"),
        (COVERED, f'created={NOW};keyid=a1;nonce="nonce-000001"', "the parameter keyid"),
        (COVERED, f'created={NOW};keyid="a1"', "the parameter nonce"),
        (COVERED, f'created={NOW};keyid="a1";nonce="short"', "the parameter nonce"),
        (COVERED, f'created={NOW};keyid="a1";nonce="{"n" * 129}"', "the parameter nonce"),
        (COVERED, f'created={NOW};keyid="a1";nonce="nonce/000001"', "the parameter nonce"),
        (COVERED, f'created={NOW};keyid="a1";nonce=:bm9uY2Utbm9uY2U=:', "the parameter nonce"),
        (COVERED, f'{PARAMETERS};alg="hmac-sha512"', "alg must be hmac-sha256"),
        (COVERED, f"{PARAMETERS};alg=hmac-sha256", "alg must be hmac-sha256"),
        (COVERED, f'{PARAMETERS};alg="ed25519"', "alg must be hmac-sha256"),
        (COVERED, f"{PARAMETERS};tag=orfeas", "its parameters may be"),
        (COVERED, f"{PARAMETERS};level=2", "its parameters may be"),
        (COVERED, f"{PARAMETERS};expires=soon", "the parameter expires"),
        (COVERED, f"{PARAMETERS};expires=-1", "the parameter expires"),
        (COVERED, f"{PARAMETERS};expires", "the parameter expires"),
        (COVERED, f"{PARAMETERS};created={NOW}", "no dictionary of structured fields"),
        (COVERED, f"{PARAMETERS.replace(str(NOW), '?1')}", "the parameter created"),
        (COVERED, f"{PARAMETERS.replace(str(NOW), f'@{NOW}')}", "the parameter created"),
        (COVERED, f"{PARAMETERS.replace(str(NOW), f'{NOW}.5')}", "the parameter created"),
        (COVERED, f"{PARAMETERS.replace(str(NOW), '999999999999999')}", "the parameter created"),
    ],
)
def test_malformed_input_says_what_is_wrong(covered: str, parameters: str, why: str) -> None:
    headers = {"Signature-Input": f"s=({covered});{parameters}", "Signature": SIGNATURE, "Date": "today"}
    headers |= {f"X-{k}": "" for k in range(31)}
    assert why in refusal(Sent(headers=headers))


@pytest.mark.parametrize(
    ("given", "signature", "why"),
    [
        (f"s=({COVERED});{PARAMETERS}, t=({COVERED});{PARAMETERS}", f"{SIGNATURE}, t{SIGNATURE[1:]}", "exactly one"),
        (f"s=({COVERED});{PARAMETERS}", f"{SIGNATURE}, t{SIGNATURE[1:]}", "exactly one"),
        (f"s=({COVERED});{PARAMETERS}", f"t{SIGNATURE[1:]}", "exactly one"),
        # As WSGI joins two headers of one name.
        (f"s=({COVERED});{PARAMETERS}", f"{SIGNATURE},{SIGNATURE}", "no dictionary"),
        (f"s=({COVERED});{PARAMETERS},s=({COVERED});{PARAMETERS}", SIGNATURE, "no dictionary"),
        (f"s=({COVERED});{PARAMETERS}", "s=:AAAA:", "32 bytes"),
        (f"s=({COVERED});{PARAMETERS}", f'{SIGNATURE};by="me"', "32 bytes"),
        (f"s=({COVERED});{PARAMETERS}", f's="{"0" * 32}"', "32 bytes"),
        (f"s=({COVERED});{PARAMETERS}", f"s=({SIGNATURE[2:]})", "32 bytes"),
        (f's="@method";{PARAMETERS}', SIGNATURE, "in parentheses"),
        ("s", SIGNATURE, "in parentheses"),
        (f"({COVERED});{PARAMETERS}", SIGNATURE, "no dictionary"),
        (f"s=({COVERED});{PARAMETERS};x=é", SIGNATURE, "no dictionary"),
        (f's=({COVERED});{PARAMETERS};tag="{"x" * 4096}"', SIGNATURE, "longer than 4096"),
    ],
)
def test_exactly_one_well_formed_signature_is_taken(given: str, signature: str, why: str) -> None:
    assert why in refusal(Sent(headers={"Signature-Input": given, "Signature": signature}))


def digest_field(**digests: bytes) -> str:
    return ", ".join(
        f"{name.replace('_', '-')}=:{base64.b64encode(value).decode()}:" for name, value in digests.items()
    )


SHA256, SHA512 = hashlib.sha256(b"hello").digest(), hashlib.sha512(b"hello").digest()


@pytest.mark.parametrize(
    "value",
    [
        digest_field(sha_512=SHA512),
        digest_field(sha_256=SHA256[:31]),
        digest_field(sha_256=SHA512),
        "sha-256=" + SHA256.hex(),
        f"{digest_field(sha_256=SHA256)},{digest_field(sha_256=SHA256)}",
    ],
)
def test_content_digest_must_hold_sha256_once(service: Service, value: str) -> None:
    sent = Sent(body=b"hello").sign()
    signed = replace(sent, headers={**sent.headers, "Content-Digest": value})
    response = signed.to(service)
    assert answer(response) == (401, "AUTH_MISSING")
    assert response.get_json()["error"].startswith("The header Content-Digest is malformed: ")


def test_digests_beside_sha256_are_not_looked_at(service: Service) -> None:
    sent = Sent(body=b"hello", headers={"Content-Digest": digest_field(sha_512=bytes(64), sha_256=SHA256)})
    sent.sign((*WHOLE, "content-digest"), body=None, use_existing_digest=True)
    assert sent.to(service).status_code == 200


def test_body_without_a_covered_digest_is_refused(service: Service) -> None:
    sent = Sent(body=b"hello").sign(body=None)
    sent.headers["Content-Digest"] = digest_field(sha_256=SHA256)
    response = sent.to(service)
    assert answer(response) == (401, "AUTH_MISSING")
    assert "it must cover content-digest where there is a body" in response.get_json()["error"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CONTENT_LENGTH": "9"}, (401, "AUTH_MISSING")),
        ({"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}, (401, "AUTH_MISSING")),
        ({"wsgi.input_terminated": True}, (401, "AUTH_BODY_MISMATCH")),
    ],
)
def test_body_cannot_be_slipped_under_a_signature_of_none(
    service: Service, environ: dict[str, Any], expected: tuple[int, str]
) -> None:
    response = Sent().sign().to(service, environ_overrides={"wsgi.input": Zeros(9), **environ})
    assert answer(response) == expected


def test_body_mismatch_stores_nothing(service: Service) -> None:
    assert answer(Sent(body=b"hello").sign().to(service, body=b"hello!")) == (401, "AUTH_BODY_MISMATCH")
    assert list(service.settings.spool_dir.iterdir()) == []


@pytest.mark.parametrize(("proxies", "expected"), [((), 401), ((ip_network("127.0.0.1"),), 200)])
def test_scheme_behind_a_proxy_is_the_client_s_where_the_proxy_is_believed(
    tmp_path: Path, proxies: tuple[Any, ...], expected: int
) -> None:
    service = Service(tmp_path, trusted_proxies=proxies)
    sent = Sent(url="https://meshes.example/generate").sign((*WHOLE, "@scheme", "@authority"))
    arrived = replace(sent, url="http://meshes.example/generate")
    assert (
        replace(arrived, headers={**sent.headers, "X-Forwarded-Proto": "HTTPS, http"}).to(service).status_code
        == expected
    )
    # What covers no scheme holds behind any proxy.
    free = Sent(url="https://meshes.example/generate").sign(("@method", "@path", "@query"), nonce="nonce-000002")
    assert replace(free, url="http://meshes.example/generate").to(service).status_code == 200


def test_target_with_scheme_and_host_is_one_of_the_path_behind_it(service: Service) -> None:
    sent = Sent(url="http://Meshes.example:80/generate?x=1")
    sent.sign(("@method", "@path", "@query", "@authority", "@scheme", "@target-uri"))
    response = sent.to(
        service, environ_overrides={"RAW_URI": "http://Meshes.example:80/generate?x=1", "HTTP_HOST": "x"}
    )
    assert response.status_code == 200


@pytest.mark.parametrize("target", ["/generate\u00e9", "/generate\x7f", "/generate%20 x"])
def test_target_that_no_signature_can_hold_is_refused(service: Service, target: str) -> None:
    response = Sent().sign().to(service, environ_overrides={"RAW_URI": target, "REQUEST_URI": target})
    assert answer(response) == (401, "AUTH_INVALID")


def test_signatures_of_the_two_schemes_are_never_the_same_text() -> None:
    assert Sent().sign().read().text.startswith(b'"')
    first = SignedRequest("POST", "/", "", "a1", str(NOW), "nonce-000001", digest_body(b""), "")
    assert first.text.startswith(b"v1\n")


_url_text = st.text("abcXYZ019-._~!$&'()*+,;=:@/", max_size=20)
_token = st.text("ABCxyz019._-", min_size=8, max_size=20)
_COMPONENTS = ("@method", "@target-uri", "@path", "@query", "@request-target", "@authority", "@scheme", "content-type")


@st.composite
def _signed(draw: st.DrawFn) -> Sent:
    """Draw a signed request that covers everything."""
    query = draw(_url_text)
    sent = Sent(
        draw(st.sampled_from(["GET", "POST", "DELETE", "PUT"])),
        f"{draw(st.sampled_from(['http', 'https']))}://{draw(st.sampled_from(['a.example', 'b.example:5000']))}"
        f"/{draw(_url_text)}" + (f"?{query}" if query else ""),
        {"Content-Type": draw(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))},
        draw(st.binary(min_size=1, max_size=16)),
    )
    return sent.sign(
        draw(st.permutations(_COMPONENTS)),
        nonce=draw(_token),
        created=draw(st.integers(0, 10**10)),
        expires=datetime.fromtimestamp(draw(st.integers(0, 10**10)), UTC),
        tag=draw(st.text('abc "\\', max_size=5)),
        include_alg=draw(st.booleans()),
    )


def _altered(draw: st.DrawFn, value: str) -> str:
    """Draw a text changed a little, in its letter case, or by another's part."""
    index = draw(st.integers(0, max(0, len(value) - 1)))
    character = draw(st.characters(min_codepoint=0x20, max_codepoint=0x17F))
    ways: Sequence[Callable[[], str]] = (
        lambda: value[:index] + character + value[index + 1 :],
        lambda: value[:index] + character + value[index:],
        lambda: value[:index] + value[index + 1 :],
        lambda: value[:index],
        value.swapcase,
        lambda: value + value,
        lambda: value.replace("1", "2"),
    )
    return draw(st.sampled_from(ways))()


@st.composite
def _changes(draw: st.DrawFn) -> tuple[Sent, Sent]:
    """Draw a signed request, and the same with one part of it changed."""
    sent = draw(_signed())
    part = draw(st.sampled_from(["method", "url", "Content-Type", "Content-Digest", "Signature-Input", "Signature"]))
    if part in sent.headers:
        return sent, replace(sent, headers={**sent.headers, part: _altered(draw, sent.headers[part])})
    if part == "method":
        return sent, replace(sent, method=_altered(draw, sent.method))
    base, _, target = sent.url.partition("example")
    return sent, replace(sent, url=f"{base}example{_altered(draw, target)}")


@pytest.mark.slow
@settings(max_examples=400, deadline=None, derandomize=True)
@given(_changes())
def test_any_change_of_any_covered_part_is_refused(change: tuple[Sent, Sent]) -> None:
    sent, changed = change
    assume(changed != sent)
    assert sent.is_accepted()
    if changed.is_accepted():
        # The same said in other characters, such as a space after a comma: no part of what is acted upon has changed.
        assert changed.read() == sent.read()
        assert (changed.method, changed.url) == (sent.method, sent.url)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_no_text_in_the_headers_breaks_the_reading(first: str, second: str, third: str) -> None:
    fields = {"signature-input": first, "signature": second, "content-digest": third}
    for given_input in (first, f"s=({first});{PARAMETERS}", f's=({COVERED} "content-digest");{PARAMETERS}{second}'):
        fields["signature-input"] = given_input
        for signature in (second, SIGNATURE):
            fields["signature"] = signature
            with pytest.raises((AuthMissing, AuthInvalid)):
                read_message_signature(Message("POST", "/", "http", True, lambda name: fields.get(name.lower())))
