"""The server's process holds no code that decrypts, and nothing that foreign bytes could crash."""

import subprocess
import sys

SCRIPT = """
import sys
from pathlib import Path
import api.app
import clearinghouse.rounds.pipeline
import clearinghouse.serve
from clearinghouse.settings import Settings
app = api.app.create_app(Settings(Path(sys.argv[1])))
app.openapi()
with api.app.at_work(app.state.runner):
    pass
forbidden = ("tenseal", "secure_eval.keyholder", "secure_eval.agent", "secure_eval.evaluator",
             "secure_eval.rehearse", "clearinghouse.client", "clearinghouse.rehearsal",
             "clearinghouse.party_process", "clearinghouse.jobs", "pickle5", "joblib")
print([name for name in sys.modules for part in forbidden
       if name == part or name.startswith(part + ".")])
"""


def test_the_server_loads_no_secret_holding_code(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "server")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_search_would_find_it(tmp_path):
    script = SCRIPT.replace("import api.app\n", "import api.app\nimport secure_eval.keyholder\n")
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "server")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "secure_eval.keyholder" in done.stdout
    assert "tenseal" in done.stdout


def test_keys_are_the_servers_own_and_survive(tmp_path):
    from api.app import create_app
    from clearinghouse.settings import Settings

    settings = Settings(tmp_path / "server", in_process=True)
    first = create_app(settings).state.desk
    first.store.close()
    for name in ("server.key", "log.key"):
        assert (settings.data / name).stat().st_mode & 0o777 == 0o600
    second = create_app(settings).state.desk
    second.store.close()
    assert first.org == second.org
    assert first.vkey == second.vkey
