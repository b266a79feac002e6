"""`orfeas-client mcp`: the Model Context Protocol over standard input and output, for hosts that start programs.

Each message is signed and sent on to the service's own endpoint; its answers come back as they are. Of its own it has
one thing: a picture may be named by its path, below the folders that were named at its start and nowhere else, for it
is the model that chooses the path. This module does not know which tools there are.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import requests

from orfeas_client.errors import ClientError, LocalFileError
from orfeas_client.event_lines import read_events
from orfeas_client.retries import PassingFailure
from orfeas_client.transport import Outgoing, Transport, broken_stream, read_json, refusal_of
from orfeas_client.upload import JsonBody

PATH = "/mcp"
MOST_IMAGE_BYTES = 20_000_000
_VERSION = "io.modelcontextprotocol/protocolVersion"
_NAMED = {"tools/call": "name", "tasks/get": "taskId", "tasks/update": "taskId", "tasks/cancel": "taskId"}
"""Which of a method's parameters stands in a header, too."""

_AT_ONCE = 16
_STREAM_SECONDS = 60.0
"""Without a byte of a stream, of which one comes every 15 seconds, before it is taken for dead."""

_PICTURES = ("image", "images")
_PATH_TEXT = " Or the path of a picture file, below one of these folders: {folders}."
_INTERNAL_ERROR, _PARSE_ERROR = -32603, -32700


