"""What a score receipt claims: one model, one validation set, noised metrics, and who vouches.

The claim is the predicate of a signed in-toto statement whose subjects are the model (by the hash
of its bytes) and the validation set (by its commitment).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from clearinghouse.canonical import MAX_INTEGER
from clearinghouse.errors import VerificationError
from clearinghouse.ids import Noun, is_id
from clearinghouse.log.entries import is_timestamp
from clearinghouse.money import format_money
from clearinghouse.signing import Statement

SCORE_PREDICATE = "urn:clearinghouse:score-receipt:v1"
STATUSES = ("determined", "undetermined")

_IDS: Mapping[str, Noun] = {
    "receipt": "rcp",
    "request": "req",
    "run": "run",
    "release": "rel",
    "model": "mod",
    "valset": "val",
    "developer": "org",
    "hospital": "org",
}
_DIGESTS = ("release_sha256", "transcript_sha256", "policy_sha256")
_FIELDS = {
    *_IDS,
    *_DIGESTS,
    "kind",
    "issued_at",
    "status",
    "confidence",
    "metrics",
    "epsilon_micro",
    "facts",
    "signers",
}
_HASH = re.compile(r"[0-9a-f]{64}")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?")
_SHARE = re.compile(r"0\.[0-9]{1,6}")
_WORD = re.compile(r"[a-z][a-z0-9_.-]{0,39}")
_LABEL_WIDTH = 16
_LABELS = {
    "receipt",
    "issued",
    "model",
    "developer",
    "validation set",
    "hospital",
    "request",
    "run",
    "status",
    "privacy spent",
}


@dataclass(frozen=True, slots=True)
class Metric:
    """A noised metric and its interval, as decimal strings (a float would not survive signing)."""

    value: str
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class Signer:
    """Who vouches: a role, the organisation and the key it signs with."""

    role: str
    org: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreClaim:
    """The content of a score receipt. Building one checks every field.

    Attributes:
        model_sha256: Hash of the model's bytes; `valset_commitment` likewise names the data.
        release_sha256: Hash of the released histogram; transcript and policy likewise.
        kind: The model's kind, a short word.
        issued_at: RFC 3339 in UTC.
        status: "undetermined" where the counts are too small to say anything.
        confidence: Level of the intervals, such as "0.9".
        epsilon_micro: Privacy the hospital's rows paid, in millionths.
        facts: Further short lines to show and sign, label to text.
        signers: Everyone who must sign, in order of role.

    Raises:
        VerificationError: A field is malformed.
    """

    receipt: str
    request: str
    run: str
    release: str
    model: str
    valset: str
    developer: str
    hospital: str
    model_sha256: str
    valset_commitment: str
    release_sha256: str
    transcript_sha256: str
    policy_sha256: str
    kind: str
    issued_at: str
    status: str
    confidence: str
    epsilon_micro: int
    metrics: Mapping[str, Metric]
    signers: tuple[Signer, ...]
    facts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        for name, noun in _IDS.items():
            _need(_is_id(getattr(self, name), noun), f"{name} must be a {noun} id")
        for name in (*_DIGESTS, "model_sha256", "valset_commitment"):
            _need(_matches(_HASH, getattr(self, name)), f"{name} must be 64 hex digits")
        _need(_matches(_WORD, self.kind), "kind must be a short word")
        _need(is_timestamp(self.issued_at), "issued_at must look like 2030-01-31T12:00:00Z")
        _need(self.status in STATUSES, f"status must be one of {', '.join(STATUSES)}")
        _need(_matches(_SHARE, self.confidence), 'confidence must look like "0.9"')
        epsilon = self.epsilon_micro
        _need(type(epsilon) is int and 0 < epsilon <= MAX_INTEGER, "epsilon_micro must be > 0")
        _need(0 < len(self.metrics) <= 64, "1 to 64 metrics are needed")
        for name, metric in self.metrics.items():
            _need(_matches(_WORD, name), "a metric's name must be a short word")
            for text in (metric.value, metric.low, metric.high):
                _need(_matches(_DECIMAL, text), f"metric {name} must be decimal strings")
        _need(len(self.facts) <= 32, "at most 32 facts")
        for label, text in self.facts.items():
            _need(_is_line(label, 24) and _is_line(text, 160), "a fact is one short line")
            # A fact must not pose as another line of the receipt.
            taken = label.lower() in _LABELS or label.lower() in self.metrics
            _need(not taken, f"a fact cannot be called {label}")
        self._check_signers()

    def _check_signers(self) -> None:
        roles = [signer.role for signer in self.signers]
        _need(bool(roles) and roles == sorted(set(roles)), "signers are in order of role")
        for signer in self.signers:
            _need(_matches(_WORD, signer.role), "a signer's role must be a short word")
            ids_hold = _is_id(signer.org, "org") and _is_id(signer.key, "key")
            _need(ids_hold, "a signer has an org id and a key id")
            named = {"hospital": self.hospital, "developer": self.developer}.get(signer.role)
            _need(named in (None, signer.org), f"the {signer.role} who signs is another one")
        _need(len({signer.key for signer in self.signers}) == len(roles), "a key signs once")

    @property
    def ids(self) -> dict[str, str]:
        """The ids it names, which the log entry must agree with."""
        return {name: getattr(self, name) for name in _IDS}

    @property
    def subjects(self) -> dict[str, str]:
        """The statement's subjects."""
        return {self.model: self.model_sha256, self.valset: self.valset_commitment}

    @property
    def predicate(self) -> dict[str, Any]:
        """The statement's predicate, as JSON values."""
        plain = {name: getattr(self, name) for name in _FIELDS - {"metrics", "signers", "facts"}}
        return plain | {
            "metrics": {
                name: {"value": item.value, "low": item.low, "high": item.high}
                for name, item in self.metrics.items()
            },
            "signers": [
                {"role": item.role, "org": item.org, "key": item.key} for item in self.signers
            ],
            "facts": dict(self.facts),
        }

    @property
    def lines(self) -> list[str]:
        """The claim for people, one line each."""
        result = [
            _line("receipt", self.receipt),
            _line("issued", self.issued_at),
            _line("model", f"{self.model} ({self.kind})"),
            _line("developer", self.developer),
            _line("validation set", self.valset),
            _line("hospital", self.hospital),
            _line("request", self.request),
            _line("run", self.run),
            _line("status", self.status),
            _line("privacy spent", f"epsilon {format_money(self.epsilon_micro)}"),
            *(_line(label, self.facts[label]) for label in sorted(self.facts)),
            "",
        ]
        for name in sorted(self.metrics):
            item = self.metrics[name]
            result.append(
                _line(name, f"{item.value}  ({self.confidence} interval {item.low} to {item.high})")
            )
        result += ["", "Signed by"]
        result += [_line(item.role, f"{item.org} with {item.key}") for item in self.signers]
        return result


