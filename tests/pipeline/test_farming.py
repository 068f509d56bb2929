"""Output farming on real compute: what repeats a prompt, an answer or a user is not paid for."""

from __future__ import annotations

import polars as pl
import pytest

from credit.records import MICRO
from tests.models import records
from tests.pipeline.samples import FIRST, GROUPS, MODEL, output_row, write_jsonl

BEN_TEXT = next(record for record in records(GROUPS) if record.group.provider == "ben").completion


def row(name, prompt, completion, **more):
    base = {"id": name, "occurred_at": f"{FIRST}-05T12:00:00Z", "model": MODEL}
    return {**base, "prompt": prompt, "completion": completion, **more}


def shares(site, output):
    """Micro-credits of each provider, and of the house by collection, from an output."""
    frames = [pl.read_parquet(path) for path in (site.data_dir / "books").glob("*.parquet")]
    numbers = {row["external_id"]: row["id"] for row in site.named("output")}
    own = pl.concat(frames).filter((pl.col("output_id") == numbers[output]) & (pl.col("credit_micro") > 0))
    found: dict[str, int] = {}
    for provider, collection, micro in own.select("provider", "collection", "credit_micro").iter_rows():
        key = f"{provider}/{collection}" if provider == "house" else provider
        found[key] = found.get(key, 0) + micro
    return found


@pytest.fixture
def farmed(site):
    """An output that repeats its prompt, with some words of its own, and one that continues it."""
    words = BEN_TEXT.split()
    cut = 2 * len(words) // 3
    start, rest = " ".join(words[:cut]), " " + " ".join(words[cut:])
    site.log("farmed.jsonl", [
        row("echo", BEN_TEXT, f" {BEN_TEXT}"),
        row("half", BEN_TEXT, f" {BEN_TEXT} {output_row(7)['completion']}"),
        row("rest", start, rest),
    ])  # fmt: skip
    return site


def test_an_output_of_echo_pays_the_house_and_half_of_one_half(farmed):
    farmed.run("compute", "--echo", "4")
    assert sum(shares(farmed, "echo").values()) == MICRO
    assert shares(farmed, "echo")["house/echo"] > 0.85 * MICRO
    said = farmed.json("explain", "output", "half", farmed.folder / "train.jsonl")
    assert 0 < said["echo_tokens"] < said["tokens"]
    assert "tokens repeat the prompt" in farmed.run("explain", "output", "echo", farmed.folder / "train.jsonl").output
    half = shares(farmed, "half")
    assert 0.2 * MICRO < half["house/echo"] < 0.9 * MICRO
    assert sum(half.values()) == MICRO
    assert "house/echo" not in shares(farmed, "rest"), "a continuation repeats nothing; limits on users bound it"
    farmed.run("pool", "add", FIRST, "1000", "EUR")
    farmed.close(FIRST, "--leave-pending")
    assert farmed.run("verify").exit_code == 0


def test_without_the_policy_nothing_is_echo(farmed):
    farmed.run("compute", "--echo", "0")
    assert not any("house/echo" in shares(farmed, name) for name in ("echo", "half", "rest"))


def test_echo_is_restated_by_the_index_and_taken_back(farmed):
    farmed.run("compute", "--echo", "0")
    farmed.run("pool", "add", FIRST, "1000", "EUR")
    farmed.close(FIRST)
    index = farmed.folder / "index"
    refused = farmed.run("restate", FIRST, "--echo", "4", "--reason", "x", "--dry-run", code=2)
    assert "--index DIR" in refused.output
    with_echo = farmed.json("restate", FIRST, "--echo", "4", "--index", index, "--reason", "x", "--dry-run")
    house = next(item for item in with_echo["credits"] if item["provider"] == "house")
    assert house["restated_micro"] - house["posted_micro"] > MICRO
    assert sum(item["restated_micro"] for item in with_echo["credits"]) == sum(
        item["posted_micro"] for item in with_echo["credits"]
    )


def test_the_same_call_four_times_under_four_ids_counts_once(site):
    calls = [row(f"call{n}", "say it", " the cat sat on a mat", user="ada") for n in range(4)]
    site.log("farmed.jsonl", [*calls, row("other", "say it", " the cat sat on a mat", user="bob")])
    site.run("compute")
    site.run("pool", "add", FIRST, "1000", "EUR")
    said = site.close(FIRST).output
    assert "not counted: 3.000000 credits of 3 repeats" in said
    assert "heaviest user: " in said
    with_all = site.json("restate", FIRST, "--repeats", "0", "--reason", "x", "--dry-run")
    posted, restated = (sum(item[name] for item in with_all["credits"]) for name in ("posted_micro", "restated_micro"))
    assert restated - posted == 3 * MICRO
    assert site.run("verify").exit_code == 0


def test_a_tenth_of_the_traffic_by_one_user_counts_up_to_the_cap(site):
    flood = [row(f"flood{n}", f"ask {n}", f" {BEN_TEXT}", user="mallory") for n in range(5)]
    site.log("farmed.jsonl", flood)
    site.run("compute", "--user-cap", "1.5", "--chunk", "7")
    site.run("pool", "add", FIRST, "1000", "EUR")
    said = site.json("close", FIRST, "--unvalidated", "a test", "--unreviewed", "a test")
    assert (said["uncounted"]["capped"], said["uncounted"]["repeats"]) == (5, 0)
    assert said["uncounted"]["total_micro"] == 5 * MICRO - 5 * (1_500_000 // 5)


def test_an_interrupted_run_and_other_chunks_end_with_the_same_credits(new_site):
    calls = [row(f"call{n}", BEN_TEXT, f" {BEN_TEXT}", user="ada") for n in range(6)]
    found = []
    for name, chunks in (("one", ["100"]), ("two", ["3", "4"])):
        site = new_site(name)
        site.log("farmed.jsonl", calls)
        for chunk in chunks:
            site.run("compute", "--chunk", chunk)
        site.run("pool", "add", FIRST, "1000", "EUR")
        site.close(FIRST)
        found.append({row["provider_id"]: row["credit_micro"] for row in site.named("allocation")})
    # Outputs that share a pass with others round their last bits otherwise: a micro-credit can move, no more.
    assert found[0].keys() == found[1].keys()
    assert sum(found[0].values()) == sum(found[1].values())
    assert max(abs(found[0][key] - found[1][key]) for key in found[0]) <= len(calls)


def test_a_log_of_other_limits_is_refused(site, tmp_path):
    write_jsonl(tmp_path / "none.jsonl", [])
    assert "--user-cap" in site.run("compute", "--user-cap", "much", code=2).output
