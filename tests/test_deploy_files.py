"""deploy/ by Kubernetes' schemas and by systemd, scripts by shellcheck, the Dockerfile by hadolint."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import psycopg
import pytest
import yaml

from backend.auth.agents_file import add_agent
from backend.config import Settings
from backend.jobs.models import NewFile
from backend.jobs.store import JobStore
from backend.periodic import utc_now
from benchmarks.support.programs import require
from tests.support import image_tree
from tests.support.running import REPOSITORY
from tests.support.store_backends import empty_database, open_database, submit

KUBERNETES = REPOSITORY / "deploy/kubernetes"
UNITS = sorted((REPOSITORY / "deploy/systemd").glob("*.service"))
LEAST_KUBERNETES = "1.30"
LEAST_EXPOSED = 20
"""In tenths, of systemd's 100."""

CLASSES = ("orfeas-settings", "orfeas-secrets", "orfeas-agents")
SCALING = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["scaleTargetRef", "triggers"],
            "additionalProperties": False,
            "properties": {
                "scaleTargetRef": {"type": "object", "required": ["name"]},
                "minReplicaCount": {"type": "integer", "minimum": 0},
                "maxReplicaCount": {"type": "integer", "minimum": 1},
                "pollingInterval": {"type": "integer", "minimum": 1},
                "cooldownPeriod": {"type": "integer", "minimum": 0},
                "triggers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["type", "metadata", "authenticationRef"],
                        "properties": {
                            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                        },
                    },
                },
            },
        }
    },
}
"""Of KEDA's ScaledObject what is used here, written for this test from its documentation: its own is not published
apart from its chart."""


