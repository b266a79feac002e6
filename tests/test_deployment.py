"""The image and its steps, each tried without a Docker engine."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import backend
from backend.auth.agents_file import add_agent
from backend.cli.main import COMMANDS
from backend.config import Settings, is_loopback, settings_table
from backend.errors import ConfigurationError
from backend.serve import GUNICORN
from benchmarks.support.ports import free_port
from tests.support import image_tree

REPOSITORY = image_tree.REPOSITORY
SCRIPTS = sorted((REPOSITORY / "docker").glob("*.sh"))
SECRET_NAME = re.compile(r"KEY|TOKEN|PASSWORD|SECRET|CREDENTIAL", re.IGNORECASE)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the image's WORKDIR as COPY leaves it."""
    return image_tree.build(tmp_path_factory.mktemp("image"))


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    """Make a folder that stands first on PATH."""
    folder = tmp_path / "fakes"
    folder.mkdir()
    return folder


def place(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def environment(fakes: Path, data: Path, **variables: str) -> dict[str, str]:
    path = os.pathsep.join([str(fakes), str(Path(sys.executable).parent), "/usr/bin", "/bin"])
    return {"PATH": path, "ORFEAS_DATA_DIR": str(data), "HOST": "127.0.0.1", "DEVICE": "cpu", **variables}


def call(script: Path, *arguments: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a step as the image does: from its WORKDIR, for at most a minute."""
    return subprocess.run(  # noqa: S603
        [script, *arguments],
        cwd=script.parent.parent,
        env=environ,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


# The Dockerfile


def test_the_base_is_nvidias_and_pinned_to_one_release() -> None:
    base, packages, last = (stage.text for stage in image_tree.of("FROM"))
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu\d\d\.04 AS base", base)
    assert (packages, last) == ("base AS packages", "base")


def test_packages_come_from_a_stage_of_their_own() -> None:
    names = [(one.name, one.text.split()[0]) for one in image_tree.instructions()]
    last = names[len(names) - names[::-1].index(("FROM", "base")) :]
    assert ("COPY", "--from=packages") in last
    assert ("RUN", "docker/install-python.sh") not in last
    compilers = re.compile(r"\b(gcc|g\+\+|clang|build-essential|make|cmake|nvcc)\b")
    assert [path.name for path in SCRIPTS if compilers.search(path.read_text())] == []


def test_labels_say_which_image_it_is() -> None:
    (label,) = image_tree.of("LABEL")
    told = dict(word.removeprefix("org.opencontainers.image.").split("=", 1) for word in label.words)
    assert told["version"] == backend.__version__
    assert image_tree.of("FROM")[0].text.split()[0] in told["base.name"]
    assert told["licenses"] == "Apache-2.0"


def test_the_service_runs_as_a_fixed_user_without_rights() -> None:
    names = [instruction.name for instruction in image_tree.instructions()]
    (user,) = image_tree.of("USER")
    uid, gid = user.text.split(":")

    assert int(uid) >= 10_000
    assert int(gid) >= 10_000
    assert not {"RUN", "COPY", "ADD"} & set(names[names.index("USER") :])
    made = " ".join(run.text for run in image_tree.of("RUN"))
    assert f"--uid {uid} --gid {gid}" in made


def test_the_image_holds_no_secret() -> None:
    named = [*image_tree.image_environment(), *(argument.text for argument in image_tree.of("ARG"))]
    assert [name for name in named if SECRET_NAME.search(name)] == []


def test_programs_are_named_in_exec_form_so_that_signals_reach_them() -> None:
    (entrypoint,), (command,), (health,) = (image_tree.of(name) for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK"))

    assert entrypoint.exec_form == ["/opt/orfeas/docker/entrypoint.sh"]
    assert command.exec_form == ["serve"]
    assert health.exec_form == ["/opt/orfeas/docker/healthcheck.sh"]
    assert [stop.text for stop in image_tree.of("STOPSIGNAL")] == ["SIGTERM"]


def test_what_is_written_lies_in_volumes_that_the_user_owns() -> None:
    environ = image_tree.image_environment()
    (volume,) = image_tree.of("VOLUME")
    (folders,) = [run.text for run in image_tree.of("RUN") if "install -d" in run.text]

    assert set(volume.exec_form) == {environ["ORFEAS_DATA_DIR"], environ["HF_HOME"]}
    assert set(volume.exec_form) <= set(folders[folders.index("install -d") :].split())
    assert environ["HOME"] == "/tmp"  # noqa: S108


def test_the_images_settings_can_be_used_and_never_without_signatures() -> None:
    environ = image_tree.image_environment()

    assert not is_loopback(Settings.from_environment(environ).host)
    with pytest.raises(ConfigurationError, match="AGENT_AUTH_ENABLED=false"):
        Settings.from_environment({**environ, "AGENT_AUTH_ENABLED": "false"})


def test_steps_of_the_build_are_scripts_that_are_copied_before(image: Path) -> None:
    scripts = [run.words[0] for run in image_tree.of("RUN") if run.words[0].startswith("docker/")]

    assert scripts == ["docker/install-system.sh", "docker/install-python.sh"]
    assert {path.name for path in (image / "docker").iterdir()} == {path.name for path in SCRIPTS}


# What is in the image


def test_every_runtime_file_is_copied(image: Path) -> None:
    wanted = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "backend").rglob("*") if path.is_file()}
    wanted = {path for path in wanted if "__pycache__" not in path.parts}

    copied = {path.relative_to(image) for path in (image / "backend").rglob("*") if path.is_file()}

    assert copied == wanted
    assert Path("backend/checkpoints/demo/model.fp16.safetensors") in copied


def test_nothing_else_is_copied(image: Path) -> None:
    assert sorted(path.name for path in image.iterdir()) == [
        "backend",
        "docker",
        "orfeas_client",
        "requirements-cluster.txt",
        "requirements.txt",
    ]


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        "orfeas.env",
        ".git/config",
        "data/agents.json",
        "outputs/demo/a.glb",
        "tests/conftest.py",
        "training/train_demo.py",
        ".venv/bin/python",
        "backend/__pycache__/config.cpython-311.pyc",
        "backend/hunyuan3d/__pycache__/layers.cpython-311.pyc",
        "backend/stray.pyc",
    ],
)
def test_what_is_not_for_the_image_is_not_sent_to_the_build(path: str) -> None:
    assert not image_tree.is_sent(path)


def test_secrets_and_data_are_ignored_by_git() -> None:
    ignored = (REPOSITORY / ".gitignore").read_text().split()
    assert {".env", "orfeas.env", "data/", "outputs/"} <= set(ignored)


# The steps


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_can_be_run_and_stop_at_the_first_failure(script: Path) -> None:
    first, *others = script.read_text().splitlines()

    assert first == "#!/bin/sh"
    assert "set -eu" in others
    assert script.stat().st_mode & stat.S_IXUSR
    assert subprocess.run(["/bin/sh", "-n", script], check=False).returncode == 0  # noqa: S603


def test_the_system_step_installs_python_and_leaves_no_lists(image: Path, fakes: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "archive.list").write_text("")
    place(fakes, "apt-get", f'echo "$@" >>{tmp_path}/calls')

    done = call(image / "docker/install-system.sh", environ=environment(fakes, tmp_path, APT_LISTS=str(lists)))

    assert (done.returncode, done.stderr) == (0, "")
    update, install = (tmp_path / "calls").read_text().splitlines()
    assert update.split()[0] == "update"
    assert {"install", "-y", "--no-install-recommends", "python3", "python3-venv"} <= set(install.split())
    assert list(lists.iterdir()) == []


def test_the_system_step_fails_when_the_packages_do(image: Path, fakes: Path, tmp_path: Path) -> None:
    place(fakes, "apt-get", '[ "$1" = update ] || exit 100')

    assert call(image / "docker/install-system.sh", environ=environment(fakes, tmp_path)).returncode == 100


def wheel(folder: Path, cuda: str | None) -> None:
    """Make a package called torch that says for which CUDA it was built."""
    with zipfile.ZipFile(folder / "torch-2.13.0-py3-none-any.whl", "w") as archive:
        archive.writestr("torch/__init__.py", "")
        archive.writestr("torch/version.py", f"cuda = {cuda!r}\n")
        archive.writestr("torch-2.13.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n")
        archive.writestr("torch-2.13.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("torch-2.13.0.dist-info/RECORD", "")


@pytest.mark.parametrize(
    ("cuda", "status", "printed", "complaint"),
    [("13.0", 0, "torch is built for CUDA 13.0\n", ""), (None, 1, "", "cannot use a GPU")],
)
def test_the_python_step_wants_a_torch_for_the_gpu(
    image: Path, fakes: Path, tmp_path: Path, cuda: str | None, status: int, printed: str, complaint: str
) -> None:
    wheel(tmp_path, cuda)
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\n")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}

    done = call(
        image / "docker/install-python.sh",
        str(tmp_path / "venv"),
        str(tmp_path / "requirements.txt"),
        environ=environment(fakes, tmp_path, **offline),
    )

    assert (done.returncode, done.stdout) == (status, printed), done.stderr
    assert complaint in done.stderr


def test_both_lists_of_packages_agree_and_are_pinned() -> None:
    pins: dict[str, str] = {}
    for name in ("requirements.txt", "requirements-cluster.txt", "requirements-dev.txt"):
        for line in (REPOSITORY / name).read_text().splitlines():
            if not line.startswith("-r"):
                package, version = re.fullmatch(r"([\w.-]+(?:\[\w+\])?)==([\w.!]+)(?:;.*)?", line).groups()  # type: ignore[union-attr]
                assert pins.setdefault(package, version) == version, package
    assert {"celery[redis]", "psycopg[binary]", "redis", "torch"} <= set(pins)


# The entrypoint


def test_the_entrypoint_becomes_gunicorn(image: Path, fakes: Path, tmp_path: Path) -> None:
    add_agent(tmp_path / "agents.json", "someone")
    place(fakes, "gunicorn", 'echo "$$" "$@"')
    process = subprocess.Popen(  # noqa: S603
        [image / "docker/entrypoint.sh"],
        cwd=image,
        env=environment(fakes, tmp_path, PORT="0"),
        stdout=subprocess.PIPE,
        text=True,
    )

    printed, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert printed.split() == [str(process.pid), *GUNICORN[2:]]


def test_the_entrypoint_makes_no_agent_whose_key_would_be_logged(image: Path, fakes: Path, tmp_path: Path) -> None:
    place(fakes, "gunicorn", "echo started")

    done = call(image / "docker/entrypoint.sh", environ=environment(fakes, tmp_path))

    assert (done.returncode, done.stdout) == (2, "")
    assert "orfeas agents add" in done.stderr
    assert list(tmp_path.glob("agents.json")) == []


def test_the_entrypoint_tells_that_the_volume_cannot_be_written(image: Path, fakes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place(fakes, "gunicorn", "echo started")

    done = call(image / "docker/entrypoint.sh", environ=environment(fakes, tmp_path / "file" / "data"))

    assert (done.returncode, done.stdout) == (2, "")
    assert "name another folder with ORFEAS_DATA_DIR" in done.stderr


def test_the_entrypoint_manages_agents_in_a_file_of_their_own(image: Path, fakes: Path, tmp_path: Path) -> None:
    environ = environment(fakes, tmp_path)

    added = call(image / "docker/entrypoint.sh", "agent", "add", "one", environ=environ)
    listed = call(image / "docker/entrypoint.sh", "agent", "list", environ=environ)

    assert (added.returncode, listed.returncode) == (0, 0)
    assert "api key" in added.stdout
    assert listed.stdout.splitlines()[1].split()[0] == "one"
    assert stat.S_IMODE((tmp_path / "agents.json").stat().st_mode) == 0o600


def test_the_entrypoint_knows_every_command_that_a_container_may_need(image: Path, fakes: Path, tmp_path: Path) -> None:
    place(fakes, "python", 'echo "$@"')
    # A code opens the studio from this machine alone, which in a container is the container.
    for command in COMMANDS.keys() - {"serve", "studio"}:
        done = call(image / "docker/entrypoint.sh", command, "--help", environ=environment(fakes, tmp_path))
        assert (done.returncode, done.stdout) == (0, f"-m backend.cli.main {command} --help\n"), done.stderr


def test_the_entrypoint_becomes_any_other_program(image: Path, fakes: Path, tmp_path: Path) -> None:
    done = call(image / "docker/entrypoint.sh", "sh", "-c", "umask; exit 7", environ=environment(fakes, tmp_path))

    assert (done.returncode, done.stdout) == (7, "0077\n")


@pytest.mark.slow
def test_the_image_serves_answers_its_health_check_and_ends_by_sigterm(
    image: Path, fakes: Path, tmp_path: Path
) -> None:
    add_agent(tmp_path / "agents.json", "someone")
    environ = environment(fakes, tmp_path, PORT=str(free_port()))
    logged = tmp_path / "log"
    with logged.open("wb") as log:
        process = subprocess.Popen([image / "docker/entrypoint.sh"], cwd=image, env=environ, stdout=log, stderr=log)  # noqa: S603
    try:
        healthy = call(image / "docker/healthcheck.sh", environ=environ)
        for _ in range(300):
            if healthy.returncode == 0 or process.poll() is not None:
                break
            # Each check is a program of its own, which takes from the service what that needs to start.
            threading.Event().wait(1)
            healthy = call(image / "docker/healthcheck.sh", environ=environ)
        assert (healthy.returncode, healthy.stderr) == (0, ""), logged.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, logged.read_text()
    finally:
        process.kill()
        process.wait()
    gone = call(image / "docker/healthcheck.sh", environ=environ)
    assert gone.returncode == 1
    assert "Connection refused" in gone.stderr


@pytest.fixture
def loading() -> Iterator[int]:
    """Return the port of a service that cannot serve yet."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if self.path == "/api/agent/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *values: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_health_check_fails_while_no_worker_can_serve(
    image: Path, fakes: Path, tmp_path: Path, loading: int
) -> None:
    proxy = {"http_proxy": "http://127.0.0.1:9"}

    done = call(image / "docker/healthcheck.sh", environ=environment(fakes, tmp_path, PORT=str(loading), **proxy))

    assert done.returncode == 1
    assert "HTTP Error 503" in done.stderr


# The Makefile and the handbook


@pytest.fixture
def fresh_clone(tmp_path: Path) -> Path:
    """Copy the Makefile and the lists of packages where nothing was set up yet."""
    lists = ("requirements.txt", "requirements-cluster.txt", "requirements-dev.txt")
    for name in ("Makefile", "pyproject.toml", "orfeas_client/pyproject.toml", *lists):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("serve", "orfeas serve"),
        ("demo", "orfeas demo"),
        ("worker", "orfeas worker"),
        ("faults", "-m pytest tests/faults"),
        ("soak", "-m pytest tests/faults -k soak"),
    ],
)
def test_a_target_sets_up_what_it_needs(fresh_clone: Path, target: str, command: str) -> None:
    # These tests may themselves be run by make, which then tells of the folders it enters.
    command_line = ["make", "--no-print-directory", "--dry-run", target]
    planned = subprocess.check_output(command_line, cwd=fresh_clone, text=True).splitlines()  # noqa: S603

    assert "python3 -m venv .venv" in planned[:3]
    assert any(re.search(r"pip .*install .*-r requirements\.txt", line) for line in planned)
    assert command in planned[-1]


def test_the_handbook_names_every_setting() -> None:
    handbook = (REPOSITORY / "docs/operations.md").read_text()
    assert settings_table() in handbook, "put backend.config.settings_table()'s text into docs/operations.md"
