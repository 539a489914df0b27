"""Serves background tasks."""

from typing import TypeVar
from uuid import UUID

from khesht.chat.v1 import tasks_service_pb2 as pb
from khesht.chat.v1 import tasks_service_pb2_grpc as pb_grpc
from mesh.calls import call
from mesh.fields import timestamp
from mesh.server import Context
from services.chat.commands.tasks import Tasks
from services.chat.domain.generation import Generation, Status
from services.chat.domain.history import left_out_in
from services.chat.domain.rows import Row
from services.chat.servicer.asked import ask_of, terms
from services.chat.servicer.events import chat_id_of, to_error, to_usage

T = TypeVar("T", pb.GetTaskResponse, pb.CancelTaskResponse)


class TasksServicer(pb_grpc.TasksServiceServicer):
    """Serves `khesht.chat.v1.TasksService`."""

    def __init__(self, tasks: Tasks) -> None:
        """Takes the commands."""
        self._tasks = tasks

    async def CreateTask(
        self, request: pb.CreateTaskRequest, context: Context
    ) -> pb.CreateTaskResponse:
        """Takes a task."""
        caller = call.current().caller
        task_id, status = await self._tasks.create(caller, terms(request), ask_of(request))
        call.current().headers.append(("x-generation-id", str(task_id)))
        return pb.CreateTaskResponse(task_id=str(task_id), status=status)

    async def GetTask(self, request: pb.GetTaskRequest, context: Context) -> pb.GetTaskResponse:
        """Gets one of the caller's tasks."""
        caller = call.current().caller
        row, made = await self._tasks.get(caller.user_id, UUID(request.task_id))
        return _task(pb.GetTaskResponse, row, made)

    async def CancelTask(
        self, request: pb.CancelTaskRequest, context: Context
    ) -> pb.CancelTaskResponse:
        """Ends one of the caller's tasks."""
        caller = call.current().caller
        row, made = await self._tasks.cancel(caller.user_id, UUID(request.task_id))
        return _task(pb.CancelTaskResponse, row, made)


def _task(message: type[T], row: Row, made: Generation) -> T:
    answer = message(task_id=str(row.id), status=row.status, created_at=timestamp(row.created_at))
    ending = row.ending
    if ending is None or row.ended_at is None:
        return answer
    answer.ended_at.CopyFrom(timestamp(row.ended_at))
    if ending.error is not None:
        answer.error.CopyFrom(to_error(ending.error))
    elif ending.status is Status.COMPLETED:
        result = pb.TaskResult(
            id=str(row.id),
            chat_id=chat_id_of(made),
            message=made.text,
            model=ending.model,
            usage=to_usage(ending.tokens),
            finish_reason=ending.finish_reason,
            warning=row.warning,
            messages_left_out=left_out_in(row.warning or "") or None,
        )
        answer.result.CopyFrom(result)
    return answer
