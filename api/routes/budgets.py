"""What was released of the caller's own data."""

from fastapi import APIRouter

from api.calls import CallOf
from clearinghouse.messages.budgets import BudgetView
from clearinghouse.rounds import budgets

router = APIRouter(prefix="/v1", tags=["budgets"])


@router.get("/budgets")
def get_budgets(call: CallOf) -> BudgetView:
    """The caller's own data: what the log says was released of it, and what is promised."""
    with call.desk.store.read() as tx:
        return budgets.show(tx, call.desk, call.org)
