"""Amounts that follow from a request's terms alone."""

from clearinghouse.messages.intake import OpenRequest
from clearinghouse.money import MICRO


def reserve_micro(terms: OpenRequest) -> int:
    """What a perfectly matched record is worth before the platform's fee, in micro-money."""
    return terms.tariff_micro * MICRO // (MICRO + terms.fee_micro)


def pot_micro(terms: OpenRequest) -> int:
    """The pot that is shared by value, in micro-money."""
    return terms.records * terms.tariff_micro * terms.fairness_pot_micro // MICRO


def budget_micro(terms: OpenRequest) -> int:
    """The most a request can cost: every record at the tariff, the pot and the purse."""
    return terms.records * terms.tariff_micro + pot_micro(terms) + terms.purse.amount_micro
