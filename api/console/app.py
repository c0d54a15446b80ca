"""The console's routes: every page but the sign-in needs a session, every post its form's token."""

from collections.abc import Callable
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from api.console import disputes, pages
from api.console.budgets import Tally
from api.console.oidc import Login, Provider
from api.console.sessions import Sessions, Viewer
from api.limits import Limits
from clearinghouse.errors import AuthenticationError, ClearinghouseError, NotFoundError
from clearinghouse.ids import is_id
from clearinghouse.rounds.desk import Desk

MOST_FORM_BYTES = 4096

Page = Callable[[Request, Viewer], Response]


def create_console(desk: Desk, limits: Limits, provider: Provider | None) -> Starlette:
    """The pages under /console; without a provider nobody can sign in, and a page says so."""
    desks = _Console(desk, limits, provider)
    app = Starlette(
        routes=[
            Route("/", desks.home),
            Route("/style.css", pages.style),
            Route("/login", desks.login),
            Route("/callback", desks.callback),
            Route("/logout", desks.logout, methods=["POST"]),
            Route("/organisation", desks.change_organisation, methods=["POST"]),
            Route("/requests", desks.signed_in(desks.requests)),
            Route("/requests/{request_id}", desks.signed_in(desks.request)),
            Route("/receipts/{receipt_id}", desks.signed_in(desks.receipt)),
            Route("/disputes", desks.signed_in(desks.disputes)),
            Route("/disputes/{dispute_id}", desks.signed_in(desks.dispute)),
            Route("/sources", desks.signed_in(desks.sources)),
            Route("/budgets", desks.signed_in(desks.budgets)),
            Route("/log", desks.signed_in(desks.log)),
        ],
        exception_handlers={
            ClearinghouseError: _ours,
            HTTPException: _framework,
        },
    )
    app.state.console = desks
    return app


class _Console:
    def __init__(self, desk: Desk, limits: Limits, provider: Provider | None) -> None:
        self.desk, self.limits, self.provider = desk, limits, provider
        self.sessions, self.tally = Sessions(desk), Tally()

    # ------------------------------------------------------------ signing in and out

    def home(self, request: Request) -> Response:
        if self.provider is None:
            return pages.notice(
                request,
                "The console is off",
                "The operator turns it on by naming an OpenID provider: see docs/operate.md.",
                404,
            )
        viewer = self.sessions.viewer(request)
        if viewer is not None:
            return RedirectResponse("/console/requests", 303)
        return pages.sign_in(request)

    def login(self, request: Request) -> Response:
        provider, login = self._provider(), Login()
        response = RedirectResponse(provider.address(login, self._callback(request)), 303)
        self.sessions.keep_login(response, login)
        return response

    def callback(self, request: Request) -> Response:
        provider, login = self._provider(), self.sessions.login(request)
        query = request.query_params
        if query.get("state") != login.state:
            raise AuthenticationError("this sign-in was not begun here: try again")
        if "code" not in query:
            raise AuthenticationError("the provider did not let you in")
        email = provider.email(login, query["code"], self._callback(request))
        orgs = self.sessions.organisations(email)
        if not orgs:
            raise AuthenticationError(
                f"no organisation lets {email} in. One does with: clearinghouse org invite {email}"
            )
        response = RedirectResponse("/console/requests", 303)
        self.sessions.begin(response, email, orgs[0])
        return response

    async def logout(self, request: Request) -> Response:
        viewer, _ = await self._posted(request)
        response = RedirectResponse("/console/", 303)
        await run_in_threadpool(self.sessions.end, response, viewer)
        return response

    async def change_organisation(self, request: Request) -> Response:
        viewer, form = await self._posted(request)
        await run_in_threadpool(self.sessions.move, viewer, form.get("org", ""))
        return RedirectResponse("/console/requests", 303)

    async def _posted(self, request: Request) -> tuple[Viewer, dict[str, str]]:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MOST_FORM_BYTES:
                raise HTTPException(413)
        viewer = await run_in_threadpool(self.sessions.viewer, request)
        if viewer is None:
            raise AuthenticationError("you are not signed in")
        fields = parse_qs(body.decode("latin-1"), max_num_fields=10)
        form = {name: values[0] for name, values in fields.items()}
        self.sessions.check_form(viewer, form.get("csrf", ""))
        return viewer, form

    def _provider(self) -> Provider:
        if self.provider is None:
            raise NotFoundError("the console is off")
        return self.provider

    def _callback(self, request: Request) -> str:
        base = self.desk.settings.public_url.rstrip("/") or str(request.base_url).rstrip("/")
        return base.removesuffix("/console") + "/console/callback"

    # ------------------------------------------------------------ pages

    def signed_in(self, page: Page) -> Callable[[Request], Response]:
        """A page for those who are signed in; others are sent to sign in."""

        def guarded(request: Request) -> Response:
            viewer = self.sessions.viewer(request)
            if viewer is None:
                return RedirectResponse("/console/", 303)
            self.limits.count(f"console:{viewer.email}", "GET")
            return page(request, viewer)

        return guarded

    def requests(self, request: Request, viewer: Viewer) -> Response:
        with self.desk.store.read() as tx:
            return pages.requests(request, viewer, tx, self.desk.clock.now())

    def request(self, request: Request, viewer: Viewer) -> Response:
        with self.desk.store.read() as tx:
            return pages.one_request(
                request, viewer, tx, request.path_params["request_id"], self.desk.clock.now()
            )

    def receipt(self, request: Request, viewer: Viewer) -> Response:
        with self.desk.store.read() as tx:
            receipt = tx.access.receipt(request.path_params["receipt_id"], viewer.org.id)
        return PlainTextResponse(receipt.body, headers=pages.HEADERS)

    def disputes(self, request: Request, viewer: Viewer) -> Response:
        with self.desk.store.read() as tx:
            return disputes.all_disputes(request, viewer, tx)

    def dispute(self, request: Request, viewer: Viewer) -> Response:
        with self.desk.store.read() as tx:
            dispute_id = request.path_params["dispute_id"]
            return disputes.one_dispute(request, viewer, tx, dispute_id)

    def sources(self, request: Request, viewer: Viewer) -> Response:
        with self.desk.store.read() as tx:
            after = request.query_params.get("after", "")
            return pages.sources(request, viewer, tx, after if is_id(after, "src") else "")

    def budgets(self, request: Request, viewer: Viewer) -> Response:
        with self.desk.store.read() as tx:
            spent = self.tally.of(tx, viewer.org.id)
            return pages.budgets(request, viewer, tx, spent)

    def log(self, request: Request, viewer: Viewer) -> Response:
        with self.desk.store.read() as tx:
            return pages.log(request, viewer, tx, self.desk.vkey)


def _ours(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, ClearinghouseError) else 500
    titles = {401: "Not signed in", 404: "Not found", 429: "Too many pages at once"}
    return pages.notice(request, titles.get(status, "That did not work"), str(error), status)


def _framework(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = "There is no such page." if status == 404 else "That cannot be done here."
    return pages.notice(request, "Not found" if status == 404 else "Not here", words, status)
