"""Results as banks give them are matched by end-to-end id, amount and date, and what does not match is reported."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from credit.errors import InputError
from credit.ledger import balances
from credit.ledger.database import Ledger
from credit.ledger.payouts import batch_items, batches
from credit.ledger.transactions import transaction, transactions
from credit.ledger.verify import verify
from credit.payments.export import ExportRequest, export_payments
from credit.payments.results import ConfirmReport, confirm_payments
from tests.payments.samples import NOW, SEPTEMBER

LATER = datetime(2026, 11, 2, 9, tzinfo=UTC)
BATCH_TOTAL = "1000123.46"


@pytest.fixture
def reference(owing: Ledger, out: Path) -> str:
    """Reference of a batch with payouts 1 (123.45), 2 (0.01) and 4 (1000000.00)."""
    export_payments(owing, ExportRequest(SEPTEMBER, "csv", out, "EUR"), now=NOW)
    with owing.read() as conn:
        return batches(conn)[0].reference


def camt(*entries: str, version: str = "camt.053.001.08", kind: str = "BkToCstmrStmt", account: str = "Stmt") -> str:
    """A statement in the layout of ISO 20022, with the parts that its users' guides ask for."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:{version}"><{kind}>
<GrpHdr><MsgId>S-1</MsgId><CreDtTm>2026-10-08T06:00:00Z</CreDtTm></GrpHdr>
<{account}><Id>1</Id><Acct><Id><IBAN>DE75512108001245126199</IBAN></Id></Acct>
<Bal><Tp><CdOrPrtry><Cd>CLBD</Cd></CdOrPrtry></Tp><Amt Ccy="EUR">5</Amt><CdtDbtInd>CRDT</CdtDbtInd>
<Dt><Dt>2026-10-08</Dt></Dt></Bal>{"".join(entries)}</{account}></{kind}></Document>"""


def entry(
    amount: str, details: str, *, side: str = "DBIT", status: str = "<Sts><Cd>BOOK</Cd></Sts>", day: str = "2026-10-07",
    bank: str = "B-1", extra: str = "",
) -> str:  # fmt: skip
    return (
        f'<Ntry><Amt Ccy="EUR">{amount}</Amt><CdtDbtInd>{side}</CdtDbtInd>{extra}{status}'
        f"<BookgDt><Dt>2026-10-06</Dt></BookgDt><ValDt><Dt>{day}</Dt></ValDt><AcctSvcrRef>{bank}</AcctSvcrRef>"
        f"<BkTxCd/><NtryDtls>{details}</NtryDtls></Ntry>"
    )


def payment(end_to_end: str, amount: str = "", back: str = "") -> str:
    told = f'<AmtDtls><TxAmt><Amt Ccy="EUR">{amount}</Amt></TxAmt></AmtDtls>' if amount else ""
    returned = f"<RtrInf><Rsn><Cd>{back}</Cd></Rsn></RtrInf>" if back else ""
    return f"<TxDtls><Refs><EndToEndId>{end_to_end}</EndToEndId></Refs>{told}{returned}</TxDtls>"


def confirm(ledger: Ledger, folder: Path, text: str) -> ConfirmReport:
    path = folder / "bank.xml"
    path.write_text(text)
    return confirm_payments(ledger, path, now=LATER)


def outcomes(ledger: Ledger) -> list[str | None]:
    with ledger.read() as conn:
        return [item.outcome for item in batch_items(conn, batches(conn)[0])]


@pytest.mark.parametrize(
    ("version", "kind", "account", "status"),
    [
        ("camt.053.001.02", "BkToCstmrStmt", "Stmt", "<Sts>BOOK</Sts>"),
        ("camt.053.001.08", "BkToCstmrStmt", "Stmt", "<Sts><Cd>BOOK</Cd></Sts>"),
        ("camt.054.001.08", "BkToCstmrDbtCdtNtfctn", "Ntfctn", "<Sts><Cd>BOOK</Cd></Sts>"),
    ],
)
def test_bookings_are_matched_by_end_to_end_id_and_count_on_their_value_date(
    owing, reference, tmp_path, version, kind, account, status
):
    two = payment(f"{reference}-2", "0.01") + payment(f"{reference}-4", "1000000")
    text = camt(
        entry("123.45", payment(f"{reference}-1"), status=status),
        entry("1000000.01", two, status=status, bank="B-2", day="2026-10-08"),
        entry("77.00", payment("SALARY-7"), status=status),
        entry("9.00", payment("NOTPROVIDED"), status=status, side="CRDT"),
        version=version,
        kind=kind,
        account=account,
    )
    assert confirm(owing, tmp_path, text) == ConfirmReport(3, 0, 0, foreign=1)
    with owing.read() as conn:
        paid = [transaction(conn, item.id) for item in transactions(conn) if item.kind == "payment-paid"]
        assert balances.balance(conn, "money:payout:cho_7/exported", "EUR") == 0
    assert [(item.header.effective_on, item.details["reference"]) for item in paid] == [
        ("2026-10-07", "B-1"),
        ("2026-10-08", "B-2"),
        ("2026-10-08", "B-2"),
    ]
    head = verify(owing, None).chain_head
    assert confirm(owing, tmp_path, text) == ConfirmReport(0, 0, 3, foreign=1)
    assert verify(owing, None).chain_head == head
    assert verify(owing, None).problems == ()


def test_what_looks_like_a_payout_and_does_not_match_is_reported_and_the_rest_counts(owing, reference, tmp_path):
    text = camt(
        entry("123.40", payment(f"{reference}-1")),
        entry("0.01", payment(f"{reference}-2"), day="2026-10-01"),
        entry("5.00", payment("CR9-00000000-1")),
        entry("1000000.00", payment(f"{reference}-4")),
        entry("1000000.00", payment(f"{reference}-4"), bank="B-9"),
        entry("0.01", payment(f"{reference}-2"), status="<Sts><Cd>PDNG</Cd></Sts>"),
        entry("123.45", payment(f"{reference}-1").replace("EUR", "USD").replace("</Refs>", (
            '</Refs><AmtDtls><InstdAmt><Amt Ccy="USD">123.45</Amt></InstdAmt></AmtDtls>'
        ))),
    )  # fmt: skip
    report = confirm(owing, tmp_path, text)
    assert (report.paid, report.known, report.foreign) == (1, 0, 0)
    said = [item.partition(": ")[2] for item in report.unmatched]
    assert said == [
        (
            f"entry 1: payout {reference}-1 left with 123.45 EUR, not 123.40; ask the bank for the difference;"
            " if banks kept it as a fee, a column fee says so"
        ),
        "entry 2: the value date 2026-10-01 is not between 2026-10-05, when it left, and 2026-11-02",
        "entry 3: there is no payout 'CR9-00000000-1' in any batch of this ledger",
        f"entry 5: payout {reference}-4 is recorded with another reference, B-1: ask the bank if it was paid twice",
        f"entry 7: payout {reference}-1 left in EUR, not in USD",
    ]
    assert outcomes(owing) == [None, None, "paid"]
    assert verify(owing, None).problems == ()


def test_a_debit_of_a_whole_batch_pays_what_was_not_refused(owing, reference, tmp_path):
    def debit(amount: str) -> str:
        return camt(entry(amount, f"<Btch><PmtInfId>{reference}</PmtInfId><NbOfTxs>2</NbOfTxs></Btch>"))

    refused = status(
        f"<TxInfAndSts><OrgnlEndToEndId>{reference}-1</OrgnlEndToEndId><TxSts>RJCT</TxSts>{AC04}</TxInfAndSts>"
    )
    assert confirm(owing, tmp_path, refused) == ConfirmReport(0, 1, 0)
    (said,) = confirm(owing, tmp_path, debit(BATCH_TOTAL)).unmatched
    assert f"1000123.46 EUR is not the 1000000.01 EUR of the payouts in {reference} without refused ones" in said
    assert confirm(owing, tmp_path, debit("1000000.010")) == ConfirmReport(2, 0, 0)
    assert outcomes(owing) == ["failed", "paid", "paid"]
    back = camt(entry("0.01", payment(f"{reference}-2", back="AC04"), side="CRDT", bank="R-1", day="2026-10-20"))
    assert confirm(owing, tmp_path, back) == ConfirmReport(0, 0, 0, returned=1)
    assert confirm(owing, tmp_path, debit("1000000.01")) == ConfirmReport(0, 0, 2), "read again, after one came back"
    assert verify(owing, None).problems == ()


AC04 = "<StsRsnInf><Rsn><Cd>AC04</Cd></Rsn><AddtlInf>ADA LEGAL, DE02120300000000202051</AddtlInf></StsRsnInf>"


def status(payments: str, block: str = "", group: str = "", batch: str = "") -> str:
    """A report of pain.002.001.10."""
    return f"""<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.002.001.10"><CstmrPmtStsRpt>
