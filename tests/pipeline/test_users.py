"""Users of logged outputs: known again by a pseudonym, and by nothing else."""

from __future__ import annotations

import shutil

from credit.ingest.pseudonyms import read_key
from tests.pipeline.samples import output_row, write_jsonl

WHO = "ada.lovelace@example.org"


def test_a_user_is_in_the_ledger_as_a_pseudonym_and_in_no_file(site):
    site.log("users.jsonl", [output_row(100 + number, user=WHO if number < 2 else None) for number in range(3)])
    stored = {row["external_id"]: row for row in site.named("output")}
    key = read_key(site.folder / "users.key")
    assert [stored[f"o{number}"]["user_hmac"] for number in (100, 101, 102)] == [key.user(WHO), key.user(WHO), None]
    assert all(row["text_hmac"].startswith(key.id) for row in stored.values())
    assert len({row["text_hmac"] for row in stored.values()}) == len(stored)
    kept = [path.read_bytes() for path in site.data_dir.parent.rglob("*") if path.is_file() and path.suffix != ".jsonl"]
    assert not any(WHO.encode() in content for content in kept)
    assert site.run("verify").exit_code == 0


def test_another_key_is_refused_until_somebody_gives_the_old_one_up(site, tmp_path):
    (other := tmp_path / "other.key").write_text("3c" * 32)
    log = write_jsonl(tmp_path / "more.jsonl", [output_row(100, user=WHO)])
    refused = site.run("ingest-outputs", log, "--user-key", other, code=1)
    assert "--user-key FILE" in refused.output
    assert "--new-user-key" in refused.output
    assert "o100" not in {row["external_id"] for row in site.named("output")}
    site.run("ingest-outputs", log, "--user-key", other, "--new-user-key")
    assert "1 known already" in site.run("ingest-outputs", log, "--user-key", other, "--reread").output


def test_a_key_is_drawn_in_the_data_folder_where_nobody_gives_one(site, tmp_path, monkeypatch):
    monkeypatch.setattr(type(site), "environment", {
        "CREDIT_DATABASE_URL": f"sqlite:///{tmp_path / 'own.db'}", "CREDIT_DATA_DIR": str(tmp_path / "own"),
    })  # fmt: skip
    site.run("init")
    site.run("providers", "import", site.folder / "providers.csv")
    data, index = site.folder / "train.jsonl", site.folder / "index"
    site.run("index", site.folder / "tiny", data, "--out", index, "--name", "tiny", "--rank", "4")
    log = write_jsonl(tmp_path / "log.jsonl", [output_row(1, user=WHO)])
    site.run("ingest-outputs", log)
    shutil.move(tmp_path / "own" / "pseudonyms.key", tmp_path / "moved.key")
    site.run("ingest-outputs", log, "--user-key", tmp_path / "moved.key")
    assert "--user-key" in site.run("ingest-outputs", log, code=1).output
