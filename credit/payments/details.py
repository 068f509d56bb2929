"""Personal details of payees, checked on their way into the ledger and masked on their way to a screen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from credit.accounting.amounts import money_text
from credit.errors import CreditError, InputError, InvalidRequestError, LedgerError, LockHeldError
from credit.ingest.files import read_csv
from credit.ledger.database import Ledger
from credit.ledger.payouts import unpaid_payouts
from credit.ledger.personal_data import Details, current_details, erase_details, set_details
from credit.ledger.rules import ERASABLE
from credit.payments.bank_accounts import checked_bic, checked_iban
from credit.records import Quarantined
from credit.text import printable

FIELDS = tuple(item.name for item in fields(Details))
"""The fields of a provider's details; options, columns and `Details` use the same names."""

_LONGEST = {"country": 2, "postcode": 16, "building": 16, "town": 35, "street": 70, "tax_id": 35}
"""Most characters of a field, as in ISO 20022 (pain.001.001.09); 140 for any other field."""

_EMAIL = re.compile(r"[A-Za-z0-9!#$%&'*/?^_`{|}~][A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_CODES = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO
FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE
JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO
MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW
PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM
TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW
"""
COUNTRIES = frozenset(_CODES.split())
"""The codes of ISO 3166-1 (alpha-2), and XK, under which banks know Kosovo."""
_OPEN = frozenset({"receiver", "country", "town"})


def checked(values: Mapping[str, str], base: Details | None = None) -> Details:
    """Return details with the given fields changed; an empty text leaves a field out.

    Raises:
        InvalidRequestError: a value cannot be right. The message names the field; personal data stays out of logs.
    """
    clean = {name: _checked(name, value.strip()) for name, value in values.items()}
    return replace(base or Details(), **clean)  # type: ignore[arg-type]  # `receiver` was checked to be one of three


def set_provider_details(ledger: Ledger, provider: str, values: Mapping[str, str], *, now: datetime) -> Details:
    """Change some of a provider's details, and return all of them.

    Raises:
        InvalidRequestError: a value cannot be right.
        LedgerError: the provider is unknown or the house.
    """
    with ledger.write() as conn:
        return change_details(conn, provider, values, now=now)


def change_details(conn: Connection, provider: str, values: Mapping[str, str], *, now: datetime) -> Details:
    """Change details as `set_provider_details` does, in the transaction of `Ledger.write`."""
    current = current_details(conn, provider)
    details = checked(values, current[1] if current else None)
    set_details(conn, provider, details, now=now)
    return details


def import_details(ledger: Ledger, path: Path, *, now: datetime) -> int:
    """Set the details of many providers from a CSV file with a column `provider`; all of them or none.

    A bad row stops the import. It is not quarantined like other input, because nobody would erase that copy.

    Raises:
        InputError: a row is bad; the message names the row and the field, never the value.
    """
    count = 0
    with ledger.write() as conn:
        for row in read_csv(path, required=("provider",)):
            if isinstance(row, Quarantined):
                raise InputError(f"{row.place}: {row.error}; nothing was imported")
            record = {name: str(value) for name, value in row.record.items()}
            unknown = sorted(record.keys() - {"provider", *FIELDS})
            if unknown:
                raise InputError(f"{path}: there is no field {unknown[0]!r}; fields are {', '.join(FIELDS)}")
            try:
                change_details(conn, record.pop("provider", ""), record, now=now)
            except CreditError as error:
                raise InputError(f"{row.place}: {error}; nothing was imported") from error
            count += 1
    return count


def erase_provider_details(
    ledger: Ledger, provider: str, *, reason: str, leave_unpaid: bool = False, now: datetime
) -> int:
    """Erase a provider's personal details, also from the database's files; return the number of versions.

    After a kill, the same call again finishes the cleaning of the files.

    Raises:
        LedgerError: as `credit.ledger.personal_data.erase_details`; or the files cannot be cleaned. Also without
            `leave_unpaid`, if a payout has not left: without details it cannot.
        LockHeldError: another run writes, and nothing was done; or the details are erased, but another session keeps
            their bytes in the files. The message says which; the same command resumes from there.
    """
    with ledger.write() as conn:
        count = erase_details(conn, provider, reason=reason, now=now)
        waiting = unpaid_payouts(conn, provider)
        if count and waiting and not leave_unpaid:
            amounts = ", ".join(f"{money_text(item.amount_minor, item.currency)} of {item.period}" for item in waiting)
            raise LedgerError(
                f"{provider} has not been paid {amounts}; pay it first: credit pay export. Or erase all the same, and"
                " the money waits for new details: --leave-unpaid"
            )
    try:
        ledger.scrub(*ERASABLE)
    except (LedgerError, LockHeldError) as error:
        fault = (
            f"the details of {provider} are erased from the ledger, but bytes of them may remain in its files: {error}"
        )
        raise type(error)(fault) from error
    return count


def masked(details: Details) -> dict[str, str]:
    """Return the known fields, each cut to a hint for its owner."""
    known = {name: getattr(details, name) for name in FIELDS if getattr(details, name)}
    return {name: value if name in _OPEN else mask(value) for name, value in known.items()}


def mask(secret: str) -> str:
    """Return the first and last two characters of a text of more than eight; of a shorter one, nothing."""
    return f"{secret[:2]}…{secret[-2:]}" if len(secret) > 8 else "…"


def _checked(name: str, value: str) -> str:
    if not value:
        return ""
    if printable(value) != value:
        raise InvalidRequestError(f"{name} holds a control character")
    if name == "iban":
        # schwifty takes the spaces off, and knows the check digits of each country.
        return checked_iban(value)
    if name == "bic":
        return checked_bic(value)
    if name == "country":
        value = value.upper()
        if value not in COUNTRIES:
            raise InvalidRequestError("country is not an ISO 3166 code of two letters, such as DE")
    if name == "receiver" and value not in {"person", "institution"}:
        raise InvalidRequestError("receiver must be person or institution")
    if name in {"email", "paypal"} and not _EMAIL.fullmatch(value):
        raise InvalidRequestError(f"{name} is not an email address")
    if len(value) > _LONGEST.get(name, 140):
        raise InvalidRequestError(f"{name} has more than {_LONGEST.get(name, 140)} characters")
    return value
