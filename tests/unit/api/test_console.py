"""The console: who sees which page, cookies that cannot be made, forms that cannot be forged."""

import contextlib
import re

import pytest
from databases import fresh_sqlite
from issuer import CLIENT, ISSUER, SECRET, Issuer
from starlette.routing import Route

from api.app import at_work, create_app
from api.console import pages
from api.console.app import create_console
from api.console.oidc import Provider
from api.console.sessions import LOGIN_COOKIE, SESSION_COOKIE, SESSION_S
from clearinghouse.client.loopback import app_client
from clearinghouse.ids import new_id
from clearinghouse.messages.disputes import ResolveDispute
from clearinghouse.rounds import disputes, rulings
from clearinghouse.settings import Settings
from clearinghouse.store.records import Receipt

EVERYBODY = {"hospital", "provider", "developer", "outsider", "operator"}
INSIDE = {"hospital", "provider", "developer"}

PAGES = {
    "/requests": EVERYBODY,
    "/requests/{request_id}": INSIDE,
    "/receipts/{receipt_id}": INSIDE,
    "/disputes": EVERYBODY,
    "/disputes/{dispute_id}": INSIDE | {"operator"},
    "/sources": EVERYBODY,
    "/budgets": EVERYBODY,
    "/log": EVERYBODY,
}
OPEN = {"/", "/style.css", "/login", "/callback"}
POSTS = {"/logout", "/organisation"}


class Browser:
    """A person's browser: keeps cookies by path, sends forms."""

    def __init__(self, app, issuer, email):
        self.opened = contextlib.ExitStack()
        self.client = self.opened.enter_context(app_client(app))
        self.client.base_url = "http://testserver"
        self.issuer, self.email = issuer, email

    def get(self, path):
        return self.client.get(f"/console{path}")

    def sign_in(self):
        self.issuer.email = self.email
        away = self.get("/login")
        assert away.status_code == 303, away.text
        return self.client.get(
            "/console/callback", params=self.issuer.visit(away.headers["location"])
        )

    def post(self, path, **form):
        return self.client.post(f"/console{path}", data=form)

    def csrf(self):
        return re.search('name="csrf" value="([^"]+)"', self.get("/log").text)[1]


@pytest.fixture
def issuer():
    return Issuer()


@pytest.fixture
def app(tmp_path, clock, issuer):
    settings = Settings(
        tmp_path / "server",
        in_process=True,
        blob_bytes=2**20,
        console_operators="Op@op.example, second@op.example",
    )
    fresh_sqlite(tmp_path / "server" / "clearinghouse.db")
    made = create_app(settings, clock)
    provider = Provider(ISSUER, CLIENT, SECRET, clock, issuer.client)
    console = create_console(made.state.desk, made.state.limits, provider)
    for index, route in enumerate(made.router.routes):
        if getattr(route, "path", "") == "/console":
            made.router.routes[index].app = console
    return made


@pytest.fixture
def people(market, app, issuer):
    """A signed-in person of every organisation, and one of the operator."""
    made = {}
    for role in INSIDE | {"outsider"}:
        email = f"{role}@example.org"
        assert getattr(market, role).post("/v1/people", {"email": email}).status_code == 200
        made[role] = Browser(app, issuer, email)
    made["operator"] = Browser(app, issuer, "op@op.example")
    for browser in made.values():
        assert browser.sign_in().status_code == 303
    yield made
    for browser in made.values():
        browser.opened.close()


@pytest.fixture
def ids(market, app):
    receipt_id = new_id("rcp")
    with app.state.desk.store.write() as tx:
        tx.runs.add_receipt(Receipt(receipt_id, market.request_id, new_id("run"), "text"))
        dispute = disputes.open_dispute(
            tx,
            app.state.desk,
            tx.requests.get(market.request_id),
            new_id("run"),
            "test",
            {},
            respondent_id=market.hospital.org_id,
            words="its digits are no digits",
        )
    return {
        "request_id": market.request_id,
        "receipt_id": receipt_id,
        "dispute_id": dispute.id,
    }


def test_every_page_is_in_the_matrix(app):
    """A new page must be added above before this passes."""
    (console,) = [item.app for item in app.routes if getattr(item, "path", "") == "/console"]
    routes = {
        (method, route.path)
        for route in console.routes
        if isinstance(route, Route)
        for method in route.methods - {"HEAD"}
    }
    assert len(console.routes) == len(routes)
    assert routes == {("GET", path) for path in set(PAGES) | OPEN} | {
        ("POST", path) for path in POSTS
    }


