"""An exported log: recomputed from its first byte, and every tampering found."""

from pathlib import Path
from typing import Any

import pytest

from clearinghouse.canonical import canonical_bytes
from clearinghouse.errors import InputError, VerificationError
from clearinghouse.ids import new_id
from clearinghouse.log import merkle
from clearinghouse.log.checkpoint import Checkpoint, log_key, sign_checkpoint
from clearinghouse.log.verify import export_log, verify_entries, verify_log_directory
from clearinghouse.signing import SigningKey


def export(world: Any, path: Path, **changes: Any) -> Path:
    parts = {
        "entries": [entry.data for entry in world.entries],
        "checkpoint": world.checkpoint(),
        "vkey": world.log_key.vkey,
    }
    export_log(**(parts | changes), path=path / "log")
    return path / "log"


def resigned(world: Any, datas: list[bytes]) -> tuple[bytes, bytes, bytes, str]:
    """What an operator who rewrites everything and signs anew would publish."""
    nodes = merkle.MemoryNodes()
    for data in datas:
        merkle.append(nodes, data)
    head = Checkpoint(world.log_key.name, len(datas), merkle.root(nodes))
    leaves = "".join(merkle.leaf_hash(data).hex() + "\n" for data in datas)
    lines = b"".join(data + b"\n" for data in datas)
    return (
        lines,
        leaves.encode(),
        sign_checkpoint(head, world.log_secret).encode(),
        (world.log_key.vkey),
    )


def test_log_directory_verifies(world: Any, tmp_path: Path) -> None:
    report = verify_log_directory(export(world, tmp_path))
    assert report.entries == tuple(world.entries)
    assert report.epsilon_by_owner == {world.hospital.org: 500_000}
    assert report.log_key_is_embedded
    assert [item.number for item in report.checks] == [1, 2, 3, 4, 5]
    assert report.checkpoint.size == len(world.entries)


def test_log_directory_extends_every_earlier_checkpoint(world: Any, tmp_path: Path) -> None:
    path = export(world, tmp_path)
    earlier = [world.checkpoint(size).encode() for size in range(len(world.entries) + 1)]
    report = verify_log_directory(
        path, trusted_log_key=world.log_key.vkey, earlier_checkpoints=earlier
    )
    assert not report.log_key_is_embedded


def test_log_directory_a_fork_is_found_by_any_checkpoint_of_the_other_branch(
    world: Any, fork: Any, tmp_path: Path
) -> None:
    path = export(fork, tmp_path)
    verify_log_directory(path)  # alone it looks right
    size = len(world.entries)
    verify_log_directory(path, earlier_checkpoints=[world.checkpoint(size - 1).encode()])
    with pytest.raises(VerificationError, match=r"check 3 failed \(earlier checkpoints\).*fork"):
        verify_log_directory(path, earlier_checkpoints=[world.checkpoint().encode()])


def test_log_directory_a_truncated_log_is_found_by_a_longer_checkpoint(
    world: Any, tmp_path: Path
) -> None:
    size = len(world.entries) - 2
    shorter = export(
        world,
        tmp_path,
        entries=[entry.data for entry in world.entries[:size]],
        checkpoint=world.checkpoint(size),
    )
    verify_log_directory(shorter)
    with pytest.raises(VerificationError, match="check 3"):
        verify_log_directory(shorter, earlier_checkpoints=[world.checkpoint().encode()])


def test_log_directory_earlier_checkpoint_of_another_log_is_no_evidence(
    world: Any, tmp_path: Path
) -> None:
    head = Checkpoint(world.log_key.name, 2, bytes(32))
    forged = sign_checkpoint(head, SigningKey.generate()).encode()
    with pytest.raises(VerificationError, match="no signature"):
        verify_log_directory(export(world, tmp_path), earlier_checkpoints=[forged])


def test_log_directory_another_log_is_refused_when_one_is_trusted(
    world: Any, tmp_path: Path
) -> None:
    other = log_key(world.log_key.name, SigningKey.generate()).vkey
    with pytest.raises(VerificationError, match=r"check 1 failed \(checkpoint signature\)"):
        verify_log_directory(export(world, tmp_path), trusted_log_key=other)