@cache
def documents() -> list[dict[str, Any]]:
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    return [document for name in listed for document in yaml.safe_load_all((KUBERNETES / name).read_text())]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in documents() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def pods() -> dict[str, dict[str, Any]]:
    """Return the pods that are made, by the name of what makes them."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in documents()
        if "template" in one.get("spec", {})
    }


def containers() -> list[dict[str, Any]]:
    return [one for pod in pods().values() for one in (*pod["containers"], *pod.get("initContainers", []))]


def settings_file() -> dict[str, str]:
    lines = (KUBERNETES / "settings.env").read_text().split()
    return dict(line.split("=", 1) for line in lines)


def test_every_file_is_listed_and_valid_for_kubernetes() -> None:
    # Its import takes seconds, which only the process that runs these tests should take.
    import kubernetes_validate

    listed = set(yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"])
    assert {path.name for path in KUBERNETES.glob("*.yaml")} == {*listed, "kustomization.yaml"}
    for document in documents():
        if document["apiVersion"].startswith("keda.sh"):
            if document["kind"] == "ScaledObject":
                jsonschema_rs.Draft202012Validator(SCALING).validate(document)
            continue
        assert kubernetes_validate.validate(document, LEAST_KUBERNETES, strict=True)


def test_a_wrong_word_is_found() -> None:
    import kubernetes_validate

    wrong = {**named("Service", "orfeas-web"), "spec": {"selectors": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, LEAST_KUBERNETES, strict=True)


def test_what_files_name_is_there() -> None:
    claims = {one["metadata"]["name"] for one in documents() if one["kind"] == "PersistentVolumeClaim"}
    for pod in pods().values():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in {None, *claims}
            assert volume.get("secret", {}).get("secretName") in {None, *CLASSES}
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
    labels = {
        one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
        for one in documents()
        if "template" in one.get("spec", {})
    }
    for budget in ("orfeas-web", "orfeas-worker"):
        assert (
            named("PodDisruptionBudget", budget)["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] in labels
        )
    for scaler in (named("HorizontalPodAutoscaler", "orfeas-web"), named("ScaledObject", "orfeas-worker")):
        assert scaler["spec"]["scaleTargetRef"]["name"] in pods()


def test_every_setting_is_one_and_can_be_used(tmp_path: Path) -> None:
    """The start would not tell of a name that nothing reads."""
    shared = settings_file()
    secrets = {"database_url": "postgresql://o:p@h/o", "redis_url": "redis://h/0", "broker_url": "redis://h/1"}
    for name, text in {**secrets, "metrics_token": "0123456789abcdef"}.items():
        (tmp_path / name).write_text(text)
    here = {key: value.replace("/run/secrets/orfeas", str(tmp_path)) for key, value in shared.items()}
    known = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", (REPOSITORY / "docs/operations.md").read_text()))
    for container in containers():
        own = {entry["name"]: entry["value"] for entry in container.get("env", [])}
        assert {*own, *shared} <= known, container["name"]
        settings = Settings.from_environment({**image_tree.image_environment(), **here, **own})
        assert settings.database_url == secrets["database_url"]
        assert settings.drain_seconds + 45 <= pods()["orfeas-worker"]["terminationGracePeriodSeconds"]
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        if container["name"] in ("web", "worker"):
            assert {str(settings.data_dir), settings.files_url, "/tmp", "/run/secrets/orfeas"} <= mounted  # noqa: S108


def test_web_processes_are_counted_as_there_may_be() -> None:
    most = named("HorizontalPodAutoscaler", "orfeas-web")["spec"]["maxReplicas"]
    (web,) = pods()["orfeas-web"]["containers"]
    assert int(settings_file()["WEB_PROCESSES"]) == most * int(web["args"][-1])


def test_no_container_may_what_it_does_not_need() -> None:
    for pod in pods().values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
    for container in containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert container["image"] == "orfeas"


def test_the_queue_that_scales_workers_can_be_asked(postgres: str) -> None:
    (trigger,) = named("ScaledObject", "orfeas-worker")["spec"]["triggers"]
    with psycopg.connect(postgres) as connection, open_database(postgres) as database:
        store = JobStore(database, utc_now)
        for waiting in (0, 3):
            submit(store, "ann", waiting)
            # No worker has ever been there: it is the job table that is counted.
            assert connection.execute("SELECT count(*) FROM workers").fetchone() == (0,)
            assert connection.execute(trigger["metadata"]["query"]).fetchone() == (waiting,)
        (leased,) = store.lease("w", 1, 60)
        connection.commit()
        assert connection.execute(trigger["metadata"]["query"]).fetchone() == (3,)
        store.complete(leased, [NewFile("mesh", "glb", f"{leased.id}.glb", 100)], "")
        connection.commit()
        assert connection.execute(trigger["metadata"]["query"]).fetchone() == (2,)


def test_workers_that_may_all_be_gone_are_not_asked_for_by_the_web_processes() -> None:
    spec = named("ScaledObject", "orfeas-worker")["spec"]
    assert spec["minReplicaCount"] == 0
    assert settings_file()["WORKERS_ON_DEMAND"] == "true"
    assert named("HorizontalPodAutoscaler", "orfeas-web")["spec"]["minReplicas"] >= 2


@pytest.fixture
def postgres(tmp_path: Path) -> str:
    """Give a PostgreSQL database with empty tables."""
    return empty_database("postgresql", tmp_path)


def test_nothing_comes_in_or_goes_out_by_default() -> None:
    assert named("NetworkPolicy", "nothing")["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (https,) = named("NetworkPolicy", "out-to-https")["spec"]["egress"]
    assert "169.254.0.0/16" in https["to"][0]["ipBlock"]["except"]


def test_an_agents_file_is_taken_as_the_init_container_leaves_it(tmp_path: Path) -> None:
    add_agent(tmp_path / "given.json", "one")
    (tmp_path / "given.json").chmod(0o440)
    (container,) = pods()["orfeas-web"]["initContainers"]
    words = [word.replace("/run/agents/agents.json", str(tmp_path / "given.json")) for word in container["args"]]
    subprocess.run([word.replace("/data", str(tmp_path)) for word in words], check=True)  # noqa: S603
    assert (tmp_path / "agents.json").stat().st_mode & 0o777 == 0o600


# systemd


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Give the units as they are installed, with a program that is there."""
    require(REPOSITORY / "tests/support/install-deploy-tools.sh")
    folder = tmp_path_factory.mktemp("units")
    for unit in UNITS:
        text = re.sub(r"/opt/orfeas/.venv/bin/orfeas (serve|worker)$", "/bin/true", unit.read_text(), flags=re.M)
        (folder / unit.name.replace("@.", "@0.")).write_text(text)
    return sorted(folder.iterdir())


