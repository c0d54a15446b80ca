"""`log audit` and `verify` as people call them: what they print, and what they refuse."""

from pathlib import Path
from typing import Any

import pytest
from told_market import Market

from clearinghouse.cli.audit import audit_log, verify_file
from clearinghouse.clock import FixedClock
from clearinghouse.errors import InputError, VerificationError
from clearinghouse.log import merkle
from clearinghouse.log.checkpoint import Checkpoint, log_key, sign_checkpoint
from clearinghouse.log.verify import export_log
from clearinghouse.log.witness import Witness
from clearinghouse.signing import SigningKey

ORIGIN = "clearinghouse.example/log"


def export(market: Market, path: Path) -> str:
    """Write the market's log as its operator would publish it, rightly hashed and signed."""
    key, nodes = SigningKey.generate(), merkle.MemoryNodes()
    data = [entry.data for entry in market.entries]
    for entry in data:
        merkle.append(nodes, entry)
    note = sign_checkpoint(Checkpoint(ORIGIN, len(data), merkle.root(nodes)), key)
    vkey = log_key(ORIGIN, key).vkey
    export_log(data, note, vkey, path)
    return vkey


def test_trust_audit_command_tells_a_market_from_its_log_alone(tmp_path: Path) -> None:
    market = Market()
    vkey = export(market, tmp_path / "log")
    value, words = audit_log(tmp_path / "log", vkey)
    assert value["verified"] is True
    assert value["log_key_is_embedded"] is False
    assert value["epsilon_by_owner"][market.hospital.org] == "1.25"
    story = value["requests"][market.request]
    assert story["state"] == "done"
    assert story["escrow"] == "900.00"
    assert story["purse_paid"] == "300.00"
    assert story["asks"] == {market.sources["a"]: "2.00", market.sources["b"]: "1.25"}
    assert (story["runs_released"], story["receipts"], story["deliveries"]) == (1, 1, 2)
    assert "6  replay by the market's rules: 1 requests" in words
    assert f"{market.request}: done; escrow 900.00, 2 asks committed, 2 opened" in words


def test_trust_audit_command_names_what_an_operator_did_against_the_rules(tmp_path: Path) -> None:
    """Hashes and signatures all hold: the operator made them. The history does not."""
    market = Market()
    place = market.at("clearing.decided") + 1
    market.entries.insert(place, market.clearing())
    export(market, tmp_path / "log")
    with pytest.raises(VerificationError, match=rf"entry {place} \(clearing.decided\): .*cleared"):
        audit_log(tmp_path / "log", None)


def test_trust_audit_command_a_market_that_still_runs_is_no_violation(tmp_path: Path) -> None:
    market = Market()
    del market.entries[market.at("award.decided") :]
    export(market, tmp_path / "log")
    value, _ = audit_log(tmp_path / "log", None)
    assert value["requests"][market.request]["state"] == "running"


@pytest.fixture
def receipt(tmp_path: Path) -> Any:
    """A receipt file under three witnesses, and their keys."""
    from clearinghouse.canonical import commitment, digest
    from clearinghouse.ids import new_id
    from clearinghouse.log.checkpoint import parse_note
    from clearinghouse.log.claim import Metric, ScoreClaim, Signer
    from clearinghouse.log.cosigned import merge_cosignatures
    from clearinghouse.log.proof import LogProof
    from clearinghouse.log.receipt import build_receipt, sign_claim

    market, key, nodes = Market(), SigningKey.generate(), merkle.MemoryNodes()
    parties = {"clearinghouse": market.operator, "hospital": market.hospital}
    claim = ScoreClaim(
        **{name: new_id(noun) for name, noun in (("receipt", "rcp"), ("release", "rel"))},
        request=market.request,
        run=market.run,
        model=market.model,
        valset=market.valset,
        developer=market.developer.org,
        hospital=market.hospital.org,
        model_sha256=digest(b"model"),
        valset_commitment=commitment({"rows": 1}).digest,
        release_sha256=digest(b"release"),
        transcript_sha256=digest(b"transcript"),
        policy_sha256=digest(b"policy"),
        kind="logistic",
        issued_at="2030-03-17T17:46:40Z",
        status="determined",
        confidence="0.9",
        epsilon_micro=750_000,
        metrics={"auc": Metric("0.8", "0.7", "0.9")},
        signers=tuple(Signer(role, party.org, party.key.key_id) for role, party in parties.items()),
    )
    envelope = sign_claim(claim, [party.key for party in parties.values()])
    objects = {"receipt": claim.receipt, "run": claim.run, "model": claim.model}
    entry = market.operator.write(
        "receipt.issued", objects=objects, hashes={"envelope": digest(envelope)}
    )
    index = merkle.append(nodes, entry.data)
    vkey = log_key(ORIGIN, key).vkey
    note = sign_checkpoint(Checkpoint(ORIGIN, 1, merkle.root(nodes)), key).encode()
    witnesses = [Witness(tmp_path / name, f"w.example/{name}", FixedClock()) for name in "abc"]
    notes = [(w.observe(note, vkey, lambda _o, _n: []) or "").encode() for w in witnesses]
    keys = [witness.key for witness in witnesses]
    signed = merge_cosignatures(notes, keys)
    assert parse_note(signed.text.encode()) == signed
    text = build_receipt(
        envelope,
        entry.data,
        LogProof(index, (), signed),
        log_key(ORIGIN, key),
        {party.key.key_id: party.key.verify_key for party in parties.values()},
        keys,
    )
    file = tmp_path / "receipt.txt"
    file.write_text(text)
    return file, vkey, [item.vkey for item in keys]


def test_trust_audit_command_verify_demands_a_quorum_of_named_witnesses(receipt: Any) -> None:
    file, vkey, keys = receipt
    stranger = Witness(file.parent / "d", "w.example/d", FixedClock()).key.vkey
    value, words = verify_file(file, vkey, keys)  # all that are named, if no number is given
    assert len(value["cosigned_at_s"]) == 3
    assert "3 cosignatures, 3 demanded" in words
    verify_file(file, vkey, [keys[0], stranger], 1)
    verify_file(file, vkey)
    with pytest.raises(VerificationError, match="1 trusted witnesses have cosigned, 2"):
        verify_file(file, vkey, [keys[0], stranger])
    for quorum in (-1, 2):
        with pytest.raises(InputError, match="--quorum"):
            verify_file(file, vkey, [keys[0]], quorum)
