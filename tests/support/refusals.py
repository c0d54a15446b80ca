"""How the command refuses: one line, a code, nothing on stdout."""

UNKNOWN = "0" * 20


def refused(outcome, code: int, *words: str) -> None:
    """One line, the code, every word in it, and nothing on stdout."""
    assert outcome.code == code, outcome.errors
    (message,) = outcome.errors
    assert "\n" not in message
    assert message.startswith("error: ")
    for word in words:
        assert word in message
    assert outcome.out == ""
