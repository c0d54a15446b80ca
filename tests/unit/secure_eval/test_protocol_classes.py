"""A run of one model for each class: exact in every table, resumable, no class answered alone."""

import hashlib
import secrets
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import RidgeClassifier

from secure_eval import framing
from secure_eval.class_agent import ClassesAgentRun
from secure_eval.class_run import ClassesScoringRun
from secure_eval.framing import Kind
from secure_eval.keyholder import KeyHolder
from secure_eval.layout import Shapes
from secure_eval.noise import Table
from secure_eval.nonces import new_nonce, nonce_commitment
from secure_eval.one_class import joined_parts, split_parts
from secure_eval.rehearse_classes import rehearse_classes
from secure_eval.replay import Transcript, _compare_release, replay
from secure_eval.sklearn_classes import classes_from_sklearn

X, Y = load_iris(return_X_y=True)
BOUNDS = np.c_[X.min(axis=0), X.max(axis=0)]
WIDE = (X[:, 1] > 3.0).astype(np.int64)


def expected(model, of_class):
    """Counts (2, bins) and predicted positives (levels, 2) of one class in the clear."""
    part, own = model.models[of_class], (of_class == Y).astype(np.int64)
    scores = part.score(X)
    counts = np.zeros((2, len(part.bin_edges) - 1), np.int64)
    np.add.at(counts, (own, np.searchsorted(part.edges, scores, side="right") - 1), 1)
    groups = np.zeros((2, 2), np.int64)
    positive = scores >= part.threshold
    np.add.at(groups, (WIDE[positive], own[positive]), 1)
    return counts, groups


def test_every_class_is_counted_exactly_over_blocks_and_groups():
    """Trees; linear models over all their bins are in `test_protocol_coins_kinds`."""
    estimator = GradientBoostingClassifier(n_estimators=2, max_depth=2, random_state=0)
    model = halved(classes_from_sklearn(estimator.fit(X, Y), BOUNDS))
    assert model.kind == "trees"
    found = rehearse_classes(model, X, Y, groups={"sepal": WIDE}, max_rows_per_block=80)
    for index, histogram in enumerate(found.classes):
        counts, groups = expected(model, index)
        assert histogram.counts.tolist() == counts.tolist()
        assert histogram.groups["sepal"].tolist() == groups.tolist()


def halved(model):
    """The model publishing two bins a class, below and above its threshold."""
    parts = (part.with_edges([0, part.threshold_bin, 32]) for part in model.models)
    return replace(model, models=tuple(parts))


class Setting:
    """Both sides of a run of three classes on 150 rows."""

    def __init__(self):
        self.model = halved(classes_from_sklearn(RidgeClassifier().fit(X, Y), BOUNDS))
        self.holder = KeyHolder.generate()
        (first, *_) = self.model.models
        self.sealed = self.holder.seal(first.encode(X), Y, 3)
        self.seed, self.nonces = secrets.token_bytes(32), (new_nonce(), new_nonce())
        self.commitments = [nonce_commitment(nonce) for nonce in self.nonces]

    def server(self):
        maps = [range(len(part.columns)) for part in self.model.models]
        return ClassesScoringRun(
            self.holder.public_keys(),
            self.sealed.layout,
            self.sealed.blobs,
            self.model,
            maps,
            self.seed,
            "run",
            self.nonces[0],
        )

    def agent(self):
        return ClassesAgentRun(self.holder, self.sealed.layout, Y[self.sealed.order], "run")

    def tables(self, server, epsilon_micro):
        return [Table(name, cells, epsilon_micro) for name, cells in server.table_cells]


@pytest.fixture(scope="module")
def setting():
    return Setting()