class Bridge:
    """Sends on what a host says, and says what comes back; several messages may be under way."""

    def __init__(self, transport: Transport, folders: Sequence[Path], output: TextIO) -> None:
        """Keep what is needed.

        folders : below which pictures may be named by their paths; none for nowhere
        """
        self._transport = transport
        self._folders = [folder.resolve() for folder in folders]
        self._output = output
        self._writing = threading.Lock()
        self._version = ""

    def run(self, source: TextIO) -> None:
        """Answer every line until there are no more."""
        with ThreadPoolExecutor(_AT_ONCE, "mcp") as pool:
            for line in source:
                if line.strip():
                    pool.submit(self._answer, line)

    def _answer(self, line: str) -> None:
        id = None
        try:
            message = json.loads(line)
            id = message.get("id") if isinstance(message, dict) else None
            self.send_on(message)
        except ValueError:
            self._refuse(None, _PARSE_ERROR, "The line is not JSON.")
        except LocalFileError as failure:
            # The model chose the path, and may choose another.
            content = [{"type": "text", "text": json.dumps({"code": "LOCAL_FILE", "error": str(failure)})}]
            result = {"content": content, "isError": True, **self._kind(message)}
            self._say({"jsonrpc": "2.0", "id": id, "result": result})
        except ClientError as failure:
            self._refuse(id, _INTERNAL_ERROR, str(failure))
        except Exception as failure:  # noqa: BLE001 - the thread's edge: the host must not wait for ever
            self._refuse(id, _INTERNAL_ERROR, f"The bridge failed: {type(failure).__name__}.")

    def send_on(self, message: Any) -> None:
        """Send a message to the service and say every message that it answers with.

        Raises LocalFileError, ServiceRefused, ServiceUnreachable, UnexpectedAnswer.
        """
        body = JsonBody(json.dumps(self._with_pictures(message)))
        headers = {"Accept": "application/json, text/event-stream", **self._headers(message)}
        outgoing = Outgoing("POST", PATH, headers=headers, body=body, at_root=True, stream=_STREAM_SECONDS)
        try:
            response = self._transport.send(outgoing)
        except PassingFailure as failure:
            raise failure.error from failure.__cause__
        with response:
            kind = response.headers.get("Content-Type", "")
            if response.status_code == 202:
                return
            if kind.startswith("text/event-stream"):
                self._say_events(response)
                return
            self._say_answer(message, response)

    def _say_events(self, response: requests.Response) -> None:
        try:
            for event in read_events(response.iter_lines()):
                self._say(json.loads(event.data))
        except requests.RequestException as failure:
            raise broken_stream(failure) from failure

    def _say_answer(self, message: Any, response: requests.Response) -> None:
        answer = read_json(response)
        if answer.get("jsonrpc") != "2.0":
            # The API's own refusal: of the key, the rate, the service's state.
            raise refusal_of(response, answer)
        self._learn(message, answer)
        self._say(self._with_paths_told(message, answer))

    def _learn(self, message: Any, answer: Mapping[str, Any]) -> None:
        result = answer.get("result")
        if message.get("method") == "initialize" and isinstance(result, dict):
            self._version = str(result.get("protocolVersion", ""))

    def _headers(self, message: Any) -> dict[str, str]:
        """Return the headers that repeat what a message says, as the protocol wants them over HTTP."""
        params = message.get("params") if isinstance(message, dict) else None
        meta = params.get("_meta") if isinstance(params, dict) else None
        version = meta.get(_VERSION) if isinstance(meta, dict) else None
        if not isinstance(version, str):
            return {"MCP-Protocol-Version": self._version} if self._version else {}
        headers = {"MCP-Protocol-Version": version, "Mcp-Method": _as_header(message.get("method"))}
        named = _NAMED.get(str(message.get("method")))
        if named is not None and isinstance(params, dict):
            headers["Mcp-Name"] = _as_header(params.get(named))
        return headers

    def _with_pictures(self, message: Any) -> Any:
        """Return a message in which paths of pictures are the pictures themselves. Raises LocalFileError."""
        params = message.get("params") if isinstance(message, dict) else None
        arguments = params.get("arguments") if isinstance(params, dict) else None
        if message.get("method") != "tools/call" or not isinstance(params, dict) or not isinstance(arguments, dict):
            return message
        changed = {name: self._picture(value) if name in _PICTURES else value for name, value in arguments.items()}
        return {**message, "params": {**params, "arguments": changed}}

    def _picture(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._picture(part) for part in value]
        if not isinstance(value, str) or not _is_path(value):
            return value
        return base64.b64encode(self._read(Path(value).expanduser())).decode()

    def _read(self, path: Path) -> bytes:
        """Return what a picture file holds. Raises LocalFileError: alike for one elsewhere and for none at all."""
        refusal = f"{str(path)[:300]} is no picture below a folder that this bridge was given"
        folders = ", ".join(map(str, self._folders)) or "none was: start it with --folder"
        try:
            # Links are followed before it is looked where they lead.
            real = path.resolve(strict=True)
            if not any(real.is_relative_to(folder) for folder in self._folders) or not real.is_file():
                raise LocalFileError(f"{refusal} ({folders}).")
            if real.stat().st_size > MOST_IMAGE_BYTES:
                raise LocalFileError(f"{path} is larger than {MOST_IMAGE_BYTES} bytes: scale it down.")
            content = real.read_bytes()
        except (OSError, ValueError) as failure:
            raise LocalFileError(f"{refusal} ({folders}).") from failure
        _require_picture(content, f"{refusal} ({folders}).")
        return content

    def _with_paths_told(self, message: Any, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the list of tools with what a path may be; any other answer as it is."""
        if message.get("method") != "tools/list" or "result" not in answer or not self._folders:
            return answer
        more = _PATH_TEXT.format(folders=", ".join(map(str, self._folders)))
        tools = json.loads(json.dumps(answer["result"].get("tools", [])))
        for tool in tools:
            for name, schema in tool.get("inputSchema", {}).get("properties", {}).items():
                if name in _PICTURES:
                    described = schema.get("items", schema)
                    described["description"] = described.get("description", "") + more
        return {**answer, "result": {**answer["result"], "tools": tools}}

    def _kind(self, message: Any) -> dict[str, str]:
        return {"resultType": "complete"} if _VERSION in json.dumps(message.get("params") or {}) else {}

    def _refuse(self, id: Any, code: int, text: str) -> None:
        self._say({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": text}})

    def _say(self, message: Mapping[str, Any]) -> None:
        with self._writing:
            self._output.write(json.dumps(message, ensure_ascii=False) + "\n")
            self._output.flush()


def _is_path(text: str) -> bool:
    """Return whether a text is meant as a path: it begins as one, or is too short for a picture and ends as a file."""
    # A JPEG in base64 begins as a path does.
    if text.startswith(("data:", "https:", "http:", "/9j/")):
        return False
    begins = text.startswith(("/", "./", "../", "~", "\\")) or text[1:3] == ":\\"
    return len(text) < 1024 and "\n" not in text and (begins or Path(text).suffix != "")


def _require_picture(content: bytes, refusal: str) -> None:
    """Raise LocalFileError for what Pillow does not know as a picture."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as missing:
        raise LocalFileError("Pictures by their paths need Pillow: pip install 'orfeas-client[mcp]'") from missing
    try:
        with Image.open(io.BytesIO(content)):
            pass
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as failure:
        raise LocalFileError(refusal) from failure


def _as_header(value: object) -> str:
    """Return a text as a header can carry it: in base64 where it is not plain."""
    text = str(value)
    if text.isascii() and text.isprintable() and text == text.strip() and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="
