"""Fuzzing that knows the grammars: frames and residues, public keys, model JSON, ONNX.

A case begins with something valid and changes its structure: heads, counts, lengths, residues;
keys, types and numbers of JSON; operators, wires, attributes and constants of a graph. What comes
back is a ValueError of one line, or a lawful object: a frame that is the same bytes again, a model
whose text is its own and whose scores keep to its proven range. Some seconds here, minutes with
`make check-long`; the seed is printed (`tests/support/fuzzing.py`).
"""

import json
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import exports
import fuzzing
import numpy as np
import onnx
import pytest
from onnx import helper

from clearinghouse.blobs.disk import DiskStore
from clearinghouse.blobs.place import BlobPlace
from clearinghouse.client.onnx_sandbox import imported
from clearinghouse.errors import ClearinghouseError
from clearinghouse.features import features
from clearinghouse.model_columns import columns
from clearinghouse.schema import parse_schema
from clearinghouse.worker import CrashError, WorkerProcess
from secure_eval import framing
from secure_eval.class_models import ClassModels, model_parts, read_model
from secure_eval.framing import Kind
from secure_eval.from_onnx import classes_from_onnx, from_onnx, residual_from_onnx
from secure_eval.integer_model import IntegerModel
from secure_eval.keyholder import KeyHolder
from secure_eval.packing import pack, packed_size, unpack
from secure_eval.params import PARAMETERS
from secure_eval.public_keys import PublicKeys
from secure_eval.quantise_residual import label_column

Random = np.random.Generator
LONG_S = 120.0
PRIMES = PARAMETERS.data_primes
WORDS = (0, 1, 2, 53, 2**16, 2**16 + 1, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS: tuple[Any, ...] = (0, 1, -1, 2, 31, 33, 1032193, 516096, 2**31, 2**63 - 1, -(2**63), 2**64)
NUMBERS += (10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), None, True, "", "0x1.8p+3", [])
FILES = (
    "xgboost_binary",
    "lightgbm_plain",
    "lightgbm_classes",
    "pipeline_zipmap",
    "ebm_binary",
    "xgboost_number",
    "lightgbm_forest",
)


def pick(random: Random, found: Any) -> Any:
    return found[int(random.integers(len(found)))]


# ------------------------------------------------------------------------------- frames


@cache
def residues(polynomials: int) -> np.ndarray:
    """Residues below their primes, all edges among them."""
    random = np.random.default_rng(polynomials)
    parts = [random.integers(0, p, (polynomials, PARAMETERS.degree)) for p in PRIMES]
    made = np.stack(parts, axis=1).astype(np.uint64)
    made[:, :, 0], made[:, :, -1] = 0, np.array(PRIMES, np.uint64) - np.uint64(1)
    return made


def frame(random: Random) -> bytes:
    """A frame of one to three ciphertexts whose head, parts or residues were changed."""
    count = int(random.integers(1, 4))
    packed = pack(residues(1))
    parts = [bytes(packed) for _ in range(count)]
    for _ in range(int(random.integers(0, 2))):  # a residue at or above its prime, or any other
        row, slot = int(random.integers(len(PRIMES))), int(random.integers(PARAMETERS.degree))
        bad = residues(1).copy()
        prime = PRIMES[row]
        bad[0, row, slot] = pick(random, (0, prime - 1, prime, prime + 1, 2**44 - 1))
        parts[int(random.integers(count))] = bytes(pack(bad))
    data = bytearray(framing.encode(Kind.DIGITS, parts))
    for _ in range(int(random.integers(0, 3))):
        at = int(random.integers(0, 6))
        if at == 0:
            data[int(random.integers(0, 2))] = int(random.integers(0, 256))
        elif at == 1:
            data[2:6] = struct.pack("<I", pick(random, WORDS))
        elif at == 2:
            place = 6 + 4 * int(random.integers(0, count))
            data[place : place + 4] = struct.pack("<I", pick(random, (*WORDS, len(packed))))
        elif at == 3:
            data = data[: int(random.integers(0, len(data)))]
        elif at == 4:
            data += bytes(int(random.integers(1, 9)))
        else:
            place = int(random.integers(0, len(data)))
            data[place] ^= 1 << int(random.integers(0, 8))
    return bytes(data)


