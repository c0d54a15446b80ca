"""What travels beside the rows' twin and the model: an offer, a job, a release. Read strictly.

All three are canonical JSON, of which every key is known. None holds anything that is executed.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

from clearinghouse.canonical import canonical_bytes, digest, parse_canonical
from clearinghouse.errors import InputError
from clearinghouse.features import features
from clearinghouse.money import MICRO
from clearinghouse.schema import Schema
from clearinghouse.score_cards import task_of
from clearinghouse.signing import VerifyKey

OFFER_FILE, JOB_FILE, MODEL_FILE = "offer.json", "manifest.json", "model.onnx.b64"
RELEASE_FILE = "release.json"
RELEASE_PREDICATE = "urn:clearinghouse:onsite-release:v1"
ATTESTED = (
    "attested by the hospital: it ran the model on its own rows; unlike a blind run this cannot be "
    "proven by replay through encryption"
)

NOT_A_PROGRAM = (
    b"#!/bin/sh\n"
    b'echo "This job is data, not a program. Run it with: clearinghouse onsite run" >&2\n'
    b"exit 64\n"
)
"""The one run.sh that a job may carry. PySyft's runner, if it ever meets it, runs nothing."""

LOWEST = {"binary": 0, "classes": 0, "number": -MICRO}
TOP = MICRO + 1
"""Scores are millionths: of 1, or of the label's range where it is a number. Edges end above it."""

MOST_REPEATS = 1000
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")

_JSON_TYPES: Mapping[object, type] = {
    str: str,
    int: int,
    Mapping[str, Any]: dict,
    tuple[str, ...]: list,
    tuple[int, ...]: list,
}


@dataclass(frozen=True, slots=True)
class Offer:
    """What a hospital lets developers ask of its rows.

    Attributes:
        dataset: Name of the dataset in the hospital's SyftBox.
        hospital: Its name, as people see it.
        email: By which its SyftBox is known.
        key: Its public signing key, base64.
        schema: `Schema.to_dict`.
        size_class: Declared power of two, not above the rows.
        bins: Most bins of a histogram.
        epsilon_micro: What one evaluation costs these patients.
    """

    dataset: str
    hospital: str
    email: str
    key: str
    schema: Mapping[str, Any]
    size_class: int
    bins: int
    epsilon_micro: int


@dataclass(frozen=True, slots=True)
class Job:
    """What a developer asks: this model, counted in these bins. No program.

    Attributes:
        dataset: Of the offer.
        hospital: The hospital's email.
        developer: The developer's email.
        model_sha256: Of the ONNX file.
        model_bytes: Its length.
        schema_sha256: Of the offer's schema.
        columns: The features that the graph takes, in order.
        epsilon_micro: Of the offer.
        edges: Bins: rising millionths, from the lowest score to above the highest.
        threshold_edge: Index of the edge from which a row counts as predicted positive.
        repeat: 0; another number asks for a fresh release of the same model, which costs again.
    """

    dataset: str
    hospital: str
    developer: str
    model_sha256: str
    model_bytes: int
    schema_sha256: str
    columns: tuple[str, ...]
    epsilon_micro: int
    edges: tuple[int, ...]
    threshold_edge: int
    repeat: int

    @property
    def sha256(self) -> str:
        """Of the paper's canonical bytes."""
        return hashlib.sha256(to_bytes(self)).hexdigest()

    @property
    def asked(self) -> dict[str, Any]:
        """What is counted, whoever asks under whatever name: the body of the ledger's entry."""
        return {
            "model": self.model_sha256,
            "schema": self.schema_sha256,
            "edges": list(self.edges),
            "threshold_edge": self.threshold_edge,
            "epsilon_micro": self.epsilon_micro,
            "repeat": self.repeat,
        }

    @property
    def key(self) -> str:
        """Names the release in the owner's ledger for ever."""
        return f"onsite.{digest(self.asked)[:32]}"


def to_bytes(paper: Offer | Job) -> bytes:
    """The canonical bytes of a paper."""
    known = asdict(paper)
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in known.items()}
    return canonical_bytes({"format": _format(type(paper)), **values})


def _format(kind: type[Offer] | type[Job]) -> str:
    return f"clearinghouse-onsite-{kind.__name__.lower()}/1"


