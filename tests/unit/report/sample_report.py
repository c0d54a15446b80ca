"""Invented but consistent reports of every shape a rehearsal can write, for the report's tests."""

import math
import random
from decimal import Decimal
from typing import Any

from held_out_sample import SEEDS, downstream

CENT = Decimal("0.01")
NAMES = ("cleveland", "hungarian", "switzerland", "long_beach", "basel", "lyon", "porto")
RECIPES = ("logistic", "gam", "trees")
HOSTILE = "<script>alert('x')</script>"
LEVELS = {
    "sex": ("F", "M"),
    "age": ("[20,45)", "[45,55)", "[55,65)", "[65,90]"),
    "cp": ("typical", "atypical", "non-anginal", "asymptomatic"),
}
SECONDS = (1.9, 6.4, 0.3, 4.2, 31.7, 0.2, 0.8)
STEPS = ("intake", "match", "clear", "deliver", "score", "settle", "audit")


def sample(
    *,
    n_sources: int = 3,
    n_developers: int = 3,
    seed: int = 7,
    baseline_wins: bool = False,
    gap_reason: str | None = None,
    undetermined: bool = False,
    covered: bool = False,
    awarded: bool = True,
    dummies: int = 0,
    hostile: bool = False,
    task: str = "binary",
) -> dict[str, Any]:
    """A report with the keys of a real one; same arguments, same report."""
    draw = random.Random(seed)
    sources = [_source(i, hostile) for i in range(n_sources)]
    developers = [_developer(i, hostile) for i in range(n_developers)]
    records = 150
    quotas = _quotas(sources, records, draw)
    clearing = _clearing(sources, quotas, draw)
    scores = [_score(name, i, undetermined, hostile) for i, name in enumerate(developers)]
    for i, score in enumerate(scores):
        score |= _kind_of_score(task, i, hostile)
    best = max(scores, key=lambda score: score["auc"])
    winner = best["developer"] if awarded and not undetermined else None
    purse = {
        "kind": "acceptance",
        "amount": "300.00",
        "metric": "mse" if task == "number" else "auc",
        "threshold": 900 if task == "number" else 0.7,
        "confidence": 0.9,
        "awarded_to": winner,
        "reason": "lower bound 0.731 clears 0.70" if winner else "no model clears 0.70 surely",
    }
    market = HOSTILE if hostile else "heart"
    return {
        "market": {
            "name": market,
            "schema": "heart",
            "customer": "va & sons <b>" if hostile else "va",
            "n_sources": n_sources,
            "n_developers": n_developers,
            "records_wanted": records,
            "currency": "EUR",
        },
        "match": _match(baseline_wins, gap_reason, covered, hostile),
        "clearing": clearing,
        "values": _values(sources, quotas, clearing),
        "scores": scores,
        "downstream": downstream(baseline_wins, undetermined, task),
        "downstream_pairing": {
            "recipe": "logistic",
            "seeds": list(range(SEEDS)),
            "level": 0.9,
            "held_out_rows": 100,
            "words": "clearinghouse minus method",
        },
        "budget": _budget(sources),
        "ledger": {"balanced": True, "entries": 14 + n_sources},
        "log": {
            "entries": 61,
            "checkpoint": "clearinghouse/heart\n61\nq7mS0Zt1ZJ3Yb2w0Jm0cWkq0p1cQk3v8r1oQ9yKc2dI=\n",
            "verified": True,
        },
        "timings_s": dict(zip(STEPS, SECONDS, strict=True)),
        "bytes": {
            "intake.valset": 6_012_331,
            "intake.summary": 9_120 * n_sources,
            "match.opening": 1_411_200,
            "clear.asks": 812 * n_sources,
            "deliver.orders": 48_220,
            "score.rounds": 27_914_002,
            "audit.proofs": 21_400,
        },
        "records": {
            "wanted": records,
            "delivered": sum(quotas.values()),
            "real": sum(quotas.values()) - dummies,
            "dummy": dummies,
        },
        "subgroups": _subgroups(draw, hostile),
        "purse": purse,
        "roc": _rocs(task, developers),
        "who_saw_what": [
            {
                "party": "clearinghouse",
                "learned": "number of blocks, noised counts, asks after close, model weights",
                "never": "a row, an exact count, the hospital's key, delivered records",
            },
            {
                "party": "hospital va",
                "learned": "uniform masked values, its own exact histogram",
                "never": "model weights beyond what that reveals",
            },
            {
                "party": HOSTILE if hostile else "developers",
                "learned": "noised metrics, a receipt, the delivered training records",
                "never": "a validation row, an exact metric",
            },
        ],
        "verify": [
            "clearinghouse verify receipts/gam.txt",
            "clearinghouse log audit log/ --checkpoint log/checkpoint.txt",
        ],
        "statement": _statement(clearing, purse),
        "warnings": [f"{market}.csv: column 'note' is not in the schema and was ignored"],
        "seconds_total": sum(SECONDS) + 3.1,
    }


