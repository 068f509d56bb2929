"""A contract's file is read exactly, or refused with the version and the field."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from pathlib import Path

import pytest

from credit.errors import InputError
from credit.pipeline.contracts import FIELDS, ContractTerms, read_contract
from credit.records import Terms

WHOLE = """
provider = "ann"
agreement = "A-17"

[[terms]]
currency = "EUR"
from = 2027-01-01
to = 2027-12-31
rate = "70%"
minimum_payout = "50.00"
reserve = "10%"
release_after = 3
recoupment = "50%"
withholding = "15%"
fee = "1.50"
channel = "pain001"

[[terms]]
currency = "USD"
from = 2027-01-01
pay_in = "EUR"
agreement = "A-18"
"""


def read(folder: Path, text: str) -> list[ContractTerms]:
    path = folder / "ann.toml"
    path.write_text(text)
    return read_contract(path)


def test_a_contract_has_every_field_of_the_terms_and_defaults_for_the_rest(tmp_path):
    euros, dollars = read(tmp_path, WHOLE)
    assert Terms(**euros.changes) == Terms(
        rate_ppm=700_000,
        minimum_payout_minor=5_000,
        reserve_ppm=100_000,
        reserve_release_periods=3,
        recoupment_ppm=500_000,
        withholding_ppm=150_000,
        fee_minor=150,
        agreement_reference="A-17",
        channel="pain001",
    )
    assert (euros.currency, euros.valid_from, euros.valid_to) == ("EUR", date(2027, 1, 1), date(2027, 12, 31))
    assert Terms(**dollars.changes) == Terms(pay_in="EUR", agreement_reference="A-18")
    assert (dollars.provider, dollars.valid_to) == ("ann", None)
    assert dollars.changes.keys() == asdict(Terms()).keys()


def test_the_page_shows_a_contract_with_every_field(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    shown = page.partition("```toml\n")[2].partition("```")[0]
    assert len(read(tmp_path, shown)) == 2
    assert all(f"{name} = " in shown for name in FIELDS)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('provider = "ann"', "", 'needs provider = "KEY"'),
        ("[[terms]]", "[[term]]", r"needs .* a table \[\[terms\]\]"),
        ('agreement = "A-17"', 'licence = "A-17"', "no field 'licence'; fields are provider, agreement, terms"),
        ('rate = "70%"', "rate = 0.7", 'terms 1: rate is in quotes, as in rate = "70%": a number could be rounded'),
        ('rate = "70%"', 'rate = "0.7"', "terms 1: '0.7' is not a share"),
        ('rate = "70%"', 'rates = "70%"', "terms 1: there is no field 'rates'"),
        ('fee = "1.50"', 'fee = "1.505"', "terms 1: '1.505' has 3 decimal digits"),
        ("release_after = 3", "release_after = 3.0", "release_after is a number of months"),
        ("release_after = 3", "", "terms 1: a reserve of 100000 ppm that is released after 0 periods makes no sense"),
        ("to = 2027-12-31", 'to = "2027-12-31"', "from and to are days without quotes"),
        ("from = 2027-01-01", "from = 2027-01-01T00:00:00Z", "from and to are days without quotes"),
        ("from = 2027-01-01", "", "terms 1: from is needed"),
        ('currency = "EUR"', 'currency = "EURO"', "terms 1: 'EURO' is not a current ISO 4217"),
        ('channel = "pain001"', 'channel = "cheque"', "terms 1: channel 'cheque' is none of csv, pain001"),
        ('pay_in = "EUR"', 'pay_in = "EUR"\nfee = "1"', "terms 2: minimum payout, withholding, fee and channel belong"),
        ("[[terms]]", "[[terms", "is not TOML"),
    ],
)
def test_a_mistake_is_named_with_its_version_and_field(tmp_path, old, new, match):
    assert old in WHOLE
    with pytest.raises(InputError, match=match):
        read(tmp_path, WHOLE.replace(old, new, 2 if old == "[[terms]]" else 1))
