"""Keys and sealing: files, order, strictness, and nothing secret in the wrong place."""

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tenseal.sealapi as sealapi

from secure_eval import keyholder
from secure_eval.evaluator import PublicKeys
from secure_eval.keyholder import POOL_SIZE, KeyHolder, SealedSet, _scaled
from secure_eval.layout import Upload, seeded_ciphertext
from secure_eval.packing import SEED_BYTES
from secure_eval.params import PARAMETERS
from secure_eval.sealio import seal

N = PARAMETERS.degree


def slots(key_holder: KeyHolder, sealed: SealedSet, part: int, block: int = 0) -> np.ndarray:
    ciphertext = Upload(sealed.layout, sealed.blobs).ciphertext(block, part)
    plain = sealapi.Plaintext()
    key_holder._decryptor.decrypt(ciphertext, plain)
    return np.array(seal().encoder.decode_uint64(plain), np.int64)


def test_a_sealed_set_holds_the_rows_in_its_order(key_holder: KeyHolder) -> None:
    rng = np.random.default_rng(0)
    n = 50
    columns = rng.integers(0, 1000, (n, 2))
    labels, cells, sex = rng.integers(0, 3, n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    sealed = key_holder.seal(columns, labels, 3, cells, 2, {"sex": (sex, 2)}, max_rows_per_block=30)
    layout = sealed.layout
    assert layout.n_blocks == 2
    assert sorted(sealed.order.tolist()) == list(range(n))
    assert str(n) not in json.dumps(layout.to_json())
    for block in range(2):
        rows = sealed.order[30 * block : 30 * (block + 1)]
        wanted = {0: columns[rows, 0], 1: columns[rows, 1]}
        for label in range(3):
            wanted[layout.label_part(label)] = labels[rows] == label
            for cell in range(2):
                both = (labels[rows] == label) & (cells[rows] == cell)
                wanted[layout.cell_part(cell, label)] = both
                index = layout.group_parts("sex")[3 * cell + label]
                wanted[index] = (labels[rows] == label) & (sex[rows] == cell)
        wanted[layout.valid_part] = np.ones(len(rows))
        assert sorted(wanted) == list(range(layout.parts))
        for part, values in wanted.items():
            got = slots(key_holder, sealed, part, block)
            assert np.array_equal(got[: len(rows)], values)
            assert not got[len(rows) :].any()


def test_order_and_encryptions_are_fresh(key_holder: KeyHolder) -> None:
    columns = np.arange(200)[:, None]
    labels = np.zeros(200, np.int64)
    first = key_holder.seal(columns, labels, 2)
    second = key_holder.seal(columns, labels, 2)
    # equal by chance with probability 1/200!
    assert first.order.tolist() != second.order.tolist()
    assert first.order.tolist() != list(range(200))
    parts = [blob[i : i + 180_288] for s in (first, second) for blob in s.blobs for i in (300, 400)]
    assert len(set(parts)) == len(parts)
    assert "order" not in repr(first)


def test_key_files_come_back_and_are_private(key_holder: KeyHolder, tmp_path: Path) -> None:
    path = tmp_path / "key"
    key_holder.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]
    loaded = KeyHolder.load(path)
    assert loaded.public_keys() == key_holder.public_keys()
    assert np.array_equal(loaded._ternary, key_holder._ternary)
    sealed = key_holder.seal(np.array([[7], [8]]), np.array([0, 1]), 2)
    assert sorted(slots(loaded, sealed, 0)[:2].tolist()) == [7, 8]
    with pytest.raises(FileExistsError):
        key_holder.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]
    os.chmod(path, 0o640)
    with pytest.raises(PermissionError, match="0600"):
        KeyHolder.load(path)


def test_damaged_key_files_are_refused(key_holder: KeyHolder, tmp_path: Path) -> None:
    path = tmp_path / "key"
    key_holder.save(path)
    data = path.read_bytes()
    for name, bad in {
        "empty": b"",
        "short": data[:100],
        "cut": data[:-1],
        "long": data + b"\0",
        "secret": data[:500] + bytes([data[500] ^ 1]) + data[501:],
        "public": data[:-1000] + b"\xff" * 11 + data[-989:],
    }.items():
        file = tmp_path / name
        file.touch(0o600)
        file.write_bytes(bad)
        with pytest.raises(ValueError, match=r"key file|KEY_FILE|PUBLIC_KEYS|public keys"):
            KeyHolder.load(file)


