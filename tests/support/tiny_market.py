"""The smallest market that goes through every step: its schema and a request's terms."""

SCHEMA = """
name: tiny
label: {name: sick, levels: [no, yes]}
columns:
  age: {kind: number, low: 20, high: 90, cuts: [50]}
  sex: {kind: category, levels: [F, M]}
strata: [[sex], [sex, age]]
subgroups: [sex]
"""

TERMS = {
    "records": 60,
    "currency": "EUR",
    "tariff_micro": 6_000_000,
    "distance_price_micro": 1_000_000,
    "share_cap_micro": 1_500_000,
    "fee_micro": 50_000,
    "epsilon_target_micro": 500_000,
    "epsilon_score_micro": 1_000_000,
    "purse": {
        "kind": "acceptance",
        "amount_micro": 300_000_000,
        "metric": "auc",
        "threshold_micro": 100_000,  # any model of these patients reaches it
        "confidence_micro": 900_000,
    },
}
