"""The console end to end: a real server, the rehearsal's issuer, and a browser's habits."""

import json
import os
import re
import subprocess
import sys
from urllib.parse import urlsplit

import httpx
import pytest

from clearinghouse.cli.main import run

COMMAND = [sys.executable, "-m", "clearinghouse.cli.main"]


def begin(*arguments, **environment):
    """Start the command; returns the process and the address it announces."""
    kept = {name: text for name, text in os.environ.items() if "CLEARINGHOUSE" not in name}
    child = subprocess.Popen(
        [*COMMAND, *arguments, "--json", "--parent", str(os.getpid())],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **environment},
    )
    return child, json.loads(child.stdout.readline())["url"]


@pytest.fixture
def addresses(tmp_path):
    """A server and the issuer it trusts, each a process of its own."""
    issuer, name = begin("dev-issuer")
    settings = {"CLEARINGHOUSE_OIDC_ISSUER": name, "CLEARINGHOUSE_OIDC_CLIENT_ID": "console"}
    server, url = begin("serve", "--data", str(tmp_path / "data"), "--port", "0", **settings)
    yield url, name
    for child in (server, issuer):
        child.terminate()
        child.wait(timeout=60)
        child.stdout.close()


def test_a_person_signs_in_at_the_rehearsals_issuer(addresses, tmp_path, capsys):
    url, issuer = addresses
    home = tmp_path / "home"
    for arguments in (
        ("init", "--role", "provider", "--name", "Clinic", "--server", url),
        ("org", "register"),
        ("org", "invite", "ada@example.org"),
    ):
        assert run([*arguments, "--home", str(home)], print) == 0
    with httpx.Client(trust_env=False, base_url=url) as browser:
        assert "Sign in" in browser.get("/console/").text
        away = browser.get("/console/login").headers["location"]
        assert away.startswith(f"{issuer}/authorize?")
        form = dict(re.findall(r'name="(\w+)" value="([^"]*)"', browser.get(away).text))
        back = browser.post(f"{issuer}/authorize", data={**form, "email": "ada@example.org"})
        target = urlsplit(back.headers["location"])
        assert f"{target.scheme}://{target.netloc}" == url
        assert browser.get(back.headers["location"]).status_code == 303
        page = browser.get("/console/requests")
        assert page.status_code == 200
        assert "Clinic" in page.text
        assert "No request yet" in page.text
        again = browser.get(back.headers["location"])
        assert again.status_code == 401
        # the issuer serves this machine only
        far = {**form, "redirect_uri": "https://elsewhere.example.org/", "email": "ada@example.org"}
        assert browser.post(f"{issuer}/authorize", data=far).status_code == 400
        partial = {"email": "ada@example.org", "redirect_uri": form["redirect_uri"]}
        assert browser.post(f"{issuer}/authorize", data=partial).status_code == 400
