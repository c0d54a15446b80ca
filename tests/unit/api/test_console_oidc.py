"""Signing in: a good ID token lets in, and every single lie in it, or around it, does not."""

import httpx
import pytest
from issuer import (
    CLIENT,
    ISSUER,
    NOW,
    SECRET,
    Issuer,
    by_another_key,
    by_public_key_as_secret,
    by_the_key_it_brings,
    unsigned,
    with_other_claims,
)
from joserfc.jwk import RSAKey

from api.console.oidc import Login, Provider
from clearinghouse.clock import FixedClock
from clearinghouse.errors import AuthenticationError, InputError, TryAgainError

BACK = "https://clearing.example.org/console/callback"


def provider(asked, **changes):
    values = {"issuer": ISSUER, "client_id": CLIENT, "secret": SECRET, **changes}
    return Provider(**values, clock=FixedClock(NOW), make_client=asked.client)


def sign_in(issuer, **changes):
    made, login = provider(issuer, **changes), Login()
    brought = issuer.visit(made.address(login, BACK))
    assert brought["state"] == login.state
    return made.email(login, brought["code"], BACK)


def test_a_person_signs_in():
    issuer = Issuer(email="Ada@Example.org")
    assert sign_in(issuer) == "ada@example.org"
    assert sign_in(Issuer(key=RSAKey.generate_key(2048, {"kid": "1"}))) == "ada@example.org"
    assert sign_in(Issuer(claims={"aud": [CLIENT, "other"], "azp": CLIENT})) == "ada@example.org"
    assert {url.split("?")[0] for url in issuer.calls} == {
        f"{ISSUER}/.well-known/openid-configuration",
        f"{ISSUER}/token",
        f"{ISSUER}/keys",
    }


LIES = {
    "another issuer": {"claims": {"iss": "https://evil.example.org"}},
    "no issuer": {"claims": {"iss": None}},
    "another audience": {"claims": {"aud": "other"}},
    "no audience": {"claims": {"aud": None}},
    "several audiences": {"claims": {"aud": [CLIENT, "other"]}},
    "meant for another": {"claims": {"azp": "other"}},
    "expired": {"claims": {"exp": NOW - 61}},
    "no expiry": {"claims": {"exp": None}},
    "expiry as text": {"claims": {"exp": str(NOW + 300)}},
    "from the future": {"claims": {"iat": NOW + 3600}},
    "not yet": {"claims": {"nbf": NOW + 3600}},
    "no time": {"claims": {"iat": None}},
    "another nonce": {"claims": {"nonce": "x" * 43}},
    "no nonce": {"claims": {"nonce": None}},
    "a list with any nonce": {"claims": {"nonce": ["x"]}},
    "no subject": {"claims": {"sub": None}},
    "address not verified": {"claims": {"email_verified": False}},
    "verified as text": {"claims": {"email_verified": "true"}},
    "no word on it": {"claims": {"email_verified": None}},
    "no address": {"claims": {"email": None}},
    "address is a list": {"claims": {"email": ["ada@example.org"]}},
    "unsigned": {"sign": unsigned},
    "public key as secret": {"sign": by_public_key_as_secret},
    "another key": {"sign": by_another_key},
    "a key of its own": {"sign": by_the_key_it_brings},
    "claims changed": {"sign": with_other_claims},
    "no token": {"sign": lambda _issuer, _claims: "a.b.c"},
    "unknown key": {"header": {"kid": "2"}},
}


@pytest.mark.parametrize("lie", LIES)
def test_no_lie_lets_anybody_in(lie):
    with pytest.raises(AuthenticationError):
        sign_in(Issuer(**LIES[lie]))


def test_a_code_counts_once_and_with_its_verifier_only():
    issuer = Issuer()
    made, login = provider(issuer), Login()
    code = issuer.visit(made.address(login, BACK))["code"]
    made.email(login, code, BACK)
    with pytest.raises(AuthenticationError, match="refused"):
        made.email(login, code, BACK)
    code = issuer.visit(made.address(login, BACK))["code"]
    stolen = Login(state=login.state, nonce=login.nonce)
    with pytest.raises(AuthenticationError, match="refused"):
        made.email(stolen, code, BACK)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("token_endpoint", "http://id.example.org/token"),
        ("token_endpoint", "http://127.0.0.1:8080/admin"),
        ("token_endpoint", "http://169.254.169.254/latest/meta-data"),
        ("jwks_uri", "file:///etc/passwd"),
        ("jwks_uri", ["https://id.example.org/keys"]),
        ("authorization_endpoint", None),
        ("authorization_endpoint", "javascript:alert(1)"),
        ("issuer", "https://evil.example.org"),
    ],
)
def test_a_description_leads_nowhere_else(name, address):
    """Not even the provider can send the server into its own network, or a browser to a script."""
    issuer = Issuer(document={name: address})
    with pytest.raises(TryAgainError):
        sign_in(issuer)
    assert all(call.startswith(ISSUER) for call in issuer.calls)


def test_no_redirect_is_followed():
    def away(request):
        if request.url.path == "/token":
            return httpx.Response(307, headers={"Location": "http://127.0.0.1:1/"})
        return None

    issuer = Issuer(answer=away)
    with pytest.raises(AuthenticationError, match="status 307"):
        sign_in(issuer)
    assert all(call.startswith(ISSUER) for call in issuer.calls)


def test_answers_are_bounded_and_strict():
    def long(_request):
        return httpx.Response(200, content=b"[" + b"1," * 2**20 + b"1]")

    with pytest.raises(TryAgainError, match="too long"):
        sign_in(Issuer(answer=long))
    for body in (b"[]", b'{"issuer": 1, "issuer": 2}', b"<html>"):
        with pytest.raises(AuthenticationError):
            sign_in(Issuer(answer=lambda _request, body=body: httpx.Response(200, content=body)))
    with pytest.raises(TryAgainError, match="out of order"):
        sign_in(Issuer(answer=lambda _request: httpx.Response(503)))

    def broken(_request):
        raise httpx.ConnectError("no")

    with pytest.raises(TryAgainError, match="away"):
        sign_in(Issuer(answer=broken))


@pytest.mark.parametrize(
    "address",
    [
        "http://id.example.org",
        "ftp://id.example.org",
        "id.example.org",
        "https://a:b@c",
        "https://",
    ],
)
def test_only_https_issuers_but_on_this_machine(address):
    with pytest.raises(InputError, match="https"):
        provider(Issuer(), issuer=address)
    provider(Issuer(), issuer="http://127.0.0.1:9000")
    with pytest.raises(InputError, match="CLIENT_ID"):
        provider(Issuer(), client_id="")


def test_descriptions_are_kept_for_a_while():
    """The sign-in page is open to everybody: it must not make the server call out each time."""
    issuer = Issuer()
    made = provider(issuer)
    for _ in range(20):
        made.address(Login(), BACK)
    assert len(issuer.calls) == 1
