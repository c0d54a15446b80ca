"""Cookies of the console: a sign-in that has begun, a session, and tokens against forged posts.

Every cookie is signed, so a forged one costs no look into the database. A session's token is random
and stored by hash; the session itself is in the database, so that signing out or being dismissed
ends it at once on every server.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass

from starlette.requests import Request
from starlette.responses import Response

from api.console.oidc import Login, random_text
from clearinghouse.errors import AuthenticationError
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import Org, Session

SESSION_S = 3600
LOGIN_S = 600
SESSION_COOKIE = "clearinghouse_session"
LOGIN_COOKIE = "clearinghouse_login"


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks: a person, for the organisation they look for.

    Attributes:
        orgs: All organisations that let this person in.
        csrf: What a form of this session must bring back.
        digest: The session, as the database knows it.
    """

    email: str
    org: Org
    orgs: tuple[Org, ...]
    csrf: str
    digest: str


class Sessions:
    """Reads and writes the cookies of one server."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        # From the server's key, so that every process has the same and no further file is secret.
        self._key = hashlib.sha256(desk.key.sign(b"clearinghouse console cookies 1")).digest()
        operators = desk.settings.console_operators.lower().split(",")
        self._operators = frozenset(name.strip() for name in operators if name.strip())

    # ------------------------------------------------------------ a sign-in that has begun

    def keep_login(self, response: Response, login: Login) -> None:
        """Remember a sign-in in the browser that began it."""
        body = {**asdict(login), "until": int(self._desk.clock.now()) + LOGIN_S}
        text = base64.urlsafe_b64encode(json.dumps(body).encode()).decode().rstrip("=")
        self._set(response, LOGIN_COOKIE, self._signed(text, "login"), LOGIN_S)

    def login(self, request: Request) -> Login:
        """The sign-in that this browser began.

        Raises:
            AuthenticationError: It began none, or too long ago.
        """
        text = self._checked(request.cookies.get(LOGIN_COOKIE, ""), "login")
        if text is not None:
            body = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            if body.pop("until") > self._desk.clock.now():
                return Login(**body)
        raise AuthenticationError("this sign-in was not begun here, or took too long: try again")

    # ------------------------------------------------------------ sessions

    def organisations(self, email: str) -> tuple[Org, ...]:
        """The organisations that let a person in."""
        with self._desk.store.read() as tx:
            found = [tx.parties.get(org_id) for org_id in tx.people.organisations(email)]
        if email in self._operators:
            found.insert(0, self._desk.org)
        return tuple(found)

    def begin(self, response: Response, email: str, org: Org) -> None:
        """Begin a session under a fresh token."""
        token, now = random_text(), int(self._desk.clock.now())
        with self._desk.store.write() as tx:
            tx.people.begin(_hash(token), Session(email, org.id, now + SESSION_S), now)
        self._set(response, SESSION_COOKIE, self._signed(token, "session"), SESSION_S)
        response.delete_cookie(LOGIN_COOKIE, path="/console")

    def viewer(self, request: Request) -> Viewer | None:
        """Who looks, or None if nobody is signed in."""
        token = self._checked(request.cookies.get(SESSION_COOKIE, ""), "session")
        if token is None:
            return None
        digest = _hash(token)
        with self._desk.store.read() as tx:
            session = tx.people.session(digest, self._desk.clock.now())
        if session is None:
            return None
        orgs = self.organisations(session.email)
        mine = [org for org in orgs if org.id == session.org_id]
        if not mine:  # dismissed meanwhile
            return None
        return Viewer(session.email, mine[0], orgs, self._mac(token, "csrf"), digest)

    def check_form(self, viewer: Viewer, brought: str) -> None:
        """Check that a form was made for this session.

        Raises:
            AuthenticationError: It was not.
        """
        if not hmac.compare_digest(viewer.csrf.encode(), brought.encode()):
            raise AuthenticationError("this form is of another session: go back and load the page")

    def move(self, viewer: Viewer, org_id: str) -> None:
        """Look for another organisation that lets this person in.

        Raises:
            AuthenticationError: None of theirs has this id.
        """
        if org_id not in {org.id for org in viewer.orgs}:
            raise AuthenticationError("that organisation does not let you in")
        with self._desk.store.write() as tx:
            tx.people.move(viewer.digest, org_id)

    def end(self, response: Response, viewer: Viewer) -> None:
        """Sign out."""
        with self._desk.store.write() as tx:
            tx.people.end([viewer.digest])
        response.delete_cookie(SESSION_COOKIE, path="/console")

    # ------------------------------------------------------------ signatures

    def _set(self, response: Response, name: str, value: str, seconds: int) -> None:
        response.set_cookie(
            name,
            value,
            max_age=seconds,
            path="/console",
            httponly=True,
            samesite="lax",  # the provider sends the browser back here
            secure=self._desk.settings.public_url.startswith("https:"),
        )

    def _mac(self, text: str, use: str) -> str:
        made = hmac.new(self._key, f"{use}:{text}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(made).decode().rstrip("=")

    def _signed(self, text: str, use: str) -> str:
        return f"{text}.{self._mac(text, use)}"

    def _checked(self, value: str, use: str) -> str | None:
        text, _, mac = value.rpartition(".")
        is_ours = hmac.compare_digest(self._mac(text, use).encode(), mac.encode())
        return text if is_ours and text else None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
