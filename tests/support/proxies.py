"""nginx and Caddy as operators run them: with the files of deploy/, their names, ports and certificates changed."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path

from benchmarks.support.ports import free_port
from benchmarks.support.programs import require
from tests.support.running import REPOSITORY

KINDS = ("nginx", "caddy")
NAME = "localhost"
_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_MAIN = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;
events {{}}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/orfeas.conf;
}}
"""


@dataclass(frozen=True)
class Proxy:
    """One that runs; plain_port : without TLS; log : the file that it writes a line for each request to."""

    port: int
    plain_port: int
    certificate: Path
    log: Path

    @property
    def address(self) -> str:
        """What clients call it by."""
        return f"https://{NAME}:{self.port}"

    def connect(self) -> HTTPSConnection:
        """Open a connection that trusts the test's certificate alone."""
        return HTTPSConnection(NAME, self.port, timeout=60, context=ssl.create_default_context(cafile=self.certificate))


@contextmanager
def running_proxy(kind: str, folder: Path, upstream: int) -> Iterator[Proxy]:
    """Run a proxy in front of a port with the block. kind : nginx or caddy."""
    require(REPOSITORY / "tests/support/install-proxies.sh")
    proxy = Proxy(free_port(), free_port(), _certificate(folder), folder / "log")
    start = _nginx if kind == "nginx" else _caddy
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            start(folder, proxy, upstream),
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": str(folder), "ORFEAS_UPSTREAM": f"127.0.0.1:{upstream}"},
        )
    try:
        _await(proxy, process, folder)
        yield proxy
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:  # Caddy waits for connections that are still open
            process.kill()
            process.wait()


def _nginx(folder: Path, proxy: Proxy, upstream: int) -> list[str]:
    text = (REPOSITORY / "deploy/nginx/orfeas.conf").read_text()
    changes = {
        "server 127.0.0.1:5000;": f"server 127.0.0.1:{upstream};",
        "    listen [::]:80;\n": "",
        "    listen [::]:443 ssl http2;\n": "",
        "listen 80;": f"listen 127.0.0.1:{proxy.plain_port};",
        "listen 443 ssl": f"listen 127.0.0.1:{proxy.port} ssl",
        "meshes.example": NAME,
        "/etc/ssl/orfeas/fullchain.pem": str(proxy.certificate),
        "/etc/ssl/orfeas/privkey.pem": str(folder / "key.pem"),
        "/var/log/nginx/orfeas.log": str(proxy.log),
    }
    (folder / "orfeas.conf").write_text(_changed(text, changes))
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder))
    return [shutil.which("nginx") or "/usr/sbin/nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def _caddy(folder: Path, proxy: Proxy, _upstream: int) -> list[str]:
    text = (REPOSITORY / "deploy/caddy/Caddyfile").read_text()
    site = "{$ORFEAS_SITE:meshes.example} {\n"
    changes = {
        f"http://{site}": f"http://{NAME}:{proxy.plain_port} {{\n\tbind 127.0.0.1\n",
        f"\n{site}": f"\n{NAME}:{proxy.port} {{\n\tbind 127.0.0.1\n\ttls {proxy.certificate} {folder / 'key.pem'}\n",
    }
    (folder / "Caddyfile").write_text(_changed(text, changes))
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def _changed(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def _certificate(folder: Path) -> Path:
    path = folder / "certificate.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    names = ["-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(folder / "key.pem"), "-out", str(path)]
    subprocess.run(["openssl", "req", "-x509", *options, *names], check=True, capture_output=True)  # noqa: S603, S607
    return path


def _await(proxy: Proxy, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", proxy.port), timeout=1).close()
        except OSError:
            errors = folder / "errors"
            told = proxy.log.read_text() + (errors.read_text() if errors.exists() else "")
            assert process.poll() is None, told
            assert time.monotonic() < deadline, told
            time.sleep(0.05)
        else:
            return
