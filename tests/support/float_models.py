"""Float models of scikit-learn before their import: rows to fit them on and their own scores."""

from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import KBinsDiscretizer

X, Y = load_breast_cancer(return_X_y=True)
BOUNDS = np.stack([X.min(axis=0), X.max(axis=0)], axis=1)


def bins(encode: str = "onehot-dense") -> KBinsDiscretizer:
    return KBinsDiscretizer(6, encode=encode, quantile_method="averaged_inverted_cdf")


def float_scores(estimator: Any, rows: np.ndarray) -> np.ndarray:
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(rows))
    if hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.predict_proba(rows)[:, 1])
    return np.asarray(estimator.predict(rows))