def read_frame(data: bytes) -> None:
    """As the evaluator reads digits: the count is what it expects, here what the frame says."""
    count = struct.unpack_from("<I", data, 2)[0] if len(data) >= 6 else 1
    lengths = [packed_size(1, len(PRIMES))] * min(count, 3)
    parts = framing.decode(data, Kind.DIGITS, lengths)
    found = [unpack(part, 1, PRIMES, "part") for part in parts]
    for values in found:
        assert (values < np.array(PRIMES, np.uint64)[:, None]).all()
    assert framing.encode(Kind.DIGITS, [pack(values) for values in found]) == data


def keys_frame(keys: bytes) -> Callable[[Random], bytes]:
    size = packed_size(2, len(PARAMETERS.primes))

    def make(random: Random) -> bytes:
        lengths = [len(PARAMETERS.version), *[size] * (1 + len(PRIMES))]
        parts = [bytearray(p) for p in framing.decode(keys, Kind.PUBLIC_KEYS, lengths)]
        for _ in range(int(random.integers(0, 3))):
            part, at = pick(random, parts), int(random.integers(0, 7))
            place = int(random.integers(0, len(part) + 1))  # a part may be empty by now
            if at < 3:
                part[place : place + 6] = pick(random, (b"\xff" * 6, bytes(6), random.bytes(6)))
            elif at == 3:
                del part[place:]
            elif at == 4:
                parts.remove(part) if len(parts) > 1 else part.clear()
            elif at == 5:
                parts.append(bytearray(part))
            else:
                parts.reverse()
        return framing.encode(pick(random, (*[Kind.PUBLIC_KEYS] * 9, Kind.KEY_FILE)), parts)

    return make


def read_keys(data: bytes) -> None:
    assert PublicKeys.from_bytes(data).to_bytes() == data


# ------------------------------------------------------------------------------- model JSON


@cache
def models() -> tuple[str, ...]:
    limits = exports.bounds("two classes")
    names = ("xgboost_binary", "xgboost_stumps", "ebm_binary")
    found: list[Any] = [from_onnx(exports.export(name), limits) for name in names]
    found.append(classes_from_onnx(exports.export("ebm_classes"), exports.bounds("classes")))
    return tuple(model.to_json() for model in found)