def test_who_sees_which_page(people, ids, market):
    for path, allowed in PAGES.items():
        filled = path.format(**ids)
        unknown = re.sub(r"([a-z]{3})_[0-9a-z]{20}", lambda found: new_id(found[1]), filled)
        for role, browser in people.items():
            answer = browser.get(filled)
            if role in allowed:
                assert answer.status_code == 200, (role, path, answer.text)
                continue
            missing = browser.get(unknown)
            assert (answer.status_code, missing.status_code) == (404, 404), (role, path)
            assert _without_ids(answer.text) == _without_ids(missing.text)
    own = people["hospital"].get("/requests").text
    assert market.request_id in own
    assert market.request_id not in people["outsider"].get("/requests").text
    assert market.request_id in people["operator"].get("/requests").text


def test_a_dispute_is_told_from_claim_to_ruling(people, ids, market, app):
    page = people["hospital"].get(f"/disputes/{ids['dispute_id']}").text
    for words in (
        "a failed test",
        "its digits are no digits",
        "or the claim stands",
        "Not decided",
    ):
        assert words in page
    assert f"/console/requests/{market.request_id}" in page
    listed = {role: browser.get("/disputes").text for role, browser in people.items()}
    assert ids["dispute_id"] in listed["hospital"]
    assert ids["dispute_id"] in listed["operator"]
    assert "No dispute concerns your organisation" in listed["provider"]
    ruling = ResolveDispute(outcome="forfeit", words="<b>they are not</b>")
    with app.state.desk.store.write() as tx:
        dispute = tx.disputes.get(ids["dispute_id"])
        rulings.resolve(tx, app.state.desk, app.state.desk.org, dispute, ruling)
    page = people["developer"].get(f"/disputes/{ids['dispute_id']}").text
    assert "The claim stands: &lt;b&gt;they are not&lt;/b&gt;" in page
    assert "It was not answered" in page


def _without_ids(text):
    return re.sub(r"[a-z]{3}_[0-9a-z]{20}", "ID", text)


def test_nobody_sees_a_page_without_a_session(market, ids, app, issuer, people):
    stranger = Browser(app, issuer, "eve@example.org")
    good = people["hospital"].client.cookies[SESSION_COOKIE]
    token, mac = good.split(".")
    forged = [
        "",
        "x",
        "x.y",
        token,
        f"{token}.",
        f"{token}.{mac[:-1]}",
        f"{mac}.{token}",
        f".{mac}",
    ]
    other = people["provider"].client.cookies[SESSION_COOKIE].split(".")
    forged += [f"{other[0]}.{mac}", f"{token}.{other[1]}", f"{token}x.{mac}"]
    for cookie in forged:
        for path in PAGES:
            url = f"/console{path.format(**ids)}"
            answer = stranger.client.get(url, headers={"Cookie": f"{SESSION_COOKIE}={cookie}"})
            assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
    # signed calls and API keys open no page, sessions open no call
    headers = market.hospital.headers("GET", "/console/requests")
    bearer = {"Authorization": "Bearer " + market.hospital.tokens(["requests:read"])}
    for more in (headers, bearer):
        assert stranger.client.get("/console/requests", headers=more).status_code == 303
    for path in ("/v1/sources", f"/v1/requests/{market.request_id}", "/v1/people"):
        answer = stranger.client.get(path, headers={"Cookie": f"{SESSION_COOKIE}={good}"})
        assert answer.status_code == 401


def test_sessions_end(people, clock, market):
    hospital, provider = people["hospital"], people["provider"]
    token = hospital.client.cookies[SESSION_COOKIE]
    assert hospital.post("/logout", csrf=hospital.csrf()).status_code == 303
    answer = hospital.client.get(
        "/console/requests", headers={"Cookie": f"{SESSION_COOKIE}={token}"}
    )
    assert answer.status_code == 303  # ended here, not in the browser alone
    assert provider.get("/requests").status_code == 200
    assert market.provider.delete("/v1/people/provider@example.org").status_code == 200
    assert provider.get("/requests").status_code == 303
    assert people["developer"].get("/requests").status_code == 200
    clock.advance(SESSION_S)
    assert people["developer"].get("/requests").status_code == 303


def test_forms_cannot_be_forged(people, market):
    hospital = people["hospital"]
    market.provider.post("/v1/people", {"email": "hospital@example.org"})
    orgs = {market.hospital.org_id, market.provider.org_id}
    page = hospital.get("/requests").text
    assert all(f'value="{org}"' in page for org in orgs)
    for csrf in ("", "x", people["provider"].csrf()):
        for path in sorted(POSTS):
            answer = hospital.post(path, csrf=csrf, org=market.provider.org_id)
            assert answer.status_code == 401
    for path in sorted(POSTS):
        assert hospital.get(path).status_code == 405
        assert hospital.client.post(f"/console{path}", content=b"x" * 5000).status_code == 413
    assert hospital.get("/requests").status_code == 200  # still signed in, same organisation
    csrf = hospital.csrf()
    assert hospital.post("/organisation", csrf=csrf, org=market.outsider.org_id).status_code == 401
    assert hospital.post("/organisation", csrf=csrf, org=market.provider.org_id).status_code == 303
    assert "a provider" in re.search("<option[^>]*selected>([^<]*)", hospital.get("/log").text)[1]


