"""IBANs and BICs, checked by schwifty (the extra `sepa`)."""

from __future__ import annotations

import importlib.util

from credit.errors import InvalidRequestError

_CODES = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK"
_EEA = frozenset(_CODES.split())
"""Countries within which a SEPA transfer needs the IBAN alone (Regulation (EU) 260/2012)."""


def checked_iban(value: str) -> str:
    """Return an IBAN without spaces; InvalidRequestError if it is not valid, without repeating it."""
    need_sepa()
    from schwifty import IBAN
    from schwifty.exceptions import SchwiftyException

    try:
        return str(IBAN(value, validate_bban=True))
    except SchwiftyException:
        raise InvalidRequestError(
            "iban is not a valid IBAN: its length, characters or check digits are wrong"
        ) from None


def checked_bic(value: str) -> str:
    """Return a BIC without spaces; InvalidRequestError if it is not valid, without repeating it."""
    need_sepa()
    from schwifty import BIC
    from schwifty.exceptions import SchwiftyException

    try:
        return str(BIC(value))
    except SchwiftyException:
        raise InvalidRequestError("bic is not a valid BIC of 8 or 11 characters") from None


def in_sepa(iban: str) -> bool:
    """Return True if the country of a valid IBAN takes part in SEPA."""
    need_sepa()
    from schwifty import IBAN

    return bool(IBAN(iban).in_sepa_zone)


def needs_bic(iban: str) -> bool:
    """Return True for an IBAN of a country outside the European Economic Area: banks ask for the BIC beside it."""
    return iban[:2] not in _EEA


def need_sepa() -> None:
    """Raise InvalidRequestError with the remedy if the extra `sepa` is not installed."""
    if importlib.util.find_spec("schwifty") is None or importlib.util.find_spec("sepaxml") is None:
        raise InvalidRequestError('IBANs and SEPA files need an extra: pip install "credit[sepa]"')
