"""Payment files keep to what the services document, and to the ledger's sums."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.errors import InputError
from credit.ledger.personal_data import Details
from credit.payments.channels import CHANNELS
from credit.payments.channels.channel import Payer, PaymentFile, PaymentLine, safe
from credit.payments.channels.sepa import NO_BIC, check_payer
from credit.records import PaymentFormat
from tests.payments.samples import PAYER, SEPTEMBER, details_of

NS = "{urn:iso:std:iso:20022:tech:xsd:pain.001.001.09}"


def line(number: int = 1, key: str = "ada", amount: int = 12_345, **details: str) -> PaymentLine:
    known = Details(**{**details_of(key), **details})  # type: ignore[arg-type]  # test data
    return PaymentLine(f"CR1-0a1b2c3d-{number}", key, SEPTEMBER, "EUR", amount, known)


def write(channel: PaymentFormat, *lines: PaymentLine, payer: Payer = PAYER) -> bytes:
    return CHANNELS[channel].write(PaymentFile("CR1-0a1b2c3d", replace(payer, written_at="2026-10-05T12:30:00"), lines))


@pytest.mark.parametrize("iban", ["CH9300762011623852957", "GB29NWBK60161331926819"])
def test_an_account_in_sepa_but_outside_the_eea_needs_its_bic(iban):
    with pytest.raises(InputError, match=rf"ada: bic is missing, and iban is of {iban[:2]}, outside the European"):
        CHANNELS["pain001"].check(line(iban=iban, bic=""))
    CHANNELS["pain001"].check(line(iban=iban, bic="POFICHBEXXX"))
    CHANNELS["pain001"].check(line(bic=""))


def test_every_channel_that_a_ledger_knows_is_registered():
    assert list(CHANNELS) == [channel.name for channel in CHANNELS.values()]
    assert set(CHANNELS) == set(get_args(PaymentFormat))


def test_the_paypal_file_is_the_documented_one():
    assert write("paypal", line()) == (b"pay.ada@example.org,123.45,EUR,CR1-0a1b2c3d-1,Statement 2026-09,PAYPAL\r\n")


def test_paypal_gets_whole_units_where_it_takes_no_others():
    """PayPal refuses a file with decimals of these, which ISO 4217 knows."""
    for currency, amount, shown in (("HUF", 33_300, "333"), ("TWD", 1_000_000, "10000"), ("JPY", 333, "333")):
        paid = replace(line(amount=amount), currency=currency)
        assert write("paypal", paid).split(b",")[1:3] == [shown.encode(), currency.encode()]
    for currency in ("HUF", "TWD"):
        with pytest.raises(InputError, match=f"ada: PayPal carries whole {currency} alone, and 333.34 is not; .* csv"):
            CHANNELS["paypal"].check(replace(line(amount=33_334), currency=currency))


def test_the_wise_file_is_the_documented_one():
    assert write("wise", line(receiver="institution")).decode().splitlines() == [
        "name,recipientEmail,paymentReference,receiverType,amountCurrency,amount,sourceCurrency,targetCurrency,IBAN",
        "Ada Legal,ada@example.org,CR1-0a1b2c3d-1,INSTITUTION,target,123.45,EUR,EUR,DE02120300000000202051",
    ]


@pytest.mark.parametrize(
    "value", ["=1+1", " @SUM(A1)", "'=1", "+49", "-5", "a\tb", "a\nb", "x\u202ey", "\ufeffx", "", "y" * 141]
)
def test_an_unsafe_cell_is_refused_and_not_shown(value):
    with pytest.raises(InputError) as caught:
        safe(line(), "legal_name", value)
    assert str(caught.value).startswith("ada: legal_name ")
    assert not value.strip() or value not in str(caught.value)


@given(st.text())
def test_a_cell_is_written_as_it_is_or_not_at_all(value):
    try:
        assert safe(line(), "legal_name", value) == value
    except InputError:
        return
    assert not re.match(r"[\s']*[=+\-@]", value)


def xml(lines: list[PaymentLine]) -> ET.Element:
    return ET.fromstring(write("pain001", *lines))


def texts(root: ET.Element, name: str) -> list[str | None]:
    return [item.text for item in root.iter(NS + name)]


def test_the_payers_bank_is_named_or_said_not_to_be():
    """The EPC's guidelines want one of the two in the place of the debtor's agent, never an empty element."""
    for payer, bic, other in (
        (check_payer(PAYER), [], [NO_BIC]),
        (check_payer(replace(PAYER, bic="SOLADEST600")), ["SOLADEST600"], []),
    ):
        root = ET.fromstring(write("pain001", line(), payer=payer))
        (agent,) = root.iter(f"{NS}DbtrAgt")
        assert [item.text for item in agent.iter(f"{NS}BICFI")] == bic
        assert [item.text for item in agent.findall(f"{NS}FinInstnId/{NS}Othr/{NS}Id")] == other


def test_a_batch_that_left_with_an_empty_element_is_written_again_as_it_left():
    (agent,) = xml([line()]).iter(f"{NS}DbtrAgt")
    assert [len(item) for item in agent] == [0]


def test_a_sepa_file_has_the_amounts_sums_and_addresses():
    root = xml([line(), line(2, "bell", 1, bic="PSSTFRPPXXX")])
    assert texts(root, "InstdAmt") == ["123.45", "0.01"]
    assert texts(root, "CtrlSum") == ["123.46", "123.46"]
    assert texts(root, "NbOfTxs") == ["2", "2"]
    assert texts(root, "EndToEndId") == ["CR1-0a1b2c3d-1", "CR1-0a1b2c3d-2"]
    assert texts(root, "IBAN") == [PAYER.iban, "DE02120300000000202051", "FR1420041010050500013M02606"]
    assert texts(root, "TwnNm") == texts(root, "TwnNm")[:1] * 3 == ["Berlin"] * 3
    assert texts(root, "Ctry") == ["DE"] * 3
    assert texts(root, "AdrLine") == []
    assert texts(root, "MsgId") == texts(root, "PmtInfId") == ["CR1-0a1b2c3d"]
    assert texts(root, "CreDtTm") == ["2026-10-05T12:30:00"]


def test_a_sepa_file_of_the_same_batch_has_the_same_bytes():
    one, two = (write("pain001", line()) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("details", "match"),
    [
        ({"legal_name": "Zoë Ångström"}, "--account-holder"),
        ({"legal_name": "N" * 71}, "more than 70"),
        ({"town": ""}, "town is missing"),
        ({"country": ""}, "country is missing"),
        ({"iban": ""}, "iban is missing"),
        ({"street": "Straße"}, "--street"),
    ],
)
def test_what_sepa_does_not_carry_is_refused(details, match):
    with pytest.raises(InputError, match=match):
        xml([line(**details)])


def test_the_name_that_the_bank_has_is_the_one_that_is_paid_to():
    root = xml([line(legal_name="Zoë Ångström", account_holder="Zoe Angstroem")])
    assert "Zoe Angstroem" in texts(root, "Nm")


def test_more_than_a_transfer_carries_is_refused():
    with pytest.raises(InputError, match="more than one SEPA transfer carries"):
        xml([replace(line(), amount_minor=10**11)])
