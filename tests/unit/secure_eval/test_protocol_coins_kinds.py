"""Committed coins in runs of several classes and of a number: exact but for the coins, replayed."""

import hashlib
from collections.abc import Callable

import numpy as np
from evil import COMMITMENTS, NONCES, SEED
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import Ridge, RidgeClassifier

from secure_eval.class_agent import ClassesAgentRun
from secure_eval.class_run import ClassesScoringRun
from secure_eval.from_sklearn import residual_from_sklearn
from secure_eval.keyholder import KeyHolder
from secure_eval.noise import Table, noise_variance
from secure_eval.quantise_residual import label_column, residual_unit
from secure_eval.replay import Transcript, replay
from secure_eval.residual_scorecard import ResidualScorecard
from secure_eval.sklearn_classes import classes_from_sklearn

COINS = 32
EPSILON_MICRO = 500_000


def check_coins(noise: np.ndarray, coins: int) -> None:
    """Coins that nobody chose: each cell within half their number, not all alike.

    The spread of n cells is within 5 standard errors of sqrt(coins) / 2 but once in a million.
    """
    assert np.abs(noise).max() <= coins // 2
    assert abs(noise.std() / (coins**0.5 / 2) - 1) < 5 / (2 * len(noise)) ** 0.5
    assert abs(noise.mean()) < 5 * (coins / 4 / len(noise)) ** 0.5


def test_a_run_of_three_classes_with_coins(key_holder: KeyHolder) -> None:
    rows, codes = load_iris(return_X_y=True)
    limits = np.c_[rows.min(axis=0), rows.max(axis=0)]
    model = classes_from_sklearn(RidgeClassifier().fit(rows, codes), limits)
    sealed = key_holder.seal(model.models[0].encode(rows), codes, 3)
    maps = [range(len(part.columns)) for part in model.models]
    given = (key_holder.public_keys(), sealed.layout, sealed.blobs, model, maps, SEED, "run")
    coins = (COINS,) * 3
    server = ClassesScoringRun(*given, NONCES[0], coins=coins)
    agent = ClassesAgentRun(key_holder, sealed.layout, codes[sealed.order], "run")
    tables = [Table(name, cells, EPSILON_MICRO, COINS) for name, cells in server.table_cells]
    sent = {"score": server.score()}
    sent["digits"] = agent.digits(sent["score"], tables, COMMITMENTS)
    sent["early_checks"] = server.early_checks(sent["digits"])
    sent["early_replies"] = agent.early_replies(sent["early_checks"])
    server.accept_early(sent["early_replies"])
    sent["shares"] = server.shares(sent["digits"])
    sent["characters"] = agent.characters(sent["shares"], NONCES)
    sent["final_checks"] = server.final_checks(sent["characters"])
    sent["final_replies"] = agent.final_replies(sent["final_checks"])
    server.accept_final(sent["final_replies"])
    sent["openings"] = server.openings(sent["characters"], NONCES)
    sent["replies"] = agent.replies(sent["openings"])
    opened = server.release(sent["replies"])
    exact = []
    for index, part in enumerate(model.models):
        scores, own = part.score(rows), (codes == index).astype(np.int64)
        counts = np.zeros((2, len(part.bin_edges) - 1), np.int64)
        np.add.at(counts, (own, np.searchsorted(part.edges, scores, side="right") - 1), 1)
        exact.append(counts)
    noise = opened.counts - np.vstack(exact)
    assert np.array_equal(noise.reshape(-1), agent.noise)
    check_coins(noise.reshape(-1), COINS)
    transcript = Transcript(
        *given,
        NONCES,
        sent,
        {name: hashlib.sha256(data).hexdigest() for name, data in sent.items()},
        coins=coins,
        released=opened,
    )
    assert replay(transcript).reproduced


def test_a_run_of_a_number_with_coins(play: Callable) -> None:
    rows, numbers = load_diabetes(return_X_y=True, scaled=False)
    rows, numbers = rows[:, :4], np.clip(numbers, 20, 350)
    limits = np.c_[rows.min(axis=0), rows.max(axis=0)]
    label = label_column(4, 20.0, 350.0)
    model = residual_from_sklearn(Ridge(5.0).fit(rows, numbers), limits, label)
    encoded = model.encode(np.column_stack([rows, numbers]))
    strata = (numbers >= 150).astype(np.int64)
    played = play(model, encoded, strata, epsilon_micro=EPSILON_MICRO, coins=[COINS])
    played.check()
    check_coins(played.agent.noise, COINS)
    # and its scorecard reads the coins' own variance: 90% intervals hold the truth over 100 draws
    unit = residual_unit(model, label)
    edges = [edge * unit for edge in model.edges]
    variance = noise_variance(EPSILON_MICRO, COINS)
    assert variance == COINS / 4
    mse = float(np.mean((model.score_columns(encoded) * unit) ** 2))
    exact = played.opened.counts - played.agent.noise.reshape(played.opened.counts.shape)
    drawn = np.random.default_rng(0).binomial(COINS, 0.5, (100, *exact.shape)) - COINS // 2
    held = 0
    for noise in drawn:
        card = ResidualScorecard.from_counts(
            exact + noise, EPSILON_MICRO / 1e6, edges, 330.0, noise_variance=variance
        )
        held += card.intervals["mse"][0] <= mse <= card.intervals["mse"][1]
    assert held >= 90
