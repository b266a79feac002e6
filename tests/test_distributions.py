"""What gets installed: both wheels, built and used where the checkout is out of sight."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import trimesh
from packaging.requirements import Requirement

import backend
import orfeas_client
from tests.support.distributions import REPOSITORY, Environment, build_wheel, copy_source, tracked_files
from tests.support.tiny_service import AGENT_ID, TinyService

NEEDED_BY_THE_CLIENT = ("requests", "urllib3", "idna", "certifi", "charset_normalizer")


@pytest.fixture(scope="session")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel("orfeas_client", tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="session")
def service_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(".", tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="session")
def client_alone(client_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Make an environment that has the client and what it depends on."""
    environment = Environment(tmp_path_factory.mktemp("alone") / "venv")
    environment.install(client_wheel)
    environment.lend(NEEDED_BY_THE_CLIENT)
    return environment


def printed(environment: Environment, program: str, folder: Path, **variables: str) -> str:
    """Return what a program prints in an environment and a folder of its own."""
    command = [str(environment.bin / "python"), "-I", "-c", program]
    environ = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(  # noqa: S603
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def metadata(wheel: Path) -> dict[str, list[str]]:
    """Read a wheel's metadata, each field's values in a list."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        message = Parser().parsestr(archive.read(name).decode())
    return {field: [str(value) for value in message.get_all(field, [])] for field in message}


# The client's


@pytest.mark.slow
def test_the_client_alone_imports_at_once_and_without_a_library(client_alone: Environment, tmp_path: Path) -> None:
    program = (
        "import sys, time; began = time.process_time(); import orfeas_client; took = time.process_time() - began\n"
        "libraries = {name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names\n"
        "print(took < 0.3, sorted(libraries), orfeas_client.__file__)"
    )
    told = printed(client_alone, program, tmp_path).split(maxsplit=1)
    assert told[0] == "True"
    assert told[1].startswith("['__main__', 'orfeas_client']")
    assert str(client_alone.folder) in told[1]


@pytest.mark.slow
def test_the_client_alone_signs_a_call_that_the_service_takes(client_alone: Environment, tmp_path: Path) -> None:
    service = TinyService(tmp_path / "data")
    program = (
        "import os, sys\n"
        "from orfeas_client import AgentClient\n"
        "with AgentClient(os.environ['URL'], os.environ['ID'], os.environ['KEY']) as client: page = client.jobs()\n"
        "print(page.jobs, sorted({'torch', 'flask', 'rich', 'backend'} & set(sys.modules)))"
    )
    with service.serving() as port:
        agent = {"URL": f"http://127.0.0.1:{port}", "ID": AGENT_ID, "KEY": service.api_key}
        assert printed(client_alone, program, tmp_path, **agent) == "() []\n"


@pytest.mark.slow
def test_the_client_alone_gives_the_contracts_known_answer(client_alone: Environment, tmp_path: Path) -> None:
    program = (
        "from orfeas_client.signing import digest_body, sign_request\n"
        "request = ('POST', '/api/agent/batch', 'x=1&a=%20b', 'agent-7', 1760000000, 'n-00000001')\n"
        "print(sign_request('test-key-0123456789abcdef', *request, digest_body(b'hello')))"
    )
    known = "20acd918990406a3a1641c7861a12405faecec7c93f4180d20c999aa82587605\n"
    assert printed(client_alone, program, tmp_path) == known


@pytest.mark.slow
def test_the_command_says_that_it_wants_rich_and_runs_with_it(client_wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv")
    environment.install(client_wheel)
    environment.lend(NEEDED_BY_THE_CLIENT)
    for command in ([environment.bin / "orfeas-client"], [environment.bin / "python", "-m", "orfeas_client"]):
        done = subprocess.run([*command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603
        told = "The command line draws with rich: pip install 'orfeas-client[cli]'\n"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", told)
    environment.lend(("rich", "pygments", "markdown_it", "mdurl"))
    for command in ([environment.bin / "orfeas-client"], [environment.bin / "python", "-m", "orfeas_client"]):
        done = subprocess.run([*command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603
        assert (done.returncode, done.stdout.split()[:2]) == (0, ["usage:", "orfeas-client"])


@pytest.mark.slow
def test_the_clients_wheel_holds_the_package_and_its_licence(client_wheel: Path) -> None:
    told = metadata(client_wheel)
    assert told["Name"] == ["orfeas-client"]
    assert told["Version"] == [orfeas_client.__version__]
    assert told["License-Expression"] == ["Apache-2.0"]
    assert [line for line in told["Requires-Dist"] if "extra" not in line] == ["requests>=2.31"]
    with zipfile.ZipFile(client_wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {str(path) for path in tracked_files("orfeas_client") if path.suffix in (".py", ".typed")}
    assert held == wanted


# The service's


@pytest.mark.slow
def test_the_services_wheel_holds_every_file_of_the_package_and_the_samples(service_wheel: Path) -> None:
    told = metadata(service_wheel)
    assert (told["Name"], told["Version"]) == (["orfeas"], [backend.__version__])
    with zipfile.ZipFile(service_wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    samples = {f"backend/demo/samples/{path.name}" for path in tracked_files("samples") if path.suffix == ".png"}
    assert held == {str(path) for path in tracked_files("backend")} | samples
    assert len(samples) == 10
    assert "backend/checkpoints/demo/model.fp16.safetensors" in held


@pytest.mark.slow
def test_a_source_distribution_holds_what_its_wheel_needs(tmp_path: Path) -> None:
    copy_source(".", tmp_path / "source")
    # Without --wheel the wheel is built from the source distribution.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "both")]
    subprocess.run([*command, str(tmp_path / "source")], check=True, capture_output=True, timeout=120)  # noqa: S603
    (wheel,) = (tmp_path / "both").glob("*.whl")
    assert {path.suffix for path in (tmp_path / "both").iterdir()} == {".whl", ".gz"}
    with zipfile.ZipFile(wheel) as archive:
        assert "backend/demo/samples/mug.png" in archive.namelist()
        assert "backend/checkpoints/demo/config.yaml" in archive.namelist()


@pytest.mark.slow
def test_installed_elsewhere_the_demonstration_makes_meshes(
    service_wheel: Path, client_wheel: Path, tmp_path: Path
) -> None:
    environment = Environment(tmp_path / "venv")
    environment.install(service_wheel, client_wheel)
    environment.lend_all()
    here = tmp_path / "empty"
    here.mkdir()
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    where = "import orfeas_client; from backend.demo import SAMPLES; print(orfeas_client.__file__, SAMPLES, sep='\\n')"
    client, samples = map(Path, printed(environment, where, here).splitlines())
    assert (client.is_relative_to(environment.folder), samples.is_relative_to(environment.folder)) == (True, True)
    assert len(list(samples.glob("*.png"))) == 10
    command: list[str | Path] = [
        environment.bin / "orfeas",
        "demo",
        samples / "mug.png",
        samples / "star.png",
        "--quality",
        "1",
    ]
    with (tmp_path / "told").open("w") as told:
        demo = subprocess.Popen(command, cwd=here, env=variables, stdout=told, stderr=told)  # noqa: S603
        try:
            status = demo.wait(600)
        finally:
            demo.terminate()  # one that hangs takes its service along
            demo.wait(60)
    assert status == 0, (tmp_path / "told").read_text()
    meshes = sorted((here / "outputs" / "demo").glob("*.glb"))
    assert [path.stem for path in meshes] == ["mug", "star"]
    assert all(len(trimesh.load_mesh(path).faces) > 100 for path in meshes)
    assert [path.name for path in here.iterdir()] == ["outputs"]


# What they say of themselves


def test_every_pin_is_within_what_the_service_says_it_needs() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    said = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    needed: dict[str, Requirement] = {}
    for requirement in map(Requirement, said):
        needed.setdefault(_plain(requirement.name), requirement)
    # What `make` installs has previews.
    installed = [*project["dependencies"], *project["optional-dependencies"]["rendering"]]
    runtime = {_plain(requirement.name) for requirement in map(Requirement, installed)}
    pinned = {name: pins(f"requirements{name}.txt") for name in ("", "-cluster", "-dev")}
    # orfeas-client lies in this repository. setuptools makes the editable install, and mako is what alembic needs.
    beside = {"setuptools", "mako"}
    assert set(pinned[""]) - beside == runtime - {"orfeas-client"}
    for file in pinned.values():
        for name, version in file.items():
            if name in beside:
                continue
            assert name in needed, name
            assert needed[name].specifier.contains(version), f"{name} {version}"


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "backend.__version__"}
    assert f"image: orfeas:{backend.__version__}\n" in (REPOSITORY / "compose.yaml").read_text()


def test_both_licences_are_the_same_and_whole() -> None:
    text = (REPOSITORY / "LICENSE").read_bytes()
    assert (REPOSITORY / "orfeas_client" / "LICENSE").read_bytes() == text
    assert len(re.findall(rb"^   \d\. ", text, re.MULTILINE)) == 9
    assert b"Version 2.0, January 2004" in text


def pins(file: str) -> dict[str, str]:
    """Read the exact versions that a requirements file names, by plain name."""
    lines = (REPOSITORY / file).read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith(("-r", "#"))]
    return {_plain(requirement.name): str(requirement.specifier).removeprefix("==") for requirement in found}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
