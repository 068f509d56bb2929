"""SEPA credit transfers: pain.001.001.09 through sepaxml, checked against sepaxml's own schema.

Addresses are structured, with town and country: the EPC's rulebooks ask for it from November 2026 on. Names keep to the
Latin characters accepted by every bank (EPC217-08). A payout to a name in other letters is unpayable until
`account_holder` gives the bank's spelling: the payee's bank may not know our transliteration.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from xml.etree import ElementTree as ET

from credit.accounting.amounts import format_amount
from credit.errors import InputError, IntegrityError, InvalidRequestError
from credit.payments.bank_accounts import in_sepa, need_sepa, needs_bic
from credit.payments.channels.channel import Channel, Payer, PaymentFile, PaymentLine, safe

SCHEMA = "pain.001.001.09"
CURRENCY = "EUR"

NO_BIC = "NOTPROVIDED"
"""Stands for the payer's bank if nobody gave its BIC (EPC132-08)."""

_NAMESPACE = f"urn:iso:std:iso:20022:tech:xsd:{SCHEMA}"
_LATIN = re.compile(r"[A-Za-z0-9/?:().,'+ -]+")
_LARGEST_MINOR = 99_999_999_999
"""The largest SEPA credit transfer: 999 999 999.99 euros (EPC125-05)."""


def check_payer(payer: Payer) -> Payer:
    """Return the payer with its IBAN without spaces, and with `NO_BIC` for a missing BIC.

    Raises:
        InvalidRequestError: a field is missing or cannot be right.
    """
    from credit.payments.details import checked  # here, for the registry of channels must not load a database

    need_sepa()
    for name, value in asdict(payer).items():
        if not value and name not in {"bic", "execute_on", "written_at"}:
            raise InvalidRequestError(f"a SEPA file needs the payer's {name}: --payer-{name}")
    given = {"legal_name": payer.name, **{name: getattr(payer, name) for name in ("iban", "bic", "town", "country")}}
    try:
        clean = checked(given)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"the payer's {error}".replace("legal_name", "name")) from None
    for name, value in (("name", clean.legal_name), ("town", clean.town)):
        if not _LATIN.fullmatch(value) or len(value) > 70:
            raise InvalidRequestError(f"the payer's {name} must be of at most 70 Latin characters without accents")
    if not in_sepa(clean.iban):
        raise InvalidRequestError(f"the payer's iban is of {clean.iban[:2]}, which takes no part in SEPA")
    try:
        day = date.fromisoformat(payer.execute_on).isoformat() if payer.execute_on else ""
    except ValueError:
        raise InvalidRequestError(f"{payer.execute_on!r} is not a day; write YYYY-MM-DD") from None
    return Payer(clean.legal_name, clean.iban, clean.bic or NO_BIC, clean.town, clean.country, day)


def sepa_payment(line: PaymentLine) -> dict[str, object]:
    """Return a payment in the form of sepaxml, without the day.

    Raises:
        InputError: a field is missing, or unfit for a SEPA file.
    """
    details = line.details
    if not 0 < line.amount_minor <= _LARGEST_MINOR:
        raise InputError(f"{line.provider}: {line.amount} {line.currency} is more than one SEPA transfer carries")
    field = "account_holder" if details.account_holder else "legal_name"
    name = _latin(line, field, details.holder, "account_holder")
    address = {
        "street_name": _latin(line, "street", details.street) if details.street else "",
        "building_number": _latin(line, "building", details.building) if details.building else "",
        "postcode": _latin(line, "postcode", details.postcode) if details.postcode else "",
        "town": _latin(line, "town", details.town),
        "country": safe(line, "country", details.country),
    }
    payment: dict[str, object] = {
        "name": name,
        "IBAN": safe(line, "iban", details.iban),
        "amount": line.amount_minor,
        "description": f"Statement {line.period} {line.reference}",
        "endtoend_id": line.reference,
        "address": address,
    }
    return {**payment, "BIC": details.bic} if details.bic else payment


def check_line(line: PaymentLine) -> None:
    """Raise InputError if a new file cannot hold a payment.

    Banks refuse the whole file for one account in a country outside SEPA, and ask for the BIC of one outside the EEA.
    `sepa_payment` checks neither: the file of an old batch comes out the same, although these areas have changed since.
    """
    sepa_payment(line)
    if not in_sepa(line.details.iban):
        raise InputError(
            f"{line.provider}: iban is of {line.details.iban[:2]}, which takes no part in SEPA; pay it in another file:"
            " --format csv"
        )
    if needs_bic(line.details.iban) and not line.details.bic:
        raise InputError(
            f"{line.provider}: bic is missing, and iban is of {line.details.iban[:2]}, outside the European Economic"
            f" Area: credit providers details {line.provider} --bic ..."
        )


