"""Clients of Hunyuan3D's own server: one that was written from the description of their interface makes meshes here."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trimesh
from werkzeug.test import TestResponse

from backend.auth.agents_file import add_token
from backend.errors import NoForeground
from tests.support.agent_service import AgentService, agent_service, fail_with, good_png
from tests.support.workshop import eventually

IMAGE = base64.b64encode(good_png()).decode()


class OldClient:
    """Speaks as the clients of that server do, and knows nothing else: JSON in, a file or base64 out."""

    def __init__(self, service: AgentService, address: str = "127.0.0.1", **headers: str) -> None:
        self._client = service.app.test_client()
        self._address = address
        self._headers = headers

    def post(self, path: str, **body: object) -> TestResponse:
        return self._open(path, "POST", json.dumps(body).encode())

    def status(self, uid: str) -> dict[str, Any]:
        answer = self._open(f"/status/{uid}", "GET", b"")
        assert answer.status_code == 200
        said: dict[str, Any] = answer.get_json()
        return said

    def _open(self, path: str, method: str, body: bytes) -> TestResponse:
        return self._client.open(
            path,
            method=method,
            data=body,
            content_type="application/json",
            headers=self._headers,
            environ_overrides={"REMOTE_ADDR": self._address, "SERVER_PORT": "80"},
            buffered=True,
        )


def failure(answer: TestResponse) -> str:
    said = answer.get_json()
    assert (answer.status_code, said["error_code"], set(said)) == (404, 1, {"text", "error_code"})
    return str(said["text"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentService]:
    folder = tmp_path_factory.mktemp("compat")
    with agent_service(folder, running=True, compat_agent="ann", bearer_tokens=True) as made:
        yield made


def test_generate_answers_with_the_mesh(service: AgentService) -> None:
    answer = OldClient(service).post("/generate", image=IMAGE, seed=1234, octree_resolution=64, num_inference_steps=5)
    assert answer.status_code == 200
    assert len(trimesh.load_mesh(io.BytesIO(answer.data), file_type="glb").faces) > 0
    stl = OldClient(service).post("/generate", image=IMAGE, type="stl", num_inference_steps=5)
    assert len(trimesh.load_mesh(io.BytesIO(stl.data), file_type="stl").faces) > 0


def test_send_answers_at_once_and_status_gives_the_mesh(service: AgentService) -> None:
    client = OldClient(service)
    fields = {"num_chunks": 8000, "mc_algo": "mc", "output_type": "trimesh", "text": None, "mesh": None}
    uid = client.post("/send", image=IMAGE, num_inference_steps=5, texture=True, face_count=500, **fields).get_json()[
        "uid"
    ]
    assert len(uid) == 36
    eventually(lambda: client.status(uid)["status"] == "completed")
    assert base64.b64decode(client.status(uid)["model_base64"])[:4] == b"glTF"
    request = service.get(f"/status/{uid.replace('-', '')}").get_json()["request"]
    assert (request["steps"], request["seed"] >= 0, request["target_faces"], request["color"]) == (5, True, 500, "auto")


def test_an_unknown_uid_is_processing_and_a_failed_one_says_why(service: AgentService) -> None:
    client = OldClient(service)
    for uid in ("00000000-0000-0000-0000-000000000000", "nonsense"):
        assert client.status(uid) == {"status": "processing"}
    fail_with(service, NoForeground())
    try:
        assert "object" in failure(client.post("/generate", image=IMAGE))
        uid = client.post("/send", image=IMAGE).get_json()["uid"]
        eventually(lambda: client.status(uid)["status"] == "error")
        assert "object" in client.status(uid)["message"]
    finally:
        service.fake.before_call = lambda _call: None
        service.fake.errors.clear()


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "picture"),
        ({"text": "a cat"}, "Words"),
        ({"mesh": "Z2xURg==" * 2000}, "textured"),
        ({"image": "no picture!"}, "base64"),
        ({"image": IMAGE, "num_inference_steps": 0}, "num_inference_steps"),
        ({"image": IMAGE, "seed": -7}, "seed"),
        ({"image": IMAGE, "octree_resolution": 100_000}, "octree_resolution"),
        ({"image": IMAGE, "type": "fbx"}, "format"),
    ],
)
def test_what_cannot_be_made_is_said_in_a_sentence(service: AgentService, body: dict[str, object], word: str) -> None:
    assert word in failure(OldClient(service).post("/send", **body))


def test_from_elsewhere_a_token_of_that_agent_is_needed(service: AgentService) -> None:
    far = OldClient(service, "203.0.113.9")
    assert "machine" in failure(far.post("/send", image=IMAGE))
    for header in ({"X-Forwarded-For": "203.0.113.9"}, {"Origin": "https://evil.test"}, {"Host": "evil.test"}):
        assert "machine" in failure(OldClient(service, **header).post("/send", image=IMAGE))
    for name in ("ann", "bob"):
        token = add_token(service.settings.agents_file, name)
        answer = OldClient(service, Authorization=f"Bearer {token}").post("/send", image=IMAGE)
        assert (answer.status_code == 200) == (name == "ann")


def test_without_the_setting_there_are_no_such_calls(tmp_path: Path) -> None:
    with agent_service(tmp_path) as service:
        assert OldClient(service).post("/send", image=IMAGE).get_json()["code"] == "NOT_FOUND"
