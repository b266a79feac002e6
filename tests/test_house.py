"""The rules of the house that a program can check: who imports whom, how long things are, what loads torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.own_process import printed
from tests.support.running import REPOSITORY

MODULE_LINES = 450
FUNCTION_LINES = 50
# What a test file tests where no single module does it.
BEHAVIOURS = {
    "client_events": "how the client listens",
    "client_leaves": "what the client's modules do alone",
    "agents_page": "docs/agents.md and /llms.txt",
    "app": "the API in any Flask app",
    "batches": "batches through the whole app, and lists",
    "compose": "compose.yaml",
    "mesh_candidates": "several seeds for a picture, and the best kept",
    "prompts": "words in place of a picture, from the form to the mesh",
    "side_by_side": "two versions on one database",
    "dashboards": "deploy/grafana and deploy/prometheus",
    "demo_checkpoint": "the checkpoint that comes with the product",
    "denoiser_kernels": "the kernels that the denoisers use",
    "deploy_files": "deploy/: Kubernetes, systemd, scripts",
    "deployment": "the Dockerfile, its scripts and the Makefile",
    "distributions": "the wheels that are built",
    "golden": "the reference's numbers",
    "gunicorn": "gunicorn with the settings and the worker class of serve/",
    "hostile_uploads": "uploads that mean harm",
    "house": "the rules of the house",
    "job_history": "any history of the job table",
    "job_reports": "what is reported of a job",
    "memory_return": "when device/malloc.py gives memory back",
    "load": "what benchmarks/load has measured",
    "mesh_readers": "what the programs of others say of our mesh files",
    "missing_programs": "how tests say that a program is missing",
    "nonce_stores_contract": "what holds for every store of nonces",
    "proxies": "nginx and Caddy in front of the service, with the files of deploy/",
    "readme": "README.md and the documents",
    "server_ports": "the ports that servers of tests and benchmarks get",
    "recipes": "docs/recipes",
    "rooms": "the layers of the rooms",
    "security": "docs/security.md",
    "same_meshes": "meshes that stay as they were",
    "shared_limits": "limits that several processes share",
    "signing_guide": "docs/signing.md",
    "training_data": "the data that the training makes",
    "training_evaluation": "the measuring of a checkpoint",
    "training_run": "the training loops",
    "worker_faults": "what goes wrong around a worker",
    "views": "several views of one object, from the form to the mesh",
}


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported(path: Path) -> set[str]:
    """Return every module that a file names in an import, wherever it stands; with what it takes from it."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def is_test(module: str) -> bool:
    return module.startswith("tests.") and any(
        part.startswith("test_") or part == "conftest" for part in module.split(".")
    )


def test_no_test_imports_a_test() -> None:
    borrowed = {
        str(path.relative_to(REPOSITORY)): sorted(filter(is_test, imported(path))) for path in python_files("tests")
    }
    assert {path: names for path, names in borrowed.items() if names} == {}


def test_the_tests_helpers_stand_in_support() -> None:
    others = [
        str(path.relative_to(REPOSITORY))
        for path in python_files("tests")
        if "support" not in path.parts and not path.name.startswith("test_")
    ]
    assert {Path(path).name for path in others} <= {"__init__.py", "conftest.py"}, others


@pytest.mark.parametrize("folder", ["backend", "orfeas_client", "benchmarks", "training"])
def test_nothing_but_tests_imports_tests(folder: str) -> None:
    paths = python_files(folder)
    assert paths
    assert [path for path in paths if any(name.split(".")[0] == "tests" for name in imported(path))] == []


def test_modules_end_at_450_lines() -> None:
    lengths = {
        str(path.relative_to(REPOSITORY)): len(path.read_text("utf-8").splitlines())
        for path in python_files("backend", "orfeas_client")
    }
    assert {path: lines for path, lines in lengths.items() if lines > MODULE_LINES} == {}


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Give each function of a file with its lines, from its name to its end."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_functions_end_at_50_lines() -> None:
    long = {
        f"{path.relative_to(REPOSITORY)}:{name}": lines
        for path in python_files("backend", "orfeas_client")
        for name, lines in functions(path)
        if lines > FUNCTION_LINES
    }
    assert long == {}


def names_of(path: Path) -> set[str]:
    """Return what a test of a module or package may be called: `c`, `b_c` and `a_b_c` for `a/b/c.py`."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    parts = parts[:-1] if parts[-1] in ("__init__", "__main__") else parts
    parts = parts[1:] if parts[0] == "backend" and len(parts) > 1 else parts
    parts = ("client", *parts[1:]) if parts[0] == "orfeas_client" else parts
    names = {"_".join(parts[start:]) for start in range(len(parts))}
    # The room of jobs tests `job_store`, not `jobs_store`.
    return names | {name.replace("jobs_", "job_", 1) for name in names}


def test_a_test_file_is_called_what_it_tests() -> None:
    modules = set().union(*map(names_of, python_files("backend", "orfeas_client", "training")))
    called = {path.stem.removeprefix("test_") for path in (REPOSITORY / "tests").glob("test_*.py")}
    assert sorted(called - modules - BEHAVIOURS.keys()) == []
    assert sorted(BEHAVIOURS.keys() - called) == []


def test_a_worker_imports_no_torch_before_its_model_does() -> None:
    """Tests start dozens of workers whose model is a fake: each would take seconds more."""
    assert printed("import sys, tests.support.faults.fake_worker; print('torch' in sys.modules)").strip() == "False"


def test_the_model_is_loaded_without_modelling_code_compiler_or_kernels() -> None:
    """Each of these takes a process seconds of processor time; none is needed until something asks for it."""
    program = """
import sys, torch
of_torch = set(sys.modules)
from backend.hunyuan3d.pipeline import Hunyuan3DShapePipeline
Hunyuan3DShapePipeline.from_pretrained("demo", device="cpu")
heavy = {"transformers", "diffusers", "huggingface_hub", "triton", "sympy"}
heavy |= {"torch._dynamo", "torch._inductor", "torch.distributed.tensor"}
print(sorted(heavy & (set(sys.modules) - of_torch)))
"""
    assert printed(program).strip() == "[]"


def test_the_app_imports_no_torch() -> None:
    program = "import sys, backend.main; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    assert printed(program).strip() == "[]"
