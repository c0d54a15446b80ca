"""The console's pages in a real browser: no page is wider than a telephone, dark is dark."""

import subprocess

import pytest

from api.console import disputes, pages
from api.console.sessions import Viewer
from clearinghouse.messages.disputes import AnswerDispute, ResolveDispute
from clearinghouse.rounds import disputes as claims
from clearinghouse.rounds import rulings
from clearinghouse.store.records import Org

REQUIRES = ("chromium",)

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
WIDTH = 420


def looked_at(folder, html, *more):
    """Width in pixels and colour of a page in a window of a telephone's width."""
    page = folder / "page.html"
    style = (pages.HERE / "style.css").read_text()
    link = '<link rel="stylesheet" href="/console/style.css">'
    assert link in html
    html = html.replace(link, f"<style>{style}</style>")
    frame = html.replace('"', "&quot;")
    page.write_text(
        f'<body style="margin:0"><iframe id="f" style="border:0;width:{WIDTH}px;height:900px" '
        f'srcdoc="{frame}"></iframe><script>onload = () => {{'
        "const d = document.getElementById('f').contentDocument;"
        "document.body.insertAdjacentHTML('beforeend', '<p id=w>' + d.documentElement.scrollWidth "
        "+ ' ' + getComputedStyle(d.body).backgroundColor + '</p>')}</script>"
    )
    done = subprocess.run(
        [
            "chromium",
            *QUIET,
            *more,
            f"--user-data-dir={folder / 'profile'}",
            "--dump-dom",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    width, _, colour = done.stdout.rpartition('<p id="w">')[2].partition("</p>")[0].partition(" ")
    return int(width), colour


@pytest.fixture
def page(market, app):
    """Renders a page for the hospital, which has long names on it."""
    orgs = tuple(
        Org(f"org_{'0' * 19}{number}", "St. Elsewhere and Daughters General Hospital", "hospital",
            "", "", None)
        for number in range(2)
    )  # fmt: skip

    with app.state.desk.store.write() as tx:
        request = tx.requests.get(market.request_id)
        made = [
            claims.open_dispute(
                tx,
                app.state.desk,
                request,
                f"run_{number}{'0' * 19}",
                "test",
                {"transcript-of-the-disputed-run.json": "7" * 64},
                respondent_id=market.hospital.org_id,
                words="the digits of its third message are no digits of what it had sealed",
                receipts=[f"dlv_{'0' * 20}"],
            )
            for number in range(2)
        ]
        said = AnswerDispute(words="our machine had failed; we have sent the message again")
        answered = rulings.answer(
            tx, app.state.desk, tx.parties.get(market.hospital.org_id), made[0], said
        )
        ruling = ResolveDispute(outcome="forfeit", words="a message that was sent stands")
        rulings.resolve(tx, app.state.desk, app.state.desk.org, answered, ruling)

    def render(name):
        with app.state.desk.store.read() as tx:
            org = tx.parties.get(market.hospital.org_id)
            email = "a.person.with.a.long.name@hospital.example.org"
            viewer = Viewer(email, org, (org, *orgs), "x", "")
            shown = {
                "requests": lambda: pages.requests(None, viewer, tx, 0.0),
                "request": lambda: pages.one_request(None, viewer, tx, market.request_id, 0.0),
                "disputes": lambda: disputes.all_disputes(None, viewer, tx),
                "dispute": lambda: disputes.one_dispute(None, viewer, tx, made[0].id),
                "sources": lambda: pages.sources(None, viewer, tx),
                "budgets": lambda: pages.budgets(None, viewer, tx, {market.valset_id: 2_500_000}),
                "log": lambda: pages.log(None, viewer, tx, app.state.desk.vkey),
                "sign_in": lambda: pages.sign_in(None),
            }[name]()
        return shown.body.decode()

    return render


def test_every_page_fits_a_telephone(page, tmp_path):
    for name in (
        "requests",
        "request",
        "disputes",
        "dispute",
        "sources",
        "budgets",
        "log",
        "sign_in",
    ):
        width, colour = looked_at(tmp_path, page(name))
        assert width <= WIDTH, name
        assert colour == "rgb(255, 255, 255)"


def test_dark_is_dark(page, tmp_path):
    _, colour = looked_at(tmp_path, page("request"), "--blink-settings=preferredColorScheme=0")
    assert colour == "rgb(20, 24, 28)"


def test_the_width_can_fail(page, tmp_path):
    wide = page("log").replace("<main>", '<main><div style="width:600px">x</div>')
    assert looked_at(tmp_path, wide)[0] == 600 + 16
