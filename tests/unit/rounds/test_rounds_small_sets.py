"""Small validation sets in a whole market: fewer tables, and words that say why."""

import pytest

from clearinghouse.client.hospital import HospitalTerms
from clearinghouse.errors import InputError
from clearinghouse.messages.intake import Fairness, RequestView
from clearinghouse.messages.results import RunList


def test_a_set_of_eight_is_scored_without_subgroup_tables_and_promises_none(world):
    world.limits = HospitalTerms(8, 500_000, 5_000_000)
    world.gather()
    assert world.hospital.agent._secrets.layout.groups == ()
    floor = Fairness(attribute="sex", metric="sensitivity", floor_micro=500_000)
    terms = world.view().terms
    asked = terms.model_copy(update={"purse": terms.purse.model_copy(update={"fairness": floor})})
    with pytest.raises(InputError, match="no scores by sex: at about 8 patients"):
        world.hospital.transport.post("/requests", asked, RequestView)
    view = world.work(world.everybody)
    assert view.state == "done", world.events
    (run,) = world.hospital.transport.get(f"/requests/{world.request_id}/runs", RunList).runs
    assert run.receipt
    assert run.groups == {}
    (table,) = run.tables  # the histogram has the whole of epsilon
    assert table["epsilon_micro"] == 1_000_000
