"""API keys at the edge: which route a scope opens, and whether a token is good.

A route that is not named here takes no API key, so a new one is closed until somebody opens it.
"""

from collections.abc import Mapping

from fastapi import Request

from clearinghouse.apikeys import Scope, prefix_of, token_matches
from clearinghouse.errors import AuthenticationError, ScopeError
from clearinghouse.rounds.desk import Desk
from clearinghouse.store.records import ApiKey

ROUTES: Mapping[str, Scope] = {
    "/v1/requests/{request_id}/prices": "prices:read",
    "/v1/sources/{source_id}/prices": "prices:read",
    "/v1/requests/{request_id}": "requests:read",
    "/v1/requests/{request_id}/target": "requests:read",
    "/v1/requests/{request_id}/clearing": "requests:read",
    "/v1/requests/{request_id}/runs": "requests:read",
    "/v1/requests/{request_id}/statement": "requests:read",
    "/v1/receipts/{receipt_id}": "receipts:read",
    "/v1/sources": "sources:read",
    "/v1/sources/{source_id}": "sources:read",
    "/v1/reputation": "sources:read",
    "/v1/schemas/{schema_id}": "sources:read",
    "/v1/orgs/{org_id}": "orgs:read",
    "/v1/log/entries": "log:read",
}
"""What a GET of each route needs. Blobs, tasks, disputes, keys, people: by no API key."""

PREFIX = "/v1"

USED_EVERY_S = 60
"""The time of last use is as exact as this; otherwise every read would write."""


def check_token(request: Request, desk: Desk) -> ApiKey:
    """The API key of a call.

    A wrong token, a revoked and an expired one, and an unknown prefix are told apart to nobody.

    Raises:
        AuthenticationError: The token is no good.
        ScopeError: It may not do this.
    """
    kind, _, token = request.headers["authorization"].partition(" ")
    prefix = prefix_of(token) if kind.lower() == "bearer" else None
    now = desk.clock.now()
    with desk.store.read() as tx:
        key = None if prefix is None else tx.apikeys.by_prefix(prefix)
    is_good = key is not None and token_matches(token, key.digest)
    if key is None or not is_good or key.revoked is not None or key.expires <= now:
        raise AuthenticationError("this API key is unknown, revoked or expired")
    needed = ROUTES.get(_route(request)) if request.method in ("GET", "HEAD") else None
    if needed is None:
        raise ScopeError("no API key may do this: sign the call with the organisation's key")
    if needed not in key.scopes:
        raise ScopeError(f"this needs the scope {needed}; the API key has {', '.join(key.scopes)}")
    if key.last_used is None or key.last_used <= now - USED_EVERY_S:
        with desk.store.write() as tx:
            tx.apikeys.used(key.id, int(now))
    return key


def _route(request: Request) -> str:
    """The route's path with the names of its parameters; the framework may leave the prefix out."""
    path = str(getattr(request.scope.get("route"), "path", ""))
    return path if path.startswith(PREFIX) else PREFIX + path
