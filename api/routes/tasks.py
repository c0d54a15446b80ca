"""Tasks: parties poll for what they are asked to do and answer each once."""

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.bodies import takes
from api.calls import Call, CallOf
from clearinghouse.messages.tasks import AnswerTask, RefuseTask, TaskList
from clearinghouse.rounds import answers, views

router = APIRouter(prefix="/v1", tags=["tasks"])

LONGEST_WAIT_S = 10
_PAUSE_S = 0.02
_LOOK_AGAIN_S = 2.0  # another server process may have written a task


@router.get("/agent/tasks")
async def list_tasks(
    call: CallOf, wait: Annotated[int, Query(ge=0, le=LONGEST_WAIT_S)] = 0
) -> TaskList:
    """The caller's open tasks; with `wait`, up to so many seconds until there is one."""
    end = time.monotonic() + wait
    while True:
        seen = call.desk.bell.count
        found = await run_in_threadpool(_open_tasks, call)
        if found.tasks or time.monotonic() >= end:
            return found
        look_again = min(end, time.monotonic() + _LOOK_AGAIN_S)
        while call.desk.bell.count == seen and time.monotonic() < look_again:
            await asyncio.sleep(_PAUSE_S)


def _open_tasks(call: Call) -> TaskList:
    with call.desk.store.read() as tx:
        return views.tasks(tx, call.org.id)


@router.post("/agent/tasks/{task_id}", openapi_extra=takes(AnswerTask), response_class=Response)
def answer_task(call: CallOf, task_id: str) -> Response:
    """Answer a task; the same answer again is a retry, another one a conflict."""
    message = call.message(AnswerTask)
    return call.write(
        lambda tx: answers.answer(tx, call.desk, call.org, task_id, message.answer), keyed=True
    )


@router.post(
    "/agent/tasks/{task_id}/refuse", openapi_extra=takes(RefuseTask), response_class=Response
)
def refuse_task(call: CallOf, task_id: str) -> Response:
    """Refuse a task and say why."""
    message = call.message(RefuseTask)
    return call.write(lambda tx: answers.refuse(tx, call.desk, call.org, task_id, message))