def places(plain: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value, containers too."""
    found = []
    keys = plain if isinstance(plain, dict) else range(len(plain))
    for key in list(keys)[:40]:
        found.append((plain, key))
        if isinstance(plain[key], dict | list) and depth < 6:
            found += places(plain[key], depth + 1)
    return found


def model_text(random: Random) -> bytes:
    plain = json.loads(pick(random, models()))
    for _ in range(int(random.integers(1, 4))):
        holder, key = pick(random, places(plain))
        at = int(random.integers(0, 8))
        if at < 3:
            holder[key] = pick(random, NUMBERS)
        elif at == 3:
            del holder[key]
        elif at == 4 and isinstance(holder, dict):
            holder[pick(random, ("extra", "weights", "kind", "\u0000"))] = holder[key]
        elif at == 5 and isinstance(holder, list):
            holder.insert(0, holder[key])
        elif at == 6:
            holder[key] = [holder[key]] if random.random() < 0.5 else {"a": holder[key]}
        elif isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] += pick(random, (-1, 1, 1000, 2**40))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
    if random.random() < 0.1:
        place = int(random.integers(0, len(text)))
        text = text[:place] + random.bytes(int(random.integers(0, 4))) + text[place + 1 :]
    return text


def read_model_text(data: bytes) -> None:
    lawful(read_model(data))


def lawful(model: Any) -> None:
    """A model's text is its own, and scores of any rows keep to its proven range."""
    assert read_model(model.to_json()).to_json() == model.to_json()
    for part in model_parts(model):
        rows = np.random.default_rng(0).uniform(-500, 500, (16, part.n_features))
        rows[0], rows[1] = 0.0, 1e9
        scores = part.score(rows)
        assert part.low <= scores.min() <= scores.max() <= part.high
        assert 2 * max(abs(part.low), abs(part.high)) < PARAMETERS.plain_modulus


# ------------------------------------------------------------------------------- ONNX


OPERATORS = ("Identity", "Mul", "Add", "Concat", "ArgMax", "GatherND", "ReduceSum", "Reshape")
OPERATORS += ("Sigmoid", "Softmax", "Gemm", "LessOrEqual", "Split", "Cast", "Loop", "Relu", "Div")


@cache
def graphs() -> tuple[onnx.ModelProto, ...]:
    return tuple(onnx.load_from_string(exports.export(name)) for name in FILES)


def onnx_bytes(random: Random) -> bytes:
    proto = onnx.ModelProto()
    proto.CopyFrom(pick(random, graphs()))
    for _ in range(int(random.integers(1, 4))):
        change_graph(random, proto.graph)
    data = proto.SerializeToString()
    if random.random() < 0.15:
        raw = bytearray(data)
        raw[int(random.integers(0, len(raw)))] ^= 1 << int(random.integers(0, 8))
        data = bytes(raw)
    return data


def change_graph(random: Random, graph: Any) -> None:
    if not graph.node:
        return
    node, at = pick(random, graph.node), int(random.integers(0, 9))
    names = [name for item in graph.node for name in (*item.input, *item.output)] or ["x"]
    if at == 0:
        node.op_type = pick(random, OPERATORS)
        node.domain = pick(random, ("", "ai.onnx.ml", "evil"))
    elif at == 1:
        graph.node.remove(node)
    elif at == 2:
        graph.node.add().CopyFrom(node)
    elif at == 3 and node.input:
        node.input[int(random.integers(len(node.input)))] = pick(random, names)
    elif at == 4 and node.output:
        node.output[int(random.integers(len(node.output)))] = pick(random, names)
    elif at == 5 and graph.initializer:
        change_constant(random, pick(random, graph.initializer))
    elif at == 6:
        item = pick(random, (*graph.input, *graph.output))
        item.type.tensor_type.shape.dim.add().dim_value = int(pick(random, WORDS))
    elif at == 7:
        node.attribute.add().CopyFrom(helper.make_attribute(pick(random, ("axis", "to")), 7))
    elif node.attribute:
        change_attribute(random, pick(random, node.attribute))


def change_constant(random: Random, tensor: Any) -> None:
    at = int(random.integers(0, 4))
    if at == 0:
        del tensor.dims[:]
        tensor.dims.extend(pick(random, ([], [2], [1, 2], [0], [2**40], [-1], [3, 3, 3])))
    elif at == 1:
        tensor.data_type = int(random.integers(0, 20))
    elif at == 2 and tensor.raw_data:
        raw = bytearray(tensor.raw_data)
        place = int(random.integers(0, len(raw)))
        raw[place : place + 4] = pick(random, (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\xff", bytes(4)))
        tensor.raw_data = bytes(raw)
    else:
        tensor.data_location = 1


def change_attribute(random: Random, item: Any) -> None:
    held = {6: item.floats, 7: item.ints, 8: item.strings}.get(item.type)
    if held is None or not len(held):
        item.name = pick(random, ("post_transform", "axis", "value", "x"))
        return
    place, at = int(random.integers(len(held))), int(random.integers(0, 4))
    if at == 0:
        del held[place]
    elif at == 1:
        held.append(held[place])
    elif item.type == 6:
        held[place] = pick(random, (0.0, -1e30, 3e38, float("nan"), float("inf"), 0.5))
    elif item.type == 7:
        held[place] = pick(random, (0, 1, -1, 9, 2**31, 2**63 - 1, -(2**63), int(held[place]) + 1))
    else:
        held[place] = pick(random, (b"LEAF", b"BRANCH_LT", b"BRANCH_EQ", b"", b"\xff" * 300))


LABEL = label_column(exports.FEATURES, 0.0, 400.0)


def read_onnx(data: bytes) -> None:
    """As a schema of each label would; each of them is asked, and the first error counts last."""
    limits = exports.bounds("two classes")
    errors = []
    found: list[IntegerModel | ClassModels] = []
    for read in (
        lambda: from_onnx(data, limits),
        lambda: classes_from_onnx(data, limits),
        lambda: residual_from_onnx(data, limits, LABEL),
    ):
        try:
            found.append(read())
        except ValueError as error:
            errors.append(error)
    for model in found:
        lawful(model)
    if errors and not found:
        raise errors[0]


# ------------------------------------------------------------------------------- the runs


def made(key_holder: KeyHolder) -> dict[str, tuple[Callable[[Random], bytes], Callable]]:
    return {
        "frames": (frame, read_frame),
        "public keys": (keys_frame(key_holder.public_keys()), read_keys),
        "model JSON": (model_text, read_model_text),
        "ONNX": (onnx_bytes, read_onnx),
    }


def run(name: str, key_holder: KeyHolder, capsys: Any, seconds: float | None) -> None:
    def tell(words: str) -> None:
        with capsys.disabled():
            print(words)

    counts = fuzzing.fuzz(name, *made(key_holder)[name], tell, seconds)
    if seconds is not None:
        assert counts["read"] > 10, "the mutations are so wild that nothing is read"
    assert counts["refused"] > 0


@pytest.mark.parametrize("name", ["frames", "public keys", "model JSON", "ONNX"])
def test_mutations_are_refused_or_lawful(name: str, key_holder: KeyHolder, capsys: Any) -> None:
    run(name, key_holder, capsys, None)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["frames", "public keys", "model JSON", "ONNX"])
def test_mutations_for_minutes(name: str, key_holder: KeyHolder, capsys: Any) -> None:
    run(name, key_holder, capsys, LONG_S)


SCHEMA = {
    "name": "s",
    "label": {"name": "y", "levels": ["no", "yes"]},
    "columns": {"age": {"kind": "number", "low": 20, "high": 90, "cuts": [50]}},
}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_worker_takes_mutated_models_and_files_and_does_the_next_job(tmp_path: Path) -> None:
    """Whatever a job's bytes do to a worker, the job after it is done."""
    blobs = DiskStore(tmp_path / "blobs", max_bytes=1 << 26)
    place = BlobPlace(blobs.folder, 1 << 26)
    worker = WorkerProcess(place, wall_s=60, memory_bytes=2 << 30)
    asked = {"schema": SCHEMA, "published_bins": 32}
    schema = parse_schema(SCHEMA, file="s")
    model = IntegerModel(
        kind="linear",
        columns=columns(schema)[:1],
        weights=np.array([3]),
        bias=0,
        n_features=len(features(schema)),
    )
    good, died = blobs.put(model.to_json().encode()), 0
    refusals: list[str] = []
    try:
        for _how, random in fuzzing.cases(8.0):
            for make in (model_text, onnx_bytes, frame):
                try:  # what looks like a key file is refused before it is a blob
                    worker.run("model.inspect", {**asked, "model": blobs.put(make(random))})
                except CrashError:
                    died += 1
                except (ClearinghouseError, ValueError) as error:
                    refusals.append(str(error))
            assert worker.run("model.inspect", {**asked, "model": good})["kind"] == "linear"
        assert died == 0, f"{died} jobs ended their process"
        assert all(refusals)
        for _, (how, random) in zip(range(20), fuzzing.cases(1e9), strict=False):
            with pytest.raises(ClearinghouseError, match=r"f\.onnx: ") as refused:
                imported(onnx_bytes(random), schema, "f.onnx")
            assert "died" not in str(refused.value), how
    finally:
        worker.close()
