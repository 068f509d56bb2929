"""Personal details are checked on their way in, masked on their way out, and gone when they are erased."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from credit.errors import InputError, InvalidRequestError, LedgerError
from credit.ledger.personal_data import Details, current_details, personal_events
from credit.ledger.verify import verify
from credit.payments.details import (
    checked,
    erase_provider_details,
    import_details,
    mask,
    masked,
    set_provider_details,
)
from credit.payments.export import ExportRequest, export_payments
from tests.payments.samples import IBANS, NOW, SEPTEMBER, details_of


def test_a_change_keeps_what_it_does_not_name(owing):
    set_provider_details(owing, "ada", {"town": "Paris", "building": ""}, now=NOW)
    with owing.read() as conn:
        found = current_details(conn, "ada")
    assert found is not None
    assert found[1] == Details(**{**details_of("ada"), "town": "Paris", "building": ""})  # type: ignore[arg-type]


def test_the_same_details_again_are_no_new_version(owing):
    set_provider_details(owing, "ada", details_of("ada"), now=NOW)
    with owing.read() as conn:
        assert [item.action for item in personal_events(conn, "ada")] == ["set"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iban", "DE02120300000000202052"),
        ("iban", "XX00 nonsense"),
        ("bic", "NOTABIC"),
        ("country", "DEU"),
        ("country", "XX"),
        ("email", "ada at example"),
        ("paypal", "+ada@example.org"),
        ("receiver", "robot"),
        ("town", "x" * 36),
        ("legal_name", "a\x00b"),
    ],
)
def test_a_wrong_value_is_refused_and_not_repeated(field, value):
    with pytest.raises(InvalidRequestError) as caught:
        checked({field: value})
    assert field in str(caught.value)
    assert value not in str(caught.value)


def test_an_iban_is_kept_without_spaces():
    assert checked({"iban": "de02 1203 0000 0000 2020 51"}).iban == IBANS["ada"]


def test_nothing_is_shown_in_full():
    details = Details(**details_of("ada"))  # type: ignore[arg-type]  # test data
    shown = masked(details)
    assert shown["iban"] == "DE…51"
    assert {name for name, value in shown.items() if value == getattr(details, name)} == {"receiver", "town", "country"}
    assert mask("12345678") == "…"
    assert IBANS["ada"] not in repr(details)


def test_the_house_is_not_paid(owing):
    with pytest.raises(LedgerError, match="is not paid"):
        set_provider_details(owing, "house", {"town": "Berlin"}, now=NOW)


def test_a_file_of_details_counts_whole_or_not_at_all(owing, tmp_path):
    path = tmp_path / "details.csv"
    path.write_text("provider,town,iban\nada,Bonn,\nbell,Lyon,FR76 wrong\n")
    with pytest.raises(InputError, match=r"details.csv:3: iban is not a valid IBAN.*nothing was imported"):
        import_details(owing, path, now=NOW)
    path.write_text("provider,town,shoe_size\nada,Bonn,45\n")
    with pytest.raises(InputError, match="no field 'shoe_size'"):
        import_details(owing, path, now=NOW)
    with owing.read() as conn:
        found = current_details(conn, "ada")
    assert found is not None
    assert found[1].town == "Berlin"
    path.write_text("provider,town\nada,Bonn\nbell,Lyon\n")
    assert import_details(owing, path, now=NOW) == 2


def test_after_an_erasure_no_byte_is_left_and_the_ledger_verifies(owing, tmp_path):
    set_provider_details(owing, "ada", {"legal_name": "An Earlier Version"}, now=NOW)
    set_provider_details(owing, "ada", {"legal_name": "Ada Legal"}, now=NOW)
    secrets = [value for name, value in details_of("ada").items() if name in {"email", "paypal", "iban", "tax_id"}]
    secrets += ["Ada Legal", "An Earlier Version"]
    path = owing.sqlite_path
    files = [] if path is None else [path, path.with_name(f"{path.name}-wal")]
    if path is not None:
        present = b"".join(file.read_bytes() for file in files if file.exists())
        assert all(secret.encode() in present for secret in secrets)
    assert erase_provider_details(owing, "ada", reason="request of 2026-10-05", leave_unpaid=True, now=NOW) == 3
    left = b"".join(file.read_bytes() for file in files if file.exists())
    assert not [secret for secret in secrets if secret.encode() in left]
    with owing.read() as conn:
        assert current_details(conn, "ada") is None
        rows = conn.execute(text("SELECT * FROM provider_pii")).all()
        assert not [secret for secret in secrets if secret in repr(rows)]
        assert [item.action for item in personal_events(conn, "ada")] == ["set", "set", "set", "erased"]
    assert verify(owing, None).problems == ()
    assert erase_provider_details(owing, "ada", reason="again", leave_unpaid=True, now=NOW) == 0


@pytest.mark.parametrize("reason", ["", "  ", "erase DE02 1203 0000 0000 2020 51", "mail from ada@example.org"])
def test_a_reason_is_needed_and_must_not_repeat_what_is_erased(owing, reason):
    with pytest.raises(LedgerError, match="reason"):
        erase_provider_details(owing, "ada", reason=reason, leave_unpaid=True, now=NOW)


def test_details_stay_while_a_payout_is_with_the_bank(owing, out):
    export_payments(owing, ExportRequest(SEPTEMBER, "csv", out, "EUR"), now=NOW)
    with pytest.raises(LedgerError, match="payout 1 of ada is with the bank"):
        erase_provider_details(owing, "ada", reason="asked to", leave_unpaid=True, now=NOW)


def test_details_stay_while_money_waits_that_could_never_leave_without_them(owing):
    with pytest.raises(LedgerError, match=r"ada has not been paid 123.45 EUR of 2026-09; pay it first.*--leave-unpaid"):
        erase_provider_details(owing, "ada", reason="asked to", now=NOW)
    with owing.read() as conn:
        assert current_details(conn, "ada") is not None
    assert erase_provider_details(owing, "ada", reason="asked to", leave_unpaid=True, now=NOW) == 1


def test_an_id_of_erased_details_is_never_anothers(owing):
    with owing.read() as conn:
        before = current_details(conn, "cho_7")
    erase_provider_details(owing, "cho_7", reason="asked to", leave_unpaid=True, now=NOW)
    set_provider_details(owing, "cho_7", {"town": "Delft"}, now=NOW)
    with owing.read() as conn:
        after = current_details(conn, "cho_7")
    assert before is not None
    assert after is not None
    assert after[0] > before[0]
