"""Edge contraction in a child process: the same mesh as here or a named error, and nothing left behind."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fast_simplification
import numpy as np
import pytest
import trimesh

from backend.errors import DecimationFailed, InvalidParameter
from backend.hunyuan3d.mesh import decimation as contraction
from backend.hunyuan3d.mesh import decimation_child as child
from backend.hunyuan3d.mesh.decimation import ChildRules, Contractor, contract
from backend.hunyuan3d.mesh.ops import decimate, is_watertight
from backend.hunyuan3d.mesh.topology import Faces, Vertices

ROOT = Path(__file__).resolve().parents[1]
ALWAYS, NEVER = ChildRules(min_faces=0), ChildRules(min_faces=10**9)
READY = child.READY.decode()
Arrays = tuple[Vertices, Faces]


def ball(subdivisions: int = 3) -> Arrays:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)


def crumpled() -> Arrays:
    """Return a torus out of shape, open at one place, in an array that does not lie in memory as it counts."""
    mesh = trimesh.creation.torus(major_radius=1.0, minor_radius=0.3, major_sections=96, minor_sections=48)
    vertices = mesh.vertices + np.random.default_rng(3).normal(0, 0.01, mesh.vertices.shape)
    return np.asfortranarray(vertices), np.asarray(mesh.faces, np.int64)[:-7]


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contraction in this process is a failure."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("contracted in this process")

    monkeypatch.setattr(fast_simplification, "simplify", refuse)


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a shell program in the interpreter's place; gives its path."""

    def put(program: str) -> Path:
        path = shell_program(tmp_path, program)
        monkeypatch.setattr(sys, "executable", str(path))
        return path

    return put


def shell_program(folder: Path, program: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{program}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(("make", "target"), [(ball, 400), (ball, 4), (crumpled, 900), (crumpled, 9000)])
def test_child_gives_the_same_mesh_bit_for_bit(make: Callable[[], Arrays], target: int) -> None:
    vertices, faces = make()
    before = vertices.copy(), faces.copy()
    for aggressiveness in (5.0, 7.0):
        here = contract(vertices, faces, target, aggressiveness, NEVER)
        there = contract(vertices, faces, target, aggressiveness, ALWAYS)
        for one, other in zip(here, there, strict=True):
            assert one.dtype == other.dtype
            assert one.tobytes() == other.tobytes()
            assert other.flags.writeable
    np.testing.assert_array_equal(vertices, before[0])
    np.testing.assert_array_equal(faces, before[1])


def test_only_large_meshes_go_to_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    here: list[int] = []
    really = fast_simplification.simplify

    def watched(points: Vertices, faces: Faces, **terms: float) -> Arrays:
        here.append(len(faces))
        found: Arrays = really(points, faces, **terms)
        return found

    monkeypatch.setattr(fast_simplification, "simplify", watched)
    small, large = ball(5), ball(6)
    assert len(small[1]) < ChildRules().min_faces < len(large[1])
    result = decimate(trimesh.Trimesh(*large, process=False), 20_000)
    assert (result.watertight, is_watertight(result.mesh)) == (True, True)
    assert all(count < ChildRules().min_faces for count in here)
    here.clear()
    decimate(trimesh.Trimesh(*small, process=False), 5_000)
    assert here[0] == len(small[1])


@pytest.mark.usefixtures("nothing_here")
def test_children_of_many_threads_do_not_mix() -> None:
    vertices, faces = ball()
    sizes = range(1, 9)
    alone = [contract(vertices * size, faces, 300, 7.0, ALWAYS) for size in sizes]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda size: contract(vertices * size, faces, 300, 7.0, ALWAYS), sizes))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.usefixtures("nothing_here")
def test_a_child_that_came_up_beforehand_gives_the_same_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, faces = ball()
    expected = contract(vertices, faces, 400, 7.0, ALWAYS)
    with Contractor(ALWAYS) as contractor:
        contractor.expect(len(faces))
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        found = contractor(vertices, faces, 400, 7.0)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_child_that_cannot_come_up_beforehand_is_of_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    with Contractor(ALWAYS) as contractor:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        contractor.expect(1280)
        monkeypatch.undo()
        assert len(contractor(*ball(), 300, 7.0)[1]) == 300


def test_a_child_that_is_not_asked_says_nothing_and_ends() -> None:
    held, go = os.pipe()
    command = [sys.executable, "-P", "-m", child.__name__, str(held)]
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, cwd="/", env={"PYTHONPATH": str(ROOT)}, pass_fds=[held]
    ) as asked:
        os.close(held)
        os.close(go)
        assert asked.communicate()[0] == child.READY
    assert asked.returncode == 0


