"""A real SIGKILL at every step of an export, and then the same command again: nobody is paid twice or forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from credit.ledger.database import Ledger
from credit.ledger.payee_accounts import HOLDING, acceptances
from credit.ledger.payouts import batches
from credit.ledger.verify import verify
from credit.payments import details
from credit.payments.export import ExportRequest, export_payments
from credit.payments.results import confirm_payments
from tests.kills import die_after, die_at_commit_of, die_at_file, die_before, killed
from tests.payments.samples import IBANS, NOW, SEPTEMBER


def exporter(url: str, out: Path, point: str, request: ExportRequest | None = None) -> None:
    """Export, and die at a point of it."""
    if point == "before the batch":
        die_before("payout_batch")
    elif point == "before the commit":
        die_at_commit_of("payout_batch")
    elif point == "before the file":
        die_at_file("begun", out)
    elif point == "before its name":
        die_at_file("name", out)
    elif point == "after the acceptances":
        die_after("red_flag_acceptance")
    else:
        die_at_file("done", out)
    with Ledger.open(url) as ledger:
        export_payments(ledger, request or ExportRequest(SEPTEMBER, "csv", out, "EUR"), now=NOW)


def confirmer(url: str, path: Path) -> None:
    die_at_commit_of("payout_event")
    with Ledger.open(url) as ledger:
        confirm_payments(ledger, path, now=NOW)


def eraser(url: str) -> None:
    die_at_commit_of("provider_pii", verb="DELETE FROM")
    with Ledger.open(url) as ledger:
        details.erase_provider_details(ledger, "ada", reason="asked to", leave_unpaid=True, now=NOW)


@pytest.mark.parametrize(
    "point", ["before the batch", "before the commit", "before the file", "before its name", "at the end"]
)
def test_a_killed_export_is_finished_by_the_next(owing, database_url, out, point):
    killed(exporter, database_url, out, point)
    was_there = out.read_bytes() if out.exists() else None
    export_payments(owing, ExportRequest(SEPTEMBER, "csv", out, "EUR"), now=NOW)
    assert out.read_bytes().count(b"\r\n") == 4
    assert was_there in {None, out.read_bytes()}
    with owing.read() as conn:
        (only,) = batches(conn)
    assert only.payout_count == 3
    assert verify(owing, None).problems == ()


@pytest.mark.parametrize("point", ["after the acceptances", "before the file"])
def test_an_acceptance_is_kept_with_its_batch_or_not_at_all(owing, database_url, out, point):
    details.set_provider_details(owing, "ada", {"iban": IBANS["bell"]}, now=NOW)
    accept = tuple((key, "Eve Sommer: one estate, and I called them") for key in ("ada", "bell"))
    request = ExportRequest(SEPTEMBER, "csv", out, "EUR", accept=accept)
    killed(exporter, database_url, out, point, request)
    with owing.read() as conn:
        assert bool(acceptances(conn)) == bool(batches(conn)) == (point == "before the file")
    export_payments(owing, request, now=NOW)
    assert out.read_bytes().count(b"\r\n") == 4
    with owing.read() as conn:
        holding = [item for item in acceptances(conn) if item.sign in HOLDING]
        assert [(item.provider, item.sign) for item in holding] == [
            ("ada", "shared-account"),
            ("ada", "changed-account"),
            ("bell", "shared-account"),
        ]
        assert len(batches(conn)) == 1
    assert verify(owing, None).problems == ()


def test_a_killed_confirmation_leaves_nothing_and_is_finished_by_the_next(owing, database_url, out, tmp_path):
    export_payments(owing, ExportRequest(SEPTEMBER, "csv", out, "EUR"), now=NOW)
    head = verify(owing, None).chain_head
    references = [line.split(",")[0] for line in out.read_text().splitlines()[1:]]
    reported = tmp_path / "results.csv"
    reported.write_text("\n".join(["payout_id,status", *(f"{item},paid" for item in references)]))
    killed(confirmer, database_url, reported)
    assert verify(owing, None, heads=[head]).chain_head == head
    assert confirm_payments(owing, reported, now=NOW).paid == 3


def test_a_killed_erasure_leaves_all_or_is_finished_by_the_next(owing, database_url):
    killed(eraser, database_url)
    assert details.erase_provider_details(owing, "ada", reason="asked to", leave_unpaid=True, now=NOW) == 1
    assert verify(owing, None).problems == ()
