"""Results of payments as banks give them: pain.002, camt.053 and camt.054 (ISO 20022), in any of their versions.

| file | says | taken from it |
|---|---|---|
| pain.002 | what the bank did with a payment file | settled is paid, rejected is failed: payments, blocks, the file |
| camt.053, camt.054 | what was booked on the payer's account | a debit is paid, a credit with a reason is returned |

A booking names a payment by its end-to-end id, or a whole batch by the id of its block: some banks book a file as one
debit. Statuses before the last one, such as accepted, and bookings that are still pending, say nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from credit.errors import InputError
from credit.ledger.payouts import Outcome

MOST_BYTES = 128 * 2**20
"""Largest file that is read; its tree takes some ten times as much memory."""

REASONS: Mapping[str, str] = {
    "AC01": "the account number is wrong",
    "AC03": "the account number is wrong",
    "AC04": "the account is closed",
    "AC06": "the account is blocked",
    "AG01": "the account takes no such payments",
    "AG02": "the bank takes no such payments",
    "AM04": "the payer's account lacks the money",
    "AM05": "it was sent before",
    "BE04": "the payee's address is missing",
    "CNOR": "the payee's bank is not registered",
    "DUPL": "it was sent before",
    "FOCR": "the payer asked for it back",
    "FF01": "the file is wrong",
    "MD07": "the account holder has died",
    "MS02": "the payee gave no reason",
    "MS03": "the bank gave no reason",
    "RC01": "the BIC is wrong",
    "RR01": "the payer's account or id is missing",
    "RR02": "the payer's name or address is missing",
    "RR03": "the payee's name or address is missing",
    "RR04": "a rule of the authorities",
    "TM01": "it came after the closing hour",
}
"""Reason codes of ISO 20022 that banks give for credit transfers, in words."""

_PAID = frozenset({"ACSC", "ACCC"})
"""Statuses of a settled payment: on the payer's account, or on the payee's too."""


@dataclass(frozen=True, slots=True)
class BankEntry:
    """A result in a bank's file: of the payment `end_to_end`, or where that is empty, of all payments of `block`.

    `amount` is the bank's decimal text, with `currency`; both empty where it gives none. `value_date` is YYYY-MM-DD
    or empty.
    """

    place: str
    outcome: Outcome
    end_to_end: str = ""
    block: str = ""
    amount: str = ""
    currency: str = ""
    value_date: str = ""
    reference: str = ""
    reason: str = ""


class _Tree(ET.TreeBuilder):
    """A tree without a document type: none of these files has one, and one can grow beyond any memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise InputError("it has a document type (DOCTYPE), which no file of a bank has")


def is_xml(path: Path) -> bool:
    """Return True if a file starts as XML does."""
    with path.open("rb") as file:
        start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    return start.startswith((b"<", b"\xff\xfe<", b"\xfe\xff\x00<"))


