"""Nobody moves money by editing an index: each alteration of its files is refused before it credits anybody."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from credit.errors import EXIT_FAILED, EXIT_INTEGRITY
from credit.storage import sha256_file
from credit.valuation import read_manifest
from credit.valuation.manifest import parse_manifest
from tests.pipeline.samples import FIRST, MODEL, Site

Body = dict[str, Any]


@pytest.fixture
def own_index(site: Site, tmp_path: Path) -> Path:
    """An index of the site's own, registered last, that may be altered."""
    return shutil.copytree(site.folder / "index", tmp_path / "index")


def _swap_providers(body: Body, _folder: Path) -> None:
    """Let one provider be credited for what another contributed."""
    one, other = (layout["group"] for layout in body["groups"] if layout["group"]["provider"] in {"ben", "us"})
    one["provider"], other["provider"] = other["provider"], one["provider"]


def _multiply_rows(body: Body, folder: Path) -> None:
    """Multiply the rows of one provider by ten, and correct the file's checksum."""
    (shard,) = body["shards"]
    first = body["groups"][0]
    rows = load_file(folder / shard)
    for name in rows:
        rows[name][first["start"] : first["stop"]] *= 10
    save_file(rows, folder / shard)
    body["files"][shard] = sha256_file(folder / shard)


def _rename_model(body: Body, _folder: Path) -> None:
    """Let the index serve the outputs of another model."""
    body["name"] = "another"


ALTERATIONS = (_swap_providers, _multiply_rows, _rename_model)


def _alter(folder: Path, change: Callable[[Body, Path], None], *, forge: bool) -> None:
    """Edit the manifest; `forge` its fingerprint too, as somebody with this code can."""
    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    change(body, folder)
    if forge:
        kept = {name: value for name, value in body.items() if name not in {"format_version", "fingerprint"}}
        path.write_text(parse_manifest(json.loads(json.dumps(kept))).to_json())
        read_manifest(folder)  # it reads as any other
    else:
        path.write_text(json.dumps(body, indent=1, sort_keys=True) + "\n")


@pytest.mark.parametrize("change", ALTERATIONS, ids=lambda change: change.__name__)
def test_an_edited_manifest_is_no_index(site, own_index, change):
    _alter(own_index, change, forge=False)
    refused = site.run("compute", "--index", own_index, code=EXIT_INTEGRITY)
    assert "its fingerprint does not match its content" in refused.stderr
    assert site.named("score_book") == []


@pytest.mark.parametrize("change", ALTERATIONS, ids=lambda change: change.__name__)
def test_a_registered_index_that_was_altered_credits_nobody_and_is_named(site, own_index, change):
    register = site.run("compute", "--index", own_index)
    assert "outputs valued" in register.output
    site.log(
        "later.jsonl", [{"id": "late", "occurred_at": f"{FIRST}-09T12:00:00Z", "model": MODEL, "completion": " a cat"}]
    )
    credited = site.tables()["ledger_entry"]
    _alter(own_index, change, forge=True)

    refused = site.run("compute", code=EXIT_FAILED)
    assert "holds another index than the one registered" in refused.stderr
    assert site.tables()["ledger_entry"] == credited
    refused = site.run("explain", "output", "o2", site.folder / "train.jsonl", code=EXIT_FAILED)
    assert "holds another index than the one registered" in refused.stderr
    named = site.run("verify", code=EXIT_INTEGRITY)
    assert f"{own_index / 'manifest.json'}: is not the registered manifest of {MODEL}" in named.output
    site.run("pool", "add", FIRST, "100.00", "EUR")
    refused = site.close(FIRST, "--leave-pending", code=EXIT_INTEGRITY)
    assert "nobody is paid by an altered index" in refused.stderr
    assert site.named("allocation") == []


def test_a_closed_month_is_not_restated_by_an_altered_index(site, own_index):
    site.run("compute", "--index", own_index)
    site.run("pool", "add", FIRST, "100.00", "EUR")
    site.close(FIRST)
    before = site.tables()
    _alter(own_index, _swap_providers, forge=True)
    again = ("restate", FIRST, "--index", own_index, "--reason", "x")
    refused = site.run(*again, code=EXIT_INTEGRITY)
    assert "nobody is paid by an altered index" in refused.stderr
    assert site.tables() == before


def test_a_file_that_was_altered_alone_is_named_by_verify_and_read_by_nobody(site, own_index):
    site.run("compute", "--index", own_index)
    _multiply_rows(
        {"shards": read_manifest(own_index).shards, "groups": [{"start": 0, "stop": 1}], "files": {}}, own_index
    )
    named = site.run("verify", code=EXIT_INTEGRITY)
    assert "rows-00000.safetensors: is not the registered file" in named.output


def test_an_index_that_is_gone_is_said_not_to_be_checked(site, own_index):
    site.run("compute", "--index", own_index)
    shutil.rmtree(own_index)
    assert "its files were not checked" in site.run("verify").output


def test_an_altered_index_under_its_own_name_has_no_certificate(site, own_index):
    """Registered openly, an altered index is another index: it inherits nothing of the first one's standing."""
    before = read_manifest(own_index).fingerprint
    _alter(own_index, _swap_providers, forge=True)
    assert read_manifest(own_index).fingerprint != before
    site.run("compute", "--index", own_index)
    assert [row["fingerprint"] for row in site.named("attribution_index")] == [
        read_manifest(site.folder / "index").fingerprint,
        read_manifest(own_index).fingerprint,
    ]