def test_an_agent_and_a_server_restarted_in_every_round_go_on_with_noise(setting):
    server, agent = setting.server(), setting.agent()

    def restarted(agent):
        again = setting.agent()
        again.restore(agent.state())
        return again

    tables = setting.tables(server, 500_000)
    agreed = (tables, setting.commitments)
    digits = agent.digits(server.score(), *agreed)
    assert restarted(agent).digits(setting.server().score(), *agreed) == digits
    checks = server.early_checks(digits)
    replies = restarted(agent).early_replies(checks)
    server.accept_early(replies)
    agent.early_replies(checks)
    shares = server.shares(digits)
    characters = agent.characters(shares, setting.nonces)
    agent = restarted(agent)
    assert agent.characters(shares, setting.nonces) == characters
    final = server.final_checks(characters)
    finals = agent.final_replies(final)
    server.accept_final(finals)
    openings = server.openings(characters, setting.nonces)
    last = restarted(agent).replies(openings)
    opened = server.release(last)
    sent = {
        "score": server.score(),
        "digits": digits,
        "early_checks": checks,
        "early_replies": replies,
        "shares": shares,
        "characters": characters,
        "final_checks": final,
        "final_replies": finals,
        "openings": openings,
        "replies": last,
    }
    setting.sent, setting.opened, setting.agreed = sent, opened, tables
    exact = np.vstack([expected(setting.model, k)[0] for k in range(3)])
    assert len(agent.noise) == opened.counts.size
    assert (opened.counts.reshape(-1) - agent.noise).tolist() == exact.reshape(-1).tolist()
    assert np.abs(agent.noise).sum() > 0


def test_one_class_that_lies_gets_no_class_an_answer(setting):
    server, agent = setting.server(), setting.agent()
    agreed = (setting.tables(server, 500_000), setting.commitments)
    parts = split_parts(agent.digits(server.score(), *agreed), 3)
    shapes = Shapes(1, 2, 32, 0).digits()
    last = framing.decode(parts[2], Kind.DIGITS, shapes)
    last[5] = memoryview(setting.holder.encrypted(np.ones(8192, np.int64)))  # no one-hot digit
    parts[2] = framing.encode(Kind.DIGITS, last)
    false = joined_parts(parts)
    replies = agent.early_replies(server.early_checks(false))
    with pytest.raises(ValueError, match="EARLY"):
        server.accept_early(replies)
    with pytest.raises(ValueError, match="before the early checks"):
        server.shares(false)


def test_messages_of_other_shapes_are_refused(setting):
    server, agent = setting.server(), setting.agent()
    score = server.score()
    agreed = (setting.tables(server, 10_000), setting.commitments)
    with pytest.raises(ValueError, match="CLASSES"):
        agent.digits(split_parts(score, 3)[0], *agreed)
    with pytest.raises(ValueError, match="CLASSES"):
        agent.digits(joined_parts(split_parts(score, 3)[:2]), *agreed)
    maps = [range(len(part.columns)) for part in setting.model.models]
    two = setting.holder.seal(setting.model.models[0].encode(X), (Y > 0).astype(np.int64), 2)
    keys, seed = setting.holder.public_keys(), bytes(32)
    with pytest.raises(ValueError, match="2 labels"):
        ClassesScoringRun(keys, two.layout, two.blobs, setting.model, maps, seed, "r", bytes(16))
    with pytest.raises(ValueError, match="as many for each"):
        agent.digits(score, agreed[0][:2], setting.commitments)


def test_an_auditor_makes_every_class_s_messages_again(setting):
    """After the run above: from public objects, the seed and the key holder's messages."""
    if not hasattr(setting, "sent"):
        test_an_agent_and_a_server_restarted_in_every_round_go_on_with_noise(setting)
    transcript = Transcript(
        keys=setting.holder.public_keys(),
        layout=setting.sealed.layout,
        upload=setting.sealed.blobs,
        model=setting.model,
        column_map=[range(len(part.columns)) for part in setting.model.models],
        seed=setting.seed,
        run_id="run",
        nonces=setting.nonces,
        messages=setting.sent,
        log={name: hashlib.sha256(data).hexdigest() for name, data in setting.sent.items()},
        released=setting.opened,
    )
    assert replay(transcript).reproduced
    counts = setting.opened.counts.copy()
    counts[3, 0] += 1
    false = replace(transcript, released=replace(setting.opened, counts=counts))
    assert not _compare_release(setting.opened, false).reproduced
