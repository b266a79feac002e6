"""Make a mesh of a picture with Python and nothing else: `generate.py picture.png mesh.glb`.

ORFEAS_URL, ORFEAS_AGENT_ID and ORFEAS_API_KEY say where to and who.
"""

import hashlib
import hmac
import http.client
import json
import os
import secrets
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

SERVICE = urlsplit(os.environ["ORFEAS_URL"])
AGENT, KEY = os.environ["ORFEAS_AGENT_ID"], os.environ["ORFEAS_API_KEY"]
CONNECTION = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}[SERVICE.scheme]


def call(method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
    path, _, query = target.partition("?")
    timestamp, nonce, digest = str(int(time.time())), secrets.token_hex(16), hashlib.sha256(body).hexdigest()
    signed = "\n".join(("v1", method, path, query, AGENT, timestamp, nonce, digest))
    headers |= {"X-Agent-ID": AGENT, "X-Agent-Timestamp": timestamp, "X-Agent-Nonce": nonce}
    headers |= {"X-Agent-Content-SHA256": digest}
    headers |= {"X-Agent-Signature": hmac.new(KEY.encode(), signed.encode(), hashlib.sha256).hexdigest()}
    connection = CONNECTION(SERVICE.netloc, timeout=180)  # follows no redirect: a signature is for one host
    connection.request(method, target, body or None, {name.replace("_", "-"): text for name, text in headers.items()})
    response = connection.getresponse()
    answer: bytes = response.read()
    return answer if response.status < 300 else sys.exit(answer.decode())


picture, mesh = map(Path, sys.argv[1:])
edge = secrets.token_hex(16)
texts = {"format": mesh.suffix[1:], "async": "true"}
form = "".join(f'--{edge}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in texts.items())
form += f'--{edge}\r\nContent-Disposition: form-data; name="image"; filename="picture"\r\n\r\n'
body = form.encode() + picture.read_bytes() + f"\r\n--{edge}--\r\n".encode()
kind, name = f"multipart/form-data; boundary={edge}", secrets.token_hex(16)
job = json.loads(call("POST", "/api/agent/generate-3d", body, Content_Type=kind, Idempotency_Key=name))
while job["status"] != "completed":
    if job["status"] in ("failed", "cancelled"):
        sys.exit(json.dumps(job["error"]))
    time.sleep(1)
    job = json.loads(call("GET", f"/api/agent/status/{job['job_id']}"))
source = urlsplit(job["download_url"])
mesh.write_bytes(call("GET", source.path))