def test_systemd_finds_nothing_wrong_with_the_units(units: list[Path]) -> None:
    for unit in units:
        done = subprocess.run(  # noqa: S603
            ["systemd-analyze", "verify", "--man=no", unit],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_little_that_the_units_may(units: list[Path]) -> None:
    for unit in units:
        options = ["--offline=true", f"--threshold={LEAST_EXPOSED}", "--no-pager"]
        command = ["systemd-analyze", "security", *options, str(unit)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        assert done.returncode == 0, done.stdout


def test_units_set_what_the_service_reads() -> None:
    known = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", (REPOSITORY / "docs/operations.md").read_text()))
    for unit in UNITS:
        lines = re.findall(r"^Environment=(.*)$", unit.read_text(), re.MULTILINE)
        given = {name for line in lines for name in re.findall(r"(?:^| |\")([A-Z][A-Z0-9_]+)=", line)}
        assert given <= known | {"GUNICORN_CMD_ARGS"}, unit.name
        stop = re.search(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)
        assert stop is not None
        assert int(stop[1]) > Settings().drain_seconds


# Scripts


def test_scripts_are_as_shellcheck_wants_them() -> None:
    require(REPOSITORY / "tests/support/install-deploy-tools.sh")
    scripts = [
        path
        for name in ("deploy", "docker", "docs", "tests", "benchmarks")
        for path in (REPOSITORY / name).rglob("*.sh")
    ]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)  # noqa: S603, S607
    assert (done.returncode, done.stdout) == (0, "")


def test_the_dockerfile_is_as_hadolint_wants_it(tmp_path: Path) -> None:
    require(REPOSITORY / "tests/support/install-deploy-tools.sh")
    hadolint = [str(REPOSITORY / "build/deploy-tools/bin/hadolint"), "--no-color"]
    done = subprocess.run([*hadolint, str(REPOSITORY / "Dockerfile")], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM debian\nRUN cd /srv && sudo true\n")
    found = subprocess.run([*hadolint, str(wrong)], capture_output=True, text=True, check=False)  # noqa: S603
    assert found.returncode == 1
    assert {"DL3004", "DL3006"} <= set(re.findall(r"DL\d{4}", found.stdout))


def test_images_are_pinned_by_what_registries_say(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    shutil.copy(REPOSITORY / "deploy/pin-images.sh", tmp_path / "deploy")
    shutil.copy(REPOSITORY / "compose.yaml", tmp_path)
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\nfor image; do :; done\ncase $image in grafana/*) exit "${FAIL:-0}" ;; esac\necho sha256:0\n'
    )
    docker.chmod(0o755)
    command = [tmp_path / "deploy/pin-images.sh"]
    path = f"{tmp_path}:/usr/bin:/bin"
    failed = subprocess.run(command, env={"PATH": path, "FAIL": "1"}, capture_output=True, text=True, check=False)  # noqa: S603
    assert failed.returncode == 1
    assert "grafana/grafana:" in failed.stderr
    assert not (tmp_path / "compose.pinned.yaml").exists()
    docker.write_text("#!/bin/sh\necho sha256:0\n")
    subprocess.run(command, env={"PATH": path}, check=True, capture_output=True)  # noqa: S603
    pinned = yaml.safe_load((tmp_path / "compose.pinned.yaml").read_text())["services"]
    taken = {
        name: service["image"]
        for name, service in yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"].items()
        if not service["image"].startswith("orfeas:")
    }
    assert {name: service["image"] for name, service in pinned.items()} == {
        name: f"{image}@sha256:0" for name, image in taken.items()
    }
