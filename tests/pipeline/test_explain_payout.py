"""From a payout back to the outputs, every step computed again; and why somebody was not paid."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from credit.cli.main import cli
from credit.errors import IntegrityError, LedgerError
from credit.ledger import corrections, holds
from credit.ledger.database import Ledger
from credit.pipeline.explain_payout import PayoutExplanation, explain_payout
from credit.records import Group
from tests.pipeline.books_of_account import FEBRUARY, JANUARY, NOW, Account
from tests.pipeline.scored import Scored, at, credit_outputs

NOVELS, ESSAYS, BEN, OWN = Group("ann", "novels"), Group("ann", "essays"), Group("ben"), Group("own")
OUTPUTS = (
    Scored("o1", at(1, 3), {NOVELS: (3.0, 1.0), ESSAYS: (-1.0, 0.5), BEN: (-1.0, 0.0), OWN: (0.5, 0.1)}),
    Scored("o2", at(1, 9), {NOVELS: (0.2, 0.1), ESSAYS: (0.4, 0.8), BEN: (-0.7, 0.1), OWN: (-2.0, 0.0)}, 2_500_000),
)


@pytest.fixture
def account(ledger: Ledger, tmp_path: Path) -> Account:
    opened = Account(ledger).start()
    credit_outputs(ledger, tmp_path / "books", OUTPUTS)
    return opened


def explain(account: Account, tmp_path: Path, provider: str, period: str = JANUARY) -> PayoutExplanation:
    with account.ledger.read() as conn:
        return explain_payout(conn, tmp_path / "books", provider, period)


def test_every_step_from_the_amount_to_the_outputs_adds_up(account, tmp_path):
    account.agree(
        "ann",
        rate_ppm=700_000,
        reserve_ppm=100_000,
        reserve_release_periods=1,
        recoupment_ppm=500_000,
        withholding_ppm=150_000,
        fee_minor=25,
    )
    with account.ledger.write() as conn:
        paid_on = at(1, 2).date()
        corrections.pay_advance(conn, "ann", 9_000, "EUR", paid_on=paid_on, reference="a-1", now=NOW)
        corrections.adjust(conn, "ann", 77, "EUR", period=JANUARY, reason="a late claim", now=NOW)
    account.pool(JANUARY, 10_001)
    account.pool(JANUARY, 333, "USD")
    account.close(JANUARY)
    found = explain(account, tmp_path, "ann")
    euros, dollars = found.currencies
    assert (dollars.currency, dollars.payable_minor) == ("USD", 321)
    *lines, payable = euros.waterfall
    assert sum(step.amount_minor for step in lines) == payable.amount_minor == euros.payable_minor
    assert [step.label for step in lines] == [
        "earned",
        "adjustments",
        "reserve held",
        "advances recouped",
        "withholding",
        "fees",
    ]
    share, rated = euros.pools
    assert share.amount_minor == 9_628
    assert rated.amount_minor == lines[0].amount_minor == share.amount_minor - share.amount_minor * 3 // 10
    assert re.search(r" = 96\.\d{6}, rounded (up|down) \(rounding: largest remainder\)$", share.arithmetic)
    assert [(line.kind, line.reason) for line in euros.corrections] == [("adjustment", "a late claim")]
    assert sum(item.credit_micro for item in found.collections) == found.credit_micro
    assert sum(item.credit_micro for item in found.outputs) == found.credit_micro
    for line in found.outputs:
        assert line.weight_micro * line.value / line.positive_sum == pytest.approx(line.credit_micro, abs=1)
    assert found.verdict == f"{euros.payable_minor / 100:.2f} EUR (pending); 3.21 USD (pending)"


def test_it_explains_the_past_as_it_was_whatever_came_later(account, tmp_path):
    account.agree("ann", reserve_ppm=200_000, reserve_release_periods=1)
    account.pool(JANUARY, 10_000)
    account.close(JANUARY, now=NOW)
    first = explain(account, tmp_path, "ann")
    with account.ledger.write() as conn:
        holds.place_hold(conn, "ann", None, "a dispute", now=NOW + timedelta(hours=1))
        corrections.adjust(conn, "ann", -5, "EUR", period=FEBRUARY, reason="too much", now=NOW)
    account.pool(FEBRUARY, 0)
    account.close(FEBRUARY, now=NOW + timedelta(hours=2))
    assert explain(account, tmp_path, "ann") == first
    second = explain(account, tmp_path, "ann", FEBRUARY)
    assert "is on hold: a dispute" in second.verdict
    assert [step.label for step in second.currencies[0].waterfall] == [
        "adjustments",
        "reserve released",
        "carried forward",
        "payable",
    ]


def test_an_output_whose_credits_were_taken_back_gave_none(account, tmp_path):
    before = explain(account, tmp_path, "ann")
    with account.ledger.write() as conn:
        corrections.undo(conn, 1, reason="a test output", now=NOW)
    after = explain(account, tmp_path, "ann")
    assert after.outputs_valued == before.outputs_valued
    gone = {item.output for item in before.outputs} - {item.output for item in after.outputs}
    assert after.outputs_credited == before.outputs_credited - len(gone) < before.outputs_credited
    assert sum(item.credit_micro for item in after.outputs) == sum(item.credit_micro for item in after.collections)


def test_it_says_why_somebody_was_not_paid(account, tmp_path):
    assert "is open: nothing is paid before it is closed" in explain(account, tmp_path, "ann").verdict
    account.agree("ann", minimum_payout_minor=100_000)
    account.pool(JANUARY, 10_000)
    account.close(JANUARY)
    assert "below the minimum payout of 1000.00 EUR" in explain(account, tmp_path, "ann").verdict
    ben = explain(account, tmp_path, "ben")
    assert "none of 2 outputs was supported by its data" in ben.verdict
    assert (ben.outputs_valued, ben.outputs_credited, ben.outputs) == (2, 0, ())
    assert "is the house's and is never paid out" in explain(account, tmp_path, "own").verdict
    with pytest.raises(LedgerError, match="unknown provider 'eve'"):
        explain(account, tmp_path, "eve")
    with pytest.raises(LedgerError, match="no period 2026-09"):
        explain(account, tmp_path, "ann", "2026-09")


def test_data_that_no_index_holds_is_said_to_be_missing(account, tmp_path):
    with account.ledger.write() as conn:
        conn.execute(
            text("INSERT INTO provider SELECT 99, 'new', name, kind, created_at FROM provider WHERE key = 'ben'")
        )
    account.pool(JANUARY, 10_000)
    account.close(JANUARY)
    assert "it is not in the index that was used" in explain(account, tmp_path, "new").verdict


def test_a_statement_that_the_ledger_contradicts_is_not_explained(account, tmp_path):
    account.pool(JANUARY, 10_000)
    account.close(JANUARY)
    with account.ledger.write() as conn:
        told = conn.execute(text("SELECT body_json FROM statement")).scalar_one()
        row = "SELECT 99, period_id, provider_id, 2, sha256, :body, created_at FROM statement"
        values = {"body": told.replace('"payable":"9', '"payable":"8', 1)}
        conn.execute(text(f"INSERT INTO statement {row}"), values)
    with pytest.raises(IntegrityError, match="says payable"):
        explain(account, tmp_path, "ann")


def test_the_command_shows_the_arithmetic(account, tmp_path, database_url):
    account.pool(JANUARY, 10_000)
    account.close(JANUARY)
    environment = {"CREDIT_DATABASE_URL": database_url, "CREDIT_DATA_DIR": str(tmp_path)}
    command = ["explain", "payout", "ann", JANUARY]
    said = CliRunner(env=environment).invoke(cli, command, catch_exceptions=False).output
    assert "Ann (ann), 2026-01: " in said
    assert "share of pool main: " in said
    assert " = 100.00 × " in said
    assert "o2 (2026-01-09, essays): 2.5 credits × 1.2 / 1.5 nats of effect = 2.000000" in said
    assert '"verdict"' in CliRunner(env=environment).invoke(cli, [*command, "--json"]).output
