"""A close demands reviews of the data of every index that decides its credits, or a reason that everybody is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from credit.accounting.statement import Validation
from credit.approval.actions import Close
from credit.approval.proposals import give, perform, require, view
from credit.errors import IntegrityError, InvalidRequestError, LedgerError
from credit.fidelity.reviews import read_review
from credit.ledger import indexes, periods, statements
from credit.ledger.database import Ledger
from credit.ledger.verify import verify
from credit.pipeline.close import ClosePolicy
from credit.pipeline.reviews import with_reviews
from credit.pipeline.status import overview
from credit.records import Group
from credit.reporting.pages import readme_text, statement_page
from tests.approval.people import url_of
from tests.pipeline.books_of_account import FEBRUARY, JANUARY, NOW, Account
from tests.pipeline.certificates import membership_review, overlap_review, record
from tests.pipeline.samples import Site, write_jsonl
from tests.pipeline.scored import INDEX, Scored, at, credit_outputs

ANN, BEN = Group("ann"), Group("ben")
REASON = "trial <run>, agreed with all"


@pytest.fixture
def account(ledger: Ledger, tmp_path: Path) -> Account:
    """Credits of January by an index without reviews; certificates are not the matter here."""
    made = Account(ledger, policy={"unvalidated": "of reviews alone"}).start()
    credit_outputs(
        ledger,
        tmp_path / "books",
        [Scored(f"o{n}", at(1, n + 1), {ANN: (2.0, 1.0), BEN: (1.0, 0.0)}) for n in range(3)],
    )
    made.pool(JANUARY, 1000)
    return made


def faces(account: Account, provider: str) -> tuple[str, str]:
    """A statement as a page and in the note beside it, each with its spaces made one."""
    with account.ledger.read() as conn:
        (item,) = [item for item in statements.statements(conn, JANUARY) if item.provider == provider]
    return " ".join(statement_page(item).split()), " ".join(readme_text(item).split())


def refused(account: Account, match: str, **policy: object) -> None:
    with pytest.raises(LedgerError, match=match):
        account.close(JANUARY, **policy)
    with account.ledger.read() as conn:
        assert periods.periods(conn)[0].status == "open"
    assert account.statements() == {}


def test_without_a_review_a_close_is_refused_and_names_index_kind_and_command(account):
    refused(
        account,
        "index abababababababab of tiny, which is no longer in its folder, and nobody reviewed its data for overlap and"
        " membership: credit overlap DATA --register INDEX and credit membership MODEL EARLIER DATA --register INDEX"
        ", or credit close 2026-01 --unreviewed",
    )
    record(account.ledger, overlap_review())
    refused(account, "nobody reviewed its data for membership: credit membership MODEL EARLIER DATA --register")


def test_reviews_let_a_period_close_and_statements_say_what_they_found_and_name_nobody(account):
    made = (overlap_review(), membership_review(1))
    record(account.ledger, *made)
    report = account.close(JANUARY)
    assert [(item.kind, item.review, item.reviewed_on) for item in report.validation.reviews] == [
        (item.kind, item.sha256, "2026-12-20") for item in made
    ]
    told = account.statement(JANUARY, "ann")["validation"]
    assert [item["result"] for item in told["reviews"]] == [
        "2 of 120 records with 80% or more of another provider's text",
        "1 of 3 providers with text that the model hardly learned",
    ]
    assert "ben" not in json.dumps(told).lower()
    page, note = faces(account, "ann")
    for said in ("2 of them had 80% or more in common", "Those of 1 of the 3 providers stand out"):
        assert said in page
        assert said in note
    assert all(item.sha256 in page for item in made)
    assert "The data behind it was reviewed" in page
    assert verify(account.ledger, None).problems == ()


def test_nothing_found_is_said_as_plainly(account):
    record(account.ledger, overlap_review(0), membership_review())
    account.close(JANUARY)
    words = " ".join(account.statement(JANUARY, "ben")["validation"]["words"])
    assert "none of them had 80% or more in common" in words
    assert "It learned from those of all 3 providers: nobody's stand out." in words


def test_a_waiver_puts_its_reason_on_every_statement_and_into_the_ledger(account):
    record(account.ledger, overlap_review())
    account.close(JANUARY, unreviewed=REASON)
    with account.ledger.read() as conn:
        (period,) = periods.periods(conn)
    assert ClosePolicy.from_json(period.close_policy_json or "").unreviewed == REASON
    for provider in ("ann", "ben"):
        told = account.statement(JANUARY, provider)["validation"]
        assert told["unreviewed"] == REASON
        assert [bool(item["review"]) for item in told["reviews"]] == [True, False]
        assert told["words"][-1].startswith("Nobody has looked for signs that the model was trained on")
        page, note = faces(account, provider)
        assert "issued without a review of all the data behind it" in page
        assert "trial &lt;run&gt;, agreed with all" in page
        assert REASON in note


def test_a_waiver_that_is_not_needed_or_not_one_line_is_refused(account):
    record(account.ledger, overlap_review(), membership_review())
    refused(account, "is reviewed; close it without --unreviewed", unreviewed="to be safe")
    with pytest.raises(InvalidRequestError, match="closing unreviewed is one line"):
        ClosePolicy(unreviewed="two\nlines")


def test_one_waiver_does_not_stand_for_the_other(account):
    refused(account, "it was not validated", unvalidated="", unreviewed=REASON)


def test_the_last_review_counts_and_one_of_another_index_does_not(account):
    with account.ledger.write() as conn:
        indexes.register_index(conn, "tiny", "9" * 64, "changed", "{}", now=NOW)
    record(account.ledger, overlap_review(index="9" * 64), membership_review(index="9" * 64))
    refused(account, "index abababababababab .* for overlap and membership")
    record(account.ledger, overlap_review(7), membership_review(), overlap_review(5))
    assert account.close(JANUARY, dry_run=True).validation.reviews[0].result.startswith("5 of 120")


def test_a_period_in_which_nothing_was_credited_needs_no_review(account):
    account.close(JANUARY, unreviewed=REASON)
    account.pool(FEBRUARY, 0)
    account.close(FEBRUARY, unvalidated="")


def test_status_names_the_missing_reviews_and_their_commands(account):
    with account.ledger.read() as conn:
        found = overview(conn, now=NOW)
    assert [item.kind for item in found.missing_reviews] == ["overlap", "membership"]
    assert str(found.missing_reviews[0]).startswith(
        "no review of overlap of the index abababababababab of tiny: credit "
    )
    assert [step.partition(" --")[0] for step in found.next_steps[-3:]] == [
        "credit overlap DATA", "credit membership MODEL EARLIER DATA", "credit close 2026-01",
    ]  # fmt: skip
    record(account.ledger, overlap_review(), membership_review())
    with account.ledger.read() as conn:
        found = overview(conn, now=NOW)
    assert (found.missing_reviews, found.next_steps[-1]) == ((), "credit close 2026-01 --dry-run")


def test_an_approval_of_a_close_covers_its_reviews(account, database_url):
    record(account.ledger, overlap_review(), membership_review())
    require(account.ledger, frozenset({"close"}), now=NOW)
    policy = ClosePolicy(unvalidated="of reviews alone")
    perform(account.ledger, Close(JANUARY, policy), now=NOW)
    with Ledger.open(url_of(database_url, "ben"), actor="ben") as ben:
        assert view(ben, 1, now=NOW).changed == ""
        record(account.ledger, overlap_review(99))
        assert "would do something else now" in view(ben, 1, now=NOW).changed
        perform(account.ledger, Close(JANUARY, policy), now=NOW)
        give(ben, 2, now=NOW)
    assert "99 of 120 records" in account.statement(JANUARY, "ann")["validation"]["reviews"][0]["result"]


def test_a_text_that_is_no_review_is_refused_with_its_reason(account):
    made = overlap_review()
    assert read_review(made.canonical) == made
    assert read_review(membership_review().canonical) == membership_review()
    record(account.ledger, membership_review())
    with account.ledger.write() as conn:
        indexes.register_review(conn, INDEX, "overlap", '{"kind": "overlap"}', now=NOW)
        with pytest.raises(IntegrityError, match="this is no review of this version"):
            with_reviews(conn, JANUARY, Validation(), unreviewed="")


def test_a_review_is_recorded_on_the_data_of_the_index_alone(site: Site, inputs: Path, tmp_path: Path):
    rows = [json.loads(line) for line in (inputs / "train.jsonl").read_text().splitlines()]
    sorted_otherwise = write_jsonl(
        tmp_path / "sorted.jsonl", [*reversed(rows), {"id": "x", "provider": "eve", "text": "a text of somebody else"}]
    )
    changed = write_jsonl(
        tmp_path / "changed.jsonl", [rows[0] | {"provider": "ben", "collection": "default"}, *rows[1:]]
    )
    register = ("--register", inputs / "index")
    for other in (changed, write_jsonl(tmp_path / "fewer.jsonl", rows[1:])):
        said = site.run("overlap", other, *register, code=1).output
        assert "this is not the data that" in said
    assert site.named("review") == []
    first = site.json("overlap", inputs / "train.jsonl", *register)
    # A provider whom the index does not know was left out of it, and is left out here.
    again = site.json("overlap", sorted_otherwise, *register, code=3)
    assert (again["review"], again["index"]) == (first["review"], first["index"])
    (row,) = site.named("review")
    made = read_review(row["body_json"])
    assert (row["sha256"], made.index) == (first["review"], first["index"])
    assert made.findings.records == len(rows)
    said = site.run("overlap", inputs / "train.jsonl", *register).output
    assert f"recorded for the index {made.index[:16]}: overlap review {made.sha256[:16]}" in said
    assert len(site.named("review")) == 1
