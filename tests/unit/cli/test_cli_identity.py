"""key, apikey and the people of the console, from the command line; rotation survives crashes."""

import os
import shutil

import httpx
import pytest

from clearinghouse.cli.profile import session
from clearinghouse.client import rotation
from clearinghouse.client.keystore import Keystore
from clearinghouse.messages.identity import KeyList

COUNT = iter(range(1000))


@pytest.fixture
def clinic(home):
    return home("provider", f"clinic{next(COUNT)}")


def keys(path):
    with session(path, None) as opened:
        return opened.transport.get("/keys", KeyList).keys


def test_rotate_list_revoke(cli, clinic):
    old = Keystore.open(clinic).signing_key.key_id
    done = cli("key", "rotate", "--json", "--home", clinic)
    assert (done.code, done.errors) == (0, [])
    assert done.value["old_key_id"] == old
    assert done.value["key_id"] == Keystore.open(clinic).signing_key.key_id != old
    assert done.value["revoked"] > done.value["added"]
    assert Keystore.open(clinic).old_key is None
    listed = cli("key", "list", "--json", "--home", clinic).value["keys"]
    assert [(key["id"], key["revoked"] is None) for key in listed] == [
        (old, False),
        (done.value["key_id"], True),
    ]
    assert cli("org", "show", "--json", "--home", clinic).value["key_id"] == done.value["key_id"]
    assert cli("org", "register", "--home", clinic).code == 0
    kept = cli("key", "rotate", "--keep-old", "--json", "--home", clinic).value
    assert kept["revoked"] is None
    refused = cli("key", "revoke", kept["key_id"], "--home", clinic)
    assert (refused.code, "rotate" in refused.errors[0]) == (3, True)
    ended = cli("key", "revoke", kept["old_key_id"], "--json", "--home", clinic)
    assert (ended.code, ended.value["revoked"] is not None) == (0, True)
    assert Keystore.open(clinic).old_key is None
    unknown = cli("key", "revoke", "key_" + "a" * 20, "--home", clinic)
    assert unknown.code == 4
    assert cli("key", "revoke", "nonsense", "--home", clinic).code == 4


def test_a_copy_from_before_the_rotation_is_worthless(cli, clinic, tmp_path):
    stolen = tmp_path / "stolen"
    shutil.copytree(clinic, stolen)
    os.chmod(stolen, 0o700)
    assert cli("key", "rotate", "--home", clinic).code == 0
    for command in (("org", "show"), ("key", "list"), ("key", "rotate")):
        refused = cli(*command, "--home", stolen)
        assert refused.code == 3
        assert "does not accept this call" in refused.errors[0]
    assert cli("org", "show", "--home", clinic).code == 0


@pytest.mark.parametrize("step", ["made", "told", "linked", "used", "revoked"])
def test_a_rotation_that_broke_off_goes_on(cli, clinic, step, monkeypatch):
    """Power fails between any two steps: the home still works, and the same command finishes."""
    old = Keystore.open(clinic).signing_key.key_id

    class PowerCutError(BaseException):
        pass

    def cut(*_arguments, **_named):
        raise PowerCutError

    place = {
        "made": (rotation, "announcement"),
        "told": (Keystore, "use_next_key"),
        "linked": (os, "replace"),
        "used": (rotation, "_need_no_receipt"),
        "revoked": (Keystore, "forget_old_key"),
    }[step]
    if step == "linked":  # the first rename is that of the next key into place
        Keystore.open(clinic).next_key()
    with monkeypatch.context() as patched:
        patched.setattr(*place, cut)
        with pytest.raises(PowerCutError):
            cli("key", "rotate", "--home", clinic)
    assert cli("org", "show", "--home", clinic).code == 0  # never locked out
    done = cli("key", "rotate", "--json", "--home", clinic)
    assert (done.code, done.errors) == (0, [])
    assert done.value["old_key_id"] == old
    assert [(key.id, key.revoked is None) for key in keys(clinic)] == [
        (old, False),
        (done.value["key_id"], True),
    ]
    assert sorted(path.name for path in clinic.glob("signing*")) == ["signing.pem"]


def test_no_rotation_beside_another_command(cli, clinic):
    from clearinghouse.cli.loop import alone

    with alone(Keystore.open(clinic)):
        busy = cli("key", "rotate", "--home", clinic)
    assert (busy.code, "another command" in busy.errors[0]) == (5, True)


