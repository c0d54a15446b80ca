"""The server side never loads the secret side, nor what a party's base install lacks."""

import subprocess
import sys

import pytest

PROBE = """
import sys
{code}
print(sorted(m for m in sys.modules if m.startswith('secure_eval.') or m in ('numba', 'onnx')))
"""
SECRET = ("secure_eval.keyholder", "secure_eval.agent", "secure_eval.rehearse")


def loaded(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(code=code)], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import secure_eval",
        "from secure_eval import checked, replay, replay_target, arbiter, target, evaluator",
        "from secure_eval import CheckedScoringRun, TargetOpening, IntegerModel, Table; dir()",
    ],
)
def test_the_evaluator_does_not_load_the_key_holder(code: str) -> None:
    modules = loaded(code)
    for name in SECRET:
        assert f"'{name}'" not in modules
    assert "numba" not in modules


def test_the_probe_sees_the_key_holder_where_it_is_loaded() -> None:
    modules = loaded("from secure_eval import rehearse")
    for name in SECRET:
        assert f"'{name}'" in modules
    assert "numba" not in modules


def test_functions_keep_their_names_whatever_was_imported_before() -> None:
    code = """
from secure_eval.rehearse import rehearse
from secure_eval.from_sklearn import from_sklearn
import secure_eval
assert secure_eval.rehearse is rehearse and callable(secure_eval.rehearse)
assert secure_eval.from_sklearn is from_sklearn
from secure_eval import from_onnx
assert callable(from_onnx) and from_onnx.__name__ == 'from_onnx'
"""
    assert "rehearse" in loaded(code)


def test_public_names_resolve_and_others_do_not() -> None:
    import secure_eval

    for name in secure_eval.__all__:
        assert getattr(secure_eval, name) is not None
        assert name in dir(secure_eval)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = secure_eval.nothing
