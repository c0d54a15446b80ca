"""Hostile bytes against every decoder of both sides: an error of one kind, no crash, no memory.

The corpus holds what crashes or misleads the libraries' own parsers (objects without ciphertexts,
private contexts, wrong counts, compression bombs) and what runs code elsewhere (pickles). None of
it reaches SEAL: messages are residues of a known number and nothing else.
"""

import gzip
import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tenseal
import zstandard
from evil import COMMITMENTS, NONCES, SEED, Stage
from peak_memory import MEMORY, peak, reset_peak

from secure_eval.agent_target import AgentTarget
from secure_eval.checked import CheckedScoringRun, UploadChecks
from secure_eval.checked_agent import AgentUpload, CheckedAgentRun
from secure_eval.from_onnx import from_onnx
from secure_eval.integer_model import IntegerModel
from secure_eval.keyholder import KeyHolder
from secure_eval.layout import Layout, Upload
from secure_eval.packing import FULL_BYTES, VECTOR_BYTES
from secure_eval.params import PARAMETERS
from secure_eval.public_keys import PublicKeys
from secure_eval.sealio import seal
from secure_eval.target import TargetOpening

FUZZ_CASES = 1_500
Decoder = Callable[[bytes], object]
Bad = dict[str, bytes]


# --------------------------------------------------------------------------------------- the corpus


class Canary:
    """Leaves a file behind if it is ever unpickled."""

    path = Path(tempfile.gettempdir()) / "secure_eval_canary_must_not_exist"

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def protobuf(number: int, body: bytes) -> bytes:
    """One length-delimited protobuf field."""
    size, length = len(body), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + body


def seal_header(body: bytes, compression: int = 0, size: int | None = None) -> bytes:
    total = len(body) + 16 if size is None else size
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, compression, 0, total) + body


def zeros_compressed(megabytes: int) -> bytes:
    writer = zstandard.ZstdCompressor(level=1).compressobj()
    block = bytes(1 << 20)
    return b"".join(writer.compress(block) for _ in range(megabytes)) + writer.flush()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            part = io.BytesIO()
            np.lib.format.write_array(part, array, allow_pickle=True)
            archive.writestr(f"{name}.npy", part.getvalue())
    return file.getvalue()