def test_api_keys(cli, clinic, server):
    made = cli(
        "apikey", "create", "--name", "dashboard", "--scope", "sources:read", "--scope",
        "log:read", "--days", "7", "--json", "--home", clinic,
    )  # fmt: skip
    assert (made.code, made.errors) == (0, [])
    token = made.value["token"]
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.get(f"{server}/v1/sources", headers=headers, trust_env=False)
    assert answer.status_code == 200
    assert httpx.get(f"{server}/v1/keys", headers=headers, trust_env=False).status_code == 403
    (listed,) = cli("apikey", "list", "--json", "--home", clinic).value["keys"]
    assert listed["last_used"] is not None
    assert token not in "".join(path.read_text("latin-1") for path in clinic.glob("*.json"))
    assert "dashboard" in cli("apikey", "list", "--home", clinic).out
    assert cli("apikey", "revoke", made.value["id"], "--home", clinic).code == 0
    answer = httpx.get(f"{server}/v1/sources", headers=headers, trust_env=False)
    assert answer.status_code == 401
    words = cli("apikey", "create", "--name", "x", "--scope", "prices:read", "--home", clinic).out
    assert "only time" in words


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("apikey", "create", "--name", "x", "--scope", "all"), 2),
        (("apikey", "create", "--name", "", "--scope", "log:read"), 2),
        (("apikey", "create", "--name", "x", "--scope", "log:read", "--days", "0"), 2),
        (("apikey", "create", "--name", "x", "--scope", "log:read", "--days", "999"), 2),
        (("apikey", "create", "--name", "x"), 2),
        (("apikey", "revoke", "apk_" + "0" * 20), 4),
        (("apikey", "revoke", "x"), 4),
        (("org", "invite", "nobody"), 2),
        (("org", "dismiss", "nobody@example.org"), 4),
        (("org", "dismiss", "a/../b@c"), 4),
        (("key", "rotate", "--data", "nowhere"), 2),
    ],
)
def test_exit_codes(cli, clinic, arguments, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli(*arguments, "--home", clinic)
    assert done.code == code, done.errors
    assert len(done.errors) == 1


def test_people(cli, clinic):
    assert cli("org", "people", "--home", clinic).out.startswith("nobody")
    invited = cli("org", "invite", "Ada@Example.org", "--json", "--home", clinic)
    assert invited.value == {"people": ["ada@example.org"]}
    cli("org", "invite", "bob+x@example.org", "--home", clinic)
    left = cli("org", "dismiss", "bob+x@example.org", "--json", "--home", clinic)
    assert (left.code, left.value) == (0, {"people": ["ada@example.org"]})


def test_the_servers_own_key(cli, tmp_path):
    from clearinghouse.log.entries import KeyHistory, parse_entry
    from clearinghouse.rounds import server_key
    from clearinghouse.rounds.desk import open_desk
    from clearinghouse.settings import Settings

    data = tmp_path / "data"
    settings = Settings(data, in_process=True)

    def look():
        desk = open_desk(settings)
        with desk.store.read() as tx:
            entries = [parse_entry(body) for body in tx.log.entries(0, 100)]
        desk.store.close()
        return desk, entries

    before, _ = look()
    done = cli("key", "rotate", "--data", data, "--json")
    assert (done.code, done.errors) == (0, [])
    after, entries = look()
    assert done.value["old_key_id"] == before.key.key_id
    assert after.org.key_id == after.key.key_id == done.value["key_id"]
    assert (after.org.id, after.vkey) == (before.org.id, before.vkey)
    assert [entry.type for entry in entries] == ["org.registered", "key.added", "key.revoked"]
    history = KeyHistory()
    for entry in entries:
        history.apply(entry)
    # the power fails when the log says it and the file does not yet
    real = server_key.os.replace

    def cut(source, target):
        if str(target).endswith("server.key"):
            raise KeyboardInterrupt
        real(source, target)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(server_key.os, "replace", cut)
        assert cli("key", "rotate", "--data", data).code == 130
    assert (data / "server.key.next").exists()
    last, entries = look()
    assert last.key.key_id == entries[-1].key != after.key.key_id
    assert not (data / "server.key.next").exists()
