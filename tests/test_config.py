"""Settings: read from an environment, checked at birth, told in one table."""

from __future__ import annotations

import dataclasses
import ipaddress
import subprocess
import sys
from pathlib import Path

import pytest

from backend.config import Settings, is_loopback, secret_variables, settings_table
from backend.errors import ConfigurationError

SECRETS = {
    "DATABASE_URL": "postgresql://u:secret-1@h/n",
    "NONCE_STORE": "redis://:secret-2@h/0",
    "METRICS_TOKEN": "secret-3-of-sixteen",
    "RATE_LIMIT_STORAGE_URL": "redis://:secret-4@h/0",
    "CELERY_BROKER_URL": "redis://:secret-5@h/1",
}
NAMES = {
    "database_url": "DATABASE_URL",
    "nonce_store": "NONCE_STORE",
    "metrics_token": "METRICS_TOKEN",
    "rate_limit_storage": "RATE_LIMIT_STORAGE_URL",
    "broker_url": "CELERY_BROKER_URL",
}


def test_defaults_serve_this_machine_only_and_need_signatures() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.auth_enabled) == ("127.0.0.1", 5000, True)
    assert settings.agents_file == Path("data/agents.json")
    assert settings.audit_log == Path("data/audit.jsonl")
    assert settings.database_url == "sqlite:///data/orfeas.sqlite3"


def test_environment_gives_every_kind_of_value() -> None:
    settings = Settings.from_environment(
        {
            "ORFEAS_DATA_DIR": "/srv/orfeas",
            "PORT": " 8080 ",
            "GPU_MEMORY_LIMIT": "0.5",
            "WORKER_ENABLED": "No",
            "DEVICE": "cuda:1",
            "TRUSTED_PROXIES": "10.0.0.0/8, ::1",
            "DTYPE": "",
        }
    )
    assert settings.agents_file == Path("/srv/orfeas/agents.json")
    assert settings.database_url == "sqlite:////srv/orfeas/orfeas.sqlite3"
    assert settings.spool_dir == Path("/srv/orfeas/spool")
    assert (settings.port, settings.gpu_memory_limit, settings.worker_enabled) == (8080, 0.5, False)
    assert (settings.device, settings.dtype) == ("cuda:1", "auto")
    assert settings.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))


def test_what_is_given_is_not_derived() -> None:
    given = {"AGENTS_FILE": "/a.json", "AUDIT_LOG": "/b.jsonl", "DATABASE_URL": "postgresql://u:p@h/n"}
    settings = Settings.from_environment(given)
    assert (settings.agents_file, settings.audit_log) == (Path("/a.json"), Path("/b.jsonl"))
    assert settings.database_url == "postgresql://u:p@h/n"


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("https://meshes.example", "https://meshes.example"),
        ("https://meshes.example/", "https://meshes.example"),
        ("http://10.0.0.7:8080", "http://10.0.0.7:8080"),
        ("https://[2001:db8::1]:65535/", "https://[2001:db8::1]:65535"),
        ("https://localhost:1", "https://localhost:1"),
    ],
)
def test_a_public_address_is_scheme_host_and_port(given: str, address: str) -> None:
    assert Settings.from_environment({"PUBLIC_URL": given}).public_url == address


@pytest.mark.parametrize(
    "given",
    [
        "meshes.example",
        "//meshes.example",
        "ftp://meshes.example",
        "https://",
        "https:///path",
        "https://meshes.example/orfeas",
        "https://meshes.example//",
        "https://meshes.example?x=1",
        "https://meshes.example#x",
        "https://me@meshes.example",
        "https://me:secret@meshes.example",
        "https://Meshes.Example",
        "https://meshes_example",
        "https://-meshes.example",
        "https://meshes..example",
        "https://meshes.example.",
        "https://meshes.example:",
        "https://meshes.example:0",
        "https://meshes.example:65536",
        "https://meshes.example:443x",
        "https://meshes.example\\evil",
        "https://meshes.example evil",
        "https://meshes.example\nX: y",
        "https://m\u00e9shes.example",
        "https://[::1",
    ],
)
def test_what_is_no_such_address_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^PUBLIC_URL must be https://HOST or https://HOST:PORT") as refusal:
        Settings.from_environment({"PUBLIC_URL": given})
    assert "secret" not in refusal.value.message


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("PORT", "http", "PORT must be a whole number, not 'http'."),
        ("PORT", "70000", "PORT must be from 0 to 65535, not 70000."),
        ("BATCH_WAIT", "nan", "BATCH_WAIT must be from 0 to 60, not nan."),
        ("GPU_MEMORY_LIMIT", "0", "GPU_MEMORY_LIMIT must be from 0.05 to 1, not 0.0."),
        ("TORCH_COMPILE", "maybe", "TORCH_COMPILE must be one of auto, on, off; it is 'maybe'."),
        ("LOG_LEVEL", "LOUD", "LOG_LEVEL must be one of DEBUG, INFO, WARNING, ERROR; it is 'LOUD'."),
        ("DEVICE", "tpu", "DEVICE must be auto, cpu, cuda, cuda:N or mps."),
        ("NONCE_STORE", "disk", "NONCE_STORE must be database, memory or redis://HOST:PORT/DB."),
        ("RATE_LIMIT_STORAGE_URL", "ftp://x", "RATE_LIMIT_STORAGE_URL must be memory:// or redis://HOST:PORT/DB."),
        (
            "TRUSTED_PROXIES",
            "10.0.0.1/8",
            "TRUSTED_PROXIES must be addresses or networks (192.0.2.7, 10.0.0.0/8) with commas between, "
            "not '10.0.0.1/8'.",
        ),
    ],
)
def test_bad_value_stops_the_start_with_a_sentence(variable: str, value: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Settings.from_environment({variable: value})
    assert raised.value.message == sentence


def test_value_of_another_kind_is_refused_at_birth() -> None:
    with pytest.raises(ConfigurationError, match="AGENT_AUTH_ENABLED must be true or false"):
        Settings(auth_enabled="false")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="PORT must be a whole number"):
        Settings(port=True)