@pytest.mark.parametrize("name", ["entries.jsonl", "leaves.txt", "checkpoint", "log.vkey"])
def test_log_directory_any_changed_byte_is_refused(world: Any, tmp_path: Path, name: str) -> None:
    path = export(world, tmp_path)
    files = {item.name: item.read_bytes() for item in path.iterdir()}
    # The witness's line in a checkpoint file is not this verifier's to check: use one without.
    files["checkpoint"] = world.checkpoint(cosigned=False).encode()
    data = files[name]
    (path / "checkpoint").write_bytes(files["checkpoint"])
    verify_log_directory(path)
    for place, byte in enumerate(data):
        before, after = data[:place], data[place + 1 :]
        for changed in (before + bytes([byte ^ 1]) + after, before + b" " + after, before + after):
            if changed == data:
                continue
            current = files | {name: changed}
            vkey = current["log.vkey"].decode("ascii", errors="replace")
            if name != "log.vkey" or vkey.endswith("\n"):
                vkey = vkey[:-1]
            else:
                continue  # covered below: the reader of the directory wants the line's end
            with pytest.raises(VerificationError):
                verify_entries(
                    current["entries.jsonl"], current["leaves.txt"], current["checkpoint"], vkey
                )
    (path / name).write_bytes(data[:-1])
    with pytest.raises(VerificationError):
        verify_log_directory(path)


def test_log_directory_names_the_changed_entry(world: Any, tmp_path: Path) -> None:
    path = export(world, tmp_path)
    for number, entry in enumerate(world.entries):
        lines = [item.data for item in world.entries]
        lines[number] = entry.data.replace(b"2030-03-17", b"2030-03-18")
        (path / "entries.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        with pytest.raises(VerificationError, match=f"entry {number} differs"):
            verify_log_directory(path)


def test_log_directory_swapped_dropped_or_added_entries_are_refused(
    world: Any, tmp_path: Path
) -> None:
    datas = [entry.data for entry in world.entries]
    extra = world.operator.entry("request.closed", objects={"request": new_id("req")}).data
    variants = [
        [*datas[:-2], datas[-1], datas[-2]],
        datas[:-1],
        datas[1:],
        [*datas, extra],
        [*datas[:-1], extra],
        [],
    ]
    for number, variant in enumerate(variants):
        # Leaf hashes follow the entries: only the signed root is left to tell.
        path = export(world, tmp_path / str(number), entries=variant)
        with pytest.raises(VerificationError, match="check 2"):
            verify_log_directory(path)


def test_log_directory_surplus_or_missing_leaf_hashes_are_refused(
    world: Any, tmp_path: Path
) -> None:
    path = export(world, tmp_path)
    leaves = (path / "leaves.txt").read_bytes()
    for changed in (leaves + b"0" * 64 + b"\n", leaves[:-65], b""):
        (path / "leaves.txt").write_bytes(changed)
        with pytest.raises(VerificationError, match="leaf hashes"):
            verify_log_directory(path)


def test_log_directory_properly_signed_nonsense_is_refused(world: Any) -> None:
    datas = [entry.data for entry in world.entries]
    verify_entries(*resigned(world, datas))
    number = len(datas)
    for bad in (b"{}", b"free text", canonical_bytes({"v": 1}), datas[0].replace(b",", b", ", 1)):
        with pytest.raises(VerificationError, match=rf"check 4 .*entry {number}"):
            verify_entries(*resigned(world, [*datas, bad]))


def test_log_directory_unregistered_keys_are_refused(world: Any) -> None:
    datas = [entry.data for entry in world.entries]
    with pytest.raises(VerificationError, match=r"check 5 failed \(keys\): entry 1 \(valset"):
        verify_entries(*resigned(world, [datas[0], *datas[2:]]))


def test_log_directory_empty_log_and_missing_files(world: Any, tmp_path: Path) -> None:
    assert verify_entries(*resigned(world, [])).entries == ()
    with pytest.raises(InputError, match="cannot read"):
        verify_log_directory(tmp_path)


def test_log_directory_an_uncharged_release_shows_in_the_sum(world: Any) -> None:
    """The sum over the log is what owners' ledgers are compared with."""
    planted = world.hospital.entry(
        "target.released",
        objects={"request": new_id("req"), "owner": world.hospital.org},
        hashes={"release": "0" * 64},
        amounts={"epsilon_micro": 1},
    )
    datas = [entry.data for entry in world.entries]
    report = verify_entries(*resigned(world, [*datas, planted.data]))
    assert report.epsilon_by_owner == {world.hospital.org: 500_001}
