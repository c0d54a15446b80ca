"""The printable statement says every line, and names in it are inert."""

from clearinghouse.messages.disputes import LineView, OrgStatement
from clearinghouse.report.statement import statement_html

REQUEST = "req_" + "0" * 20
OWN = "org_" + "1" * 20


def sample(name: str = "Ward 7", lines: int = 3) -> OrgStatement:
    return OrgStatement(
        org_id=OWN,
        name=name,
        currency="EUR",
        lines=[
            LineView(
                at_s=1_800_000_000 + 86_400 * number if number else 0,
                request_id=REQUEST,
                transfer=f"{REQUEST}:{kind}:ord_{'2' * 20}",
                account=f"org:{OWN}",
                amount_micro=1_250_000 * (number + 1),
                balance_micro=1_250_000 * (number + 1) * (number + 2) // 2,
            )
            for number, kind in enumerate((["order", "award", "freeze"] * lines)[:lines])
        ],
        balances={f"org:{OWN}": 7_500_000, f"external:{OWN}": -1},
        frozen={f"frozen:dsp_{'3' * 20}:order:org:{OWN}": 42},
    )


def test_every_line_and_balance_is_on_the_page():
    page = statement_html(sample())
    for text in ("Ward 7", "records delivered", "purse for a model", "1.25", "3.75", "7.50"):
        assert text in page
    assert "held by dispute dsp_" in page
    assert "0.000042" in page
    assert "-0.000001" in page
    assert page.count("<tr>") == 3 + 2 + 1 + 2
    assert statement_html(sample()) == page
    assert "No money has moved yet." in statement_html(sample(lines=0))
    assert page.count("balance, EUR</th>") == 2
    assert "balance</th>" in statement_html(sample().model_copy(update={"currency": ""}))


def test_names_are_inert_text():
    page = statement_html(sample("<script>alert(1)</script>\u202egnp"))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page
    assert "http" not in page.replace("http-equiv", "")
