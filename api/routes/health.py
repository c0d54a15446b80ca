"""Probes for operators: alive, ready, and numbers."""

from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Calls would fail; the body says why."}})
def readyz(request: Request) -> JSONResponse:
    """Whether calls can be taken: database, disk, threads; 503 if not. And what is degraded."""
    found: dict[str, Any] = request.app.state.readiness.look()
    return JSONResponse(found, 503 if found["status"] == "unready" else 200)


@router.get("/metrics", response_class=Response)
def metrics(request: Request) -> Response:
    """Numbers in the Prometheus text format."""
    data = generate_latest(request.app.state.registry)
    return Response(data, headers={"Content-Type": CONTENT_TYPE_LATEST})