def test_keys_that_do_not_belong_together_are_refused(
    key_holder: KeyHolder, tmp_path: Path
) -> None:
    other = KeyHolder.generate()
    assert other.public_keys() != key_holder.public_keys()
    other.public = key_holder.public
    other.save(tmp_path / "mixed")
    with pytest.raises(ValueError, match="do not belong together"):
        KeyHolder.load(tmp_path / "mixed")


def test_the_secret_key_stays_inside(key_holder: KeyHolder) -> None:
    assert repr(key_holder) == "KeyHolder(...)"
    with pytest.raises(TypeError, match="cannot be copied"):
        copy.copy(key_holder)
    secret = key_holder._ternary
    assert set(np.unique(secret)) == {-1, 0, 1}
    public = key_holder.public_keys()
    plain = key_holder._secret_key.data()
    words = np.array([plain.data(i) for i in range(64)], np.uint64)
    assert words.tobytes()[:64] not in public
    # what passed through SEAL's file interface last is not the secret key either
    key_holder.seal(np.array([[1]]), np.array([0]), 2)
    assert words.tobytes()[:64] not in seal()._file.read()


def test_public_keys_are_read_strictly(key_holder: KeyHolder) -> None:
    data = key_holder.public_keys()
    assert PublicKeys.from_bytes(data).to_bytes() == data
    assert len(data) < 2.3e6
    for bad in (data[:-1], data + b"\0", b"\1\2" + data[2:], data[:40] + b"x" + data[41:]):
        if bad == data:
            continue
        with pytest.raises(ValueError, match=r"PUBLIC_KEYS|public keys"):
            PublicKeys.from_bytes(bad)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"columns": np.zeros((0, 2), int)}, "columns: expected"),
        ({"columns": np.zeros((3, 2))}, "columns: expected"),
        ({"columns": np.full((3, 2), -1)}, "columns: expected integers in 0"),
        ({"columns": np.full((3, 2), PARAMETERS.plain_modulus)}, "columns: expected integers"),
        ({"labels": np.array([0, 1, 2])}, "labels: expected codes in 0..1"),
        ({"labels": np.array([0, 1])}, "labels: expected 3 integers"),
        ({"labels": np.array([0.0, 1.0, 1.0])}, "labels: expected 3 integers"),
        ({"cells": np.array([0, 1, 4]), "n_cells": 4}, "cells: expected codes in 0..3"),
        ({"groups": {"sex": (np.array([0, 1, 2]), 2)}}, "group sex: expected codes"),
        ({"n_labels": 0, "labels": np.zeros(3, int)}, "labels"),
        ({"max_rows_per_block": 8193}, "max_rows_per_block"),
    ],
)
def test_bad_rows_are_refused(key_holder: KeyHolder, change: dict, reason: str) -> None:
    good = {"columns": np.ones((3, 2), int), "labels": np.array([0, 1, 1]), "n_labels": 2}
    key_holder.seal(**good)
    with pytest.raises(ValueError, match=reason):
        key_holder.seal(**{**good, **change})


def test_encryptions_of_zero_made_ahead_serve_once_and_hold_any_message() -> None:
    holder = KeyHolder.generate()
    assert holder.prepare(3) == 3
    rng = np.random.default_rng(0)
    p = PARAMETERS.plain_modulus
    messages = [rng.integers(0, p, N), np.full(N, p - 1), np.arange(N) % 2, np.zeros(N, np.int64)]
    blobs = [holder.encrypted(message) for message in messages]  # the last one is made on the spot
    assert len({blob[-SEED_BYTES:] for blob in blobs}) == 4
    for message, blob in zip(messages, blobs, strict=True):
        ciphertext = seeded_ciphertext(memoryview(blob), "x")
        plain = sealapi.Plaintext()
        holder._decryptor.decrypt(ciphertext, plain)
        assert np.array_equal(seal().encoder.decode_uint64(plain), message)
        # as fresh as any: rounding included, bit for bit what SEAL adds
        assert holder._decryptor.invariant_noise_budget(ciphertext) >= 148
    carrier = np.zeros((2, 4, N), np.uint64)
    carrier[1, :, 0] = 1
    added = seal().ciphertext(carrier)
    plain = seal().encoded(messages[0])
    seal().evaluator.add_plain_inplace(added, plain)
    assert np.array_equal(seal().residues(added)[0], _scaled(seal().coefficients(plain)))


def test_no_more_encryptions_are_made_ahead_than_a_run_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keyholder, "POOL_SIZE", 5)
    holder = KeyHolder.generate()
    assert [holder.prepare(4) for _ in range(3)] == [4, 1, 0]
    holder.encrypted([1])
    assert holder.prepare(4) == 1
    assert POOL_SIZE == 128