<GrpHdr><MsgId>P-1</MsgId><CreDtTm>2026-10-06T06:00:00Z</CreDtTm></GrpHdr>
<OrgnlGrpInfAndSts><OrgnlMsgId>{batch}</OrgnlMsgId><OrgnlMsgNmId>pain.001.001.09</OrgnlMsgNmId>{group}</OrgnlGrpInfAndSts>
<OrgnlPmtInfAndSts><OrgnlPmtInfId>{batch}</OrgnlPmtInfId>{block}{payments}</OrgnlPmtInfAndSts>
</CstmrPmtStsRpt></Document>"""


def test_a_status_report_settles_and_refuses_payments_blocks_and_files(owing, reference, tmp_path):
    one = "<TxInfAndSts><OrgnlEndToEndId>{}</OrgnlEndToEndId><TxSts>{}</TxSts>{}</TxInfAndSts>".format
    text = status(
        one(f"{reference}-1", "RJCT", AC04)
        + one(f"{reference}-2", "ACSC", "<AccptncDtTm>2026-10-07T10:00:00Z</AccptncDtTm>")
        + one(f"{reference}-4", "ACSP", "")
    )
    assert confirm(owing, tmp_path, text) == ConfirmReport(1, 1, 0)
    with owing.read() as conn:
        (failed,) = [transaction(conn, item.id) for item in transactions(conn) if item.kind == "payment-failed"]
        (paid,) = [item for item in transactions(conn) if item.kind == "payment-paid"]
    assert failed.details["reason"] == "AC04: the account is closed", "the bank's own words name people"
    assert paid.effective_on == "2026-10-07"
    for level in ({"block": f"<PmtInfSts>RJCT</PmtInfSts>{AC04}"}, {"group": f"<GrpSts>RJCT</GrpSts>{AC04}"}):
        report = confirm(owing, tmp_path, status("", batch=reference, **level))
        assert report.unmatched == ()
    assert outcomes(owing) == ["failed", "paid", "failed"]
    assert verify(owing, None).problems == ()


def test_paid_and_returned_in_one_file_are_two_results(owing, reference, tmp_path):
    text = camt(
        entry("123.45", payment(f"{reference}-1")),
        entry("123.45", payment(f"{reference}-1", back="MD07"), side="CRDT", bank="R-1", day="2026-10-09"),
    )
    assert confirm(owing, tmp_path, text) == ConfirmReport(1, 0, 0, returned=1)
    assert confirm(owing, tmp_path, text) == ConfirmReport(0, 0, 2)
    assert outcomes(owing) == ["returned", None, None]
    assert verify(owing, None).problems == ()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("<Document><x></Document>", "is not XML"),
        ("<a/>", "is neither pain.002, camt.053 nor camt.054, but a"),
        (camt().replace("BkToCstmrStmt", "BkToCstmrAcctRpt"), "but BkToCstmrAcctRpt; camt.052 has no final bookings"),
        (
            '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]><d>&b;</d>',
            "a document type .DOCTYPE., which no file of a bank has",
        ),
        ('<!DOCTYPE d SYSTEM "file:///etc/passwd"><d/>', "a document type"),
    ],
)
def test_other_files_are_refused(owing, tmp_path, text, match):
    with pytest.raises(InputError, match=match):
        confirm(owing, tmp_path, text)


def test_a_file_in_another_encoding_is_read(owing, reference, tmp_path):
    text = camt(entry("123.45", payment(f"{reference}-1"))).replace("UTF-8", "UTF-16")
    (tmp_path / "bank.xml").write_bytes(text.encode("utf-16"))
    assert confirm_payments(owing, tmp_path / "bank.xml", now=LATER).paid == 1
