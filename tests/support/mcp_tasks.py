"""Tasks for the SDK's client, which takes extensions and has none for them: each is followed to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import anyio
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp_types import CallToolResult, Request, RequestParams, Result

from backend.api.mcp.tasks import EXTENSION


class TaskParams(RequestParams):
    task_id: str


class UpdateParams(TaskParams):
    input_responses: dict[str, Any]


class GetTask(Request[TaskParams, Literal["tasks/get"]]):
    method: Literal["tasks/get"] = "tasks/get"
    name_param = "taskId"


class UpdateTask(Request[UpdateParams, Literal["tasks/update"]]):
    method: Literal["tasks/update"] = "tasks/update"
    name_param = "taskId"


class CancelTask(Request[TaskParams, Literal["tasks/cancel"]]):
    method: Literal["tasks/cancel"] = "tasks/cancel"
    name_param = "taskId"


class TaskState(Result):
    """A task as tasks/get tells of it."""

    result_type: Literal["complete"]
    task_id: str
    status: Literal["working", "input_required", "completed", "failed", "cancelled"]
    status_message: str | None = None
    created_at: str
    last_updated_at: str
    ttl_ms: int | None
    poll_interval_ms: int | None = None
    result: CallToolResult | None = None


class NewTask(Result):
    """What a call is answered with in place of its result."""

    result_type: Literal["task"]
    task_id: str
    status: Literal["working"]
    ttl_ms: int | None
    poll_interval_ms: int


class Acknowledged(Result):
    result_type: Literal["complete"]


class Tasks(ClientExtension):
    """Follows each task of a call; on_state : called with each state of it that was seen."""

    identifier = EXTENSION

    def __init__(self, on_state: Callable[[TaskState], object]) -> None:
        self._on_state = on_state
        self.created: list[NewTask] = []
        self.seen: list[TaskState] = []

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=NewTask, resolve=self._follow)]

    async def _follow(self, task: NewTask, context: ClaimContext) -> CallToolResult:
        self.created.append(task)
        while True:
            request = GetTask(params=TaskParams(task_id=task.task_id))
            state = await context.session.send_request(request, TaskState)
            self.seen.append(state)
            self._on_state(state)
            if state.status != "working":
                assert state.result is not None, state
                return state.result
            assert state.poll_interval_ms is not None
            await anyio.sleep(state.poll_interval_ms / 1000)
