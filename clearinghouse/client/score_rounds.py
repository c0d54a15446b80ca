"""A hospital's rounds of an approved scoring run: fetch, let the key agent answer, send, note."""

from clearinghouse.client.key_agent import KeyAgent
from clearinghouse.client.transport import Transport
from clearinghouse.messages.tasks import (
    Answer,
    ScoreCharactersAnswer,
    ScoreCharactersTask,
    ScoreEarlyAnswer,
    ScoreEarlyTask,
    ScoreFinalAnswer,
    ScoreFinalTask,
    ScoreRepliesAnswer,
    ScoreRepliesTask,
)

ScoreTask = ScoreEarlyTask | ScoreCharactersTask | ScoreFinalTask | ScoreRepliesTask
"""Rounds after the digits, which approve and pay the run."""


def answer_round(agent: KeyAgent, transport: Transport, task: ScoreTask) -> Answer:
    """Answer one round; each blob that came and went is noted for the signed transcript.

    Raises:
        ValueError, ClearinghouseError: The agent refuses.
    """
    run_id = task.run_id
    if isinstance(task, ScoreEarlyTask):
        replies = agent.score_early(run_id, transport.get_blob(task.checks_blob))
        blob = transport.put_blob(replies, "early.replies")
        agent.travelled(run_id, early_checks=task.checks_blob, early_replies=blob)
        return ScoreEarlyAnswer(replies_blob=blob)
    if isinstance(task, ScoreCharactersTask):
        shares = transport.get_blob(task.shares_blob)
        characters = agent.score_characters(run_id, shares, task.nonces)
        blob = transport.put_blob(characters, "characters")
        agent.travelled(run_id, shares=task.shares_blob, characters=blob)
        return ScoreCharactersAnswer(characters_blob=blob)
    if isinstance(task, ScoreFinalTask):
        replies = agent.score_final(run_id, transport.get_blob(task.checks_blob))
        blob = transport.put_blob(replies, "final.replies")
        agent.travelled(run_id, final_checks=task.checks_blob, final_replies=blob)
        return ScoreFinalAnswer(replies_blob=blob)
    openings = transport.get_blob(task.openings_blob)
    blob = transport.put_blob(agent.score_replies(run_id, openings), "replies")
    agent.travelled(run_id, openings=task.openings_blob, replies=blob)
    return ScoreRepliesAnswer(replies_blob=blob)