@pytest.mark.usefixtures("nothing_here")
def test_working_directory_is_of_no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)\n")
    tmp_path.chmod(0o555)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *(entry for entry in sys.path if entry and Path(entry) != ROOT)])
    assert len(contract(*ball(), 300, 7.0, ALWAYS)[1]) == 300


@pytest.mark.usefixtures("nothing_here")
def test_working_directory_that_is_gone_is_of_no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert len(contract(*ball(), 300, 7.0, ALWAYS)[1]) == 300


def test_child_of_a_forked_process_works() -> None:
    program = (
        "import os, sys, threading, tests.test_decimation as t\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "t.contract(*t.ball(), 300, 7.0, t.ALWAYS)\n"
        "forked = os.fork()\n"
        "if not forked:\n"
        "    os._exit(len(t.contract(*t.ball(), 200, 7.0, t.ALWAYS)[1]))\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) != 200)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT, capture_output=True, text=True)  # noqa: S603
    assert (done.returncode, done.stderr) == (0, "")


def test_child_is_given_nothing_but_where_modules_lie(
    interpreter: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORFEAS_SECRET", "told to nobody")
    path = interpreter('env > "$0.env"')
    contract(*ball(), 300, 7.0, ALWAYS)
    lines = path.with_name("python.env").read_text().splitlines()
    told = {line.partition("=")[0] for line in lines} - {"PWD", "SHLVL", "_", "OLDPWD"}
    assert {"PYTHONPATH"} <= told <= {"PYTHONPATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", *contraction._HANDED_ON}
    assert str(ROOT) in next(line for line in lines if line.startswith("PYTHONPATH=")).partition("=")[2].split(":")


def test_child_loads_nothing_but_numpy_and_the_library() -> None:
    program = (
        f"import sys, {child.__name__}\nprint(*{{name.partition('.')[0] for name in sys.modules}} - "
        "sys.stdlib_module_names)"
    )
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-P", "-c", program], env=environment, check=True, capture_output=True)  # noqa: S603
    loaded = {name for name in done.stdout.decode().split() if not name.startswith("_")}
    assert {"backend", "numpy", "fast_simplification"} <= loaded
    assert not loaded & {"torch", "trimesh", "scipy", "PIL", "flask"}


@pytest.mark.parametrize(
    "program", ["exit 7", "echo nonsense", "echo >&2 broken; kill -9 $$", "exec sleep 60"], ids=str.split
)
def test_mesh_is_contracted_here_when_no_child_comes_up(
    program: str, interpreter: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    interpreter(program)
    with caplog.at_level(logging.WARNING):
        found = contract(*ball(), 300, 7.0, ChildRules(min_faces=0, seconds=0.5))
    np.testing.assert_array_equal(found[1], contract(*ball(), 300, 7.0, NEVER)[1])
    assert "no child could be started" in caplog.text


@pytest.mark.parametrize("executable", ["", None, "/nowhere/python", "/etc/hostname", "/"])
def test_mesh_is_contracted_here_without_an_interpreter(
    executable: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    assert len(contract(*ball(), 300, 7.0, ALWAYS)[1]) == 300
    assert "no child could be started" in caplog.text


@pytest.mark.usefixtures("nothing_here")
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("kill -9 $$", "exit code -9"),
        ("kill -SEGV $$", "exit code -11"),
        ("echo >&2 so it is; exit 1", "exit code 1: so it is"),
        ("exec sleep 60", "longer than"),
        ("exit 0", "no header"),
    ],
)
def test_child_that_fails_at_its_work_is_a_named_error(
    program: str, reason: str, interpreter: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    interpreter(f"printf {READY}; {program}")
    with pytest.raises(DecimationFailed, match="failed on this one") as failure:
        contract(*ball(), 300, 7.0, ChildRules(min_faces=0, seconds=2.0, seconds_per_face=0.0))
    assert failure.value.details == {"asked": 300, "faces": len(ball()[1])}
    assert reason in caplog.text


def header(vertices: int, faces: int) -> bytes:
    return child.ANSWER.pack(vertices, faces)


ANSWERS = {
    "half a header": header(3, 1)[:9],
    "more faces than there were": header(3, 10**6),
    "more vertices than there were": header(10**12, 1),
    "fewer than none": header(-1, -1),
    "no points": header(3, 1),
    "no corners": header(3, 1) + np.zeros((3, 3)).tobytes(),
    "a corner that is no vertex": header(3, 1) + np.eye(3).tobytes() + np.array([0, 1, 3], "<i4").tobytes(),
    "a corner below zero": header(3, 1) + np.eye(3).tobytes() + np.array([0, 1, -1], "<i4").tobytes(),
    "a point nowhere": header(3, 1) + np.full((3, 3), np.nan).tobytes() + np.array([0, 1, 2], "<i4").tobytes(),
}


@pytest.mark.usefixtures("nothing_here")
@pytest.mark.parametrize("which", ANSWERS)
def test_answer_that_is_no_mesh_is_a_named_error(which: str, interpreter: Callable[[str], Path]) -> None:
    path = interpreter(f'printf {READY}; cat "{"$0"}.answer"')
    path.with_name("python.answer").write_bytes(ANSWERS[which])
    with pytest.raises(DecimationFailed):
        contract(*ball(), 300, 7.0, ALWAYS)


def test_answer_that_is_a_mesh_is_taken(interpreter: Callable[[str], Path]) -> None:
    path = interpreter(f'printf {READY}; cat "{"$0"}.answer"')
    corners = np.array([[0, 1, 2]], "<i4")
    path.with_name("python.answer").write_bytes(header(3, 1) + np.eye(3).tobytes() + corners.tobytes())
    found = contract(*ball(), 300, 7.0, ALWAYS)
    np.testing.assert_array_equal(found[0], np.eye(3))
    np.testing.assert_array_equal(found[1], corners)


@pytest.mark.usefixtures("nothing_here")
def test_child_without_memory_is_an_error_of_memory(interpreter: Callable[[str], Path]) -> None:
    interpreter(f"printf {READY}; exit {child.OUT_OF_MEMORY}")
    with pytest.raises(MemoryError):
        contract(*ball(), 300, 7.0, ALWAYS)


def held() -> tuple[set[str], set[str]]:
    """Return this process's open files, and its children, dead ones not yet taken leave of among them."""
    files = {f"{entry.name} {entry.readlink()}" for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}
    tasks = Path("/proc/self/task").iterdir()
    return {name for name in files if "/proc/" not in name}, {
        number for task in tasks for number in (task / "children").read_text().split()
    }


def compare_what_is_held(folder: Path) -> None:
    """End a child in each way there is. Raises AssertionError when anything of one stays."""
    before = held()
    contract(*ball(), 300, 7.0, ALWAYS)
    with Contractor(ALWAYS) as contractor:
        contractor.expect(1280)
        assert held() != before
    assert held() == before
    rules = ChildRules(min_faces=0, seconds=0.2)
    for program in ("exit 1", "exec sleep 60", f"printf {READY}", f"printf {READY}; exec sleep 60"):
        sys.executable = str(shell_program(folder, program))
        try:
            contract(*ball(), 300, 7.0, rules)
        except DecimationFailed:
            continue
    assert held() == before


def test_nothing_stays_of_a_child_however_it_ends(tmp_path: Path) -> None:
    # In a process where no thread of another test opens anything meanwhile.
    apart = multiprocessing.get_context("spawn").Process(target=compare_what_is_held, args=(tmp_path,))
    apart.start()
    apart.join(60)
    assert apart.exitcode == 0


def test_child_ends_itself_when_its_time_is_over() -> None:
    question = child.QUESTION.pack(12, 20, 4, 7.0, 1)
    command = [sys.executable, "-P", "-m", child.__name__]
    environment = {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", env=environment) as asked:  # noqa: S603
        assert asked.stdin is not None
        assert asked.stdout is not None
        asked.stdin.write(question)
        asked.stdin.flush()
        assert asked.stdout.read() == child.READY
        assert asked.wait() == -signal.SIGALRM


def test_child_that_is_asked_nothing_whole_says_so() -> None:
    vertices, faces = ball(1)
    whole = child.QUESTION.pack(len(vertices), len(faces), 20, 7.0, 30) + vertices.tobytes()
    command = [sys.executable, "-P", "-m", child.__name__]
    done = subprocess.run(  # noqa: S603
        command, input=whole, check=False, capture_output=True, cwd="/", env={"PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stdout) == (1, child.READY)
    assert b"EOFError" in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [{"min_faces": -1}, {"seconds": 0.0}, {"seconds": float("nan")}, {"seconds_per_face": -1.0}, {"seconds": np.inf}],
)
def test_senseless_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidParameter):
        ChildRules(**wrong)  # type: ignore[arg-type]
