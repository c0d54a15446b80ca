"""Fail points exist in test builds alone, and every one of them is where the list says."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from clearinghouse import failpoints

ROOT = Path(__file__).resolve().parents[3]
SUPPORT = ROOT / "tests" / "support"
PROGRAM = "from clearinghouse.failpoints import reach; reach('job.claimed'); print('alive')"


def run(spec: str, *, is_test_build: bool) -> subprocess.CompletedProcess[str]:
    path = [str(ROOT), *([str(SUPPORT)] if is_test_build else [])]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"PYTHONPATH": os.pathsep.join(path), failpoints.SPEC: spec}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, cwd="/"
    )


def test_trust_failpoints_need_a_test_build_and_the_variable() -> None:
    assert run("job.claimed=kill", is_test_build=True).returncode == -9
    assert run("job.claimed=kill", is_test_build=False).stdout == "alive\n"
    assert run("", is_test_build=True).stdout == "alive\n"
    assert run("job.claimed=kill@2", is_test_build=True).stdout == "alive\n"


def test_trust_failpoints_are_not_shipped(tmp_path: Path) -> None:
    """No wheel and no image holds what makes a build a test build."""
    settings = (ROOT / "pyproject.toml").read_text()
    packages = re.search(r"\[tool\.hatch\.build\.targets\.wheel\]\npackages = \[(.*)\]", settings)
    assert packages is not None
    for name in re.findall(r'"([a-z_]+)"', packages[1]):
        assert not list((ROOT / name).rglob(f"{failpoints.TEST_BUILD}*"))
    ignored = (ROOT / "docker" / "Dockerfile.dockerignore").read_text()
    assert "!tests" not in ignored
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "clearinghouse/failpoints.py" in names
    assert not [name for name in names if failpoints.TEST_BUILD in name]


def test_trust_failpoints_are_all_in_the_code_once_and_listed() -> None:
    found = [
        point
        for package in ("clearinghouse", "api")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "failpoints.py"
        for point in re.findall(r'reach\("([^"]*)"\)', path.read_text())
    ]
    assert sorted(found) == sorted(failpoints.POINTS)


@pytest.mark.parametrize("text", ["job.claimed", "no.such=kill", "job.claimed=boom", "job=kill@0"])
def test_trust_failpoints_that_are_misspelt_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no such fail point"):
        failpoints.parse(text)


def test_trust_failpoints_act_as_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    note = tmp_path / "note"
    monkeypatch.setenv(failpoints.NOTE, str(note))
    spec = "move.moved=error@2,api.stored=full,move.queued=wait:0.0@*"
    monkeypatch.setattr(failpoints, "_failures", failpoints.parse(spec))
    monkeypatch.setattr(failpoints, "_reached", type(failpoints._reached)())
    failpoints.reach("move.moved")
    with pytest.raises(RuntimeError, match=r"fail point move\.moved"):
        failpoints.reach("move.moved")
    failpoints.reach("move.moved")
    with pytest.raises(OSError, match="No space"):
        failpoints.reach("api.stored")
    failpoints.reach("move.queued")
    failpoints.reach("move.queued")
    told = [line.split()[:2] for line in note.read_text().splitlines()]
    assert told == [
        ["move.moved", "error"],
        ["api.stored", "full"],
        ["move.queued", "wait:0.0"],
        ["move.queued", "wait:0.0"],
    ]
