"""Statements name who issues them, from then on."""

from __future__ import annotations

import json

from click.testing import CliRunner

from credit.cli.main import cli
from credit.ledger.statements import statements
from credit.reporting.pages import readme_text, statement_page
from tests.pipeline.books_of_account import FEBRUARY, JANUARY, MARCH, Account


def test_statements_from_then_on_name_their_issuer(ledger, database_url, tmp_path):
    environment = {"CREDIT_DATABASE_URL": database_url, "CREDIT_DATA_DIR": str(tmp_path)}

    def credit(*words: str) -> str:
        return CliRunner(env=environment).invoke(cli, words, catch_exceptions=False).output

    account = Account(ledger).start()
    account.month(JANUARY, 100, {"ann": 1})
    before = account.statements()
    assert "name no issuer yet" in credit("issuer", "show")
    named = ("issuer", "set", "Labs <Ltd>", "--address", "1 Long Lane\nLondon", "--legal", "No. 7")
    assert credit(*named) == credit(*named)
    account.month(FEBRUARY, 100, {"ann": 1})
    credit("issuer", "set", "Labs plc", "--address", "2 Long Lane")
    account.month(MARCH, 100, {"ann": 1})
    assert {key: body for key, body in account.statements().items() if key[0] == JANUARY} == before
    assert "issuer" not in account.statement(JANUARY, "ann")
    assert account.statement(FEBRUARY, "ann")["issuer"] == {
        "name": "Labs <Ltd>",
        "address": "1 Long Lane\nLondon",
        "legal": "No. 7",
    }
    assert account.statement(MARCH, "ann")["issuer"] == {"name": "Labs plc", "address": "2 Long Lane", "legal": ""}
    assert [item["version"] for item in json.loads(credit("issuer", "show", "--history", "--json"))["issuers"]] == [
        1,
        2,
    ]
    with ledger.read() as conn:
        (item,) = statements(conn, FEBRUARY)
    page = statement_page(item)
    assert "<b>Labs &lt;Ltd&gt;</b><br>1 Long Lane<br>London" in page
    assert "No. 7" in page
    assert "Issued by Labs <Ltd>, 1 Long Lane, London\nNo. 7\n" in readme_text(item)
