"""The client's command line against a real server: files, tables, JSON, exit codes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from backend.errors import StoreUnavailable
from orfeas_client import AgentClient, Job
from orfeas_client.cli import _groups, run
from orfeas_client.console import Screen
from tests.support.tiny_service import AGENT_ID, TinyService

PICTURE = b"not looked at" * 100


class Terminal:
    """A service, and what a person in front of the command line sees."""

    def __init__(self, service: TinyService, port: int, folder: Path) -> None:
        self.service = service
        self.folder = folder
        self.out, self.err = io.StringIO(), io.StringIO()
        self.environ = {
            "ORFEAS_URL": f"http://127.0.0.1:{port}",
            "ORFEAS_AGENT_ID": AGENT_ID,
            "ORFEAS_API_KEY": service.api_key,
        }

    def run(self, *arguments: str | Path, as_json: bool = False) -> int:
        screen = Screen(Console(file=self.out, width=200), Console(file=self.err, width=200), as_json)
        return run([str(part) for part in arguments], self.environ, screen=screen, connect=self.connect)

    def connect(self, *arguments: Any, **options: Any) -> AgentClient:
        return AgentClient(*arguments, **{**options, "sleep": lambda _seconds: None})

    def rows(self) -> list[list[str]]:
        """Read the last table's rows, cells apart."""
        return [line.split() for line in self.out.getvalue().splitlines()[1:]]

    def image(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PICTURE + name.encode())
        return path


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    service = TinyService(tmp_path / "data")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    with service.serving() as port:
        yield Terminal(service, port, work)


def test_generate_writes_the_file_and_says_what_is_in_it(terminal: Terminal) -> None:
    image = terminal.image("cat.png")
    assert terminal.run("generate", image, "-o", "mesh.stl", "--quality", "3", "--seed", "9") == 0
    assert (terminal.folder / "mesh.stl").read_bytes() == image.read_bytes()
    (job,) = terminal.service.job.values()
    assert job.fields == {"format": "stl", "quality": "3", "seed": "9", "async": "true"}
    assert terminal.rows() == [[str(image), "mesh.stl", "1234", "yes", "1.2", "7"]]
    assert terminal.err.getvalue() == ""


def test_views_of_one_object_are_sent_as_such(terminal: Terminal) -> None:
    front, back = terminal.image("cat.png"), terminal.image("behind.png")
    assert terminal.run("generate", "--back", back, "--front", front, "-o", "out") == 0
    (job,) = terminal.service.job.values()
    assert {name: text for name, text in job.fields.items() if name.startswith("view")} == {
        "view_front": "cat.png", "view_back": "behind.png",
    }  # fmt: skip
    assert (terminal.folder / "out" / "cat.glb").read_bytes() == back.read_bytes() + front.read_bytes()


@pytest.mark.parametrize("arguments", [[], ["cat.png", "--left", "cat.png"]])
def test_an_object_is_one_picture_or_its_views(terminal: Terminal, arguments: list[str]) -> None:
    terminal.image("cat.png")
    assert terminal.run("generate", *arguments) == 2
    assert "Give one PICTURE, its --image-url, several views" in " ".join(terminal.err.getvalue().split())
    assert terminal.service.job == {}


TOUCHES = {"code": "OBJECT_TOUCHES_BORDER", "message": "It is cut off."}


def test_what_the_service_says_of_a_picture_is_shown_beside_its_mesh(terminal: Terminal) -> None:
    terminal.service.warnings = [TOUCHES]
    image = terminal.image("cat.png")
    assert terminal.run("generate", image) == 0
    assert terminal.err.getvalue() == f"{image}: OBJECT_TOUCHES_BORDER: It is cut off.\n"


@pytest.mark.parametrize(("options", "file"), [([], "cat-cutout.png"), (["-o", "x.png"], "x.png")])
def test_a_cutout_is_fetched_and_spoken_of(terminal: Terminal, options: list[str], file: str) -> None:
    terminal.service.warnings = [TOUCHES]
    image = terminal.image("cat.png")
    assert terminal.run("cutout", image, *options, "--objects", "largest") == 0
    assert (terminal.folder / file).read_bytes() == image.read_bytes()
    assert terminal.out.getvalue() == f"{file}\n"
    assert terminal.err.getvalue() == f"{image}: OBJECT_TOUCHES_BORDER: It is cut off.\n"
    (job,) = terminal.service.job.values()
    assert job.fields == {"objects": "largest"}