def read_bank_file(path: Path) -> list[BankEntry]:
    """Return the results in a file, in its order.

    Raises:
        InputError: it is too large, no XML, or none of the messages.
    """
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} is larger than {MOST_BYTES // 2**20} MiB; ask the bank for shorter times")
    try:
        root = ET.fromstring(path.read_bytes(), ET.XMLParser(target=_Tree()))  # noqa: S314 - `_Tree` takes no DOCTYPE
    except ET.ParseError as error:
        raise InputError(f"{path} is not XML: {error}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    message = _name(root[0]) if len(root) else ""
    if message == "CstmrPmtStsRpt":
        return list(_statuses(root[0], str(path)))
    if message in {"BkToCstmrStmt", "BkToCstmrDbtCdtNtfctn"}:
        return list(_bookings(root[0], str(path)))
    raise InputError(
        f"{path} is neither pain.002, camt.053 nor camt.054, but {message or _name(root)}; camt.052 has no final"
        " bookings"
    )


def _statuses(report: ET.Element, path: str) -> Iterator[BankEntry]:
    """Yield the results of pain.002: payments, then their block and the file, whose status the others have."""
    for number, block in enumerate(_all(report, "OrgnlPmtInfAndSts"), start=1):
        for count, one in enumerate(_all(block, "TxInfAndSts"), start=1):
            place = f"{path}: block {number}, payment {count}"
            yield from _status(one, place, _text(one, "TxSts"), end_to_end=_text(one, "OrgnlEndToEndId"))
        named = _text(block, "OrgnlPmtInfId")
        yield from _status(block, f"{path}: block {number}", _text(block, "PmtInfSts"), block=named)
    group = _find(report, "OrgnlGrpInfAndSts")
    if group is not None:
        yield from _status(group, f"{path}: the whole file", _text(group, "GrpSts"), block=_text(group, "OrgnlMsgId"))


def _status(said: ET.Element, place: str, status: str, *, end_to_end: str = "", block: str = "") -> Iterator[BankEntry]:
    amount = _find(said, "OrgnlTxRef", "Amt", "InstdAmt")
    outcome: Outcome
    if status in _PAID:
        outcome, reason = "paid", ""
    elif status == "RJCT":
        outcome, reason = "failed", _reason(_text(said, "StsRsnInf", "Rsn", "Cd"))
    else:
        return
    yield BankEntry(
        place,
        outcome,
        end_to_end,
        block,
        *_amount(amount),
        value_date=(_date(said, "FctvIntrBkSttlmDt") or _date(said, "AccptncDtTm")) if outcome == "paid" else "",
        reason=reason,
    )


def _bookings(message: ET.Element, path: str) -> Iterator[BankEntry]:
    """Yield the results of camt.053 and camt.054: booked entries, each with its transactions or a whole batch."""
    entries = [entry for account in message for entry in _all(account, "Ntry")]
    for number, entry in enumerate(entries, start=1):
        # Version 8 and later put the code one level deeper.
        status = _text(entry, "Sts", "Cd") or _text(entry, "Sts")
        if status != "BOOK":
            continue
        place = f"{path}: entry {number}"
        single = [one for details in _all(entry, "NtryDtls") for one in _all(details, "TxDtls")]
        named = [
            booked
            for count, one in enumerate(single, start=1)
            for booked in _booking(
                entry, one, place if len(single) == 1 else f"{place}, transaction {count}", alone=len(single) == 1
            )
        ]
        yield from named
        block = _text(entry, "NtryDtls", "Btch", "PmtInfId") or _text(entry, "NtryDtls", "Btch", "MsgId")
        if not named and block and _text(entry, "CdtDbtInd") == "DBIT":
            yield BankEntry(
                place,
                "paid",
                "",
                block,
                *_amount(_find(entry, "Amt")),
                _date(entry, "ValDt") or _date(entry, "BookgDt"),
                _text(entry, "AcctSvcrRef"),
            )


def _booking(entry: ET.Element, one: ET.Element, place: str, *, alone: bool) -> Iterator[BankEntry]:
    named = _text(one, "Refs", "EndToEndId")
    if not named or named == "NOTPROVIDED":
        return
    side = _text(one, "CdtDbtInd") or _text(entry, "CdtDbtInd")
    reason = _text(one, "RtrInf", "Rsn", "Cd")
    # A debit that the bank took back (a reversal) is a credit without a reason.
    is_back = side == "CRDT" and (bool(reason) or _text(entry, "RvslInd") in {"true", "1"})
    if side != "DBIT" and not is_back:
        return
    # The instructed amount is what was ordered; fees of banks on the way stand in the others.
    found = (_find(one, "AmtDtls", "InstdAmt", "Amt"), _find(one, "AmtDtls", "TxAmt", "Amt"), _find(one, "Amt"))
    amount = next((item for item in found if item is not None), _find(entry, "Amt") if alone else None)
    yield BankEntry(
        place,
        "returned" if is_back else "paid",
        named,
        "",
        *_amount(amount),
        _date(entry, "ValDt") or _date(entry, "BookgDt"),
        _text(one, "Refs", "AcctSvcrRef") or _text(entry, "AcctSvcrRef"),
        _reason(reason) if is_back else "",
    )


def _reason(code: str) -> str:
    """Return a reason code with its words; texts of banks stay out, for they name people."""
    if not code.isalnum():
        return "the bank gave no reason code"
    return f"{code}: {REASONS[code]}" if code in REASONS else code


def _amount(found: ET.Element | None) -> tuple[str, str]:
    """Return an amount and its currency; nothing where the bank gives none."""
    return ("", "") if found is None else ((found.text or "").strip(), found.get("Ccy", ""))


def _date(said: ET.Element, name: str) -> str:
    return (_text(said, name, "Dt") or _text(said, name, "DtTm") or _text(said, name))[:10]


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _all(element: ET.Element, name: str) -> Iterator[ET.Element]:
    return (child for child in element if _name(child) == name)


def _find(element: ET.Element, *path: str) -> ET.Element | None:
    """Return the first element at a path, whatever the namespace: it tells the version."""
    for name in path:
        found = next(_all(element, name), None)
        if found is None:
            return None
        element = found
    return element


def _text(element: ET.Element, *path: str) -> str:
    found = _find(element, *path)
    return "" if found is None else (found.text or "").strip()
