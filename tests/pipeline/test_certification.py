"""A close demands a certificate for all that its credits were computed with, or a reason that everybody is told."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from credit.accounting.credits import CounterfactualKind, Policy
from credit.errors import InvalidRequestError, LedgerError
from credit.fidelity.certificate import PLAIN, Certificate
from credit.ledger import journal, periods, statements
from credit.ledger.database import Ledger
from credit.ledger.verify import verify
from credit.pipeline.certification import share_certainties
from credit.pipeline.close import ClosePolicy, close_period
from credit.pipeline.restate import by_policy, restate
from credit.pipeline.workspace import Workspace
from credit.records import Group
from credit.reporting.frames import attribution
from credit.reporting.pages import attribution_page, readme_text, statement_page
from tests.pipeline.books_of_account import FEBRUARY, JANUARY, NOW, Account
from tests.pipeline.certificates import CALIBRATED_POLICY, certificate, register
from tests.pipeline.scored import Scored, at, credit_outputs

ANN, BEN, OWN = Group("ann"), Group("ben"), Group("own")


def outputs(month: int, count: int = 12) -> list[Scored]:
    """Outputs of which Ann gets most, and Ben and the house much the same."""
    return [
        Scored(f"{month}-{n}", at(month, n + 1), {ANN: (3.0, 1.0), BEN: (1.0 + n % 3, 0.0), OWN: (2.0 - n % 2, 0.0)})
        for n in range(count)
    ]


@pytest.fixture
def account(ledger: Ledger, tmp_path: Path) -> Account:
    made = Account(ledger, policy={"unreviewed": "of certificates alone"}).start()
    credit_outputs(ledger, tmp_path / "books", outputs(1))
    made.pool(JANUARY, 1000)
    return made


def refused(account: Account, match: str, **policy: object) -> None:
    before = account.balance("money:payable:ann")
    with pytest.raises(LedgerError, match=match):
        account.close(JANUARY, **policy)
    with account.ledger.read() as conn:
        assert periods.periods(conn)[0].status == "open"
    assert account.statements() == {}
    assert account.balance("money:payable:ann") == before


def test_without_a_certificate_a_close_is_refused_and_names_the_remedy(account):
    refused(
        account, r"index abababababababab of tiny, and it was not validated; credit validate INDEX DATA, or .*--unval"
    )


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"effect": 0.44}, "LDS of 0.44, which is 0.49 of the noise ceiling 0.90; at least 0.50"),
        (
            {"effect": 0.54},
            (
                "effect does not beat BM25 beyond chance: its LDS is 0.54, that of BM25 0.50, and the 90 % interval of"
                " the difference is -0.01 to 0.09 on 60 outputs"
            ),
        ),
        ({"tokens": 0.76}, "does not beat token share beyond chance"),
        ({"kind": "quick"}, "a quick certificate, which no retraining stands behind"),
    ],
)
def test_a_certificate_that_is_not_enough_is_refused_with_what_it_lacks(account, found, why):
    register(account.ledger, certificate(**found))
    refused(account, f"is not enough: .*{why}")


def test_a_certificate_from_before_leads_were_measured_keeps_its_hash_and_is_not_enough(account):
    made = certificate()
    old = replace(made, methods=tuple(replace(score, leads={}, attribution_error=None) for score in made.methods))
    assert "leads" not in old.canonical
    assert "attribution_error" not in old.canonical
    assert Certificate.from_json(old.to_json()) == old
    register(account.ledger, old)
    refused(account, "does not say by how much effect beats token share; validate again")


def test_a_certificate_of_another_index_or_policy_does_not_count(account, tmp_path):
    credit_outputs(
        account.ledger, tmp_path / "books", [Scored("other", at(1, 30), {ANN: (1.0, 0.0)})], Policy(beta=3.0)
    )
    register(account.ledger, certificate())
    refused(account, "about other weights, noise floor or damping than credits were computed with")


@pytest.mark.parametrize(
    ("paid", "validated", "why"),
    [
        ("removed", "replaced", "trained as long without the data (replaced); credits are about fewer steps"),
        ("replaced", "removed", "it shows no models that were trained as long without the data"),
        ("replaced", "", "it shows no models that were trained as long without the data"),
    ],
)
def test_a_certificate_of_another_counterfactual_does_not_count(paid, validated, why):
    made = of_counterfactual(validated)
    assert why in next(made.shortcomings(Policy(counterfactual=paid), 0.5))
    assert [*of_counterfactual(paid).shortcomings(Policy(counterfactual=paid), 0.5)] == []
    assert Certificate.from_json(made.to_json()) == made


def of_counterfactual(kind: CounterfactualKind | Literal[""]) -> Certificate:
    """A certificate by retraining of that counterfactual, good enough to pay by; empty: an older one."""
    policy = Policy(counterfactual=kind or "removed").of_one_output.fingerprint
    made = certificate()
    scores = [replace(score, policy=policy) if score.method == PLAIN else score for score in made.methods]
    return replace(made, methods=tuple(scores), counterfactual=kind)


def test_a_certificate_from_before_counterfactuals_keeps_its_hash():
    assert "counterfactual" not in certificate().canonical


def test_statements_say_what_the_absence_of_data_was_compared_with(account):
    register(account.ledger, of_counterfactual("removed"))
    account.close(JANUARY)
    words = " ".join(account.statement(JANUARY, "ann")["validation"]["words"])
    assert "a model that learned from less data, for fewer steps" in words
    page, _ = faces(account, "ann")
    assert "The model learns from less data, for a shorter time" in page


def test_a_validated_period_closes_and_statements_say_how_well_it_was_validated(account):
    sha256 = register(account.ledger, certificate())
    report = account.close(JANUARY)
    assert [(check.certificate, check.agreement) for check in report.validation.checks] == [(sha256, "0.80")]
    told = account.statement(JANUARY, "ann")["validation"]
    assert told["unvalidated"] == ""
    assert told["checks"][0] | {"index": "", "policy": "", "recipe": "", "data": ""} == {
        "index": "", "policy": "", "recipe": "", "data": "", "certificate": sha256, "checked_on": "2026-12-20",
        "measure": "effect", "agreement": "0.80", "ceiling": "0.90", "token_share": "0.30", "bm25": "0.50",
    }  # fmt: skip
    words = " ".join(told["words"])
    for shown in ("21 models", "60 answers", "0.80", "0.75 to 0.85", "0.90", "0.30", "0.50", "73%", "does not say how"):
        assert shown in words, shown
    page, note = faces(account, "ann")
    assert "an agreement of 0.80" in page
    assert sha256 in page
    assert "2026-12-20" in note
    assert verify(account.ledger, None).problems == ()


def faces(account: Account, provider: str) -> tuple[str, str]:
    """A statement as a page and in the note beside it, each with its spaces made one."""
    with account.ledger.read() as conn:
        (item,) = [item for item in statements.statements(conn, JANUARY) if item.provider == provider]
    return " ".join(statement_page(item).split()), " ".join(readme_text(item).split())


def test_the_minimum_is_the_policys(account):
    register(account.ledger, certificate())
    refused(account, "at least 0.95", min_fidelity=0.95)
    account.close(JANUARY, min_fidelity=0.85)


def test_an_override_puts_its_reason_on_every_statement_and_into_the_ledger(account):
    reason = "trial <run>, agreed with all"
    account.close(JANUARY, unvalidated=reason)
    with account.ledger.read() as conn:
        (period,) = periods.periods(conn)
    assert ClosePolicy.from_json(period.close_policy_json or "").unvalidated == reason
    for provider in ("ann", "ben"):
        told = account.statement(JANUARY, provider)["validation"]
        assert told["unvalidated"] == reason
        assert told["words"][0] == (
            "Nobody has checked whether these credits predict what the model would do without your data."
        )
        page, note = faces(account, provider)
        assert "issued without a sufficient validation" in page
        assert "trial &lt;run&gt;, agreed with all" in page
        assert reason in note


def test_an_override_tells_what_a_poor_certificate_found(account):
    register(account.ledger, certificate(0.44))
    account.close(JANUARY, unvalidated="no better one yet")
    assert "an agreement of 0.44" in " ".join(account.statement(JANUARY, "ann")["validation"]["words"])


def test_an_override_that_is_not_needed_is_refused(account):
    register(account.ledger, certificate())
    refused(account, "is validated; close it without --unvalidated", unvalidated="to be safe")
    for reason in (" spaces ", "two\nlines"):
        with pytest.raises(InvalidRequestError, match="one line"):
            ClosePolicy(unvalidated=reason)
    with pytest.raises(InvalidRequestError, match="between 0 and 1"):
        ClosePolicy(min_fidelity=1.5)


def test_the_last_certificate_by_retraining_counts(account):
    register(account.ledger, certificate(0.44))
    register(account.ledger, certificate(0.8))
    register(account.ledger, certificate(kind="quick"))
    account.close(JANUARY, dry_run=True)
    register(account.ledger, certificate(0.43))
    refused(account, "LDS of 0.43")


def test_a_period_of_two_policies_needs_a_score_for_each(account, tmp_path):
    credit_outputs(account.ledger, tmp_path / "books", outputs(2), CALIBRATED_POLICY)
    account.pool(FEBRUARY, 500)
    register(account.ledger, certificate(calibrated=0.1))
    account.close(JANUARY)
    with pytest.raises(LedgerError, match=r"effect, calibrated reaches an LDS of 0\.10"):
        account.close(FEBRUARY)
    register(account.ledger, certificate())
    account.close(FEBRUARY)


def test_what_a_restatement_was_computed_with_needs_a_certificate_where_its_difference_is_paid(account, tmp_path):
    register(account.ledger, certificate())
    account.close(JANUARY)
    workspace = Workspace("", tmp_path)
    changes = {"measure": "support"}
    done = restate(workspace, account.ledger, JANUARY, by_policy(changes), {"policy": changes}, reason="r", now=NOW)
    assert (done.posted_in, done.txn_id is None) == (FEBRUARY, False)
    with pytest.raises(LedgerError, match="about other weights"):
        account.close(FEBRUARY)
    account.close(FEBRUARY, unvalidated="a test", dry_run=True)
    with account.ledger.write() as conn:
        journal.reverse(conn, done.txn_id or 0, period=FEBRUARY, reason="wrong", now=NOW)
    account.close(FEBRUARY)


def test_a_period_in_which_nothing_was_credited_needs_none(account):
    account.close(JANUARY, unvalidated="a test")
    account.pool(FEBRUARY, 0)
    account.close(FEBRUARY)


def test_a_statement_says_how_sure_the_share_is_and_names_nobody_else(account, tmp_path):
    close_period(
        account.ledger,
        JANUARY,
        ClosePolicy(unvalidated="a test", unreviewed="a test"),
        books=tmp_path / "books",
        now=NOW,
    )
    ann, ben = (account.statement(JANUARY, provider) for provider in ("ann", "ben"))
    share = int(ann["credits"]["credit_micro"]) / int(ann["credits"]["total_credit_micro"])
    sure = ann["credits"]["certainty"]
    assert float(sure["share_low"]) <= share <= float(sure["share_high"])
    assert (sure["outputs"], sure["interval"], sure["interval_over"]) == (12, "90 %", ["outputs"])
    assert sure["providers_alike"] == 0
    assert ben["credits"]["certainty"]["providers_alike"] == 0, "the house is no other provider"
    page, _ = faces(account, "ann")
    assert "differs from that of every other provider" in page
    assert "The error of the estimate itself comes on top." in page
    assert not [name for name in ("ben", "Ben", "own", "Own data") if json.dumps(name) in json.dumps(ann)]


def test_a_single_output_tells_nobody_how_sure_a_share_is(ledger, tmp_path):
    """Drawn again, it gives the same share every time: an interval of no width, which would look like certainty."""
    account = Account(ledger).start()
    credit_outputs(ledger, tmp_path / "books", outputs(1, 1))
    account.pool(JANUARY, 100)
    close_period(
        ledger, JANUARY, ClosePolicy(unvalidated="a test", unreviewed="a test"), books=tmp_path / "books", now=NOW
    )
    assert account.statement(JANUARY, "ann")["credits"]["certainty"] is None
    page, _ = faces(account, "ann")
    assert "How sure your share is cannot be told from so few outputs." in page
    assert "nine times in ten" not in page


def test_the_interval_covers_the_error_of_the_estimate_where_all_was_validated(account, tmp_path):
    """The width is that of outputs alone without a certificate, and the deviate's where outputs leave no doubt."""
    with account.ledger.read() as conn:
        without = share_certainties(conn, tmp_path / "books", JANUARY)["ann"]
    assert not without.covers_attribution
    register(account.ledger, certificate(attribution_error=None))
    with account.ledger.read() as conn:
        assert share_certainties(conn, tmp_path / "books", JANUARY)["ann"] == without
    register(account.ledger, certificate(attribution_error=0.2))
    with account.ledger.read() as conn:
        frame = attribution(conn, tmp_path / "books", JANUARY, "provider").row(0, named=True)
        assert "over outputs and attribution" in attribution_page(conn, tmp_path / "books", JANUARY)
    close_period(account.ledger, JANUARY, ClosePolicy(unreviewed="a test"), books=tmp_path / "books", now=NOW)
    ann = account.statement(JANUARY, "ann")["credits"]
    share = int(ann["credit_micro"]) / int(ann["total_credit_micro"])
    low, high = (float(ann["certainty"][name]) for name in ("share_low", "share_high"))
    outputs_alone = (without.high - without.low) / 2
    expected = math.hypot(outputs_alone, 1.645 * 0.2 * math.sqrt(share * (1 - share)))
    assert (high - low) / 2 == pytest.approx(expected, rel=0.15)
    assert (low, high) == pytest.approx((frame["share_low"], frame["share_high"]), abs=1e-6)
    assert ann["certainty"]["interval_over"] == ["outputs", "attribution"]
    page, _ = faces(account, "ann")
    assert "how far estimated shares were from those that retraining showed" in page


def test_shares_that_cannot_be_told_apart_are_said_to_be_so(ledger, tmp_path):
    account = Account(ledger).start()
    alike = [
        Scored(f"o{n}", at(1, n + 1), {ANN: (2.0 + n % 2, 0.0), BEN: (3.0 - n % 2, 0.0), OWN: (1.0, 0.0)})
        for n in range(20)
    ]
    credit_outputs(ledger, tmp_path / "books", alike)
    account.pool(JANUARY, 100)
    close_period(
        ledger, JANUARY, ClosePolicy(unvalidated="a test", unreviewed="a test"), books=tmp_path / "books", now=NOW
    )
    assert account.statement(JANUARY, "ann")["credits"]["certainty"]["providers_alike"] == 1
    page, _ = faces(account, "ann")
    assert "cannot be told apart from that of 1 other provider." in page
    assert "Ben" not in page