def write_pain001(file: PaymentFile) -> bytes:
    """Return the file of a batch; the same batch gives the same bytes.

    sepaxml draws the message's id, its block's id and the time at random or from the clock. We put those of the batch
    and its payer in their place, and then check the file against the schema.

    Raises:
        InputError: the file cannot hold a payment.
        IntegrityError: the batch names no payer, or the file contradicts the schema or the sums; nobody may pay by it.
    """
    payer, reference = file.payer, file.reference
    if payer is None:
        raise IntegrityError(f"batch {reference} names no payer; run credit verify")
    need_sepa()
    from sepaxml import SepaTransfer
    from sepaxml.validation import ValidationError, try_valid_xml

    config: dict[str, object] = {
        "name": payer.name,
        "IBAN": payer.iban,
        "batch": True,
        "currency": CURRENCY,
        "address": {"town": payer.town, "country": payer.country},
    }
    if payer.bic and payer.bic != NO_BIC:
        config["BIC"] = payer.bic
    # Without `clean`, which would rewrite letters silently: `_latin` refuses them instead.
    transfer = SepaTransfer(config, schema=SCHEMA, clean=False)
    day = date.fromisoformat(payer.execute_on)
    for line in file.lines:
        transfer.add_payment({**sepa_payment(line), "execution_date": day})
    root = ET.fromstring(transfer.export(validate=False))  # noqa: S314 - the library's own output, a line above
    _only(root, "GrpHdr/MsgId").text = reference
    _only(root, "GrpHdr/CreDtTm").text = payer.written_at
    _only(root, "PmtInf/PmtInfId").text = reference
    if payer.bic == NO_BIC:  # sepaxml leaves the element empty; so do the batches that left before, byte for byte
        agent = _only(root, "PmtInf/DbtrAgt/FinInstnId")
        ET.SubElement(ET.SubElement(agent, f"{{{_NAMESPACE}}}Othr"), f"{{{_NAMESPACE}}}Id").text = NO_BIC
    ET.register_namespace("", _NAMESPACE)
    ET.indent(root)
    content: bytes = b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, "utf-8") + b"\n"
    try:
        try_valid_xml(content, SCHEMA)
    except ValidationError as error:
        raise IntegrityError(f"the file of {reference} does not keep to {SCHEMA}: {error.__cause__}") from error
    _check_sums(root, reference, file.lines)
    return content


def _check_sums(root: ET.Element, reference: str, lines: Sequence[PaymentLine]) -> None:
    # Read back from the file: no fault of the library may pay an amount that the ledger does not know.
    total = format_amount(sum(line.amount_minor for line in lines), CURRENCY)
    amounts = [item.text for item in root.iter(f"{{{_NAMESPACE}}}InstdAmt")]
    sums = [item.text for item in root.iter(f"{{{_NAMESPACE}}}CtrlSum")]
    counts = [item.text for item in root.iter(f"{{{_NAMESPACE}}}NbOfTxs")]
    if amounts != [line.amount for line in lines] or set(sums) != {total} or set(counts) != {str(len(lines))}:
        raise IntegrityError(f"the amounts in the file of {reference} are not those of the ledger")


def _only(root: ET.Element, path: str) -> ET.Element:
    full = "/".join(f"{{{_NAMESPACE}}}{name}" for name in ("CstmrCdtTrfInitn", *path.split("/")))
    found = root.findall(full)
    if len(found) != 1:
        raise IntegrityError(f"sepaxml wrote {len(found)} elements {path}; one was expected")
    return found[0]


def _latin(line: PaymentLine, field: str, value: str, remedy: str | None = None) -> str:
    safe(line, field, value, longest=70)
    if not _LATIN.fullmatch(value) or value.startswith("/") or value.endswith("/") or "//" in value:
        raise InputError(
            f"{line.provider}: {field} has characters that SEPA does not carry; say how the bank writes it:"
            f" credit providers details {line.provider} --{(remedy or field).replace('_', '-')} ..."
        )
    return value


CHANNEL = Channel(
    name="pain001",
    help="pain001 is SEPA, in EUR.",
    most_payments=100_000,  # banks set lower limits of their own
    check=check_line,
    write=write_pain001,
    checked_payer=check_payer,
)
