"""The application: routes by step, problems, and the thread that moves requests on."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from api import bodies, problems
from api.console.app import create_console
from api.console.oidc import Provider
from api.limits import Limits
from api.numbers import Numbers
from api.observe import Calls, Observer
from api.readiness import Readiness
from api.recorder import Recorder
from api.routes import (
    blobs,
    budgets,
    consent,
    disputes,
    health,
    identity,
    intake,
    log,
    requests,
    tasks,
    tiles,
    uploads,
)
from api.stalls import Stalls
from api.waits import Waits
from clearinghouse.clock import Clock
from clearinghouse.errors import InputError
from clearinghouse.rounds.desk import Desk, open_desk
from clearinghouse.rounds.runner import Runner
from clearinghouse.settings import Settings

_MODULES = (
    intake,
    identity,
    consent,
    blobs,
    uploads,
    requests,
    budgets,
    tasks,
    disputes,
    log,
    tiles,
    health,
)


def create_app(settings: Settings, clock: Clock | None = None) -> FastAPI:
    """Build the server: it opens its folder now and starts to work with the application.

    Raises:
        InputError: The folder belongs to another version or another key.
    """
    desk = open_desk(settings, clock)
    runner = Runner(desk)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with at_work(runner):
            yield

    app = FastAPI(
        title="Clearinghouse",
        version="1",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        # The routes themselves: routers that are included are built anew for every application,
        # at its first call.
        routes=[route for module in _MODULES for route in module.router.routes],
    )
    app.state.desk, app.state.runner = desk, runner
    app.state.limits, app.state.waits = Limits(settings), Waits(desk)
    app.mount("/console", create_console(desk, app.state.limits, _provider(desk)))
    app.state.registry = CollectorRegistry()
    app.state.readiness = Readiness(desk, lambda: runner.is_alive)
    Numbers(desk, app.state.registry)
    problems.install(app)
    if settings.record_bodies is not None:
        app.add_middleware(Recorder, folder=settings.record_bodies)
    app.add_middleware(Stalls, stall_s=settings.stall_s)
    app.add_middleware(Observer, calls=Calls(app.state.registry))
    bodies.describe(app)
    return app


def _provider(desk: Desk) -> Provider | None:
    """The OpenID provider that the settings name.

    Raises:
        InputError: Its address or secret cannot be used.
    """
    settings = desk.settings
    if not settings.oidc_issuer:
        return None
    secret = ""
    if settings.oidc_secret is not None:
        try:
            secret = settings.oidc_secret.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise InputError(f"cannot read {settings.oidc_secret}: {error.strerror}") from None
    return Provider(settings.oidc_issuer, settings.oidc_client_id, secret, desk.clock)


@contextmanager
def at_work(runner: Runner) -> Iterator[None]:
    """The server's thread and worker run meanwhile; afterwards everything is closed.

    An ASGI server enters this through the application's lifespan. Whoever calls the application
    without one enters `at_work(app.state.runner)` itself.
    """
    runner.start()
    try:
        yield
    finally:
        runner.close()