def test_a_cutout_for_programs_is_json(terminal: Terminal) -> None:
    terminal.service.warnings = [TOUCHES]
    (terminal.folder / "out").mkdir()
    assert terminal.run("cutout", terminal.image("cat.png"), "-o", "out", as_json=True) == 0
    answer = json.loads(terminal.out.getvalue())
    assert answer["file"] == "out/cat-cutout.png"
    assert (answer["cutout"]["method"], answer["cutout"]["score"], answer["cutout"]["border"]) == ("flood", 0.9, 0.25)
    assert answer["cutout"]["warnings"] == [TOUCHES]
    assert terminal.err.getvalue() == ""


@pytest.mark.parametrize(
    ("options", "file", "fmt"),
    [
        ([], "cat.glb", "glb"),
        (["-f", "ply"], "cat.ply", "ply"),
        (["-o", "out"], "out/cat.glb", "glb"),
        (["-o", "out", "-f", "obj"], "out/cat.obj", "obj"),
        (["-o", "x.bin", "-f", "obj"], "x.bin", "obj"),
    ],
)
def test_output_says_where_and_what(terminal: Terminal, options: list[str], file: str, fmt: str) -> None:
    assert terminal.run("generate", terminal.image("cat.png"), *options) == 0
    assert (terminal.folder / file).read_bytes() == PICTURE + b"cat.png"
    assert [job.fields.get("format", "glb") for job in terminal.service.job.values()] == [fmt]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["-o", "nodir/x.glb"], 4, "nodir/x.glb cannot be written: No such file or directory."),
        (["-o", "taken/x.glb"], 4, "taken/x.glb cannot be written"),
        (["-o", "x.stl", "--format", "glb"], 2, "x.stl would be called stl and be glb"),
        (["-o", "x.GLB", "--format", "ply"], 2, "would be called glb and be ply"),
        (["-o", "x.jpeg"], 2, "x.jpeg says no format"),
        (["-o", "taken/out"], 4, "cannot be made"),
        (["-o", "folders"], 4, "folders/cat.glb cannot be written: Is a directory."),
    ],
)
def test_place_to_write_is_looked_at_before_anything_is_sent(
    terminal: Terminal, options: list[str], code: int, said: str
) -> None:
    (terminal.folder / "taken").touch()
    (terminal.folder / "folders" / "cat.glb").mkdir(parents=True)
    assert terminal.run("generate", terminal.image("cat.png"), *options) == code
    assert said in terminal.err.getvalue().replace("\n", " ")
    assert terminal.service.job == {}


def test_batch_and_wait_look_at_the_folder_first(terminal: Terminal) -> None:
    (terminal.folder / "out" / "b.glb").mkdir(parents=True)
    assert terminal.run("batch", terminal.image("a.png"), terminal.image("b.png"), "-o", "out") == 4
    assert terminal.service.job == {}
    (terminal.folder / "file").touch()
    assert terminal.run("wait", "0" * 32, "-o", "file") == 4


def test_every_failure_names_its_job(terminal: Terminal) -> None:
    terminal.service.outcome = "failed"
    image = terminal.image("cat.png")
    assert terminal.run("batch", image, image, "-o", "out") == 1
    told = " ".join(terminal.out.getvalue().split())
    assert len(terminal.service.job) == 2
    for job_id in terminal.service.job:
        assert f"(job {job_id})" in told


def test_outage_that_does_not_end_says_how_to_go_on(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(_name: str) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(terminal.service, "_looked_at", vanish)
    assert terminal.run("--outage", "20", "generate", terminal.image("cat.png"), "-o", "x.glb") == 1
    (job_id,) = terminal.service.job
    told = " ".join(terminal.err.getvalue().split())
    assert told.count(job_id) > 2
    assert f"Job: {job_id}." in told


def test_batch_writes_a_file_for_each_picture(terminal: Terminal) -> None:
    names = ["a.png", "b/a.jpg", "c.png"]
    assert terminal.run("batch", *map(terminal.image, names), "-o", "out/meshes") == 0
    folder = terminal.folder / "out" / "meshes"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "a.glb": PICTURE + b"a.png",
        "a-2.glb": PICTURE + b"b/a.jpg",
        "c.glb": PICTURE + b"c.png",
    }
    assert [len(ids) for ids in terminal.service.batches.values()] == [3]
    told = terminal.err.getvalue().splitlines()
    assert [line.split()[0] for line in told] == ["1/3", "2/3", "3/3"]
    assert told[1].endswith("b/a.jpg: out/meshes/a-2.glb")


@pytest.mark.parametrize(
    ("images", "sizes"), [(1, [1]), (2, [2]), (10, [10]), (11, [5, 6]), (20, [10, 10]), (21, [7, 7, 7])]
)
def test_many_pictures_are_sent_by_up_to_ten(images: int, sizes: list[int]) -> None:
    groups = list(_groups(images))
    assert [len(group) for group in groups] == sizes
    assert [place for group in groups for place in group] == list(range(images))


