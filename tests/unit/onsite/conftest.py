"""A real hospital's table, a neural net in ONNX, and the two parties with a folder each."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onsite_pair import ADA, VA, Pair
from skl2onnx import to_onnx
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clearinghouse.cli.preflight import synthetic
from clearinghouse.client.budget import open_budget
from clearinghouse.client.keystore import Keystore
from clearinghouse.demo import write_market
from clearinghouse.features import encode, features
from clearinghouse.onsite.box import Box
from clearinghouse.onsite.developer import Developer
from clearinghouse.onsite.hospital import Hospital
from clearinghouse.schema import load_schema
from clearinghouse.tables import read_table


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_market(folder)
    return folder


@pytest.fixture(scope="session")
def schema(files):
    return load_schema(files / "schema.yaml")


@pytest.fixture(scope="session")
def rows(files, schema):
    return read_table(files / "va.csv", schema)


@pytest.fixture(scope="session")
def net(files, schema):
    """A dense neural net, trained on another hospital's rows."""
    table = read_table(files / "cleveland.csv", schema)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it need not converge
        model = make_pipeline(
            StandardScaler(), MLPClassifier((32, 16), max_iter=40, random_state=0)
        )
        model.fit(encode(schema, table), table.labels)
    example = np.zeros((1, len(features(schema))), dtype=np.float32)
    return model, to_onnx(model, example, target_opset=17).SerializeToString()


@pytest.fixture
def pair(tmp_path, rows, schema) -> Callable[..., Pair]:
    """Make both parties; the offer has come to the developer."""

    def make(epsilon_micro: int = 1_000_000, limit_micro: int = 1_500_000) -> Pair:
        keystore = Keystore.open(tmp_path / "va")
        hospital = Hospital(
            "VA Long Beach",
            keystore,
            Box(tmp_path / "va_box", VA),
            lambda: rows,
            open_budget(keystore, rows, limit_micro),
        )
        developer = Developer(Keystore.open(tmp_path / "ada"), Box(tmp_path / "ada_box", ADA))
        hospital.publish("validation", synthetic(schema, 16, 0), ADA, 128, epsilon_micro)
        both = Pair(hospital, developer, tmp_path / "stick")
        both.to_developer()
        return both

    return make
