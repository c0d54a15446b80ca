"""Tasks: parties poll for what they are asked to do and answer each once."""

import time
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.bodies import takes
from api.calls import Call, CallOf
from api.waits import WaitsOf
from clearinghouse.messages.tasks import AnswerTask, RefuseTask, TaskList
from clearinghouse.rounds import answers, views

router = APIRouter(prefix="/v1", tags=["tasks"])

LONGEST_WAIT_S = 10


@router.get("/agent/tasks")
async def list_tasks(
    call: CallOf, waits: WaitsOf, wait: Annotated[int, Query(ge=0, le=LONGEST_WAIT_S)] = 0
) -> TaskList:
    """The caller's open tasks; with `wait`, up to so many seconds until there is one."""
    end = time.monotonic() + wait
    while True:
        seen = call.desk.bell.count
        found = await run_in_threadpool(_open_tasks, call)
        left = end - time.monotonic()
        if found.tasks or left <= 0:
            return found
        await waits.until_open(call.org.id, seen, left)


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
