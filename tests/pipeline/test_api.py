"""The toolkit in Python does what the commands do."""

from __future__ import annotations

import json

import pytest

import credit
from credit.api import Toolkit
from credit.errors import EXIT_PROPOSED, InvalidRequestError, LedgerError
from credit.ledger.approvals import Proposal
from credit.pipeline.close import ClosePolicy
from tests.pipeline.samples import FIRST, MODEL, OUTPUTS, Site

TRIAL = ClosePolicy(unvalidated="a test", unreviewed="a test")


def _toolkit(site: Site) -> Toolkit:
    return credit.open(site.url, site.data_dir, actor="ann@api", user_key=site.folder / "users.key")


def test_a_month_in_python_is_that_of_the_commands(new_site, inputs):
    ours, theirs = new_site("python"), new_site("commands")
    books = _toolkit(ours)
    assert books.index(inputs / MODEL, inputs / "train.jsonl", out=ours.folder / "again", name=MODEL).existed is False
    assert books.ingest(inputs / "outputs.jsonl")[0].is_unchanged
    assert books.compute().valued == OUTPUTS
    assert books.compute().valued == 0
    theirs.run("index", inputs / MODEL, inputs / "train.jsonl", "--out", theirs.folder / "again", "--name", MODEL)
    theirs.run("compute")
    assert ours.books() == theirs.books()
    books.add_pool(FIRST, "1000.00", "EUR", deductions=100)
    theirs.run("pool", "add", FIRST, "1000", "EUR", "--deductions", "100")
    trial = books.close(FIRST, TRIAL, dry_run=True)
    assert trial.dry_run
    assert books.status().status.periods[0].status == "open"
    closed = books.close(FIRST, TRIAL)
    assert [fall.payable_minor for fall in closed.waterfalls] == [fall.payable_minor for fall in trial.waterfalls]
    theirs.close(FIRST)
    assert books.attribution(FIRST, "collection").to_dicts() == json.loads(
        theirs.run("report", "attribution", FIRST, "--by", "collection", "--json").stdout
    )
    assert books.payouts(FIRST).to_dicts() == json.loads(theirs.run("report", "payouts", FIRST, "--json").stdout)
    assert books.trends(FIRST, FIRST)["period"].unique().to_list() == [FIRST]
    paid = {row["provider"]: row["payable"] for row in books.payouts(FIRST).iter_rows(named=True)}
    told = books.statements(FIRST)
    assert {key: body["balances"][0]["payable"] for key, body in told.items()} == paid
    assert {path.name for path in books.export(FIRST, ours.data_dir / "statements")} == set(told)
    assert not books.verify().problems
    assert {row["actor"] for row in ours.named("ledger_txn")} == {"ann@api"}


def test_what_needs_two_people_is_proposed_and_what_is_refused_raises(new_site):
    site = new_site("two")
    books = _toolkit(site)
    with pytest.raises(InvalidRequestError, match=r"0\.1 is a float"):
        books.add_pool(FIRST, 0.1, "EUR")
    with pytest.raises(LedgerError, match="pending"):
        books.close(FIRST, TRIAL)
    site.run("approve", "require", "pool")
    proposal = books.add_pool(FIRST, "5", "EUR")
    assert isinstance(proposal, Proposal)
    assert not site.named("pool")
    assert site.json("pool", "add", FIRST, "5", "EUR", code=EXIT_PROPOSED)["proposal"] == proposal.id
    site.run("--actor", "ben@finance", "approve", "give", str(proposal.id))
    assert [row["gross_minor"] for row in site.named("pool")] == [500]


def test_a_ledger_that_is_not_there_is_said_to_be_missing(tmp_path):
    books = credit.open(f"sqlite:///{tmp_path}/none.db", tmp_path / "data")
    with pytest.raises(LedgerError, match="create it: credit init"):
        books.status()
    books.create()
    assert books.status().status.providers == 0
