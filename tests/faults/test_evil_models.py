"""Checkpoints that would run code: nothing runs, and whoever looks after the service reads why there is no worker."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.errors import CheckpointError
from backend.jobs.worker_registry import WorkerStatus
from backend.resources import model_opener
from tests.support.faults.harness import REAL_WORKER, until, worker_harness
from tests.support.faults.report import report
from tests.support.golden import GOLDEN
from tests.support.redis_backend import redis_server
from tests.support.store_backends import empty_database, open_database
from tests.support.workshop import Workshop, workshop

pytestmark = pytest.mark.slow

EVIL_YAML = (
    "!!python/object/apply:os.system ['touch {witness}']",
    "model: !!python/object/new:subprocess.Popen [['touch', '{witness}']]",
    "a: &a [!!python/object/apply:os.system ['touch {witness}']]",
)
EVIL_TARGETS = ("os.system", "subprocess.Popen", "builtins.exec", "backend.worker.main")


class _Harm:
    """Unpickles by running a command."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self._command,)


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    """Provide a file that comes to be when anything runs."""
    return tmp_path / "witness"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Provide a sound checkpoint to be spoilt."""
    (source,) = (path.parent for path in (GOLDEN / "tiny-2.1").glob("*/config.yaml"))
    return Path(shutil.copytree(source, tmp_path / "model"))


@pytest.fixture
def shop(tmp_path: Path, model: Path) -> Iterator[Workshop]:
    """Provide a worker's surroundings, with that checkpoint."""
    with (
        open_database(empty_database("sqlite", tmp_path)) as database,
        workshop(tmp_path, database, model_path=str(model), device="cpu") as made,
    ):
        yield made


def expect_refused(shop: Workshop, witness: Path) -> None:
    """Check that the worker cannot load it and says so in the registry, and that nothing ran."""
    worker = shop.worker(open_processor=model_opener(shop.settings))
    with pytest.raises(CheckpointError) as refused:
        worker.load()
    until(lambda: any(each.status is WorkerStatus.FAILED for each in shop.registry.alive()), "it says so")
    (state,) = shop.registry.alive()
    assert state.error == refused.value.message
    assert not witness.exists()


@pytest.mark.parametrize("text", EVIL_YAML)
def test_a_configuration_that_would_run_code_is_refused(shop: Workshop, model: Path, witness: Path, text: str) -> None:
    (model / "config.yaml").write_text(text.format(witness=witness))
    expect_refused(shop, witness)


@pytest.mark.parametrize("target", EVIL_TARGETS)
def test_a_target_that_is_no_network_is_refused(shop: Workshop, model: Path, witness: Path, target: str) -> None:
    config = model / "config.yaml"
    lines = config.read_text().splitlines()
    spoilt = [f"{line.split('target:')[0]}target: {target}" if "target:" in line else line for line in lines]
    assert spoilt != lines
    config.write_text("\n".join(spoilt))
    expect_refused(shop, witness)


def test_weights_that_would_run_code_are_refused(shop: Workshop, model: Path, witness: Path) -> None:
    (weights,) = (path for path in model.iterdir() if path.name != "config.yaml")
    weights.unlink()
    (model / "model.fp16.ckpt").write_bytes(pickle.dumps(_Harm(f"touch {witness}")))
    expect_refused(shop, witness)


def test_a_worker_with_an_evil_model_lives_on_and_says_why(tmp_path: Path, model: Path, witness: Path) -> None:
    (model / "config.yaml").write_text(EVIL_YAML[0].format(witness=witness))
    settings = {"CELERY_BROKER_URL": redis_server().url, "MODEL_PATH": model, "DEVICE": "cpu"}
    with worker_harness(tmp_path, REAL_WORKER, **settings) as made:
        made.worker.start()
        alive = made.resources.registry.alive
        until(lambda: any(each.status is WorkerStatus.FAILED for each in alive()), made.worker.log[-3000:])
        (state,) = alive()
        assert state.error
        assert state.error in made.worker.log.encode().decode("unicode_escape")
        made.submit(b"picture")
        assert made.worker.stop() == 0
        assert made.outcomes() == {"queued": 1}
    assert not witness.exists()
    report(
        "evil checkpoint, YAML, target strings",
        f"{len(EVIL_YAML)} YAML files, {len(EVIL_TARGETS)} targets, 1 pickle, through MODEL_PATH",
        "0 executions; the registry and /health say why no worker can serve",
    )
