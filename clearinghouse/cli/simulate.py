"""`request simulate`: what a purse would buy, before it is promised. Offline; reads no table."""

from pathlib import Path
from typing import Any

from clearinghouse.cli import budget
from clearinghouse.cli.files import public_size_class
from clearinghouse.cli.options import Result, columns
from clearinghouse.cli.profile import PROFILE, open_keys
from clearinghouse.client.runs import DEFAULT_LIMIT_MICRO, DEFAULT_TARGET_MICRO
from clearinghouse.errors import InputError
from valuation.contests import PRIZES
from valuation.simulation import Simulation, Tender, simulate, simulate_tender

SHOWN_RANKS = 3

RULES: dict[str, tuple[tuple[int, ...], float]] = {
    # prizes, and within how many standard errors two models tie
    "acceptance": ((1,), 0.0),
    "contest": (PRIZES, 1.645),
}


def patients_of(home: Path) -> int | None:
    """Size class of the validation set that a home sealed, if it did."""
    if not (home / PROFILE).is_file():
        return None
    terms = open_keys(home).recall("valset-terms")
    return None if terms is None else public_size_class(terms)


def run(
    patients: int | None,
    developers: int,
    best: float,
    gap: float,
    threshold: float,
    asks: tuple[float, float],
    seed: int,
    home: Path,
) -> Result:
    """Simulate each purse rule on the same models.

    Args:
        patients: Validation rows; the sealed set's size class if left out.
        developers: Models on offer, each `gap` worse than the one before.
        best: True accuracy of the best one.
        gap: In accuracy.
        threshold: What a model's lower bound has to reach in a procurement.
        asks: Least and largest ask there, as parts of the purse.
        seed: Of the simulation.
        home: Where a sealed set may be known.

    Raises:
        InputError: A number is out of range, or no number of patients is known.
    """
    rows = patients if patients is not None else patients_of(home)
    if rows is None:
        raise InputError(f"{home} has sealed no validation set. Give --patients N")
    try:
        found = {
            name: simulate(
                rows,
                developers=developers,
                best=best,
                gap=gap,
                prizes=prizes,
                confidence_z=z,
                seed=seed,
            )
            for name, (prizes, z) in RULES.items()
        }
        tender = simulate_tender(
            rows,
            developers=developers,
            best=best,
            gap=gap,
            threshold=threshold,
            asks=asks,
            seed=seed,
        )
    except ValueError as error:
        raise InputError(f"this contest cannot be simulated: {error}") from None
    value: dict[str, Any] = {
        "patients": rows,
        "developers": developers,
        "best": best,
        "gap": gap,
        "seed": seed,
        "threshold": threshold,
        "asks": list(asks),
        "rules": {name: _rule(item) for name, item in found.items()},
        "procurement": _tender(tender),
        "runs": _runs(rows, home),
    }
    return value, _words(value, found, tender)


def _runs(patients: int, home: Path) -> dict[str, Any]:
    """How many runs the set supports: what its budget has left, or a fresh default one."""
    if (home / PROFILE).is_file():
        keystore = open_keys(home)
        terms = keystore.recall("valset-terms")
        if terms is not None and public_size_class(terms) == patients:
            found = budget.read_books(keystore, terms)
            if "run_terms" in terms:
                return {"sealed_for": budget.sealed_for(found, terms)}
            groups = budget.subgroups_of(keystore)
            return budget.plans(found, int(terms["epsilon_target_micro"]), groups)
    fresh = budget.Books(0, DEFAULT_LIMIT_MICRO, (), patients)
    return budget.plans(fresh, DEFAULT_TARGET_MICRO, 0, fresh=True)


def _rule(item: Simulation) -> dict[str, Any]:
    return {
        "best_scores_best": item.best_wins,
        "best_in_top_band": item.best_in_top_band,
        "top_band_size": item.top_band_size,
        "payout_by_true_rank": item.payouts.tolist(),
        "effort_by_true_rank": item.effort.tolist(),
        "standard_error": item.error,
    }


def _tender(item: Tender) -> dict[str, Any]:
    return {
        "awarded": item.awarded,
        "best_wins": item.best_wins,
        "expected_payment": item.payment,
        "expected_accuracy": None if item.awarded == 0 else item.accuracy,
        "standard_error": item.error,
    }


def _tender_words(value: dict[str, Any], item: Tender) -> str:
    low, high = value["asks"]
    head = (
        f"procurement, threshold {value['threshold']:g}, asks from {100 * low:.0f}% to "
        f"{100 * high:.0f}% of the purse: "
    )
    if item.awarded == 0:
        return head + "no model ever reaches the threshold"
    return (
        f"{head}somebody wins in {100 * item.awarded:.0f}%, the best model in "
        f"{100 * item.best_wins:.0f}% +-{200 * item.error:.0f}; it pays {100 * item.payment:.0f}% "
        f"of the purse on average and buys an accuracy of {item.accuracy:.3f}\n"
        "its winner is the cheapest model at the threshold, not the best"
    )


def _words(value: dict[str, Any], found: dict[str, Simulation], tender: Tender) -> str:
    ranks = range(min(SHOWN_RANKS, value["developers"]))
    header = ["purse", "best model is first", "models that tie for it"]
    header += [f"share of rank {rank + 1}" for rank in ranks]
    header += ["effort of rank 1"]
    rows = [header]
    for name, item in found.items():
        share = [f"{100 * float(item.payouts[rank]):.0f}%" for rank in ranks]
        # within a band that ties, a contest pays alike, so being in it is winning
        wins = item.best_wins if name == "acceptance" else item.best_in_top_band
        chance = f"{100 * wins:.0f}% +-{200 * item.error:.0f}"
        effort = f"{float(item.effort[0]):.2f}"
        rows.append([name, chance, f"{item.top_band_size:.1f}", *share, effort])
    sealed = value["runs"].get("sealed_for")
    runs = budget.sealed_words(sealed) if sealed else "\n".join(budget.plan_words(value["runs"]))
    return (
        f"{runs}\n\n"
        f"{value['developers']} models, true accuracy {value['best']:g} and each {value['gap']:g} "
        f"worse, scored on {value['patients']} patients\n{columns(rows)}\n"
        "effort: points of accuracy worth working for, where the first point costs 5% of the "
        f"purse\n{_tender_words(value, tender)}\nthe noise of the release comes on top"
    )