def test_single_picture_of_a_batch_is_sent_alone(terminal: Terminal) -> None:
    assert terminal.run("batch", terminal.image("a.png"), "-o", "out") == 0
    assert (terminal.folder / "out" / "a.glb").exists()
    assert terminal.service.batches == {}


def test_picture_that_fails_is_told_in_its_row(terminal: Terminal) -> None:
    terminal.service.outcome = "failed"
    assert terminal.run("generate", terminal.image("cat.png"), "-o", "mesh.glb") == 1
    assert "NO_FOREGROUND: No object was found." in terminal.out.getvalue()
    assert not (terminal.folder / "mesh.glb").exists()


def test_status_of_a_job_and_a_batch(terminal: Terminal) -> None:
    image = terminal.image("cat.png")
    terminal.run("batch", image, image, "-o", "out")
    terminal.out.truncate(0)
    (batch_id, (first, second)) = next(iter(terminal.service.batches.items()))
    assert terminal.run("status", batch_id) == 0
    text = terminal.out.getvalue()
    assert (f"batch {batch_id}: completed" in text, first in text, second in text) == (True, True, True)
    assert f"/api/agent/download/{second}.glb" in text


def test_cancel_and_wait_and_list(terminal: Terminal) -> None:
    image = terminal.image("cat.png")
    for _ in range(3):
        assert terminal.run("generate", image, "-o", "out") == 0
    newest = max(terminal.service.job)
    terminal.service.job[newest].status = "queued"
    assert terminal.run("cancel", newest) == 0
    assert terminal.service.job[newest].status == "cancelled"
    assert terminal.run("wait", newest) == 1
    oldest = min(terminal.service.job)
    assert terminal.run("wait", oldest, "-o", "again") == 0
    assert (terminal.folder / "again" / f"{oldest}.glb").read_bytes() == image.read_bytes()
    terminal.out.truncate(0)
    assert terminal.run("jobs", "--limit", "2") == 0
    assert (newest in terminal.out.getvalue(), oldest in terminal.out.getvalue()) == (True, False)
    assert "There are more: --cursor" in terminal.err.getvalue()


def test_download_by_address_or_name(terminal: Terminal) -> None:
    image = terminal.image("cat.png")
    terminal.run("generate", image, "-o", "out")
    name = f"{min(terminal.service.job)}.glb"
    assert terminal.run("download", f"/api/agent/download/{name}", "-o", "x.glb") == 0
    assert terminal.run("download", name) == 0
    assert (terminal.folder / "x.glb").read_bytes() == (terminal.folder / name).read_bytes() == image.read_bytes()


def test_health_needs_no_agent(terminal: Terminal) -> None:
    del terminal.environ["ORFEAS_AGENT_ID"], terminal.environ["ORFEAS_API_KEY"]
    assert terminal.run("health") == 0
    assert ("ok" in terminal.out.getvalue(), "4.0 of 8.0 GiB" in terminal.out.getvalue()) == (True, True)
    terminal.service.healthy = False
    assert terminal.run("health") == 1


def test_programs_read_json(terminal: Terminal) -> None:
    image = terminal.image("cat.png")
    assert terminal.run("--json", "generate", image, "-o", "mesh.glb", as_json=True) == 0
    (made,) = json.loads(terminal.out.getvalue())
    assert (made["file"], made["problem"], made["job"]["metadata"]["faces"]) == ("mesh.glb", "", 1234)
    for command in (["health"], ["jobs"], ["status", made["job"]["id"]], ["download", made["job"]["download_url"]]):
        terminal.out.seek(0)
        terminal.out.truncate()
        assert terminal.run("--json", *command, as_json=True) == 0
        assert isinstance(json.loads(terminal.out.getvalue()), dict)


@pytest.mark.parametrize(
    ("changed", "arguments", "code", "said"),
    [
        ({"ORFEAS_API_KEY": "another-key-0123456789abcdef"}, ["jobs"], 1, "401 AUTH_INVALID"),
        ({"ORFEAS_API_KEY": ""}, ["jobs"], 2, "Who calls?"),
        ({"ORFEAS_URL": "nonsense"}, ["jobs"], 2, "is not the address of a service"),
        ({"ORFEAS_URL": "http://127.0.0.1:1"}, ["--retries", "0", "jobs"], 3, "Connection refused"),
        ({}, ["download", "http://evil.example/api/agent/download/x.glb"], 3, "is not a download of this service"),
        ({}, ["generate", "missing.png"], 4, "There is no file missing.png"),
        ({}, ["generate", "cat.png", "-o", "missing/mesh.glb"], 4, "cannot be written"),
        ({}, ["batch", "cat.png", "-o", "cat.png"], 4, "cannot be made"),
        ({}, ["status", "missing"], 1, "404 JOB_NOT_FOUND"),
    ],
)
def test_exit_code_says_what_went_wrong(
    terminal: Terminal, changed: dict[str, str], arguments: list[str], code: int, said: str
) -> None:
    terminal.image("cat.png")
    terminal.environ |= changed
    assert terminal.run(*arguments) == code
    assert said in terminal.err.getvalue()


