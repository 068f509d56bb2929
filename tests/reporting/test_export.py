"""Exports: each provider's own data and nobody else's; whole or absent; the same again."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from credit.errors import InvalidRequestError, LedgerError, LockHeldError
from credit.ingest.pseudonyms import PseudonymKey
from credit.ledger.corrections import undo
from credit.ledger.database import Ledger, upgrade
from credit.ledger.statements import statements
from credit.records import Group, Provider
from credit.reporting.export import FILES, export_period
from tests.reporting import ledgers
from tests.reporting.ledgers import OCTOBER, Valued, at
from tests.reporting.reading import content, rows


@pytest.fixture
def closed(month: Ledger) -> Ledger:
    ledgers.close(month, OCTOBER)
    return month


def test_every_provider_gets_a_folder_and_the_house_none(closed, books, tmp_path):
    folders = export_period(closed, books, OCTOBER, tmp_path / "out")
    assert folders == [tmp_path / "out" / "ada", tmp_path / "out" / "bell"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ada", "bell"]
    assert all(sorted(path.name for path in folder.iterdir()) == sorted(FILES) for folder in folders)


def test_progress_counts_the_folders(closed, books, tmp_path):
    told = []
    export_period(closed, books, OCTOBER, tmp_path / "out", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_the_statement_is_the_stored_one_and_its_faces_print_its_hash(closed, books, tmp_path):
    (folder, _) = export_period(closed, books, OCTOBER, tmp_path / "out")
    with closed.read() as conn:
        stored = next(item for item in statements(conn, OCTOBER) if item.provider == "ada")
    exported = (folder / "statement.json").read_bytes()
    assert exported == stored.body_json.encode()
    digest = hashlib.sha256(exported).hexdigest()
    assert digest in (folder / "statement.html").read_text("utf-8")
    assert digest in (folder / "README.txt").read_text("utf-8")


def test_its_tables_hold_its_own_credits(closed, books, tmp_path):
    (folder, _) = export_period(closed, books, OCTOBER, tmp_path / "out")
    credited = rows(folder / "outputs.csv")
    assert [(row["output_id"], row["occurred_at"], row["collection"], row["credit_micro"]) for row in credited] == [
        ("o-2", "2026-10-03T12:00:00.000000Z", "novels", "600000"),
        ("o-1", "2026-10-03T23:00:00.000000Z", "essays", "199999"),
        ("o-1", "2026-10-03T23:00:00.000000Z", "novels", "100001"),
        ("openai:chat-1", "2026-10-31T12:00:00.000000Z", "novels", "2000000"),
    ]
    daily = rows(folder / "attribution.csv")
    assert [(row["day"], row["collection"]) for row in daily] == sorted(
        (row["day"], row["collection"]) for row in daily
    )
    stated = json.loads((folder / "statement.json").read_bytes())["credits"]["credit_micro"]
    assert sum(int(row["credit_micro"]) for row in credited) == int(stated)
    assert sum(int(row["credit_micro"]) for row in daily) == int(stated)


def test_a_provider_sees_outputs_by_pseudonym_and_day_alone(closed, books, tmp_path):
    key = PseudonymKey(bytes(range(32)))
    (folder, _) = export_period(closed, books, OCTOBER, tmp_path / "out", pseudonyms=key)
    named = {key.output(name): name for name in ("o-1", "o-2", "openai:chat-1")}
    credited = rows(folder / "outputs.csv")
    assert list(credited[0])[:3] == ["output_id", "day", "collection"]
    columns = ("day", "collection", "credit_micro")
    assert sorted((named[row["output_id"]], *(row[name] for name in columns)) for row in credited) == [
        ("o-1", "2026-10-03", "essays", "199999"),
        ("o-1", "2026-10-03", "novels", "100001"),
        ("o-2", "2026-10-03", "novels", "600000"),
        ("openai:chat-1", "2026-10-31", "novels", "2000000"),
    ]
    order = [(row["day"], row["output_id"], row["collection"]) for row in credited]
    assert order == sorted(order), "the order tells of the moments"
    told = b"".join(path.read_bytes() for path in folder.iterdir())
    assert not [text for text in ("o-1", "o-2", "chat-1", "T12:00:00", "T23:00:00") if text.encode() in told]


def test_an_output_whose_credits_were_taken_back_is_not_listed(month, books, tmp_path):
    """Otherwise the outputs would add up to more than the statement says."""
    with month.write() as conn:
        undo(conn, 3, reason="logged by mistake", now=ledgers.NOW)
    ledgers.close(month, OCTOBER)
    (folder, _) = export_period(month, books, OCTOBER, tmp_path / "out")
    credited, daily = rows(folder / "outputs.csv"), rows(folder / "attribution.csv")
    assert "openai:chat-1" not in {row["output_id"] for row in credited}
    stated = int(json.loads((folder / "statement.json").read_bytes())["credits"]["credit_micro"])
    assert sum(int(row["credit_micro"]) for row in credited) == stated
    assert sum(int(row["credit_micro"]) for row in daily) == stated
    assert ("1", "0") in {(row["outputs"], row["credit_micro"]) for row in daily if row["day"] == "2026-10-31"}


def test_a_folder_holds_nothing_of_any_other_provider(ledger, books, tmp_path):
    others = [Provider(f"key-{name}", f"Name {name}") for name in ("zinnia", "quokka", "walrus")]
    shares = dict(zip((item.key for item in others), (3_141_593, 2_718_283, 1_414_213), strict=True))
    ledgers.add(ledger, [*others, Provider("own", "Wholly Ours", "house")])
    groups = {Group(key, f"collection of {key}"): (micro / 7e6, micro) for key, micro in shares.items()}
    ledgers.value(ledger, books, [Valued("shared", at(10, 8), {**groups, Group("own", "secret"): (0.1, 577_215)})])
    alone = {Group("key-zinnia", "solo"): (0.5, 1_000_000), Group("key-quokka"): (-0.123457, 0)}
    ledgers.value(ledger, books, [Valued("zinnias-alone", at(10, 9), alone)])
    ledgers.close(ledger, OCTOBER, net_minor=9_876_543)
    export_period(ledger, books, OCTOBER, tmp_path)
    money = {
        item.key: json.loads((tmp_path / item.key / "statement.json").read_bytes())["balances"][0]["earned"]
        for item in others
    }
    for own in others:
        told = b"\n".join(content(tmp_path / own.key).values()).decode()
        assert own.key in told
        assert money[own.key] in told
        for other in others:
            if other is own:
                continue
            micro = shares[other.key]
            strangers = [other.key, other.name, f"collection of {other.key}", str(micro), f"{micro / 1e6:.6f}"]
            strangers += [money[other.key], f"{float(money[other.key]):,.2f}", repr(micro / 7e6), repr(micro / 14e6)]
            assert not [item for item in strangers if item in told]
        assert not [item for item in ("Wholly Ours", "secret", "577215", "0.577215") if item in told]
        assert ("zinnias-alone" in told) == (own.key == "key-zinnia")


def test_exported_again_every_byte_is_the_same(closed, books, tmp_path):
    export_period(closed, books, OCTOBER, tmp_path / "out")
    first = content(tmp_path / "out")
    export_period(closed, books, OCTOBER, tmp_path / "out")
    assert content(tmp_path / "out") == first
    export_period(closed, books, OCTOBER, tmp_path / "elsewhere")
    assert content(tmp_path / "elsewhere") == first


def test_a_damaged_folder_and_the_rests_of_a_killed_export_are_replaced(closed, books, tmp_path):
    export_period(closed, books, OCTOBER, tmp_path / "out")
    first = content(tmp_path / "out")
    (tmp_path / "out" / "ada" / "outputs.csv").write_text("cut sho")
    shutil.copytree(tmp_path / "out" / "bell", tmp_path / "out" / f".bell.credit-{'0' * 16}.tmp")
    shutil.copytree(tmp_path / "out" / "ada", tmp_path / "out" / f".ada.credit-{'f' * 16}.tmp")
    shutil.rmtree(tmp_path / "out" / "bell")
    export_period(closed, books, OCTOBER, tmp_path / "out")
    assert content(tmp_path / "out") == first


def test_folders_that_no_export_made_are_never_deleted(closed, books, tmp_path):
    out = tmp_path / "out"
    own = [out / ".ada.partial", out / ".ada.old", out / f".ada.credit-{'0' * 16}.tmp"]
    for folder in own:
        folder.mkdir(parents=True)
        (folder / "thesis.txt").write_text("years of work")
    export_period(closed, books, OCTOBER, out)
    assert [(folder / "thesis.txt").read_text() for folder in own] == ["years of work"] * 3


def test_a_link_in_the_place_of_a_provider_s_folder_is_refused(closed, books, tmp_path):
    export_period(closed, books, OCTOBER, tmp_path / "elsewhere")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ada").symlink_to(tmp_path / "elsewhere" / "ada")
    with pytest.raises(InvalidRequestError, match="ada is a link"):
        export_period(closed, books, OCTOBER, tmp_path / "out")


def test_an_open_period_is_refused_and_nothing_is_written(month, books, tmp_path):
    with pytest.raises(LedgerError, match="credit close 2026-10"):
        export_period(month, books, OCTOBER, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_periods_export_and_strange_files_are_not_overwritten(closed, books, tmp_path):
    ledgers.value(closed, books, [Valued("november", at(11, 1), {ledgers.ADA: (1.0, 1)})])
    ledgers.close(closed, "2026-11")
    out = tmp_path / "out"
    export_period(closed, books, OCTOBER, out)
    first = content(out)
    with pytest.raises(InvalidRequestError, match="is the export of 2026-10"):
        export_period(closed, books, "2026-11", out)
    assert content(out) == first
    (out / "bell" / "notes.txt").write_text("mine")
    with pytest.raises(InvalidRequestError, match="no export wrote"):
        export_period(closed, books, OCTOBER, out)
    assert (out / "bell" / "notes.txt").read_text() == "mine"


def test_two_exports_at_once_do_not_mix(closed, books, tmp_path):
    with closed.exclusive("export"), pytest.raises(LockHeldError):
        export_period(closed, books, OCTOBER, tmp_path / "out")


def test_two_hundred_providers_with_hostile_names(tmp_path):
    names = ["=cmd|' /C calc'!A0", "<script>alert(1)</script>", "Ünïcødé 出版社 🎈", '"quoted", and more', "@SUM(A1)"]
    keys = [f"p{number}" for number in range(200)]
    upgrade(f"sqlite:///{tmp_path}/credit.db")
    with Ledger.open(f"sqlite:///{tmp_path}/credit.db") as ledger:
        ledgers.add(ledger, [Provider(key, names[place % 5]) for place, key in enumerate(keys)])
        scores = {Group(key, f"=c{place}"): (0.5, 1_000 + place) for place, key in enumerate(keys)}
        ledgers.value(ledger, tmp_path / "books", [Valued('=2+5,"\n', at(10, 1), scores)])
        ledgers.close(ledger, OCTOBER)
        folders = export_period(ledger, tmp_path / "books", OCTOBER, tmp_path / "out")
    assert [folder.name for folder in folders] == sorted(keys)
    for folder in folders:
        (row,) = rows(folder / "outputs.csv")
        assert row["output_id"] == "'=2+5,\"\n"
        assert row["collection"] == f"'=c{folder.name[1:]}"
        assert row["credit_micro"] == str(1_000 + int(folder.name[1:]))
        assert b"<script" not in (folder / "statement.html").read_bytes()
