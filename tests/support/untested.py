"""A run without its tests, as no product class is: to measure what a liar would gain in it."""

from secure_eval.agent import AgentRun
from secure_eval.evaluator import ScoringRun


class UntestedScoringRun(ScoringRun):
    """An evaluator that answers whatever it is sent."""

    _CHECKED = False


class UntestedAgentRun(AgentRun):
    """A key holder that is never tested."""

    _CHECKED = False
