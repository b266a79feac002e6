"""Every setting of the service, in one frozen value read once from the environment.

A setting that is no part of the value's repr is a secret, and may stand in a file. This module does not know who uses
a setting, and makes no folders.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from backend.errors import ConfigurationError
from backend.limits import MAX_BATCH_IMAGES, MAX_RESOLUTION, MIN_REQUEST_RESOLUTION
from backend.secret_files import SUFFIX, with_secrets
from backend.setting_values import FLAGS, IPNetwork, Meaning, check_value, parse_value

_FORM_BYTES = 1 << 20
"""Room in an upload for what is not pictures: fields, names, multipart boundaries."""

_PLAIN_BODY_BYTES = 1 << 16
_UNSET = Path()
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_PORT = r"[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
_ORIGIN = rf"https?://({_LABEL}(\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\])(:({_PORT}))?/?"


@dataclass(frozen=True)
class Settings:
    """All settings; `settings_table()` says what each means. Raises ConfigurationError when one is out of range."""

    data_dir: Annotated[Path, Meaning("ORFEAS_DATA_DIR", "Folder for everything the service writes.")] = Path("data")
    host: Annotated[str, Meaning("HOST", "Address to listen on; `0.0.0.0` for every interface.")] = "127.0.0.1"
    port: Annotated[int, Meaning("PORT", "Port to listen on; 0 for any free one.", 0, 65535)] = 5000
    web_threads: Annotated[
        int, Meaning("WEB_THREADS", "Small calls, answered at once, that one web process handles at once.", 2, 1000)
    ] = 32
    web_waiting: Annotated[
        int,
        Meaning(
            "WEB_WAITING",
            "Requests with a body, a file or a long wait that one web process handles at once, beside those.",
            16,
            10_000,
        ),
    ] = 1000
    log_level: Annotated[
        str, Meaning("LOG_LEVEL", "How much is logged.", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    ] = "INFO"
    log_format: Annotated[
        str,
        Meaning(
            "LOG_FORMAT",
            "How the log is written: `text` for people or `json` for programs; `auto`: text on a terminal, else JSON.",
            choices=("auto", "text", "json"),
        ),
    ] = "auto"

    public_url: Annotated[
        str,
        Meaning(
            "PUBLIC_URL",
            "Where agents reach the service, `https://HOST[:PORT]`: addresses in answers begin with it; without it "
            "they are relative.",
            shape=_ORIGIN,
            expects="https://HOST or https://HOST:PORT (or http://), in small letters and without a path: requests are "
            "signed for their path, so that a proxy must hand it on as it is",
        ),
    ] = ""

    auth_enabled: Annotated[
        bool, Meaning("AGENT_AUTH_ENABLED", "Whether requests must be signed; `false` only with a loopback HOST.")
    ] = True
    bearer_tokens: Annotated[
        bool,
        Meaning(
            "BEARER_TOKENS",
            "Whether `Authorization: Bearer …` is taken from tools that cannot sign; over https, or on this machine "
            "(docs/links.md).",
        ),
    ] = False
    compat_agent: Annotated[
        str,
        Meaning(
            "COMPAT_AGENT",
            "The agent whose jobs are made by clients of Hunyuan3D's own server, at `/generate`, `/send` and `/status` "
            "(docs/operations.md); none switches these off.",
            shape=r"[A-Za-z0-9._-]{1,64}",
            expects="an agent's id",
        ),
    ] = ""
    link_ttl_seconds: Annotated[
        int, Meaning("LINK_TTL_SECONDS", "Seconds for which a signed link to a file is good.", 1, 604_800)
    ] = 3600
    agents_file: Annotated[
        Path, Meaning("AGENTS_FILE", "Agents and their keys; mode 0600.", shown="<ORFEAS_DATA_DIR>/agents.json")
    ] = _UNSET
    audit_log: Annotated[
        Path, Meaning("AUDIT_LOG", "One JSON line per guarded request.", shown="<ORFEAS_DATA_DIR>/audit.jsonl")
    ] = _UNSET
    timestamp_tolerance: Annotated[
        int, Meaning("TIMESTAMP_TOLERANCE", "Seconds a request's timestamp may be off, either way.", 1, 3600)
    ] = 300
    nonce_ttl: Annotated[
        int, Meaning("NONCE_TTL", "Seconds a nonce is remembered; at least twice TIMESTAMP_TOLERANCE.", 2, 86400)
    ] = 600
    nonce_store: Annotated[
        str,
        Meaning(
            "NONCE_STORE",
            "Where nonces are remembered: `database`, or `redis://HOST:PORT/DB`, each shared by all processes, or "
            "`memory`, lost when the process ends.",
            shape=r"database|memory|rediss?://.+",
            expects="database, memory or redis://HOST:PORT/DB",
        ),
    ] = field(default="database", repr=False)
    trusted_proxies: Annotated[
        tuple[IPNetwork, ...],
        Meaning("TRUSTED_PROXIES", "Addresses or networks, with commas between, whose `X-Forwarded-For` is believed."),
    ] = ()

    metrics_allowed: Annotated[
        tuple[IPNetwork, ...],
        Meaning(
            "METRICS_ALLOWED",
            "Addresses or networks, with commas between, that may read `/metrics`; this machine's own only without a "
            "proxy (docs/operations.md).",
            shown="127.0.0.0/8, ::1",
        ),
    ] = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))
    metrics_token: Annotated[
        str,
        Meaning(
            "METRICS_TOKEN",
            "A secret that reads `/metrics` from anywhere, as `Authorization: Bearer …`: at least 16 characters.",
            shape=r"[!-~]{16,512}",
            expects="16 to 512 printable ASCII characters without spaces",
        ),
    ] = field(default="", repr=False)
    metrics_host: Annotated[
        str, Meaning("METRICS_HOST", "Address on which a worker of `make worker` shows its own `/metrics`.")
    ] = "127.0.0.1"
    metrics_port: Annotated[
        int, Meaning("METRICS_PORT", "Port for that, one for each worker of a machine; 0 for none.", 0, 65535)
    ] = 0

    rate_limit: Annotated[int, Meaning("RATE_LIMIT", "Requests a minute for each agent.", 1, 1_000_000)] = 100
    batch_rate_limit: Annotated[
        int, Meaning("BATCH_RATE_LIMIT", "Batch requests a minute for each agent.", 1, 1_000_000)
    ] = 10
    unauthenticated_rate_limit: Annotated[
        int,
        Meaning(
            "UNAUTHENTICATED_RATE_LIMIT",
            "Refused requests a minute for each address, before they are answered 429.",
            1,
            1_000_000,
        ),
    ] = 60
    rate_limit_storage: Annotated[
        str,
        Meaning(
            "RATE_LIMIT_STORAGE_URL",
            "Where requests are counted: `memory://`, each process by itself, or `redis://HOST:PORT/DB`, shared.",
            shape=r"memory://|rediss?://.+",
            expects="memory:// or redis://HOST:PORT/DB",
        ),
    ] = field(default="memory://", repr=False)
    web_processes: Annotated[
        int,
        Meaning(
            "WEB_PROCESSES",
            "Web processes on all machines: while the shared storage is away each allows its share of a limit.",
            1,
            10_000,
        ),
    ] = 1
    agent_waits: Annotated[
        int,
        Meaning(
            "AGENT_WAITS",
            "Calls of each agent that may wait at once in a web process (`?wait=`, `async=false`); more are answered "
            "at once. As many streams of events it may have open besides.",
            0,
            10_000,
        ),
    ] = 100
    webhook_private_hosts: Annotated[
        str,
        Meaning(
            "WEBHOOK_PRIVATE_HOSTS",
            "Hosts that webhooks may be sent to although their addresses are private, with commas between "
            "(docs/webhooks.md).",
            shape=r"[A-Za-z0-9_.:-]+( *, *[A-Za-z0-9_.:-]+)*",
            expects="names or addresses with commas between",
        ),
    ] = ""
    max_active_jobs: Annotated[
        int, Meaning("MAX_ACTIVE_JOBS", "Unfinished jobs each agent may have.", 1, 1_000_000)
    ] = 20
    queue_limit: Annotated[int, Meaning("QUEUE_LIMIT", "Jobs that may wait in the queue.", 1, 10_000_000)] = 200

    max_image_bytes: Annotated[int, Meaning("MAX_IMAGE_BYTES", "Bytes one picture may have.", 1024, 2_000_000_000)] = (
        50_000_000
    )
    max_json_bytes: Annotated[
        int,
        Meaning(
            "MAX_JSON_BYTES",
            "Bytes a request in JSON may have, its pictures in base64 among them; larger ones come as multipart forms.",
            65_536,
            2_000_000_000,
        ),
    ] = 32_000_000
    image_urls: Annotated[
        str,
        Meaning(
            "IMAGE_URLS",
            "Whether pictures may be sent as https addresses: `off`, `public` (any public host), or the hosts that may "
            "be asked, with commas between.",
            shape=rf"off|public|{_LABEL}(\.{_LABEL})+( *, *{_LABEL}(\.{_LABEL})+)*",
            expects="off, public, or names of hosts in small letters with commas between",
        ),
    ] = "off"
    text_to_image_model: Annotated[
        str,
        Meaning(
            "TEXT_TO_IMAGE_MODEL",
            "What draws a picture of a `prompt`: a folder, or a repository of the Hugging Face hub, for diffusers "
            "(docs/pictures.md); with none, prompts are refused.",
        ),
    ] = ""
    max_pixels: Annotated[
        int, Meaning("MAX_PIXELS", "Pixels one picture may have, looked at before it is decoded.", 4096, 2**31)
    ] = 64_000_000

    max_octree_resolution: Annotated[
        int,
        Meaning(
            "MAX_OCTREE_RESOLUTION",
            "Finest `octree_resolution` a request may ask for; time and memory grow with its square.",
            MIN_REQUEST_RESOLUTION,
            MAX_RESOLUTION,
        ),
    ] = 512

    database_url: Annotated[
        str,
        Meaning(
            "DATABASE_URL",
            "The job table: a SQLite file, or `postgresql://USER:PASSWORD@HOST/NAME`.",
            shape=r"(sqlite|postgresql(\+psycopg)?)://.+",
            expects="sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME",
            shown="sqlite:///<ORFEAS_DATA_DIR>/orfeas.sqlite3",
        ),
    ] = field(default="", repr=False)
    files_url: Annotated[
        str,
        Meaning(
            "FILES_URL",
            "Where pictures and meshes lie: a folder that all processes share, or an fsspec URL (`s3://BUCKET/PREFIX`).",
            shown="<ORFEAS_DATA_DIR>",
        ),
    ] = ""
    artifact_ttl_hours: Annotated[
        float, Meaning("ARTIFACT_TTL_HOURS", "Hours a mesh and its job are kept.", 0.01, 87600)
    ] = 24.0

    worker_enabled: Annotated[bool, Meaning("WORKER_ENABLED", "Whether this process also runs jobs.")] = True
    workers_on_demand: Annotated[
        bool,
        Meaning(
            "WORKERS_ON_DEMAND",
            "Whether jobs are taken while no worker is there, because something starts one when jobs wait "
            "(docs/operations.md, Kubernetes).",
        ),
    ] = False
    broker_url: Annotated[
        str,
        Meaning(
            "CELERY_BROKER_URL",
            "`redis://HOST:PORT/DB`, through which web processes wake workers of their own (`make worker`).",
            shape=r"rediss?://.+",
            expects="redis://HOST:PORT/DB",
        ),
    ] = field(default="", repr=False)
    batch_seconds: Annotated[
        int, Meaning("BATCH_SECONDS", "Seconds a batch may run before its worker process is killed.", 10, 86400)
    ] = 900
    sweep_seconds: Annotated[
        float,
        Meaning("SWEEP_SECONDS", "Seconds between searches for jobs that were forgotten or have expired.", 0.1, 3600),
    ] = 30.0
    drain_seconds: Annotated[
        float, Meaning("DRAIN_SECONDS", "Seconds a stopping worker gives its running batch to finish.", 0, 86400)
    ] = 120.0
    lease_seconds: Annotated[
        int, Meaning("LEASE_SECONDS", "Seconds after which a silent worker's jobs return to the queue.", 5, 86400)
    ] = 60
    max_attempts: Annotated[int, Meaning("MAX_ATTEMPTS", "Runs a job may die in before it fails.", 1, 100)] = 3
    max_batch_size: Annotated[int, Meaning("MAX_BATCH_SIZE", "Pictures generated together at most.", 1, 1024)] = 4
    batch_wait_seconds: Annotated[
        float, Meaning("BATCH_WAIT", "Seconds a job waits for batch mates before it runs.", 0, 60)
    ] = 0.05
    sync_wait_seconds: Annotated[
        float, Meaning("SYNC_WAIT", "Seconds a synchronous request waits before it is answered 202.", 0, 3600)
    ] = 120.0

    model_path: Annotated[str, Meaning("MODEL_PATH", "`demo`, a folder, or a repository of the Hugging Face hub.")] = (
        "demo"
    )
    model_subfolder: Annotated[str, Meaning("MODEL_SUBFOLDER", "Folder of the checkpoint inside MODEL_PATH.")] = ""
    device: Annotated[
        str,
        Meaning(
            "DEVICE",
            "`auto`, `cpu`, `cuda`, `cuda:N` or `mps`.",
            shape=r"auto|cpu|mps|cuda(:[0-9]{1,3})?",
            expects="auto, cpu, cuda, cuda:N or mps",
        ),
    ] = "auto"
    dtype: Annotated[
        str,
        Meaning(
            "DTYPE",
            "Precision of the model; `auto` is the device's own; `fp8` (Hopper and newer) is faster and less exact.",
            choices=("auto", "fp32", "fp16", "bf16", "fp8"),
        ),
    ] = "auto"
    gpu_memory_limit: Annotated[
        float, Meaning("GPU_MEMORY_LIMIT", "Part of the device's memory this process may take.", 0.05, 1)
    ] = 0.8
    torch_compile: Annotated[
        str,
        Meaning(
            "TORCH_COMPILE",
            "Whether the model is compiled, while it already serves, for faster steps: `auto` (on CUDA, where a "
            "compiler is there), `on` or `off`.",
            choices=("auto", "on", "off"),
        ),
    ] = "auto"
    offload: Annotated[
        str,
        Meaning(
            "OFFLOAD",
            "Whether the image encoder and the ShapeVAE wait in main memory while they are not used, for small GPUs: "
            "`auto` (where the weights would take more than half of what GPU_MEMORY_LIMIT allows), `on` or `off`.",
            choices=("auto", "on", "off"),
        ),
    ] = "auto"

    def __post_init__(self) -> None:
        # The words that this setting took while it was a flag.
        flag = FLAGS.get(str(self.torch_compile).lower())
        self._derive("torch_compile", flag is not None, "on" if flag else "off")
        for name, (kind, meaning) in _settings().items():
            check_value(kind, meaning, getattr(self, name))
        self._derive("public_url", True, self.public_url.removesuffix("/"))
        self._derive("agents_file", self.agents_file == _UNSET, self.data_dir / "agents.json")
        self._derive("audit_log", self.audit_log == _UNSET, self.data_dir / "audit.jsonl")
        self._derive("files_url", not self.files_url, str(self.data_dir))
        self._derive("database_url", not self.database_url, f"sqlite:///{self.data_dir / 'orfeas.sqlite3'}")
        if not self.auth_enabled and not is_loopback(self.host):
            raise ConfigurationError(
                f"AGENT_AUTH_ENABLED=false would let anyone who can reach {self.host!r} use this service: "
                "set HOST=127.0.0.1, or remove it and create agents with `orfeas agents add`."
            )
        if self.nonce_ttl < 2 * self.timestamp_tolerance:
            raise ConfigurationError(
                f"NONCE_TTL is {self.nonce_ttl} but must be at least {2 * self.timestamp_tolerance}, twice "
                "TIMESTAMP_TOLERANCE: a request could be replayed after its nonce is forgotten."
            )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings of an environment; an empty variable counts as absent.

        Of a secret NAME, NAME_FILE may name a file that holds it. Raises ConfigurationError.
        """
        environ = with_secrets(environ, secret_variables())
        given: dict[str, Any] = {}
        for name, (kind, meaning) in _settings().items():
            text = environ.get(meaning.variable, "").strip()
            if text:
                given[name] = parse_value(kind, meaning, text)
        return cls(**given)

    @property
    def compiled_dir(self) -> Path:
        """Where what the compilers make is kept for the next start."""
        return self.data_dir / "compiled"

    @property
    def spool_dir(self) -> Path:
        """Where request bodies lie while they are handled."""
        return self.data_dir / "spool"

    def max_body_bytes(self, operation: str) -> int:
        """Return the longest body a request of this operation may have."""
        if operation == "mcp":
            return self.max_json_bytes
        images = {"generate": 1, "batch": MAX_BATCH_IMAGES}.get(operation)
        return images * self.max_image_bytes + _FORM_BYTES if images else _PLAIN_BODY_BYTES

    def _derive(self, name: str, absent: bool, value: object) -> None:
        if absent:
            object.__setattr__(self, name, value)


def settings_table() -> str:
    """Every setting as a Markdown table: variable, default, meaning. README.md carries it."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for setting in dataclasses.fields(Settings):
        meaning = _settings()[setting.name][1]
        default = str(setting.default).lower() if isinstance(setting.default, bool) else setting.default
        shown = meaning.shown or (default if default not in ("", ()) else "")
        text = meaning.text if setting.repr else f"{meaning.text} Or `{meaning.variable}{SUFFIX}`, a file with it."
        lines.append(f"| `{meaning.variable}` | {f'`{shown}`' if shown != '' else 'none'} | {text} |")
    return "\n".join(lines) + "\n"


def secret_variables() -> tuple[str, ...]:
    """Return the settings that may hold a secret: what is never shown, and may be given as a file."""
    return tuple(_settings()[setting.name][1].variable for setting in dataclasses.fields(Settings) if not setting.repr)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a service bound to this host."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@functools.cache
def _settings() -> dict[str, tuple[Any, Meaning]]:
    hints = typing.get_type_hints(Settings, include_extras=True)
    return {name: typing.get_args(hint) for name, hint in hints.items()}