def test_password_of_a_url_is_never_told() -> None:
    with pytest.raises(ConfigurationError) as raised:
        Settings.from_environment({"DATABASE_URL": "mysql://user:sesame@host/name"})
    assert "sesame" not in raised.value.message
    with pytest.raises(ConfigurationError) as raised:
        Settings.from_environment({"NONCE_STORE": "redis:sesame@host"})
    assert "sesame" not in raised.value.message
    settings = Settings(
        database_url="postgresql://u:sesame@h/n",
        rate_limit_storage="redis://:sesame@h:6379/0",
        nonce_store="redis://:sesame@h:6379/1",
    )
    assert "sesame" not in repr(settings)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])  # noqa: S104
def test_signatures_cannot_be_switched_off_where_others_can_reach(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"HOST=127\.0\.0\.1"):
        Settings(host=host, auth_enabled=False)
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])
def test_signatures_can_be_switched_off_on_loopback(host: str) -> None:
    assert Settings.from_environment({"HOST": host, "AGENT_AUTH_ENABLED": "false"}).auth_enabled is False


def test_nonces_must_outlive_timestamps() -> None:
    with pytest.raises(ConfigurationError, match="NONCE_TTL is 599 but must be at least 600"):
        Settings(nonce_ttl=599)


def test_body_bound_follows_the_operation() -> None:
    settings = Settings(max_image_bytes=1_000_000)
    generate, batch = settings.max_body_bytes("generate"), settings.max_body_bytes("batch")
    assert 1_000_000 < generate < 3_000_000
    assert batch - generate == 9_000_000
    assert settings.max_body_bytes("status") == 65536


def test_table_names_every_setting_with_its_true_default() -> None:
    rows = [[cell.strip(" `") for cell in line.split("|")[1:4]] for line in settings_table().splitlines()[2:]]
    assert len(rows) == len(dataclasses.fields(Settings)) == len({variable for variable, _, _ in rows})
    assert all(meaning.endswith(".") for _, _, meaning in rows)
    shown = {variable: default.replace("<ORFEAS_DATA_DIR>", "data") for variable, default, _ in rows}
    told = {variable: "" if default == "none" else default for variable, default in shown.items()}
    assert Settings.from_environment(told) == Settings()


def test_guard_and_its_command_line_import_no_torch() -> None:
    program = "import sys, backend.agent_auth, backend.auth.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0  # noqa: S603


def test_secrets_may_stand_in_files(tmp_path: Path) -> None:
    """As Docker, Kubernetes and systemd hand them over."""
    given = {}
    for variable in secret_variables():
        (tmp_path / variable).write_text(f"{SECRETS[variable]}\n")
        given[f"{variable}_FILE"] = str(tmp_path / variable)
    settings = Settings.from_environment(given)
    told = {variable: vars(settings)[name] for name, variable in NAMES.items()}
    assert {variable: told[variable] for variable in SECRETS} == SECRETS
    assert not any(secret in repr(settings) for secret in SECRETS.values())


def test_every_setting_that_may_hold_a_secret_may_stand_in_a_file() -> None:
    assert set(secret_variables()) == set(SECRETS)
    assert [name for name in SECRETS if f"`{name}_FILE`" not in settings_table()] == []


@pytest.mark.parametrize(
    ("content", "given", "sentence"),
    [
        (None, {}, "cannot be read (No such file or directory)"),
        (b"\xff\xfe", {}, "it is no text"),
        (b" \n", {}, "which is empty"),
        (b"x" * 70_000, {}, "which is too long"),
        (b"sixteen-letters-or", {"METRICS_TOKEN": "another-sixteen-letters"}, "are both set: remove one"),
    ],
)
def test_a_secret_that_cannot_be_read_stops_the_start(
    content: bytes | None, given: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({**given, "METRICS_TOKEN_FILE": str(tmp_path / "token")})
    assert sentence in caught.value.message
    assert "METRICS_TOKEN_FILE" in caught.value.message
