"""Boundaries that imports alone cannot show: what a process has loaded, whose names these are."""

import json
import subprocess
import sys
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("clearinghouse", "matching", "secure_eval", "dp", "valuation", "api")
SECRET = ("secure_eval.keyholder", "clearinghouse.client", "clearinghouse.rehearsal")


def loaded_after(code: str) -> set[str]:
    """Names in sys.modules of a fresh interpreter that ran `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


SERVER = "import api.app, clearinghouse.worker, clearinghouse.serve, clearinghouse.rounds.pipeline"
EVALUATOR = "import secure_eval, secure_eval.evaluator"


@pytest.mark.parametrize("code", [SERVER, EVALUATOR], ids=["server", "evaluator"])
def test_the_server_never_loads_what_decrypts(code: str) -> None:
    loaded = loaded_after(code)
    assert not [name for name in loaded if name.startswith(SECRET)]
    assert "secure_eval.rehearse" not in loaded


def test_the_search_for_loaded_modules_finds_the_key_holder_when_it_is_there() -> None:
    assert "secure_eval.keyholder" in loaded_after("import secure_eval.keyholder")


def test_a_party_loads_no_server_code() -> None:
    loaded = loaded_after("import clearinghouse.party_process, clearinghouse.client.hospital")
    assert not [
        name for name in loaded if name.split(".")[0] in ("fastapi", "sqlmodel", "ot", "api")
    ]


def test_the_command_line_starts_without_numerics() -> None:
    loaded = loaded_after("import clearinghouse.cli.main")
    assert not {"numpy", "tenseal", "fastapi", "sklearn"} & loaded


@pytest.mark.parametrize("name", OURS)
def test_the_six_import_names_are_ours(name: str) -> None:
    # An editable install lists no files, so nobody may claim the name, or only we.
    assert set(packages_distributions().get(name, [])) <= {"eval-clearinghouse"}
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(ROOT)
