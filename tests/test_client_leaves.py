"""The client's leaf modules, which the service stands on too: they load nothing heavy and do what they say."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import orfeas_client
from orfeas_client import signing
from orfeas_client.atomic_file import atomic_file, temporary_beside, write_file
from orfeas_client.retries import PassingFailure, RetryPolicy

KNOWN = ("POST", "/api/agent/batch", "x=1&a=%20b", "agent-7")


class Trouble(Exception):
    """What a try meets."""


def test_known_answer_of_the_contract() -> None:
    digest = signing.digest_body(b"hello")
    signature = signing.sign_request("test-key-0123456789abcdef", *KNOWN, 1760000000, "n-00000001", digest)
    assert signature == "20acd918990406a3a1641c7861a12405faecec7c93f4180d20c999aa82587605"


def test_what_cannot_be_signed_is_a_value_error_with_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"^X-Agent-Nonce must be 8–128 of A-Z"):
        signing.sign_request("key", *KNOWN, 1760000000, "short", signing.EMPTY_DIGEST)
    with pytest.raises(ValueError, match="percent-encoded"):
        signing.sign_request("key", "GET", "/a b", "", "agent-7", 1760000000, "n-00000001", signing.EMPTY_DIGEST)


@pytest.mark.parametrize("module", ["", ".signing", ".retries", ".atomic_file", ".errors", ".models", ".upload"])
def test_leaf_modules_load_the_standard_library_alone(module: str) -> None:
    program = (
        f"import sys, orfeas_client{module}\n"
        "ours = {'orfeas_client', '__main__', 'sitecustomize'} | sys.stdlib_module_names\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} - ours))"
    )
    # -S: what site's .pth files load is not the client's doing.
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    assert done.stdout == "[]\n"


def test_every_public_name_is_there_and_others_are_not() -> None:
    for name in orfeas_client.__all__:
        assert getattr(orfeas_client, name).__name__ == name
        assert name in dir(orfeas_client)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = orfeas_client.Nothing  # type: ignore[attr-defined]


def test_a_try_that_succeeds_is_the_last() -> None:
    results = iter([PassingFailure(Trouble("one")), PassingFailure(Trouble("two")), "made", "never"])
    told: list[str] = []
    pauses: list[float] = []

    def attempt() -> str:
        result = next(results)
        if isinstance(result, PassingFailure):
            raise result
        return str(result)

    policy = RetryPolicy(pauses.append, chance=lambda: 0.0, on_retry=lambda problem, _: told.append(problem))
    assert policy.persist(attempt) == "made"
    assert (told, pauses) == (["one", "two"], [0.5, 1.0])


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_the_last_failure_is_raised_when_all_tries_fail(retries: int) -> None:
    tries: list[int] = []

    def attempt() -> None:
        tries.append(len(tries))
        raise PassingFailure(Trouble(f"try {len(tries)}"))

    with pytest.raises(Trouble, match=f"try {retries + 1}"):
        RetryPolicy(lambda _: None, retries).persist(attempt)
    assert len(tries) == retries + 1


def test_named_errors_may_pass_and_others_do_not() -> None:
    failures = iter([ConnectionError("gone"), KeyError("ours")])
    pauses: list[float] = []

    def attempt() -> None:
        raise next(failures)

    with pytest.raises(KeyError):
        RetryPolicy(pauses.append).persist(attempt, (ConnectionError, TimeoutError))
    assert len(pauses) == 1


def test_a_wait_that_is_asked_for_is_kept_unless_it_is_too_long() -> None:
    policy = RetryPolicy(chance=lambda: 0.5, first_pause=4.0, longest_asked=60.0)
    assert policy.pause(0, asked=7.0) == 8.0
    with pytest.raises(Trouble):
        policy.persist(lambda: _fail(PassingFailure(Trouble(), 61.0)))


def _fail(failure: Exception) -> None:
    raise failure


def test_pauses_grow_to_their_bound_less_what_chance_takes() -> None:
    assert list(RetryPolicy(chance=lambda: 0.0, longest_pause=3.0).pauses()) == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert list(RetryPolicy(chance=lambda: 1.0, retries=3, factor=3.0).pauses()) == [0.25, 0.75, 2.25]
    endless = RetryPolicy(retries=None, jitter=0.0).pauses()
    assert [next(endless) for _ in range(5000)][-1] == 30.0


def test_a_file_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    with atomic_file(target) as stream:
        stream.write(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("failure", [Trouble(), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")

    def write() -> None:
        with atomic_file(target) as stream:
            stream.write(b"half")
            raise failure

    with pytest.raises(type(failure)):
        write()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_temporary_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    taken = tmp_path / "taken.part"
    taken.write_bytes(b"another's")

    def write() -> None:
        with atomic_file(tmp_path / "a", temporary=taken):
            pytest.fail("the name was taken")

    with pytest.raises(FileExistsError):
        write()
    assert taken.read_bytes() == b"another's"


@pytest.mark.skipif(os.name == "nt", reason="no modes there")
def test_only_private_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_file(tmp_path / "open", b"")
        write_file(tmp_path / "private", b"", private=True)
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"open": 0o644, "private": 0o600}


def test_a_folder_that_cannot_be_flushed_counts_only_where_that_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_folder: Path) -> None:
        raise OSError(errno.EINVAL, "no such thing here")

    monkeypatch.setattr("orfeas_client.atomic_file.flush_folder", refuse)
    write_file(tmp_path / "a", b"1")
    write_file(tmp_path / "b", b"2", folder_flush="skipped")
    with pytest.raises(OSError, match="no such thing here"):
        write_file(tmp_path / "c", b"3", folder_flush="required")


def test_long_names_get_a_temporary_one_that_any_file_system_takes() -> None:
    assert len(os.fsencode(temporary_beside(Path("🪑" * 60 + ".glb")).name)) <= 255
