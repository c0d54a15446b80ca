"""Makes the exports in this folder, with the packages that people export from.

    python -m venv exports && exports/bin/pip install xgboost-cpu==3.2.0 lightgbm==4.7.0 \
        onnxmltools==1.16.0 skl2onnx==1.20.0 onnx==1.23.2 scikit-learn==1.9.1 pandas \
        interpret-core==0.7.8 ebm2onnx==3.3.1
    PYTHONPATH=tests/support exports/bin/python tests/data/exports/make.py

Each file is what the package's own converter wrote, unchanged. `said.npz` holds what the trained
model itself predicts (not its export), on the rows of `exports.rows`. Versions and hashes are in
`manifest.json`. The suite reads the files and needs none of these packages.
"""

import hashlib
import json
import warnings
from importlib.metadata import version
from typing import Any

import ebm2onnx
import exports
import lightgbm
import numpy as np
import pandas as pd
import xgboost
from interpret.glassbox import ExplainableBoostingClassifier, ExplainableBoostingRegressor
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost as xgboost_part
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

PACKAGES = (
    "xgboost-cpu",
    "lightgbm",
    "onnxmltools",
    "skl2onnx",
    "onnx",
    "scikit-learn",
    "interpret-core",
    "ebm2onnx",
)
INPUT = [("x", FloatTensorType([None, exports.FEATURES]))]
SIZE: dict[str, Any] = {"n_estimators": 12, "max_depth": 3}
LIGHT: dict[str, Any] = {**SIZE, "verbose": -1, "random_state": 0, "min_child_samples": 5}


def xgb(kind: Any, table: str, *, holes: float = 0.0, **more: Any) -> tuple[Any, Any, str]:
    """A trained XGBoost model and its export."""
    features, labels = holed(table, holes)
    model = kind(**{**SIZE, "random_state": 0, **more}).fit(features, labels)
    return model, convert_xgboost(model, initial_types=INPUT), table


def light(
    kind: Any, table: str, *, holes: float = 0.0, zipmap: bool = True, **more: Any
) -> tuple[Any, Any, str]:
    """A trained LightGBM model and its export."""
    features, labels = holed(table, holes)
    given = {"categorical_feature": [exports.CATEGORY]} if table == "category" else {}
    model = kind(**{**LIGHT, **more}).fit(features, labels, **given)
    return model, convert_lightgbm(model, initial_types=INPUT, zipmap=zipmap), table


def holed(table: str, share: float) -> tuple[Any, Any]:
    """A table of which some values are missing, so that trees learn where missing ones go."""
    features, labels = exports.table(table)
    holes = np.random.default_rng(0).random(features.shape) < share
    return np.where(holes, np.float32(np.nan), features), labels


def xgb_category() -> tuple[Any, Any, str]:
    """XGBoost's own splits on categories."""
    features, labels = exports.table("category")
    frame = pd.DataFrame(features, columns=[f"f{i}" for i in range(exports.FEATURES)])
    name = f"f{exports.CATEGORY}"
    frame[name] = frame[name].astype(int).astype("category")
    kinds = {"colsample_bytree": 0.3, "enable_categorical": True}
    model = xgboost.XGBClassifier(**SIZE, random_state=0, **kinds).fit(frame, labels)
    return None, convert_xgboost(model, initial_types=INPUT), "category"