def test_signing_in_by_another_browser_or_state(app, issuer, people):
    """A code that an attacker's browser got does not sign the victim in as the attacker."""
    attacker, victim = Browser(app, issuer, "hospital@example.org"), Browser(app, issuer, "x")
    brought = issuer.visit(attacker.get("/login").headers["location"])
    answer = victim.client.get("/console/callback", params=brought)
    assert answer.status_code == 401
    victim.get("/login")
    answer = victim.client.get("/console/callback", params=brought)
    assert answer.status_code == 401
    assert SESSION_COOKIE not in victim.client.cookies
    for params in ({}, {"state": brought["state"]}, {"code": brought["code"]}):
        assert attacker.client.get("/console/callback", params=params).status_code == 401


def test_a_sign_in_takes_ten_minutes_at_most(app, issuer, people, clock):
    late = Browser(app, issuer, "hospital@example.org")
    brought = issuer.visit(late.get("/login").headers["location"])
    clock.advance(600)
    assert late.client.get("/console/callback", params=brought).status_code == 401


def test_who_is_invited_by_nobody(app, issuer, people):
    eve = Browser(app, issuer, "eve@example.org")
    answer = eve.sign_in()
    assert answer.status_code == 401
    assert "no organisation lets eve@example.org in" in answer.text
    assert SESSION_COOKIE not in eve.client.cookies


def test_cookies_and_headers(people, app, issuer):
    browser = Browser(app, issuer, "hospital@example.org")
    login = browser.get("/login").headers["set-cookie"]
    session = browser.sign_in().headers.get_list("set-cookie")
    assert {text.split("=")[0] for text in session} == {LOGIN_COOKIE, SESSION_COOKIE}
    for text in (login, *session):
        if "Max-Age=0" not in text:
            assert {"HttpOnly", "SameSite=lax", "Path=/console"} <= set(text.split("; "))
    page = browser.get("/log")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    assert "<script" not in page.text


def test_cookies_are_secure_behind_https(tmp_path, clock, issuer):
    settings = Settings(tmp_path / "s", in_process=True, public_url="https://c.example.org")
    made = create_app(settings, clock)
    provider = Provider(ISSUER, CLIENT, SECRET, clock, issuer.client)
    console = create_console(made.state.desk, made.state.limits, provider)
    with at_work(made.state.runner), app_client(console) as client:
        client.base_url = "http://testserver"
        answer = client.get("/login")
    assert "Secure" in answer.headers["set-cookie"].split("; ")
    assert (
        "redirect_uri=https%3A%2F%2Fc.example.org%2Fconsole%2Fcallback"
        in (answer.headers["location"])
    )


def test_what_others_wrote_is_text(make_market, people, app):
    """A name of another organisation is shown, never run."""
    market = make_market()
    name = '<img src=x onerror="alert(1)">{{ 7 * 7 }}'
    source = {"name": name, "schema_id": market.schema_id, "size_class": 1}
    answer = market.provider.post("/v1/sources", source | {"rows_root": "0" * 64, "leaves": 2})
    assert answer.status_code == 200
    page = people["outsider"].get("/sources").text
    assert "&lt;img src=x onerror=&#34;alert(1)&#34;&gt;{{ 7 * 7 }}" in page
    assert "<img" not in page


def test_sources_come_in_pages(people, market, monkeypatch):
    monkeypatch.setattr(pages, "PAGE", 1)
    source = {"name": "more", "schema_id": market.schema_id, "size_class": 1, "leaves": 2}
    more = market.provider.post("/v1/sources", source | {"rows_root": "0" * 64}).json()["id"]
    first, second = sorted([market.source_id, more])
    browser = people["hospital"]
    page, rest = browser.get("/sources").text, browser.get(f"/sources?after={first}").text
    assert (first in page, second in page) == (True, False)
    assert f'href="/console/sources?after={first}"' in page
    assert (first in rest, second in rest, "More sources" in rest) == (False, True, False)
    for odd in ("%00", "src_1", "'"):
        assert browser.get(f"/sources?after={odd}").text == page


def test_budgets_are_those_of_the_log(people, market):
    page = people["provider"].get("/budgets").text
    assert f'cohort<br><span class="id muted">{market.source_id}</span>' in page
    assert '<td class="num">1.00</td>' in page
    assert market.source_id not in people["hospital"].get("/budgets").text


def test_without_a_provider_the_console_is_off(tmp_path, clock):
    made = create_app(Settings(tmp_path / "plain", in_process=True), clock)
    with at_work(made.state.runner), app_client(made) as client:
        client.base_url = "http://testserver"
        answer = client.get("/console/")
        assert (answer.status_code, "The console is off" in answer.text) == (404, True)
        for path in ("/console/login", "/console/callback"):
            assert client.get(path).status_code == 404