def _read(kind: type[Offer] | type[Job], data: bytes, file: str) -> dict[str, Any]:
    """The values of a paper with exactly its keys, each of its type; lists as tuples.

    Raises:
        InputError: It is another document.
    """
    try:
        value = parse_canonical(data)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    names = {item.name: item.type for item in fields(kind)}
    if not isinstance(value, dict) or set(value) != {"format", *names}:
        raise InputError(f"{file}: expected the keys format, {', '.join(names)}, and no other")
    if value.pop("format") != _format(kind):
        raise InputError(f"{file}: its format is not {_format(kind)}")
    for name, item in value.items():
        if type(item) is not _JSON_TYPES[names[name]]:
            raise InputError(f"{file}: key '{name}' has another type than it must have")
    return {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}


def read_offer(data: bytes, file: str = OFFER_FILE) -> tuple[Offer, Schema]:
    """Read an offer and the schema in it.

    Raises:
        InputError: It is malformed.
    """
    offer = Offer(**_read(Offer, data, file))
    schema = Schema.from_dict(offer.schema, file=file)
    check_email(offer.email, file)
    check_word(offer.dataset, "dataset")
    VerifyKey.from_base64(offer.key)
    sound = offer.epsilon_micro >= MICRO // 1000 and 1 <= offer.bins <= 64 and offer.size_class >= 1
    if not sound or not offer.hospital.isprintable() or len(offer.hospital) > 100:
        raise InputError(f"{file}: hospital, bins, size_class or epsilon_micro is out of range")
    return offer, schema


def read_job(data: bytes, offer: Offer, schema: Schema, file: str = JOB_FILE) -> Job:
    """Read a job and check that it asks for what the offer offers, and no more.

    Raises:
        InputError: It is malformed, or asks for something else; the message says what.
    """
    job = Job(**_read(Job, data, file))
    check_email(job.developer, file)
    agreed = {
        "dataset": (job.dataset, offer.dataset),
        "hospital": (job.hospital, offer.email),
        "schema_sha256": (job.schema_sha256, schema.digest()),
        "columns": (job.columns, feature_names(schema)),
        "epsilon_micro": (job.epsilon_micro, offer.epsilon_micro),
    }
    for name, (stated, expected) in agreed.items():
        if stated != expected:
            raise InputError(f"{file}: '{name}' is not what the dataset '{offer.dataset}' offers")
    if not _HASH.fullmatch(job.model_sha256) or not 0 <= job.repeat <= MOST_REPEATS:
        raise InputError(f"{file}: model_sha256 or repeat is malformed")
    check_edges(job.edges, job.threshold_edge, offer.bins, schema, file)
    return job


def check_edges(
    edges: Sequence[Any], threshold_edge: int, bins: int, schema: Schema, file: str
) -> None:
    """Check that the bins hold every score, and are not more than offered.

    Raises:
        InputError: They do not, or are.
    """
    whole = all(isinstance(edge, int) and not isinstance(edge, bool) for edge in edges)
    lowest = LOWEST[task_of(schema.label)]
    if not whole or not 2 <= len(edges) <= bins + 1 or (edges[0], edges[-1]) != (lowest, TOP):
        raise InputError(
            f"{file}: edges must be 2 to {bins + 1} whole millionths from {lowest} to {TOP}"
        )
    if any(low >= high for low, high in pairwise(edges)):
        raise InputError(f"{file}: edges must rise")
    if not 0 <= threshold_edge < len(edges):
        raise InputError(f"{file}: threshold_edge names no edge")


def feature_names(schema: Schema) -> tuple[str, ...]:
    """The features of a row in the order in which a graph takes them."""
    return tuple(feature.name for feature in features(schema))


def check_email(text: str, place: str) -> str:
    """The address, if PySyft can have a folder of that name.

    Raises:
        InputError: It has another form.
    """
    if not _EMAIL.fullmatch(text):
        raise InputError(f"{place}: expected an address such as ada@example.org")
    return text


def check_word(text: str, place: str) -> str:
    """A name that is safe as the name of a folder, and is none of PySyft's version folders.

    Raises:
        InputError: It has another form.
    """
    if not _WORD.fullmatch(text) or re.fullmatch(r"v\d+", text):
        raise InputError(
            f"{place}: expected up to 64 letters, digits, dots, dashes or underscores (not v1)"
        )
    return text
