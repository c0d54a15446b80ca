"""Runs that a lie of the key holder burns: refused, and nothing more is sent."""

import pytest
from evil import Stage, Thief

from secure_eval.framing import Kind


def refused_early(stage: Stage, thief: Thief, digits: bytes) -> list[int]:
    checks = stage.early(digits)
    with pytest.raises(ValueError, match="EARLY_REPLIES: a test failed; the run is burnt"):
        stage.server.accept_early(thief.replies(checks, Kind.EARLY_CHECKS, Kind.EARLY_REPLIES))
    with pytest.raises(ValueError, match="before the early checks"):
        stage.server.shares(digits)
    return thief.elements(checks, Kind.EARLY_CHECKS)


def refused_at_the_end(stage: Stage, thief: Thief, characters: bytes) -> None:
    checks = stage.final(characters)
    with pytest.raises(ValueError, match="FINAL_REPLIES: a test failed; the run is burnt"):
        stage.server.accept_final(thief.replies(checks, Kind.FINAL_CHECKS, Kind.FINAL_REPLIES))
    with pytest.raises(ValueError, match="before the final checks"):
        stage.server.openings(characters)
