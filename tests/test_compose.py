"""compose.yaml, checked as far as that goes without a Docker engine."""

from __future__ import annotations

import atexit
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import create_engine, make_url, text

from backend.config import Settings
from backend.storage.migrations import migrate
from tests.support import image_tree
from tests.support.store_backends import postgres_cluster

OWN = ("orfeas", "web", "worker")
MAKE_SECRETS = image_tree.REPOSITORY / "deploy/make-secrets.sh"
STORES = ("postgres", "redis")
BESIDE = ("caddy", "prometheus", "grafana")
SERVICE_KEYS = {
    *("image", "build", "command", "env_file", "environment", "profiles", "depends_on", "deploy", "restart"),
    *("volumes", "tmpfs", "networks", "ports", "read_only", "cap_drop", "security_opt"),
    *("stop_grace_period", "healthcheck", "secrets", "mem_limit", "logging", "cap_add"),
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
    plain = {key: re.sub(r"\$\{\w+:\+.*?\}", "", value) for key, value in given.items()}
    return {key: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for key, value in plain.items()}


@cache
def made_secrets() -> Path:
    """Return a folder of secrets, as the script makes it."""
    folder = Path(tempfile.mkdtemp()) / "secrets"
    atexit.register(shutil.rmtree, folder.parent)
    subprocess.run([MAKE_SECRETS, folder], check=True)  # noqa: S603
    return folder


def secrets_of(name: str) -> str:
    return (made_secrets() / name).read_text()


def read(name: str, **others: str) -> Settings:
    """Return a service's settings, its secrets read from the files that are mounted."""
    mounted = {key: value.replace("/run/secrets", str(made_secrets())) for key, value in variables(name).items()}
    return Settings.from_environment({**others, **mounted})


def test_every_part_is_known_to_compose() -> None:
    extensions = {key for key in compose() if key.startswith("x-")}
    assert set(compose()) - extensions == {"name", "services", "networks", "volumes", "secrets"}
    assert set(compose()["services"]) == {*OWN, *STORES, *BESIDE}
    for name in compose()["services"]:
        assert set(service(name)) <= SERVICE_KEYS, name


def test_names_that_are_used_are_declared() -> None:
    for name in compose()["services"]:
        mounted = {mount.split(":")[0] for mount in service(name).get("volumes", [])}
        folders = {mount for mount in mounted if mount.startswith("./")}
        assert mounted - folders <= set(compose()["volumes"]), name
        assert set(service(name).get("secrets", [])) <= set(compose()["secrets"]), name
        assert set(service(name).get("networks", ["default"])) <= {"default", *compose()["networks"]}, name
        for other in service(name).get("depends_on", {}):
            assert service(other)["profiles"] == service(name)["profiles"], name


def test_one_machine_is_the_default_and_the_cluster_a_profile() -> None:
    assert "profiles" not in service("orfeas")
    assert [service(name)["profiles"] for name in ("web", "worker", *STORES, "caddy")] == [["cluster"]] * 5
    assert [service(name)["profiles"] for name in ("prometheus", "grafana")] == [["monitoring"]] * 2


@pytest.mark.parametrize("name", [*OWN, *STORES, *BESIDE])
def test_images_are_pinned(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+(\.\d+)+(-[a-z]+)?", service(name)["image"])


@pytest.mark.parametrize("name", OWN)
def test_the_service_has_no_right_that_it_does_not_need(name: str) -> None:
    own = service(name)
    assert own["read_only"] is True
    assert own["cap_drop"] == ["ALL"]
    assert own["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", OWN)
def test_what_the_service_writes_is_mounted(name: str) -> None:
    mounted = {mount.split(":")[1] for mount in service(name)["volumes"]} | set(service(name)["tmpfs"])
    settings = read(name, **image_tree.image_environment())

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
    assert read("web").worker_enabled is False


def test_the_webs_processes_know_how_many_they_are() -> None:
    assert service("web")["command"] == ["serve", "--workers", variables("web")["WEB_PROCESSES"]]


def test_every_variable_is_a_setting_and_those_of_the_image_are_fixed() -> None:
    known = set(
        re.findall(r"^\| `(\w+)`", (Path(image_tree.REPOSITORY) / "docs/operations.md").read_text(), re.MULTILINE)
    )
    for name in OWN:
        assert {key.removesuffix("_FILE") for key in variables(name)} - known <= {"HF_HOME"}, name
        fixed = image_tree.image_environment().items() & variables(name).items()
        assert {key for key, _ in fixed} == {"HOST", "PORT", "ORFEAS_DATA_DIR", "HF_HOME"}, name


def test_web_and_worker_share_database_files_and_redis() -> None:
    web, worker = read("web"), read("worker")

    assert re.fullmatch(r"postgresql://orfeas:\w{48}@postgres:5432/orfeas", web.database_url)
    assert web.database_url == worker.database_url
    assert secrets_of("postgres_password") in web.database_url
    assert web.files_url == worker.files_url == "/files"
    assert all("files:/files" in service(name)["volumes"] for name in ("web", "worker"))
    assert web.broker_url == worker.broker_url == f"redis://:{secrets_of('redis_password')}@redis:6379/1"
    assert web.rate_limit_storage == web.nonce_store == f"redis://:{secrets_of('redis_password')}@redis:6379/0"


def test_a_stopping_worker_has_time_for_its_batch() -> None:
    for name in OWN:
        grace = int(service(name)["stop_grace_period"].removesuffix("s"))
        assert grace >= read(name).drain_seconds + 45, name


def test_only_this_machine_reaches_the_port_and_nobody_the_stores() -> None:
    assert compose()["networks"]["inside"] == {"internal": True}
    assert compose()["networks"]["front"]["internal"] is True
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
    assert given == {
        "POSTGRES_PASSWORD_FILE": "/run/secrets/postgres_admin_password",
        "GF_SECURITY_ADMIN_PASSWORD__FILE": "/run/secrets/grafana_password",
    }
    assert "healthcheck" in service("postgres")


def test_the_service_s_role_owns_its_database_and_may_nothing_else(tmp_path: Path) -> None:
    """Run what PostgreSQL's image runs once, against a server of the tests, with a role's name of its own."""
    assert variables("postgres")["POSTGRES_USER"] == "postgres"
    assert set(service("postgres")["secrets"]) == {"postgres_admin_password", "postgres_password"}
    server, name, password = make_url(postgres_cluster().url), f"orfeas_{secrets.token_hex(4)}", "it's \\ a $password"
    (tmp_path / "postgres_password").write_text(password)
    script = (image_tree.REPOSITORY / "deploy/postgres/make-role.sh").read_text()
    (tmp_path / "make-role.sh").write_text(re.sub(r"\borfeas\b", name, script))
    admin = {"POSTGRES_USER": str(server.username), "PGHOST": str(server.query["host"])}
    environ = {"PATH": os.environ["PATH"], "SECRETS": str(tmp_path), **admin}
    subprocess.run(["/bin/sh", tmp_path / "make-role.sh"], check=True, env=environ)  # noqa: S603
    own = server.set(username=name, password=password, database=name)
    migrate(own.render_as_string(hide_password=False))
    engine = create_engine(own.set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        asked = text("SELECT rolsuper, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles WHERE rolname = :name")
        assert connection.execute(asked, {"name": name}).one() == (False, False, False, False)
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar_one() == 0
    engine.dispose()


def test_every_secret_is_a_file_that_the_script_makes_once() -> None:
    folder = made_secrets()
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert {f"secrets/{name}" for name in before} == {secret["file"] for secret in compose()["secrets"].values()}
    assert (folder.stat().st_mode & 0o777, {path.stat().st_mode & 0o777 for path in folder.iterdir()}) == (
        0o700,
        {0o444},
    )
    subprocess.run([MAKE_SECRETS, folder], check=True)  # noqa: S603
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def test_only_caddy_is_believed_about_who_calls() -> None:
    (network,) = compose()["networks"]["front"]["ipam"]["config"]
    assert variables("web")["TRUSTED_PROXIES"] == network["subnet"]
    assert [name for name in compose()["services"] if "front" in service(name).get("networks", [])] == ["web", "caddy"]


@pytest.mark.parametrize("name", [*OWN, *STORES, *BESIDE])
def test_memory_and_logs_are_bounded(name: str) -> None:
    assert re.fullmatch(r"\d+[mg]", service(name)["mem_limit"])
    assert set(service(name)["logging"]["options"]) == {"max-size", "max-file"}


def test_what_is_mounted_from_the_checkout_is_there() -> None:
    mounts = [
        mount.split(":")[0]
        for name in (*STORES, *BESIDE)
        for mount in service(name)["volumes"]
        if mount.startswith("./")
    ]
    assert {"./deploy/caddy/Caddyfile", "./deploy/postgres"} <= set(mounts)
    assert [mount for mount in mounts if not (image_tree.REPOSITORY / mount).exists()] == []


def test_redis_forgets_no_nonce_before_its_time() -> None:
    words = service("redis")["command"][-1].split()
    assert words[words.index("--maxmemory-policy") + 1] == "noeviction"
    assert words[words.index("--appendonly") + 1] == "yes"