def pipeline(zipmap: bool) -> tuple[Any, Any, str]:
    """A scikit-learn pipeline that ends in XGBoost, exported whole by skl2onnx."""
    update_registered_converter(
        xgboost.XGBClassifier,
        "XGBoostXGBClassifier",
        calculate_linear_classifier_output_shapes,
        xgboost_part,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )
    features, labels = exports.table("two classes")
    model = make_pipeline(StandardScaler(), xgboost.XGBClassifier(**SIZE, random_state=0))
    model.fit(features, labels)
    proto = to_onnx(
        model,
        features[:1],
        options={id(model.steps[-1][1]): {"zipmap": zipmap}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    return model, proto, "two classes"


def ebm(kind: Any, table: str, *, inputs: Any = ("x", "float"), **more: Any) -> Any:
    """A trained explainable boosting machine and its export."""
    features, labels = exports.table(table)
    small = {"interactions": 0, "max_bins": 12, "outer_bags": 2, "max_rounds": 100, "n_jobs": 1}
    model = kind(**{**small, "random_state": 0, **more}).fit(features, labels)
    export_options = {} if "Regressor" in kind.__name__ else {"predict_proba": True}
    return model, ebm2onnx.to_onnx(model, inputs, **export_options), table


def made() -> dict[str, tuple[Any, Any, str]]:
    """Name to model (None: only the file matters), export and table."""
    two, many, numbers = "two classes", "classes", "numbers"
    bagged = {"bagging_freq": 1, "bagging_fraction": 0.8}
    return {
        "xgboost_binary": xgb(xgboost.XGBClassifier, two),
        "xgboost_missing": xgb(xgboost.XGBClassifier, two, holes=0.1),
        "xgboost_stumps": xgb(xgboost.XGBClassifier, two, max_depth=1, n_estimators=40),
        "xgboost_depth4": xgb(xgboost.XGBClassifier, two, max_depth=4, base_score=0.3),
        "xgboost_forest": xgb(xgboost.XGBRFClassifier, two),
        "xgboost_classes": xgb(xgboost.XGBClassifier, many),
        "xgboost_number": xgb(xgboost.XGBRegressor, numbers),
        "xgboost_category": xgb_category(),
        "pipeline_zipmap": pipeline(zipmap=True),
        "pipeline_plain": pipeline(zipmap=False),
        "lightgbm_binary": light(lightgbm.LGBMClassifier, two),
        "lightgbm_plain": light(lightgbm.LGBMClassifier, two, zipmap=False),
        "lightgbm_missing": light(lightgbm.LGBMClassifier, two, holes=0.1),
        "lightgbm_dart": light(lightgbm.LGBMClassifier, two, boosting_type="dart"),
        "lightgbm_classes": light(lightgbm.LGBMClassifier, many),
        "lightgbm_classes_plain": light(lightgbm.LGBMClassifier, many, zipmap=False),
        "lightgbm_number": light(lightgbm.LGBMRegressor, numbers),
        "lightgbm_forest": light(lightgbm.LGBMClassifier, two, boosting_type="rf", **bagged),
        "ebm_binary": ebm(ExplainableBoostingClassifier, two),
        "ebm_columns": ebm(
            ExplainableBoostingClassifier,
            two,
            inputs={f"feature_{index:04d}": "double" for index in range(exports.FEATURES)},
        ),
        "ebm_classes": ebm(ExplainableBoostingClassifier, many),
        "ebm_number": ebm(ExplainableBoostingRegressor, numbers),
        "ebm_interactions": ebm(ExplainableBoostingClassifier, two, interactions=1),
        "lightgbm_category": light(
            lightgbm.LGBMClassifier, "category", cat_smooth=0, colsample_bytree=0.3
        ),
    }


def main() -> None:
    """Write every file of this folder but this one."""
    warnings.simplefilter("ignore")
    files: dict[str, Any] = {}
    said: dict[str, Any] = {}
    for name, (model, proto, table) in made().items():
        data = proto.SerializeToString()
        (exports.FOLDER / f"{name}.onnx").write_bytes(data)
        files[name] = {"table": table, "sha256": hashlib.sha256(data).hexdigest()}
        if model is None:
            continue
        asked = np.concatenate(exports.rows(table, data))
        is_number = not hasattr(model, "predict_proba")
        outputs = model.predict(asked) if is_number else model.predict_proba(asked)
        said[name] = np.asarray(outputs, dtype=np.float32)
    np.savez_compressed(exports.FOLDER / "said.npz", **said)
    told = {"versions": {name: version(name) for name in PACKAGES}, "files": files}
    (exports.FOLDER / "manifest.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