def _source(i: int, hostile: bool) -> str:
    if hostile and i == 0:
        return HOSTILE
    if hostile and i == 1:
        return '"><img src=x onerror=alert(1)> $\\frac{1$ \x1b[31m\u202e'
    return NAMES[i] if i < len(NAMES) else f"site_{i:02d}"


def _developer(i: int, hostile: bool) -> str:
    if hostile and i == 0:
        return "[bold]<svg onload=alert(1)>[/bold] $x_"
    return RECIPES[i] if i < len(RECIPES) else f"model_{i:02d}"


def _quotas(sources: list[str], records: int, draw: random.Random) -> dict[str, int]:
    weights = [draw.random() ** 2 + 0.02 for _ in sources]
    quotas = {s: int(records * w / sum(weights)) for s, w in zip(sources, weights, strict=True)}
    quotas[sources[0]] += records - sum(quotas.values())
    if len(sources) > 10:
        quotas[sources[0]] += quotas[sources[-1]]
        quotas[sources[-1]] = 0
    return quotas


def _clearing(sources: list[str], quotas: dict[str, int], draw: random.Random) -> dict[str, Any]:
    asks = {s: Decimal(str(round(1 + 2 * draw.random(), 2))) for s in sources}
    payments = {
        s: asks[s] * quotas[s] + Decimal(str(round(quotas[s] * draw.random(), 6))) for s in sources
    }
    total = sum(payments.values(), Decimal(0))
    fee = (total * Decimal("0.05")).quantize(Decimal("0.000001"))
    return {
        "objective": "412.331000",
        "quotas": quotas,
        "payments": {s: str(v) for s, v in payments.items()},
        "asks": {s: str(v) for s, v in asks.items()},
        "customer_pays": str(total + fee),
        "customer_surplus": "161.20",
        "fee": str(fee),
        "pot": {},
        "method": "exact integer min-cost flow",
    }