def test_again_writes_the_new_mesh(terminal: Terminal) -> None:
    assert terminal.run("generate", terminal.image("cat.png"), "-o", "first.glb", "--seed", "7") == 0
    (first,) = terminal.service.job
    assert terminal.run("again", first, "-o", "second.stl", "--seed", "-1") == 0
    second = terminal.service.job[max(terminal.service.job)]
    assert second.fields == {"format": "stl", "seed": "-1", "async": "true"}
    assert (terminal.folder / "second.stl").read_bytes() == (terminal.folder / "first.glb").read_bytes()
    assert terminal.run("again", first, "-o", "out") == 0
    third = max(terminal.service.job)
    assert (terminal.folder / "out" / f"{third}.glb").exists()


def test_again_looks_at_the_place_first(terminal: Terminal) -> None:
    assert terminal.run("again", "0" * 32, "-o", "missing/x.glb") == 4
    assert terminal.run("again", "0" * 32, "-o", "x.jpeg") == 2
    assert terminal.run("again", "0" * 32, "-o", "x.glb") == 1
    assert "404 JOB_NOT_FOUND" in terminal.err.getvalue()


def test_link_shows_an_address_and_nothing_else(terminal: Terminal) -> None:
    assert terminal.run("generate", terminal.image("cat.png"), "-o", "x.glb") == 0
    (job_id,) = terminal.service.job
    terminal.out.truncate(0)
    terminal.out.seek(0)
    assert terminal.run("link", job_id) == 0
    address = terminal.out.getvalue()
    assert address.count("\n") == 1
    assert address.startswith(f"{terminal.environ['ORFEAS_URL']}/api/agent/download/{job_id}.glb?expires=")
    assert terminal.run("link", job_id, "-f", "stl") == 1
    assert "there is no stl file" in " ".join(terminal.err.getvalue().split())
    terminal.out.truncate(0)
    terminal.out.seek(0)
    assert terminal.run("link", job_id, as_json=True) == 0
    assert json.loads(terminal.out.getvalue()) == {"signed_url": address.strip()}


@pytest.mark.parametrize("arguments", [[], ["batch"], ["generate", "a", "-f", "fbx"], ["nonsense"], ["--retries"]])
def test_bad_options_are_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(arguments, {})
    assert caught.value.code == 2
    assert "usage: orfeas-client" in capsys.readouterr().err


def test_interrupted_wait_says_how_to_go_on(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Job:
        raise KeyboardInterrupt

    monkeypatch.setattr(AgentClient, "wait", interrupted)
    assert terminal.run("generate", terminal.image("cat.png")) == 130
    job_id = min(terminal.service.job)
    assert f"`orfeas-client wait {job_id}`" in terminal.err.getvalue()


def test_retry_is_told(terminal: Terminal) -> None:
    terminal.environ["ORFEAS_URL"] = "http://127.0.0.1:1"
    assert terminal.run("--retries", "2", "jobs") == 3
    assert terminal.err.getvalue().count("Trying again in") == 2


def test_bars_show_names_and_steps(terminal: Terminal) -> None:
    err = io.StringIO()
    screen = Screen(Console(file=io.StringIO()), Console(file=err, force_terminal=True, width=100))
    arguments = ["generate", str(terminal.image("cat [bold].png")), "-o", "mesh.glb"]
    assert run(arguments, terminal.environ, screen=screen, connect=terminal.connect) == 0
    assert ("cat [bold].png" in err.getvalue(), "completed" in err.getvalue()) == (True, True)


def test_module_runs_and_needs_nothing_of_the_service(terminal: Terminal) -> None:
    code = (
        "import sys, runpy; sys.argv[1:] = ['health']\n"
        "try: runpy.run_module('orfeas_client', run_name='__main__')\n"
        "except SystemExit as end: print(end.code)\n"
        "heavy = {'torch', 'flask', 'sqlalchemy', 'pydantic', 'numpy', 'PIL', 'trimesh'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    environ = {**os.environ, **terminal.environ}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environ,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.splitlines()[-2:] == ["0", "[]"]