def parse_claim(statement: Statement) -> ScoreClaim:
    """Read the claim out of a verified statement.

    Raises:
        VerificationError: It is another kind of statement, or a field is malformed.
    """
    predicate = statement.predicate
    if statement.predicate_type != SCORE_PREDICATE:
        raise VerificationError(f"not a score receipt but {statement.predicate_type}")
    _need(set(predicate) == _FIELDS, f"it has exactly the fields {', '.join(sorted(_FIELDS))}")
    _need(isinstance(predicate["facts"], Mapping), "facts must be an object")
    plain = {name: predicate[name] for name in _FIELDS - {"metrics", "signers"}}
    model, valset = predicate["model"], predicate["valset"]
    is_named = isinstance(model, str) and isinstance(valset, str)
    if not is_named or set(statement.subjects) != {model, valset}:
        raise VerificationError("the statement's subjects must be the model and the validation set")
    return ScoreClaim(
        **plain,
        model_sha256=statement.subjects[model],
        valset_commitment=statement.subjects[valset],
        metrics=_parse_metrics(predicate["metrics"]),
        signers=_parse_signers(predicate["signers"]),
    )


def _parse_metrics(content: Any) -> dict[str, Metric]:
    _need(isinstance(content, Mapping), "metrics must be an object")
    result = {}
    for name, item in content.items():
        exact = isinstance(item, Mapping) and set(item) == {"value", "low", "high"}
        _need(exact, "a metric has value, low and high")
        result[name] = Metric(item["value"], item["low"], item["high"])
    return result


def _parse_signers(content: Any) -> tuple[Signer, ...]:
    _need(isinstance(content, list), "signers must be a list")
    result = []
    for item in content:
        exact = isinstance(item, Mapping) and set(item) == {"role", "org", "key"}
        _need(exact and all(isinstance(part, str) for part in item.values()), "malformed signer")
        result.append(Signer(item["role"], item["org"], item["key"]))
    return tuple(result)


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL_WIDTH}} {text}"


def _is_id(value: Any, noun: Noun) -> bool:
    return isinstance(value, str) and is_id(value, noun)


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_line(value: Any, longest: int) -> bool:
    """One printable line: no control and no direction-changing characters, no outer spaces."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= longest
        and value.isprintable()
        and value == value.strip()
    )


def _need(holds: bool, problem: str) -> None:
    if not holds:
        raise VerificationError(f"score claim: {problem}")