def saved(thing: object) -> bytes:
    """What SEAL itself writes for an object."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "object"
        thing.save(str(path))  # type: ignore[attr-defined]
        return path.read_bytes()


@pytest.fixture(scope="module")
def foreign(key_holder: KeyHolder) -> Bad:
    """Bytes of other formats, all of which some parser somewhere takes or dies of."""
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[30, 30, 30], n_threads=1
    )
    context.global_scale = 2**25
    vector = tenseal.ckks_vector(context, [0.1] * 8).serialize()
    sizes, scale = b"\x0a\x01\x64", b"\x19" + struct.pack("<d", 2.0**40)
    shape = protobuf(1, b"\x02\x02")
    ciphertext = seal().ciphertext(np.ones((2, 4, PARAMETERS.degree), np.uint64))
    head = struct.pack("<32sBQQQdQ", bytes(32), 0, 2**40, 2**40, 2**40, 1.0, 1)
    return {
        "nothing": b"",
        "one byte": b"\0",
        "zeros": bytes(100_000),
        "ones": b"\xff" * 100_000,
        "vector without ciphertexts": sizes + scale,
        "vector without sizes": protobuf(2, b"x" * 30) + scale,
        "vector of many sizes": protobuf(1, b"\xff\xff\xff\xff\x0f" * 1000) + scale,
        "tensor without ciphertexts": shape + scale,
        "tensor with a huge shape": protobuf(1, b"\x80\x80\x80\x80\x08" * 3) + scale,
        "vector": vector,
        "vector of another scale": vector[:-8] + struct.pack("<d", 2.0**24),
        "public context": context.serialize(save_secret_key=False),
        "private context": context.serialize(save_secret_key=True),
        "context with parameters only": protobuf(2, b"") + protobuf(1, seal_header(b"\1" * 30)),
        "a SEAL ciphertext": saved(ciphertext),
        "a SEAL secret key": saved(key_holder._secret_key),
        "a SEAL plaintext": saved(seal().constant(5)),
        "a SEAL head with huge counts": seal_header(head + struct.pack("<Q", 2**61)),
        "a SEAL head of size 2^63": seal_header(b"\0" * 40, size=2**63),
        "a SEAL head of size 0": seal_header(b"\0" * 40, size=0),
        "a SEAL zstd bomb": seal_header(zeros_compressed(256), compression=2),
        "a zstd bomb": zeros_compressed(256),
        "a gzip bomb": gzip.compress(bytes(64 << 20), 1),
        "an npz bomb": npz(a=np.zeros(8 << 20)),
        "an npz with objects": npz(a=np.array([Canary()], dtype=object)),
        "a pickle": f"cposix\nsystem\n(S'touch {Canary.path}'\ntR.".encode(),
        "text": b"{" * 10_000,
        "nested lists": b"[" * 200_000,
        "nested objects": b'{"a":' * 100_000,
        "not unicode": b'{"version":"\xff\xfe"}',
        "json of another thing": b'{"version": NaN, "n_blocks": 1e400}',
        "a number of many digits": b"9" * 100_000,
    }


@pytest.fixture(scope="module")
def stage(key_holder: KeyHolder, linear_model: Callable) -> Stage:
    result = Stage(key_holder, linear_model(2).with_edges([0, 16, 32]))
    result.to_characters()
    result.to_openings()
    return result


@pytest.fixture(scope="module")
def target(key_holder: KeyHolder) -> TargetOpening:
    sealed = key_holder.seal([[1], [2]], [0, 1], 2, [0, 0], 1)
    return TargetOpening(key_holder.public_keys(), sealed.layout, sealed.blobs, SEED, "target")


def agent_at(stage: Stage, last: str) -> CheckedAgentRun:
    labels = stage.labels[stage.sealed.order]
    agent = CheckedAgentRun(stage.holder, stage.sealed.layout, labels, "run")
    agent.restore(stage.agent.state())
    names = list(agent._ROUNDS)
    for name in names[names.index(last) :]:
        agent._rounds.stored.pop(name, None)
    return agent


def key_file(data: bytes) -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        path.touch(0o600)
        path.write_bytes(data)
        return KeyHolder.load(path)


@pytest.fixture(scope="module")
def decoders(stage: Stage, target: TargetOpening) -> dict[str, Decoder]:
    """Everything that reads bytes from elsewhere, the evaluator's and the key holder's."""
    layout, keys = stage.sealed.layout, stage.holder.public_keys()
    server = stage.server

    def from_state(data: bytes) -> object:
        agent_at(stage, "digits").restore(data)
        return None

    def upload(data: bytes) -> object:
        blocks = Upload(layout, [data])
        blocks.check()
        return UploadChecks(keys, layout, [data], SEED, "x").message()

    def characters(data: bytes) -> object:
        agent = agent_at(stage, "characters")
        return agent.characters(data, NONCES)

    return {
        "public keys": PublicKeys.from_bytes,
        "layout": Layout.from_json,
        "model": IntegerModel.from_json,
        "onnx": lambda data: from_onnx(data, [[0.0, 1.0]]),
        "upload": upload,
        "digits": lambda data: CheckedScoringRun(
            keys, layout, stage.sealed.blobs, stage.model, [0, 1], SEED, "y", NONCES[0]
        ).early_checks(data),
        "early replies": server.accept_early,
        "characters": server.openings,
        "final replies": server.accept_final,
        "replies": server.release,
        "target noise": target.checks,
        "target check replies": target.accept,
        "agent: score": lambda data: agent_at(stage, "digits").digits(
            data, stage.tables, COMMITMENTS
        ),
        "agent: early checks": lambda data: agent_at(stage, "early_replies").early_replies(data),
        "agent: shares": characters,
        "agent: final checks": lambda data: agent_at(stage, "final_replies").final_replies(data),
        "agent: openings": lambda data: agent_at(stage, "replies").replies(data),
        "agent: upload checks": lambda data: AgentUpload(stage.holder).replies(data),
        "agent: state": from_state,
        "agent: target state": lambda data: AgentTarget(stage.holder, layout, "t").restore(data),
        "agent: target checks": lambda data: AgentTarget(stage.holder, layout, "t").checks(data),
        "agent: target openings": lambda data: AgentTarget(stage.holder, layout, "t").replies(data),
        "agent: key file": key_file,
    }


def refusals(decoders: dict[str, Decoder], corpus: Bad) -> Iterator[tuple[str, str, object]]:
    for what, data in corpus.items():
        for name, decode in decoders.items():
            outcome: object = "accepted"
            try:
                decode(data)
            except ValueError as error:
                outcome = error
            yield what, name, outcome


def test_foreign_bytes_are_refused_by_every_decoder(
    decoders: dict[str, Decoder], foreign: Bad
) -> None:
    Canary.path.unlink(missing_ok=True)
    start = reset_peak()
    seen = 0
    for what, name, outcome in refusals(decoders, foreign):
        assert isinstance(outcome, ValueError), f"{name} took {what}"
        assert len(str(outcome)) < 500, f"{name}: the error repeats {what}"
        seen += 1
    assert seen == len(foreign) * len(decoders)
    grown = peak() - start
    assert grown < MEMORY, f"measured {grown >> 20} MB of growth"
    assert not Canary.path.exists()


def test_messages_of_one_kind_are_refused_as_another(
    decoders: dict[str, Decoder], stage: Stage
) -> None:
    own = {"score": "agent: score", "digits": "digits", "shares": "agent: shares"}
    own |= {"characters": "characters", "openings": "agent: openings"}
    for what, name, outcome in refusals(decoders, stage.messages):
        if own[what] == name or (what, name) == ("digits", "early checks"):
            continue
        assert isinstance(outcome, ValueError), f"{name} took the message {what}"


# ----------------------------------------------------------------------------------------- the fuzz


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """One to three changes that know the format: head, lengths, parts, residues, edges."""
    message = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        choice = int(rng.integers(0, 9))
        position = int(rng.integers(0, max(1, len(message))))
        size = int(rng.integers(1, 64))
        if choice == 0:
            message = message[:position]
        elif choice == 1:
            message[position : position + size] = b"\xff" * size
        elif choice == 2:
            message[position : position + size] = b""
        elif choice == 3:
            message[position:position] = rng.bytes(size)
        elif choice == 4 and len(message) > 6:
            message[2:6] = struct.pack("<I", int(rng.choice([0, 1, 2, 2**16, 2**32 - 1])))
        elif choice == 5 and len(message) > 10:
            index = 6 + 4 * int(rng.integers(0, 3))
            message[index : index + 4] = struct.pack("<I", int(rng.integers(0, 2**32)))
        elif choice == 6:
            message[position : position + 1] = bytes([int(rng.integers(0, 256))])
        elif choice == 7:
            other = int(rng.integers(0, max(1, len(message))))
            message[position : position + size] = message[other : other + size]
        else:
            message += message[-size:]
    return bytes(message)


@pytest.fixture(scope="module")
def seeds(stage: Stage) -> dict[str, bytes]:
    """A good message for each decoder that is cheap enough to be asked a thousand times."""
    model, layout = stage.model.to_json(), stage.sealed.layout.to_json()
    messages = stage.messages
    return {
        "layout": layout.encode(),
        "model": model.encode(),
        "public keys": stage.holder.public_keys(),
        "replies": stage.agent.replies(messages["openings"]),
        "early replies": stage.agent._rounds.stored["early_replies"][1],
        "final replies": stage.agent._rounds.stored["final_replies"][1],
        "agent: openings": messages["openings"],
        "agent: final checks": stage.final_checks,
        "agent: state": CheckedAgentRun(
            stage.holder, stage.sealed.layout, stage.labels, "run"
        ).state(),
    }


def test_structured_mutations_give_value_errors_only(
    decoders: dict[str, Decoder], seeds: dict[str, bytes], stage: Stage
) -> None:
    """Fixed seed, bounded: any other exception or a crash fails; so does memory."""
    rng = np.random.default_rng(20)
    names = sorted(seeds)
    start = reset_peak()
    refused = 0
    for case in range(FUZZ_CASES):
        name = names[case % len(names)]
        try:
            decoders[name](mutated(rng, seeds[name]))
        except ValueError:
            refused += 1
    grown = peak() - start
    assert grown < MEMORY, f"measured {grown >> 20} MB of growth"
    # a change inside a name, a number or a residue may leave the message well-formed
    assert refused > 0.8 * FUZZ_CASES, f"{refused} of {FUZZ_CASES} refused"
    assert stage.server.release(seeds["replies"]).counts.shape == (2, 2)


def test_mutated_json_models_never_break_the_range_law(stage: Stage) -> None:
    """Numbers of a model replaced by extremes: refused, or within the proven range."""
    rng = np.random.default_rng(21)
    extremes = [0, 1, -1, 2**20, -(2**20), 2**31, 2**53, 2**62, -(2**63), 2**63 - 1]
    base = json.loads(stage.model.to_json())
    edges = stage.model.edges
    accepted = 0
    for _ in range(600):
        plain = json.loads(json.dumps(base))
        for _ in range(int(rng.integers(1, 3))):
            value = extremes[int(rng.integers(0, len(extremes)))]
            where = int(rng.integers(0, 6))
            if where == 0:
                plain["weights"][int(rng.integers(0, 2))] = value
            elif where == 1:
                plain["columns"][int(rng.integers(0, 2))]["size"] = value
            elif where == 2:
                plain["bias"] = value
            elif where == 3:
                plain["bin_edges"][int(rng.integers(0, 3))] = value
            elif where == 4:
                plain["columns"][0]["step"] = float(value).hex()
            else:
                plain["columns"][0]["low"] = float(rng.choice([1e308, -1e308, 5e-324])).hex()
        try:
            model = IntegerModel.from_json(json.dumps(plain))
        except ValueError:
            continue
        accepted += 1
        ends = model.score(np.array([[-1e308, -1e308], [1e308, 1e308], [0.0, 0.0]]))
        assert edges[0] <= model.low <= ends.min() <= ends.max() <= model.high < edges[-1]
    assert accepted > 20
    assert FULL_BYTES > VECTOR_BYTES
