"""`run audit`: its exit code, and what `run show` says of an audit."""

import pytest

from clearinghouse.cli.results import audit_words
from clearinghouse.cli.run_audit import verdict
from clearinghouse.errors import VerificationError
from clearinghouse.messages.audits import AuditView


def test_a_refuted_run_ends_with_exit_code_3() -> None:
    verdict({"run_id": "run_x", "reproduced": True, "reason": ""})
    with pytest.raises(VerificationError, match=r"run_x .* score: another weight") as caught:
        verdict({"run_id": "run_x", "reproduced": False, "reason": "score: another weight"})
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (AuditView(), "no audit"),
        (AuditView(state="asked", drawn=True), "drawn for an audit: asked of"),
        (AuditView(state="overdue", drawn=True), "drawn for an audit: audit overdue"),
        (
            AuditView(state="reproduced", auditor="org_x", fault="none", reason="all of it"),
            "audit: reproduced by org_x (all of it)",
        ),
        (
            AuditView(
                state="refuted", drawn=True, auditor="org_x", fault="evaluator", reason="score: no"
            ),
            "drawn for an audit: refuted by org_x, fault: evaluator (score: no)",
        ),
    ],
)
def test_what_is_said_of_an_audit(view: AuditView, words: str) -> None:
    assert audit_words(view).startswith(words)
