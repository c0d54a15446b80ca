"""Probes for operators: alive, ready, and a few numbers."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from api.calls import DeskOf

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(desk: DeskOf) -> dict[str, Any]:
    """Whether the database answers."""
    with desk.store.read() as tx:
        return {"status": "ready", "entries": tx.log.size()}


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(desk: DeskOf) -> PlainTextResponse:
    """Numbers in the Prometheus text format."""
    with desk.store.read() as tx:
        numbers = {"clearinghouse_log_entries": tx.log.size()}
        numbers |= {
            f'clearinghouse_requests{{state="{state}"}}': count
            for state, count in sorted(tx.requests.count_by_state().items())
        }
        numbers |= {
            f'clearinghouse_tasks{{state="{state}"}}': count
            for state, count in sorted(tx.tasks.count_by_state().items())
        }
    return PlainTextResponse("".join(f"{name} {value}\n" for name, value in numbers.items()))
