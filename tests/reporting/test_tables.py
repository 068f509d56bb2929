"""CSV that no spreadsheet runs, JSON that loses nothing, tables for people."""

from __future__ import annotations

import csv
import io
import json
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.errors import InvalidRequestError
from credit.reporting.tables import credits_text, nats_text, render, share_text, to_csv, to_json, to_table

TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.from_regex(r"\A'{0,2}[=+\-@\t\r].{0,5}\Z")
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(st.tuples(TEXT, NUMBER, WHOLE), min_size=1, max_size=6)


def frame(rows: list[tuple[str, float, int]]) -> pl.DataFrame:
    schema = {"name": pl.String, "effect": pl.Float64, "credit_micro": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def restored(cell: str) -> str:
    return cell[1:] if re.match(r"'+[=+\-@\t\r]", cell) else cell


@given(ROWS)
def test_csv_gives_back_every_text_and_every_number(rows):
    header, *cells = read(to_csv(frame(rows)))
    assert header == ["name", "effect", "credit_micro"]
    assert [(restored(name), float(effect), int(credit)) for name, effect, credit in cells] == rows


@given(ROWS)
def test_no_text_cell_starts_as_a_formula(rows):
    assert not any(name.startswith(("=", "+", "-", "@", "\t", "\r")) for name, _, _ in read(to_csv(frame(rows)))[1:])


@given(ROWS)
def test_json_is_exact(rows):
    assert [tuple(row.values()) for row in json.loads(to_json(frame(rows)))] == rows


def test_lines_end_as_rfc_4180_says():
    assert (
        to_csv(frame([('a "quoted", name', -0.5, -1)]))
        == 'name,effect,credit_micro\r\n"a ""quoted"", name",-0.5,-1\r\n'
    )


def test_negative_amounts_of_money_are_not_altered():
    money = pl.DataFrame({"name": ["-1"], "opening": ["-0.05"], "payable": ["12.00"], "earned": ["=1+1"]})
    assert read(to_csv(money))[1] == ["'-1", "-0.05", "12.00", "'=1+1"]


@pytest.mark.parametrize("payload", ["=cmd|' /C calc'!A0", "@SUM(1+1)", "+1", "-2+3", "\t=1", "\r=1", "'=1"])
def test_known_payloads_are_text(payload):
    assert read(to_csv(frame([(payload, 0.0, 0)])))[1][0] == "'" + payload


def test_an_empty_frame_is_a_header_and_an_empty_list():
    assert to_csv(frame([])) == "name,effect,credit_micro\r\n"
    assert json.loads(to_json(frame([]))) == []


def test_a_table_shows_units_and_runs_nothing():
    shown = to_table(frame([("[bold]x[/bold]\x1b[31m\u202e", -1234.5, -1_500_000), ("y", 0.0123456, 2_000_000_000)]))
    assert "[bold]x[/bold]<U+001B>[31m<U+202E>" in shown
    assert "-1.500000" in shown
    assert "2,000.000000" in shown
    assert "0.0123" in shown
    lines = shown.splitlines()
    assert "credits" in lines[0]
    assert {len(line) for line in lines[2:]} == {len(lines[2])}, "numbers end in one column"


def test_a_table_keeps_to_its_width():
    wide = frame([("a provider with a name that goes on and on " * 4, 1.0, 1)])
    assert max(map(len, to_table(wide, width=60).splitlines())) <= 60


PAID = pl.DataFrame(
    {
        "provider": ["ann", "ben"],
        "name": ["Ann & Sons", "Ben"],
        "currency": ["EUR", "EUR"],
        "earned": ["126.97", "121.80"],
        "fees": ["0.00", "0.00"],
        "payable": ["126.97", "0.00"],
        "carried_forward": ["0.00", "121.80"],
        "status": ["pending", "carried"],
        "reason": ["", "the balance of 121.80 EUR is below the minimum payout of 200.00 EUR; it is carried forward"],
    }
)


def test_why_nothing_is_paid_stands_below_the_line_of_whom_it_is_about():
    lines = to_table(PAID, width=120).splitlines()
    assert [" ".join(line.split()) for line in lines[-5:-2]] == [
        "ann Ann & Sons EUR 126.97 126.97 0.00 pending",
        "ben Ben EUR 121.80 0.00 121.80 carried",
        PAID["reason"][1],
    ]


def test_payouts_end_with_the_totals_of_each_currency_for_people_only():
    debt = ("cy", "Cy", "JPY", "0", "0", "0", "-7", "carried", "")
    rows = [*PAID.rows(), debt, ("dee", "Dee", "EUR", "3.03", "0.00", "3.03", "0.00", "pending", "")]
    paid = pl.DataFrame(rows, schema=PAID.schema, orient="row")
    assert to_table(paid, width=120).splitlines()[-3:] == [
        "",
        "130.00 EUR payable to 2 providers, 121.80 carried forward",
        "0 JPY payable to 0 providers, -7 carried forward",
    ]
    assert "payable to" not in to_csv(paid) + to_json(paid) + to_table(PAID.clear())


@pytest.mark.parametrize("width", range(30, 131, 10))
def test_no_width_loses_or_breaks_a_cell(width):
    shown = to_table(PAID, width=width)
    assert max(map(len, shown.splitlines())) <= width
    for name in set(PAID.columns) - {"fees"}:
        if name == "name" and "Not shown at this width: name." in shown.splitlines():
            continue
        for cell in filter(None, PAID[name]):
            assert cell in " ".join(shown.split())


def test_render_gives_each_format_and_refuses_another():
    some = frame([("x", 1.0, 1)])
    assert render(some, "csv") == to_csv(some)
    assert render(some, "json") == to_json(some)
    assert render(some, "table", width=50) == to_table(some, width=50)
    with pytest.raises(InvalidRequestError, match="table, csv, json"):
        render(some, "xls")  # type: ignore[arg-type] # what a caller without types may pass


def test_numbers_are_worded_without_losing_their_meaning():
    assert [credits_text(value) for value in (0, -1, 1_234_567_890)] == ["0.000000", "-0.000001", "1,234.567890"]
    assert [share_text(value) for value in (0.0, 0.00001, 0.12345, 1.0)] == ["0.00 %", "<0.01 %", "12.35 %", "100.00 %"]
    assert [nats_text(value) for value in (0.0, -0.5, 12.345, 123456.7, 1e-9)] == [
        "0", "-0.500", "12.3", "123,457", "1.00e-09",
    ]  # fmt: skip


def test_a_rank_is_one_place_or_the_first_and_last_and_nothing_for_the_house():
    shown = pl.DataFrame(
        {"provider": ["a", "b", "house"], "share": [0.1, 0.4, 0.5], "rank_low": [2, 1, None], "rank_high": [3, 1, None]}
    )
    lines = [line.split() for line in to_table(shown).splitlines()]
    assert [lines[0], *lines[2:]] == [
        ["provider", "share", "rank"],
        ["a", "10.00", "%", "2", "to", "3"],
        ["b", "40.00", "%", "1"],
        ["house", "50.00", "%"],
    ]
    assert read(to_csv(shown))[1] == ["a", "0.1", "2", "3"]


def test_a_printed_table_has_the_rows_that_matter_and_says_what_it_leaves_out():
    rows = [(f"p{number:03d}", number / 4950, number * 1_000_000) for number in range(100)]
    frame = pl.DataFrame(rows, schema=["provider", "share", "credit_micro"], orient="row")
    lines = to_table(frame, most=3).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["p099", "p098", "p097"]
    assert lines[5] == "... and 97 rows more with 4,656.000000 credits; --out FILE or --format csv gives all"
    assert [line.split()[0] for line in to_table(frame, most=100).splitlines()[2:]] == [row[0] for row in rows]


def test_a_printed_table_of_payouts_begins_with_exceptions_and_its_totals_are_of_all():
    rows = [(f"p{n:02d}", f"P{n}", "EUR", "1.00", "0.00", f"{n}.00", "0.00", "pending", "") for n in range(1, 31)]
    held = ("p99", "Held", "EUR", "1.00", "0.00", "0.00", "7.00", "carried", "the provider is on hold: a dispute")
    paid = pl.DataFrame([*rows, held], schema=PAID.schema, orient="row")
    lines = to_table(paid, width=120, most=3).splitlines()
    shown = [line.split()[0] for line in lines if line.startswith(" p") and "EUR" in line]
    assert shown == ["p99", "p30", "p29"]
    assert "... and 28 rows more; --out FILE or --format csv gives all" in lines
    assert lines[-1] == "465.00 EUR payable to 30 providers, 7.00 carried forward"


def test_attribution_stays_a_table_in_a_terminal_of_80_columns_and_goes_without_no_more_than_it_must():
    row = {"provider": "brook-journal", "name": "Brook Journal", "outputs": 1300, "influence": -3.88, "support": 39.1}
    row |= {"effect": 35.3, "credit_micro": 452_450_500, "share": 0.146, "share_low": 0.068, "share_high": 0.2168}
    frame = pl.DataFrame([row])
    for width, without in ((120, None), (100, "name"), (80, "name, influence"), (76, "name, influence, support")):
        lines = to_table(frame, width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert lines[0].split() == ["share", "share"], "a table, and not a paragraph for each row"
        left_out = [line for line in lines if line.startswith("Not shown")]
        assert left_out == ([f"Not shown at this width: {without}."] if without else [])
