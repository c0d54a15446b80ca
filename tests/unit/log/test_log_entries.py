"""The closed list of entries: what each needs, and what can never get in."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearinghouse.canonical import MAX_INTEGER, canonical_bytes, commitment, digest
from clearinghouse.errors import VerificationError
from clearinghouse.ids import new_id
from clearinghouse.log.entries import (
    KeyHistory,
    epsilon_by_owner,
    is_timestamp,
    make_entry,
    parse_entry,
)
from clearinghouse.log.entry_types import ENTRY_TYPES, OBJECT_NOUNS, is_release
from clearinghouse.signing import SigningKey

NOW_S = 1_900_000_000.7
KEY = SigningKey.generate()
ORG = new_id("org")


def fields_of(kind: str) -> dict[str, Any]:
    rules = ENTRY_TYPES[kind]
    objects = {name: new_id(OBJECT_NOUNS[name]) for name in rules.objects}  # type: ignore[arg-type]
    hashes = {name: digest(name.encode()) for name in rules.hashes}
    if kind in ("org.registered", "key.added", "key.revoked"):
        objects["org"] = ORG
    if kind == "org.registered":
        hashes["public_key"] = KEY.verify_key.digest
    if kind == "key.added":
        other = SigningKey.generate().verify_key
        objects["key"], hashes["public_key"] = other.key_id, other.digest
    return {
        "now_s": NOW_S,
        "actor": ORG,
        "key": KEY.key_id,
        "objects": objects,
        "hashes": hashes,
        "amounts": dict.fromkeys(rules.amounts, 250_000),
        "commit": commitment({"a": 1}).digest if rules.commit else None,
    }


@pytest.mark.parametrize("kind", sorted(ENTRY_TYPES))
def test_log_entries_each_type_round_trips_and_needs_all_its_fields(kind: str) -> None:
    fields = fields_of(kind)
    entry = make_entry(kind, **fields)
    assert parse_entry(entry.data) == entry
    assert entry.data == canonical_bytes(json.loads(entry.data))
    assert entry.time == "2030-03-17T17:46:40Z"
    for part in ("objects", "hashes", "amounts"):
        for name in fields[part]:
            fewer = {key: value for key, value in fields[part].items() if key != name}
            with pytest.raises(ValueError, match=name):
                make_entry(kind, **(fields | {part: fewer}))
    flipped = None if fields["commit"] else "0" * 64
    with pytest.raises(ValueError, match="commit"):
        make_entry(kind, **(fields | {"commit": flipped}))


def test_log_entries_cover_the_steps() -> None:
    required = {
        "org.registered", "source.registered", "summary.released", "valset.sealed",
        "request.opened", "target.released", "inputs.frozen", "ask.committed", "ask.revealed",
        "clearing.decided", "delivery.sealed", "delivery.received", "model.submitted",
        "run.released", "receipt.issued", "award.decided", "statement.settled", "request.closed",
    }  # fmt: skip
    assert required <= set(ENTRY_TYPES)
    assert {name for name in ENTRY_TYPES if is_release(name)} == {
        "size.released",
        "summary.released",
        "target.released",
        "run.released",
    }
    steps = {rules.step for rules in ENTRY_TYPES.values()}
    assert steps == {"intake", "match", "clear", "deliver", "score", "settle"}


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("objects", "patient", "Jane Doe"),
        ("objects", "patient", "xyz_00000000000000000000"),
        ("objects", "model", "run_0123456789abcdefghij"),
        ("objects", "extra", 7),
        ("objects", "Extra", "run_0123456789abcdefghij"),
        ("hashes", "name", "Jane Doe"),
        ("hashes", "name", "A" * 64),
        ("hashes", "name", "0" * 63),
        ("hashes", "name", None),
        ("amounts", "age", "63"),
        ("amounts", "age", 63.5),
        ("amounts", "age", True),
        ("amounts", "age", -1),
        ("amounts", "age", MAX_INTEGER + 1),
        ("amounts", "pay", "2.0"),
        ("amounts", "pay", "2.500"),
        ("amounts", "pay", "-0.00"),
        ("amounts", "pay", "02.00"),
        ("amounts", "pay", "NaN"),
        ("amounts", "pay_micro", "2.00"),
        ("amounts", "with space", 1),
    ],
)
def test_log_entries_have_no_room_for_anything_else(part: str, name: str, value: object) -> None:
    fields = fields_of("request.closed")
    fields[part] = {**fields[part], name: value}
    with pytest.raises(ValueError, match=part):
        make_entry("request.closed", **fields)


def test_log_entries_take_further_ids_hashes_and_amounts() -> None:
    fields = fields_of("clearing.decided")
    fields["objects"]["winner"] = new_id("src")
    fields["hashes"]["certificate"] = "0" * 64
    fields["amounts"] = {"customer_pays": "1234.50", "fee": "-0.50", "records": 150}
    assert parse_entry(make_entry("clearing.decided", **fields).data).amounts["records"] == 150


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": True},
        {"type": "org.deleted"},
        {"type": None},
        {"type": ["request.closed"]},
        {"time": "2030-03-17T17:46:40+00:00"},
        {"time": "2030-02-30T00:00:00Z"},
        {"time": "2030-3-17T17:46:40Z"},
        {"time": 1_900_000_000},
        {"actor": "hospital A"},
        {"key": "key_?"},
        {"objects": []},
        {"objects": None},
        {"hashes": "x"},
        {"amounts": [1]},
        {"note": "extra field"},
    ],
)
def test_log_entries_with_other_fields_are_refused(change: dict[str, Any]) -> None:
    content = json.loads(make_entry("request.closed", **fields_of("request.closed")).data)
    parse_entry(canonical_bytes(content))
    with pytest.raises(VerificationError, match="log entry"):
        parse_entry(canonical_bytes(content | change))
    content.pop("commit")
    with pytest.raises(VerificationError, match="log entry"):
        parse_entry(canonical_bytes(content))


def test_log_entries_have_one_byte_form() -> None:
    data = make_entry("request.closed", **fields_of("request.closed")).data
    for other in (data + b"\n", b" " + data, data.replace(b":", b": ", 1), data[:-1], b"", b"[]"):
        with pytest.raises(VerificationError):
            parse_entry(other)
    with pytest.raises(VerificationError, match="bytes"):
        parse_entry(b" " * 300_000)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_log_entries_parser_raises_nothing_else_on_noise(data: bytes) -> None:
    with pytest.raises(VerificationError):
        parse_entry(data)


def test_log_entries_any_one_byte_change_is_seen_or_changes_the_bytes() -> None:
    data = make_entry("run.released", **fields_of("run.released")).data
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            entry = parse_entry(changed)
        except VerificationError:
            continue
        assert entry.data == changed  # never read as something it is not


def test_log_entries_epsilon_is_summed_by_owner() -> None:
    owners = [new_id("org"), new_id("org")]
    entries, expected = [], dict.fromkeys(owners, 0)
    for number, kind in enumerate(["summary.released", "run.released", "target.released"] * 4):
        fields = fields_of(kind)
        owner = owners[number % 2]
        fields["objects"]["owner"] = owner
        fields["amounts"] = {"epsilon_micro": 10**number % 999_983}
        expected[owner] += fields["amounts"]["epsilon_micro"]
        entries += [make_entry(kind, **fields)]
        entries += [make_entry("request.closed", **fields_of("request.closed"))]
    assert epsilon_by_owner(entries) == expected
    assert epsilon_by_owner([]) == {}


def test_log_entries_timestamps() -> None:
    assert is_timestamp("2028-02-29T23:59:59Z")
    for text in ("2027-02-29T00:00:00Z", "2028-02-29T24:00:00Z", "", None, 5, "2028-02-29"):
        assert not is_timestamp(text)


class Actor:
    def __init__(self) -> None:
        self.org, self.key = new_id("org"), SigningKey.generate()

    def entry(self, kind: str, key: SigningKey | None = None, **changes: Any) -> Any:
        fields = fields_of(kind) | {"actor": self.org, "key": (key or self.key).key_id}
        if "org" in fields["objects"]:
            fields["objects"]["org"] = self.org
        if kind == "org.registered":
            fields["hashes"] = {"public_key": (key or self.key).verify_key.digest}
        fields["objects"] |= changes.get("objects", {})
        fields["hashes"] |= changes.get("hashes", {})
        return make_entry(kind, **fields)

    def adds(self, new: SigningKey, key: SigningKey | None = None) -> Any:
        return self.entry(
            "key.added",
            key,
            objects={"key": new.key_id},
            hashes={"public_key": new.verify_key.digest},
        )


def test_log_entries_keys_act_from_registration_until_revocation() -> None:
    actor, new = Actor(), SigningKey.generate()
    history = KeyHistory()
    with pytest.raises(VerificationError, match="registered before"):
        history.apply(actor.entry("request.closed"))
    history.apply(actor.entry("org.registered"))
    history.apply(actor.entry("request.closed"))
    with pytest.raises(VerificationError, match="registered before"):
        history.apply(actor.entry("request.closed", new))
    history.apply(actor.adds(new))
    history.apply(actor.entry("request.closed", new))
    history.apply(actor.entry("key.revoked", new, objects={"key": actor.key.key_id}))
    with pytest.raises(VerificationError, match="after its revocation"):
        history.apply(actor.entry("request.closed"))
    history.apply(actor.entry("request.closed", new))


def test_log_entries_keys_of_others_cannot_be_used_added_or_revoked() -> None:
    first, second = Actor(), Actor()
    history = KeyHistory()
    history.apply(first.entry("org.registered"))
    history.apply(second.entry("org.registered"))
    with pytest.raises(VerificationError, match="registered before"):
        history.apply(second.entry("request.closed", first.key))
    with pytest.raises(VerificationError, match="registered already"):
        history.apply(second.adds(first.key))
    with pytest.raises(VerificationError, match="to revoke"):
        history.apply(second.entry("key.revoked", objects={"key": first.key.key_id}))
    with pytest.raises(VerificationError, match="registered already"):
        history.apply(first.entry("org.registered"))
    with pytest.raises(VerificationError, match="registered already"):
        history.apply(Actor().entry("org.registered", first.key))
    with pytest.raises(VerificationError, match="registered already"):
        history.apply(first.entry("org.registered", SigningKey.generate()))


def test_log_entries_a_key_id_is_the_hash_of_its_key() -> None:
    fields = fields_of("org.registered")
    fields["hashes"] = {"public_key": SigningKey.generate().verify_key.digest}
    with pytest.raises(ValueError, match="does not belong"):
        make_entry("org.registered", **fields)
    with pytest.raises(ValueError, match="speaks for itself"):
        make_entry("org.registered", **(fields_of("org.registered") | {"actor": new_id("org")}))
