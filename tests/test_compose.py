"""compose.yaml, checked as far as that goes without a Docker engine."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.config import Settings
from tests.support import image_tree

OWN = ("orfeas", "web", "worker")
STORES = ("postgres", "redis")
SERVICE_KEYS = {
    *("image", "build", "command", "env_file", "environment", "profiles", "depends_on", "deploy", "restart"),
    *("volumes", "tmpfs", "networks", "ports", "read_only", "cap_drop", "security_opt"),
    *("stop_grace_period", "healthcheck"),
}


@cache
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((image_tree.REPOSITORY / "compose.yaml").read_text())
    return document


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"][name]
    return found


def variables(name: str) -> dict[str, str]:
    """Return a service's variables with nothing set outside: `${NAME:-default}` becomes its default."""
    given = service(name).get("environment", {})
    return {key: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for key, value in given.items()}


def test_every_part_is_known_to_compose() -> None:
    extensions = {key for key in compose() if key.startswith("x-")}
    assert set(compose()) - extensions == {"name", "services", "networks", "volumes"}
    assert set(compose()["services"]) == {*OWN, *STORES}
    for name in compose()["services"]:
        assert set(service(name)) <= SERVICE_KEYS, name


def test_names_that_are_used_are_declared() -> None:
    for name in compose()["services"]:
        volumes = {mount.split(":")[0] for mount in service(name).get("volumes", [])}
        assert volumes <= set(compose()["volumes"]), name
        assert set(service(name).get("networks", ["default"])) <= {"default", *compose()["networks"]}, name
        for other in service(name).get("depends_on", {}):
            assert service(other)["profiles"] == service(name)["profiles"], name


def test_one_machine_is_the_default_and_the_cluster_a_profile() -> None:
    assert "profiles" not in service("orfeas")
    assert [service(name)["profiles"] for name in ("web", "worker", *STORES)] == [["cluster"]] * 4


@pytest.mark.parametrize("name", [*OWN, *STORES])
def test_images_are_pinned(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:\d+(\.\d+)+(-[a-z]+)?", service(name)["image"])


@pytest.mark.parametrize("name", OWN)
def test_the_service_has_no_right_that_it_does_not_need(name: str) -> None:
    own = service(name)
    assert own["read_only"] is True
    assert own["cap_drop"] == ["ALL"]
    assert own["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", OWN)
def test_what_the_service_writes_is_mounted(name: str) -> None:
    mounted = {mount.split(":")[1] for mount in service(name)["volumes"]} | set(service(name)["tmpfs"])
    settings = Settings.from_environment(image_tree.image_environment() | variables(name))

    assert str(settings.data_dir) in mounted
    assert settings.files_url in mounted
    assert "/tmp" in mounted  # noqa: S108


@pytest.mark.parametrize("name", ["orfeas", "worker"])
def test_who_runs_the_model_has_a_gpu_and_keeps_the_models(name: str) -> None:
    (device,) = service(name)["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert "models:/models" in service(name)["volumes"]


def test_the_web_needs_no_gpu_and_runs_no_jobs() -> None:
    assert "deploy" not in service("web")
    assert Settings.from_environment(variables("web")).worker_enabled is False


def test_the_webs_processes_know_how_many_they_are() -> None:
    assert service("web")["command"] == ["serve", "--workers", variables("web")["WEB_PROCESSES"]]


def test_every_variable_is_a_setting_and_those_of_the_image_are_fixed() -> None:
    known = set(
        re.findall(r"^\| `(\w+)`", (Path(image_tree.REPOSITORY) / "docs/operations.md").read_text(), re.MULTILINE)
    )
    for name in OWN:
        assert set(variables(name)) - known <= {"PGPASSWORD", "HF_HOME"}, name
        fixed = image_tree.image_environment().items() & variables(name).items()
        assert {key for key, _ in fixed} == {"HOST", "PORT", "ORFEAS_DATA_DIR", "HF_HOME"}, name


def test_web_and_worker_share_database_files_and_redis() -> None:
    web, worker = (Settings.from_environment(variables(name)) for name in ("web", "worker"))

    assert web.database_url == worker.database_url == "postgresql://orfeas@postgres:5432/orfeas"
    assert web.files_url == worker.files_url == "/files"
    assert all("files:/files" in service(name)["volumes"] for name in ("web", "worker"))
    assert web.broker_url == worker.broker_url == "redis://redis:6379/1"
    assert web.rate_limit_storage == web.nonce_store == "redis://redis:6379/0"


def test_a_stopping_worker_has_time_for_its_batch() -> None:
    for name in OWN:
        grace = int(service(name)["stop_grace_period"].removesuffix("s"))
        assert grace >= Settings.from_environment(variables(name)).drain_seconds + 45, name


def test_only_this_machine_reaches_the_port_and_nobody_the_stores() -> None:
    assert compose()["networks"]["inside"] == {"internal": True}
    for name in STORES:
        assert service(name)["networks"] == ["inside"]
        assert "ports" not in service(name)
    for name in ("orfeas", "web"):
        (port,) = service(name)["ports"]
        assert port.startswith("127.0.0.1:")
        assert port.endswith(f":{image_tree.image_environment()['PORT']}")


def test_there_is_no_default_password() -> None:
    given = {
        key: value for name in compose()["services"] for key, value in variables(name).items() if "PASSWORD" in key
    }
    assert given == {"PGPASSWORD": "", "POSTGRES_PASSWORD": ""}
    assert "healthcheck" in service("postgres")


def test_redis_forgets_no_nonce_before_its_time() -> None:
    words = service("redis")["command"]
    assert words[words.index("--maxmemory-policy") + 1] == "noeviction"
    assert words[words.index("--appendonly") + 1] == "yes"
