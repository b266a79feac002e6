"""The guard of all outgoing calls: 40 ways round it are refused, and a call ends at its deadline."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from backend.outgoing import Destination, Outgoing, OutgoingFailed, OutgoingPolicy, OutgoingRefused, Reply, is_public
from tests.support.outside_world import PUBLIC, World, outside_world, page, redirect

PICTURES = OutgoingPolicy()
MOST = 100_000

REFUSED_URLS = {
    "plain http": "http://pictures.test/a.png",
    "file": "file:///etc/passwd",
    "gopher": "gopher://pictures.test:70/_GET",
    "ftp": "ftp://pictures.test/a.png",
    "data": "data:image/png;base64,AAAA",
    "no scheme": "//pictures.test/a.png",
    "javascript": "javascript:alert(1)",
    "another port": "https://pictures.test:8443/a.png",
    "ssh's port": "https://pictures.test:22/",
    "port zero": "https://pictures.test:0/",
    "userinfo": "https://user:secret@pictures.test/a.png",
    "userinfo that looks like a host": "https://pictures.test@127.0.0.1/a.png",
    "empty userinfo": "https://@pictures.test/a.png",
    "loopback": "https://127.0.0.1/a.png",
    "all of loopback": "https://127.8.9.1/a.png",
    "any address": "https://0.0.0.0/a.png",
    "decimal": "https://2130706433/a.png",
    "octal": "https://0177.0.0.1/a.png",
    "hexadecimal": "https://0x7f000001/a.png",
    "hexadecimal parts": "https://0x7f.0.0.1/a.png",
    "short": "https://127.1/a.png",
    "leading zeros": "https://127.000.000.001/a.png",
    "10/8": "https://10.0.0.5/a.png",
    "172.16/12": "https://172.16.3.4/a.png",
    "192.168/16": "https://192.168.1.1/a.png",
    "the cloud's metadata": "https://169.254.169.254/latest/meta-data/",
    "carrier's NAT": "https://100.64.0.1/a.png",
    "multicast": "https://224.0.0.251/a.png",
    "broadcast": "https://255.255.255.255/a.png",
    "IPv6 loopback": "https://[::1]/a.png",
    "IPv6 any": "https://[::]/a.png",
    "IPv4 in IPv6": "https://[::ffff:127.0.0.1]/a.png",
    "IPv4 in IPv6, hexadecimal": "https://[::ffff:7f00:1]/a.png",
    "IPv4 compatible IPv6": "https://[::7f00:1]/a.png",
    "NAT64 of loopback": "https://[64:ff9b::127.0.0.1]/a.png",
    "NAT64 of one's own": "https://[64:ff9b:1::10.0.0.1]/a.png",
    "6to4 of 10/8": "https://[2002:0a00:0001::]/a.png",
    "Teredo": "https://[2001:0:53aa:64c:0:fbff:80ff:fffe]/a.png",
    "unique local": "https://[fd00::1]/a.png",
    "link local with a zone": "https://[fe80::1%25eth0]/a.png",
    "IPv6 multicast": "https://[ff02::1]/a.png",
    "documentation": "https://[2001:db8::1]/a.png",
    "localhost": "https://localhost/a.png",
    "localhost with a dot": "https://localhost./a.png",
    "full-width digits": "https://１２７.０.０.１/a.png",
    "dots of another script": "https://127。0。0。1/a.png",
    "backslash": "https://pictures.test\\@127.0.0.1/a.png",
    "line feed": "https://pictures.test/a.png\r\nX-Other: 1",
    "tab in the scheme": "ht\ttps://pictures.test/",
    "blank before": " https://pictures.test/",
    "no host": "https:///a.png",
    "empty": "",
    "too long": "https://pictures.test/" + "a" * 3000,
}
PRIVATE_NAMES = {
    "private": ["10.1.2.3"],
    "private among public": [PUBLIC, "192.168.0.1"],
    "loopback in IPv6": ["::1"],
    "mapped loopback": ["::ffff:127.0.0.1"],
    "link local with a scope": ["fe80::1%1"],
    "nothing": [],
}
REDIRECTS = {
    "to loopback": "https://127.0.0.1/a.png",
    "to the cloud's metadata": "https://169.254.169.254/latest/",
    "to plain http": "http://pictures.test/a.png",
    "to a file": "file:///etc/passwd",
    "to gopher": "gopher://127.0.0.1/_",
    "to a private name": "https://inside.test/a.png",
    "with userinfo": "https://a@other.test/a.png",
    "with a decimal address": "//2130706433/a.png",
    "to another port": "https://other.test:6379/",
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with outside_world(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture
def world(running: World) -> World:
    """Give a world in which nothing has happened yet."""
    for kept in (running.names, running.pages, running.connected, running.asked, running.seen):
        kept.clear()
    running.names["inside.test"] = [["10.0.0.9"]]
    # What the system resolves of itself.
    running.names["localhost"] = [["127.0.0.1", "::1"]]
    running.pages["/a.png"] = page(b"picture")
    return running


def fetch(
    world: World, url: str, policy: OutgoingPolicy = PICTURES, seconds: float = 10.0, sink: io.BytesIO | None = None
) -> Reply:
    kept = io.BytesIO() if sink is None else sink
    return world.outgoing().send("GET", url, policy, seconds=seconds, sink=kept, max_bytes=MOST, max_redirects=3)


def test_a_picture_is_fetched_from_the_address_that_was_checked(world: World) -> None:
    body = io.BytesIO()
    reply = fetch(world, "https://pictures.test/a.png?size=1#part", sink=body)
    assert reply.status == 404
    reply = fetch(world, "https://Pictures.TEST./a.png", sink=body)
    assert (reply.status, reply.size, body.getvalue()) == (200, 7, b"picture")
    assert world.connected == [PUBLIC, PUBLIC]
    assert [path for _, path, _ in world.seen] == ["/a.png?size=1", "/a.png"]
    assert not {"Cookie", "Authorization", "Proxy-Authorization"} & set(world.seen[0][2])
    assert world.seen[1][2]["Host"] == "pictures.test"


@pytest.mark.parametrize("url", REFUSED_URLS.values(), ids=REFUSED_URLS)
def test_a_url_that_is_not_a_public_https_one_is_refused_before_anything_is_connected(world: World, url: str) -> None:
    with pytest.raises(OutgoingRefused):
        fetch(world, url)
    assert world.connected == []


@pytest.mark.parametrize("addresses", PRIVATE_NAMES.values(), ids=PRIVATE_NAMES)
def test_a_name_with_an_address_that_is_not_public_is_refused(world: World, addresses: list[str]) -> None:
    world.names["pictures.test"] = [addresses]
    with pytest.raises(OutgoingRefused):
        fetch(world, "https://pictures.test/a.png")
    assert world.connected == []


@pytest.mark.parametrize("target", REDIRECTS.values(), ids=REDIRECTS)
def test_a_redirect_is_checked_as_the_first_address_is(world: World, target: str) -> None:
    world.pages["/go"] = redirect(target)
    with pytest.raises(OutgoingRefused):
        fetch(world, "https://pictures.test/go")
    assert world.connected == [PUBLIC]


def test_a_name_that_answers_otherwise_the_second_time_is_not_asked_twice(world: World) -> None:
    world.names["pictures.test"] = [[PUBLIC], ["127.0.0.1"]]
    assert fetch(world, "https://pictures.test/a.png").status == 200
    assert (world.asked, world.connected) == (["pictures.test"], [PUBLIC])


def test_a_name_that_answers_otherwise_at_a_redirect_is_refused_there(world: World) -> None:
    world.names["pictures.test"] = [[PUBLIC], ["127.0.0.1"]]
    world.pages["/go"] = redirect("/a.png")
    with pytest.raises(OutgoingRefused):
        fetch(world, "https://pictures.test/go")
    assert world.connected == [PUBLIC]


def test_only_hosts_that_are_listed_are_called_where_there_is_a_list(world: World) -> None:
    policy = OutgoingPolicy(hosts=frozenset({"pictures.test"}))
    assert fetch(world, "https://pictures.test/a.png", policy).status == 200
    for url in ("https://other.test/a.png", "https://sub.pictures.test/a.png", "https://pictures.test.evil.test/"):
        with pytest.raises(OutgoingRefused):
            fetch(world, url, policy)


def test_a_listed_private_host_may_be_called_and_no_other(world: World) -> None:
    policy = OutgoingPolicy(ports=None, private_hosts=frozenset({"inside.test", "127.0.0.1"}))
    world.context.check_hostname = False
    try:
        body = b'{"type": "job.completed"}'
        reply = world.outgoing().send("POST", "https://inside.test:9/a.png", policy, seconds=10, body=body)
    finally:
        world.context.check_hostname = True
    assert (reply.status, reply.size, world.connected) == (200, 0, ["10.0.0.9"])
    assert world.seen[0][0] == "POST"
    assert (world.seen[0][2]["Host"], world.seen[0][2]["Content-Length"]) == ("inside.test:9", str(len(body)))
    with pytest.raises(OutgoingRefused):
        fetch(world, "https://127.0.0.2:9/a.png", policy)


def test_redirects_are_followed_a_few_times_and_not_at_all_unless_asked_for(world: World) -> None:
    world.pages |= {"/1": redirect("/2"), "/2": redirect("https://other.test/a.png"), "/round": redirect("/round")}
    assert fetch(world, "https://pictures.test/1").status == 200
    assert world.asked == ["pictures.test", "pictures.test", "other.test"]
    assert fetch(world, "https://pictures.test/round").status == 302
    reply = world.outgoing().send("GET", "https://pictures.test/1", PICTURES, seconds=10)
    assert (reply.status, reply.headers["location"]) == (302, "/2")


def test_a_server_whose_certificate_is_anothers_is_not_spoken_to(world: World) -> None:
    world.names["stranger.test"] = [[PUBLIC]]
    with pytest.raises(OutgoingFailed):
        fetch(world, "https://stranger.test/a.png")
    assert world.seen == []


@pytest.mark.parametrize(
    "answer",
    [
        page(b"x" * (MOST + 1)),
        page(b"x" * 10, length=20),
        page(b"x", headers={"Content-Encoding": "gzip"}),
        page(b"x", headers={"Transfer-Encoding": "chunked"}),
    ],
    ids=["too large", "shorter than it says", "compressed", "no chunks"],
)
def test_an_answer_that_is_too_large_or_not_whole_fails(world: World, answer: object) -> None:
    world.pages["/bad"] = answer  # type: ignore[assignment]
    with pytest.raises(OutgoingFailed):
        fetch(world, "https://pictures.test/bad")


def test_a_server_that_sends_a_byte_now_and_then_is_left_at_the_deadline(world: World) -> None:
    over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "50000")
        handler.end_headers()
        while not over.wait(0.05):
            handler.wfile.write(b"x")

    world.pages["/drip"] = drip
    began = time.monotonic()
    try:
        with pytest.raises(OutgoingFailed):
            fetch(world, "https://pictures.test/drip", seconds=0.5)
    finally:
        over.set()
    # The drip alone would take 2,500 s.
    assert time.monotonic() - began < 100


def test_a_resolver_that_hangs_is_left_at_the_deadline() -> None:
    over = threading.Event()

    def hang(_host: str, _port: int) -> list[str]:
        over.wait(60)
        return [PUBLIC]

    try:
        with pytest.raises(OutgoingFailed):
            Outgoing(hang).send("GET", "https://pictures.test/", PICTURES, seconds=0.1)
    finally:
        over.set()


def test_proxies_of_the_environment_have_no_part(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(world, "https://pictures.test/a.png").status == 200


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_public_addresses_are_known_in_every_form(address: str) -> None:
    assert is_public(address)


def test_a_destination_has_one_form_however_it_is_written() -> None:
    written = Destination.of("HTTPS://Pictures.Test.:443/a b?x=1#y".replace(" ", "%20"))
    assert written == Destination.of(written.url) == Destination("https", "pictures.test", 443, "/a%20b?x=1")
    assert Destination.of("http://[2001:DB8:0::1]:81").url == "http://[2001:db8::1]:81/"
