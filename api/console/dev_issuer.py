"""An OpenID provider without passwords, for rehearsals on one machine: you are who you say you are.

It is a program of its own that the operator must start and name, it listens on loopback only,
answers only callers from there, and sends codes only to addresses there. Never use it for more.
"""

import html
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from api.console.oidc import challenge, is_loopback

CODE_S = 60
TOKEN_S = 300
MOST_CODES = 1000


@dataclass(frozen=True, slots=True)
class _Code:
    email: str
    client_id: str
    redirect_uri: str
    nonce: str
    challenge: str
    until: float


class DevIssuer:
    """The provider; its key and codes live as long as the process."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self._key = ECKey.generate_key("P-256", {"kid": secrets.token_hex(8)})
        self._codes: dict[str, _Code] = {}

    def app(self) -> Starlette:
        """The provider's four addresses."""
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.discovery),
                Route("/authorize", self.ask),
                Route("/authorize", self.authorize, methods=["POST"]),
                Route("/token", self.token, methods=["POST"]),
                Route("/keys", self.keys),
            ]
        )

    async def discovery(self, _request: Request) -> Response:
        """What there is."""
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
                "code_challenge_methods_supported": ["S256"],
            }
        )

    async def keys(self, _request: Request) -> Response:
        """The public key."""
        return JSONResponse({"keys": [{**self._key.as_dict(private=False), "use": "sig"}]})

    async def ask(self, request: Request) -> Response:
        """A form for any address."""
        if _refusal(request, dict(request.query_params)):
            return Response("refused", 400, media_type="text/plain")
        hidden = "".join(
            f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
            for name, value in request.query_params.items()
        )
        return HTMLResponse(
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width"><title>Rehearsal sign-in</title>'
            "<body><main><h1>Rehearsal sign-in</h1><p>No password: for one machine only.</p>"
            f'<form method="post">{hidden}<label>E-mail address <input name="email" type="email" '
            "required autofocus></label> <button>Sign in</button></form></main>"
        )

    async def authorize(self, request: Request) -> Response:
        """Send the browser back with a code."""
        form = await _form(request)
        email = form.get("email", "")
        if _refusal(request, form) or "@" not in email or len(self._codes) >= MOST_CODES:
            return Response("refused", 400, media_type="text/plain")
        now, code = time.monotonic(), secrets.token_urlsafe(24)
        self._codes = {key: item for key, item in self._codes.items() if item.until > now}
        self._codes[code] = _Code(
            email,
            form["client_id"],
            form["redirect_uri"],
            form["nonce"],
            form["code_challenge"],
            now + CODE_S,
        )
        query = urlencode({"code": code, "state": form["state"]})
        return RedirectResponse(f"{form['redirect_uri']}?{query}", 303)

    async def token(self, request: Request) -> Response:
        """Trade a code for an ID token, once."""
        form = await _form(request)
        found = self._codes.pop(form.get("code", ""), None)
        if (
            found is None
            or found.until < time.monotonic()
            or form.get("client_id") != found.client_id
            or form.get("redirect_uri") != found.redirect_uri
            or challenge(form.get("code_verifier", "")) != found.challenge
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": found.email,
            "aud": found.client_id,
            "iat": now,
            "exp": now + TOKEN_S,
            "nonce": found.nonce,
            "email": found.email,
            "email_verified": True,
        }
        header = {"alg": "ES256", "kid": self._key.kid}
        token = jwt.encode(header, claims, self._key, algorithms=["ES256"])
        return JSONResponse({"access_token": "none", "token_type": "Bearer", "id_token": token})


def _refusal(request: Request, form: dict[str, str]) -> bool:
    """Whether a sign-in comes from, or leads to, another machine, or is incomplete."""
    needed = {"client_id", "redirect_uri", "state", "nonce", "code_challenge"}
    caller = request.client.host if request.client is not None else ""
    target = urlsplit(form.get("redirect_uri", ""))
    is_here = is_loopback(caller) and is_loopback(target.hostname or "") and not target.query
    return not is_here or not needed <= set(form) or target.scheme not in ("http", "https")


async def _form(request: Request) -> dict[str, str]:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > 16_384:
            return {}
    fields = parse_qs(body.decode("latin-1"), max_num_fields=20)
    return {name: values[0] for name, values in fields.items()}


def serve(port: int, announce: Callable[[str], None]) -> None:
    """Serve on loopback until SIGINT or SIGTERM; `announce` gets the issuer's address."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        issuer = f"http://127.0.0.1:{bound.getsockname()[1]}"
        config = uvicorn.Config(DevIssuer(issuer).app(), log_config=None, access_log=False)
        bound.listen()
        announce(issuer)
        uvicorn.Server(config).run(sockets=[bound])
