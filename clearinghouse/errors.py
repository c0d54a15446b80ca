"""One tree of errors. Each class has an RFC 9457 problem type and a command-line exit code.

A message says what was expected, what came and what to do next; never a data row's other values.
"""


class ClearinghouseError(Exception):
    """Root of everything this project raises on purpose."""

    problem_type = "internal"
    status = 500
    exit_code = 1


class InputError(ClearinghouseError):
    """The caller's file or value is wrong; nothing was written (exit code 2)."""

    problem_type = "bad-input"
    status = 422
    exit_code = 2


class TableError(InputError):
    """A table breaks its schema. The message names file, column, row and remedy."""

    def __init__(
        self,
        problem: str,
        *,
        file: str,
        remedy: str,
        column: str | None = None,
        row: int | None = None,
    ) -> None:
        self.file, self.column, self.row = file, column, row
        self.problem, self.remedy = problem, remedy
        place = file
        if column is not None:
            place += f", column '{column}'"
        if row is not None:
            place += f", row {row}"
        super().__init__(f"{place}: {problem}. {remedy}")


class RefusedError(ClearinghouseError):
    """The request is well formed but not allowed: budget, state, approval, quota (exit code 3)."""

    problem_type = "refused"
    status = 409
    exit_code = 3


class SpentError(RefusedError):
    """A refusal that came after epsilon was spent; the other side must log it."""

    def __init__(self, reason: str, spent_micro: int) -> None:
        super().__init__(
            f"{reason} ({spent_micro / 1_000_000:g} of epsilon was spent on this run before)"
        )
        self.spent_micro = spent_micro


class BudgetExceededError(RefusedError):
    """A release would spend more privacy budget than the owner has left."""

    problem_type = "budget-exceeded"


class NoGrantError(RefusedError):
    """No grant of the records' owner covers this use; the message says what is wrong."""

    problem_type = "no-grant"


class QuotaError(RefusedError):
    """The organisation has as much open or stored as it may; waiting alone may not help."""

    problem_type = "quota-exceeded"
    status = 429


class ScopeError(RefusedError):
    """An API key was used for something that its scopes do not name."""

    problem_type = "out-of-scope"
    status = 403


class ConflictError(RefusedError):
    """The same idempotency key came with another body, or an object is in another state."""

    problem_type = "conflict"


class AuthenticationError(ClearinghouseError):
    """The signature, key or nonce of a request does not hold."""

    problem_type = "unauthenticated"
    status = 401
    exit_code = 3


class NotFoundError(ClearinghouseError):
    """No such id, or not this organisation's (the two are never told apart; exit code 4)."""

    problem_type = "not-found"
    status = 404
    exit_code = 4


class TryAgainError(ClearinghouseError):
    """Bad luck: the server is busy or away; the same call may be repeated (exit code 5)."""

    problem_type = "try-again"
    status = 503
    exit_code = 5


class RateError(TryAgainError):
    """The organisation calls more often than it may; `after_s` says when to try again."""

    problem_type = "rate-limited"
    status = 429

    def __init__(self, message: str, after_s: int = 1) -> None:
        super().__init__(message)
        self.after_s = after_s


class ProtocolError(ClearinghouseError):
    """A peer sent something the protocol does not allow; the run is burnt, evidence is kept."""

    problem_type = "protocol-violation"
    status = 409
    exit_code = 3


class VerificationError(ClearinghouseError):
    """A receipt, proof or log does not verify; the message names the check that failed."""

    problem_type = "verification-failed"
    status = 422
    exit_code = 3
