from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.errors import InputError
from credit.ingest.providers import ProviderRow, read_providers
from credit.records import Place, Provider


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "providers.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_two_columns_are_enough(tmp_path):
    result = read_providers(write(tmp_path, "key,name\nann,Ann Author\nbob-2,Bob\n"))
    assert [row.record.provider for row in result.records] == [Provider("ann", "Ann Author"), Provider("bob-2", "Bob")]
    assert result.quarantined == result.notices == ()


def test_optional_columns_quotes_line_breaks_and_a_byte_order_mark_are_read(tmp_path):
    text = '\ufeffname,key,minimum_payout,currency,kind\r\n"Müller, ""M""\r\nGmbH",m,50.00,EUR,house\r\nx,y,,,\r\n'
    path = write(tmp_path, text.replace("\r\nGmbH", " GmbH"))
    first, second = read_providers(path).records
    assert first.record == ProviderRow(Provider("m", 'Müller, "M" GmbH', "house"), "EUR", Decimal("50.00"))
    assert second.record == ProviderRow(Provider("y", "x"))
    assert (first.place, second.place) == (Place(str(path), 2), Place(str(path), 3))


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ("Ann,Ann,,,", "`key` 'Ann' is not a provider key"),
        (",Ann,,,", "`key` is missing"),
        ("house,Us,,,", "`key` 'house' is reserved"),
        ("ann,,,,", "`name` is missing"),
        ("ann, ,,,", "`name` is empty"),
        ("ann,Ann,author,,", "`kind` must be 'provider' or 'house'"),
        ("ann,Ann,,euro,", "`currency` 'euro' is not an ISO 4217 code"),
        ("ann,Ann,,,50", "`minimum_payout` is given without its `currency`"),
        ("ann,Ann,,EUR,-1", "`minimum_payout` '-1' is not an amount"),
        ("ann,Ann,,EUR,1e9", "`minimum_payout` '1e9' is not an amount"),
        ("good,Again,,,", "`key` good was given before, in line 2"),
        ("ann,Ann", "the row has 2 cells, but the header has 5"),
        ('ann,"Ann" Author,,,', "malformed CSV"),
        ("ann,An\0n,,,", "`name` holds a control character"),
    ],
)
def test_a_bad_row_is_quarantined_with_its_bytes_and_the_good_ones_are_read(tmp_path, row, error):
    header = "key,name,kind,currency,minimum_payout"
    path = write(tmp_path, f"{header}\ngood,Good,,,\n{row}\nlast,Last,,,\n")
    result = read_providers(path)
    assert [row.record.provider.key for row in result.records] == ["good", "last"]
    (bad,) = result.quarantined
    assert bad.error.startswith(error)
    assert (bad.place, bad.raw) == (Place(str(path), 3), row.encode())


def test_a_row_is_named_by_the_line_on_which_an_editor_shows_it(tmp_path):
    rows = ['ann,"Ann', 'Author"', "", "Bad Key,Bad", 'bob,"Bob', "", 'B."', "Worse Key,Worse"]
    path = write(tmp_path, "\r\n".join(["key,name", *rows]))
    result = read_providers(path)
    places = [row.place.line for row in result.records] + [item.place.line for item in result.quarantined]
    lines = path.read_text().splitlines()
    assert [lines[number - 1] for number in sorted(places)] == [
        'ann,"Ann',
        "Bad Key,Bad",
        'bob,"Bob',
        "Worse Key,Worse",
    ]


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_columns_that_are_separated_otherwise_are_named(tmp_path, mark, name):
    with pytest.raises(InputError, match=f":1: the columns are separated by {name}; save the file with commas"):
        read_providers(write(tmp_path, f"key{mark}name\nann{mark}Ann\n"))


def test_a_byte_that_is_not_utf8_concerns_its_row_alone(tmp_path):
    result = read_providers(write(tmp_path, b"key,name\nann,Ren\xe9\nbob,Bob\n"))
    assert [row.record.provider.key for row in result.records] == ["bob"]
    assert result.quarantined[0].error == "byte 0xe9 is not UTF-8; write the file as UTF-8"
    assert result.quarantined[0].raw == b"ann,Ren\xe9"


def test_a_quotation_mark_that_is_never_closed_takes_the_rest_with_it_and_loses_no_byte(tmp_path):
    result = read_providers(write(tmp_path, 'key,name\nann,Ann\nbob,"Bob\ncid,Cid\n'))
    assert [row.record.provider.key for row in result.records] == ["ann"]
    assert result.quarantined[0].raw == b'bob,"Bob\ncid,Cid'


def test_columns_that_are_not_used_are_named(tmp_path):
    result = read_providers(write(tmp_path, "key,name,vat\nann,Ann,DE1\nbob,Bob,\n"))
    assert result.notices == ("field `vat` is not used (in 1 record)",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\nkey,name\n", "every column needs a name"),
        ("key,name\n", "holds no providers"),
        ("key,title\nann,Ann\n", "the column name is missing; found key, title"),
        ("key,name,name\nann,Ann,A\n", "no name twice"),
        ("key;name\nann;Ann\n", "semicolons"),
        ('"key,name\n', "malformed CSV"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_that_names_it(tmp_path, text, message):
    with pytest.raises(InputError, match=rf"providers.csv(?s:.)*({message})"):
        read_providers(write(tmp_path, text))


@given(st.text('a,"\n\r;\0é') | st.binary())
def test_any_file_is_read_or_refused(tmp_path_factory, content):
    body = content.encode() if isinstance(content, str) else content
    path = write(tmp_path_factory.mktemp("providers"), b"key,name\n" + body)
    try:
        result = read_providers(path)
    except InputError as error:
        assert "holds no providers" in str(error)  # noqa: PT017 - an error is one of two right answers
        return
    assert result.records or result.quarantined
    for bad in result.quarantined:
        assert bad.raw.split(b"\n")[0].removesuffix(b"\r") in body
