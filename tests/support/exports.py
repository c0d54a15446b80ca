"""Real exports of other packages (`tests/data/exports`): the tables they saw, and what they said.

The files are made by `tests/data/exports/make.py`, which also writes what each package itself
predicts on `rows(name)`. Reading them needs none of those packages.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

FOLDER = Path(__file__).parent.parent / "data" / "exports"
FEATURES = 10
CATEGORY = 3
UNIFORM, TIES = 300, 200

Floats = NDArray[np.float32]


def manifest() -> dict[str, Any]:
    """Versions, and per file its hash, table and kind."""
    found: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())
    return found


def export(name: str) -> bytes:
    """The file's bytes, which must be those of the manifest."""
    data = (FOLDER / f"{name}.onnx").read_bytes()
    assert hashlib.sha256(data).hexdigest() == manifest()["files"][name]["sha256"], name
    return data


@cache
def table(name: str) -> tuple[Floats, NDArray[Any]]:
    """Features (n, 10) in single precision and labels: two classes, three classes, or numbers."""
    if name == "numbers":
        features, labels = load_diabetes(return_X_y=True, scaled=False)
    else:
        load = load_wine if name == "classes" else load_breast_cancer
        features, labels = load(return_X_y=True)
    features = features[:, :FEATURES].astype(np.float32)
    if name == "category":
        features[:, CATEGORY] = np.digitize(features[:, CATEGORY], [500, 700, 1000])
    return features, labels


def bounds(name: str) -> NDArray[np.float64]:
    """Low and high of each feature of a table."""
    features = table(name)[0].astype(np.float64)
    return np.stack([features.min(axis=0), features.max(axis=0)], axis=1)


def rows(name: str, data: bytes) -> tuple[Floats, Floats]:
    """Rows to compare on: the table and uniform ones, and rows that sit on the file's cuts.

    The second lie on a threshold in single precision, or on its neighbour below or above.
    """
    features = table(name)[0]
    random = np.random.default_rng(0)
    low, high = bounds(name).T
    spread = random.uniform(low, high, (UNIFORM, FEATURES)).astype(np.float32)
    ties = features[random.integers(0, len(features), TIES)].copy()
    for feature, threshold in cuts(data):
        at = np.float32(threshold)
        near = [at, np.nextafter(at, np.float32(-np.inf)), np.nextafter(at, np.float32(np.inf))]
        chosen = random.random(TIES) < 0.15
        ties[chosen, feature] = random.choice(near, int(chosen.sum()))
    ties = np.clip(ties, low.astype(np.float32), high.astype(np.float32))
    return np.concatenate([features, spread]), ties


def cuts(data: bytes) -> list[tuple[int, float]]:
    """(feature, threshold) of every split of a file's trees, or of every edge of its bins."""
    found: list[tuple[int, float]] = []
    graph = onnx.load_from_string(data).graph
    for node in graph.node:
        parts = {item.name: item for item in node.attribute}
        if "nodes_modes" in parts:
            lists = (parts["nodes_featureids"].ints, parts["nodes_values"].floats)
            modes = parts["nodes_modes"].strings
            found += [(f, t) for f, t, m in zip(*lists, modes, strict=True) if m != b"LEAF"]
    for feature in range(FEATURES):
        for tensor in graph.initializer:
            if tensor.name == f"bin_edges_{feature}":
                edges = onnx.numpy_helper.to_array(tensor)
                found += [(feature, float(edge)) for edge in edges if np.isfinite(edge)]
    return found