def _values(sources: list[str], quotas: dict[str, int], clearing: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for s in sources:
        units = quotas[s]
        paid = Decimal(clearing["payments"][s])
        above = paid - Decimal(clearing["asks"][s]) * units
        price = (paid / units).quantize(Decimal("0.000001")) if units else None
        low = None if price is None else str(price * Decimal("0.9"))
        high = None if price is None else str(price * Decimal("1.15"))
        values[s] = {
            "price": None if price is None else str(price),
            "low": low,
            "high": high,
            "shapley": round(float(above) * 1.4, 4),
            "leave_one_out": round(float(above), 4),
            "marginal": str(above),
            "status": "firm" if units else "nothing sold",
        }
    return values


def _match(baseline_wins: bool, reason: str | None, covered: bool, hostile: bool) -> dict[str, Any]:
    best = 0.48 if baseline_wins else 0.21
    gaps = {
        "clearinghouse": 0.41,
        "noise_free": 0.55,
        "random": 0.0,
        "use_all": best,
        "label_only": 0.08,
        "points_ot": 0.77,
    }
    w2 = {
        "clearinghouse": 1.412,
        "noise_free": 1.377,
        "random": 1.603,
        "use_all": 1.398 if baseline_wins else 1.518,
        "label_only": 1.571,
        "points_ot": 1.224,
    }
    methods: dict[str, Any] = {
        name: {
            "w2": w2[name],
            "mmd": round(0.3 - 0.2 * gap, 4),
            "gap_closed": None if reason else gap,
            "rows": 719 if name == "use_all" else 150,
            "subgroup_shares": {"sex": {"F": 0.1, "M": 0.9}},
        }
        for name, gap in gaps.items()
    }
    methods["random"]["gap_sd"] = None if reason else 0.09
    if reason:
        for method in methods.values():
            method["reason"] = reason
    who = "<i>women</i>" if hostile else "women over 65 with atypical angina"
    uncovered = [
        {"cell": 17, "share": 0.04, "words": f"4% of your patients ({who}) are in nobody's data"},
        {"cell": 3, "share": 0.012, "words": "1% of your patients (men under 45) are too far"},
    ]
    return {
        "codebook_cells": 34,
        "target": [3, 0, 12, 40],
        "methods": methods,
        "uncovered": [] if covered else uncovered,
    }


def _score(name: str, i: int, undetermined: bool, hostile: bool) -> dict[str, Any]:
    auc = 0.5 if undetermined else round(0.7423 + 0.0311 * (i % 3), 4)
    spread = [0.0, 1.0] if undetermined else [round(auc - 0.071, 4), round(auc + 0.064, 4)]
    return {
        "developer": name,
        "model": HOSTILE if hostile else f"{name}-1",
        "kind": ("linear", "additive", "trees")[i % 3],
        "rows": 100,
        "auc": auc,
        "accuracy": 0.69 + 0.01 * (i % 3),
        "sensitivity": 0.81,
        "specificity": 0.55,
        "brier": 0.2,
        "status": "undetermined" if undetermined else "ok",
        "intervals": {"auc": spread, "accuracy": [0.6, 0.79]},
        "subgroups": {"sex": {"F": {"auc": 0.7, "status": "undetermined"}, "M": {"auc": 0.76}}},
        "epsilon": 1.0,
        "plaintext_reference": {"auc": 0.7511, "accuracy": 0.71},
        "exact_counts_match": True,
        "receipt": f"receipts/{name}.txt",
    }


GRADES = ("none", "mild", "grave")


def _rocs(task: str, developers: list[str]) -> dict[str, Any]:
    if task == "number":
        return {}
    names = [f"{name}: {grade}" for name in developers for grade in GRADES]
    names = names if task == "classes" else developers
    return {name: _roc(1.2 + 0.25 * (i % 3)) for i, name in enumerate(names)}


def _kind_of_score(task: str, i: int, hostile: bool) -> dict[str, Any]:
    """What a score of several classes, or of a number, has beside or in place of the usual."""
    ends = {"auc": [0.6, 0.9], "sensitivity": [0.4, 0.8], "specificity": [0.5, 0.9]}
    if task == "classes":
        rates = {"sensitivity": 0.6, "specificity": 0.7, "status": "ok"}
        rates |= {"true_positives": 12, "false_positives": 7}
        each = {
            "accuracy": 0.8,
            "brier": 0.15,
            "sensitivity": 0.61,
            "specificity": 0.72,
            "status": "ok",
            "intervals": ends,
        }
        return {
            "task": "classes",
            "classes": [
                {"level": HOSTILE if hostile else grade, "auc": 0.7 + 0.05 * k, **each}
                for k, grade in enumerate(GRADES)
            ],
            "subgroups": {"sex": {"F": {**rates, "classes": dict.fromkeys(GRADES, rates)}}},
        }
    if task == "number":
        mse = 812.5 - 100.0 * (i % 3)
        return {
            "task": "number",
            "auc": 0.5,
            "mse": mse,
            "rmse": mse**0.5,
            "mae": 20.1,
            "bias": -3.2,
            "intervals": {
                "mse": [mse / 2, 2 * mse],
                "rmse": [(mse / 2) ** 0.5, (2 * mse) ** 0.5],
                "mae": [15.0, 27.0],
                "bias": [-8.0, 2.0],
            },
            "plaintext_reference": {"auc": 0.5, "mse": mse - 40, "rmse": 27.0, "mae": 19.0},
            "residuals": {
                "label": HOSTILE if hostile else "progression",
                "edges": [-330.0, -330.0, -80.0, -40.0, 0.0, 40.0, 80.0, 330.0],
                "counts": [0, 3, 9, 31, 35, 8, -1],
                "noise_sd": 2.4,
            },
            "subgroups": {
                "sex": {"F": {"overestimated": 22, "overestimated_share": 0.44, "status": "ok"}}
            },
        }
    return {}


def _budget(sources: list[str]) -> dict[str, Any]:
    budget = {s: {"spent": 1.0, "limit": 1.0} for s in sources}
    budget["va"] = {"spent": 3.5, "limit": 5.0}
    return budget


def _subgroups(draw: random.Random, hostile: bool) -> dict[str, Any]:
    groups: dict[str, Any] = {}
    for attribute, levels in LEVELS.items():
        shares = [_shares(len(levels), draw) for _ in range(3)]
        groups["<u>sex</u>" if hostile and attribute == "sex" else attribute] = [
            {
                "level": level,
                "target": t,
                "interval": [0.8 * t, t + 0.02],
                "delivered": 0.7 * t + 0.3 * a,
                "available": a,
            }
            for level, t, a in zip(levels, shares[0], shares[2], strict=True)
        ]
    return groups


def _shares(n: int, draw: random.Random) -> list[float]:
    weights = [draw.random() + 0.05 for _ in range(n)]
    return [w / sum(weights) for w in weights]


def _roc(skill: float) -> list[list[float]]:
    grid = [i / 16 for i in range(17)]
    return [[x, 1 - math.pow(1 - x, 1 + skill)] for x in grid]


def _statement(clearing: dict[str, Any], purse: dict[str, Any]) -> list[dict[str, str]]:
    prize = Decimal(purse["amount"]) if purse["awarded_to"] else Decimal(0)
    lines = [("customer", -Decimal(clearing["customer_pays"]) - prize)]
    lines += [(f"source {s}", Decimal(v)) for s, v in clearing["payments"].items()]
    lines += [("platform fee", Decimal(clearing["fee"]))]
    if prize:
        lines += [(f"developer {purse['awarded_to']}", prize)]
    return [{"account": account, "amount": str(amount)} for account, amount in lines]
