"""`credit restate`, from the command line, by a policy and by another index with its model."""

from __future__ import annotations

from tests.pipeline.samples import FIRST, MODEL, Site


def closed(site: Site) -> dict[str, list[tuple[object, ...]]]:
    site.run("compute")
    site.run("pool", "add", FIRST, "1000", "EUR")
    site.close(FIRST)
    return site.tables()


def test_the_same_index_adjusts_nothing_beyond_rounding(site):
    closed(site)
    found = site.json("restate", FIRST, "--index", site.folder / "index", "--reason", "a check", "--dry-run")
    assert all(abs(item["posted_micro"] - item["restated_micro"]) < 50 for item in found["credits"])
    assert all(abs(item["adjustment_minor"]) <= 1 for item in found["money"])


def test_another_index_moves_money_once_and_no_statement(site):
    before = closed(site)
    other = site.data_dir.parent / "other-index"
    built = ("--out", other, "--name", MODEL, "--rank", "2", "--seed", "9", "--no-register")
    site.run("index", site.folder / MODEL, site.folder / "train.jsonl", *built)
    line = ("restate", FIRST, "--index", other, "--reason", "a better index")
    assert "would be posted in 2025-04" in site.run(*line, "--dry-run").output
    done = site.json(*line)
    assert done["txn_id"] is not None
    assert sum(item["posted_micro"] for item in done["credits"]) == sum(
        item["restated_micro"] for item in done["credits"]
    )
    assert "nothing to adjust" in site.run(*line).output
    after = site.tables()
    for name in ("statement", "allocation", "payout", "attribution_index", "score_book"):
        assert after[name] == before[name]
    site.run("verify")


def test_a_policy_needs_no_model(site):
    closed(site)
    said = site.run("restate", FIRST, "--measure", "support", "--reason", "as agreed").output
    assert "posted in 2025-04 as transaction" in said
    assert "--index DIR" in site.run("restate", FIRST, "--gamma", "1", "--reason", "volume", code=2).output
