"""`credit validate` from files to certificate, and `compute` paying by it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from credit.cli.main import cli
from credit.fidelity.recipes import Recipe
from credit.ledger.credits import credit_methods
from credit.ledger.database import Ledger
from credit.ledger.indexes import certificates, reviews
from credit.records import LoggedOutput, TrainingRecord
from tests.fidelity.authors import LEXICONS


@pytest.fixture(scope="module")
def workspace(
    tmp_path_factory: pytest.TempPathFactory,
    recipe: Recipe,
    records: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    recipe.train(records, 0, folder / "model")
    recipe.train(records, 0, folder / "middle", until=0.5)
    with (folder / "train.jsonl").open("w") as file:
        for record in records:
            file.write(
                json.dumps({"id": record.id, "provider": record.group.provider, "text": record.completion}) + "\n"
            )
    with (folder / "outputs.jsonl").open("w") as file:
        for output in outputs:
            body = {"id": output.external_id, "occurred_at": "2026-01-05T00:00:00Z", "model": "m"}
            file.write(json.dumps(body | {"prompt": output.prompt, "completion": output.completion}) + "\n")
    (folder / "providers.csv").write_text("key,name\n" + "".join(f"{key},{key}\n" for key in LEXICONS))
    return folder


def test_a_validated_index_is_paid_by_its_calibration_and_a_changed_certificate_is_refused(workspace, monkeypatch):
    monkeypatch.chdir(workspace)

    def run(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(cli, list(arguments))
        assert result.exit_code == code, result.output
        return result.output

    run("init")
    run("providers", "import", "providers.csv")
    run("index", "model", "train.jsonl", "--out", "index", "--name", "m", "--rank", "8", "--dtype", "fp32")
    assert "there are no outputs" in run("validate", "index", "train.jsonl", code=1)
    run("ingest-outputs", "outputs.jsonl")
    options = ("--epochs", "6", "--learning-rate", "0.01", "--halves", "4")
    printed = run("validate", "index", "train.jsonl", *options)
    assert "13 retrainings, 4 providers, 12 outputs" in printed
    assert "LDS keeps random halves of the providers" in printed
    assert "The other columns leave out one provider at a time" in printed
    assert "BM25" in printed
    assert len(list((workspace / "credit-data" / "validation").glob("*.json"))) == 13
    certificate = json.loads((workspace / "index" / "certificate.json").read_text())
    assert json.loads(run("validate", "index", "train.jsonl", *options, "--json")) == certificate

    rows = [json.loads(line) for line in (workspace / "train.jsonl").read_text().splitlines()]
    messy = [{"ident" if name == "id" else name: row[name] for name in row} for row in rows]
    messy.append({"ident": "x", "provider": "nobody", "text": "quarantined when the index was built, and here"})
    (workspace / "messy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in messy))
    quick = run("validate", "index", "messy.jsonl", "--quick", "--field", "id=ident")
    assert "no retraining, 4 providers, 12 outputs" in quick
    assert "cannot show the result of training without the data: no model was trained" in " ".join(quick.split())
    assert json.loads((workspace / "index" / "certificate-quick.json").read_text())["kind"] == "quick"
    assert json.loads((workspace / "index" / "certificate.json").read_text()) == certificate
    for wrong in (("--quick", "--finetune", "model"), ("--lora", "4")):
        run("validate", "index", "train.jsonl", *wrong, code=2)

    with Ledger.open("sqlite:///credit.db") as ledger, ledger.read() as conn:
        known = {item.kind: item for item in certificates(conn)}
    assert known["retraining"].sha256 == certificate["sha256"]
    assert sorted(known) == ["quick", "retraining"]
    assert run("validate", "index", code=2)
    elsewhere = ("--database", "sqlite:///other.db")
    run("init", *elsewhere)
    assert certificate["sha256"] in run("validate", "index", "--register", *elsewhere)
    run("validate", "index", "--register", *elsewhere)
    with Ledger.open("sqlite:///other.db") as ledger, ledger.read() as conn:
        assert {item.body_json for item in certificates(conn)} == {item.body_json for item in known.values()}

    path = workspace / "index" / "certificate.json"
    path.write_text(json.dumps(certificate | {"outputs": 99}))
    assert "was changed" in run("compute", code=4)
    assert "was changed" in run("validate", "index", "--register", code=4)
    path.write_text(json.dumps(certificate))
    run("compute")
    with Ledger.open("sqlite:///credit.db") as ledger, ledger.read() as conn:
        (method,) = credit_methods(conn, "2026-01")
    policy = json.loads(method.policy_json)
    scores = {score["method"]: score for score in certificate["methods"]}
    fitted, plain = scores["effect, calibrated"], scores["effect"]
    better = (
        fitted["pearson"]["value"] >= plain["pearson"]["value"]
        and fitted["share_error"]["value"] <= plain["share_error"]["value"]
    )
    fit = certificate["calibration"] if better else {"alpha": 1.0, "beta": 1.0, "gamma": 0.0}
    assert (policy["alpha"], policy["beta"], policy["gamma"]) == (fit["alpha"], fit["beta"], fit["gamma"])
    assert ("compute pays by it" in printed) == better
    run("pool", "add", "2026-01", "100.00", "EUR")
    paid = scores["effect, calibrated" if better else "effect"]
    beaten = all(paid["leads"][name]["low"] > 0 for name in ("token share", "BM25"))
    enough = beaten and paid["lds"]["value"] >= 0.5 * certificate["ceiling"]["value"]
    register = ("train.jsonl", "--register", "index")
    assert "is not the model that" in run("membership", "middle", "model", *register, code=1)
    if enough:
        assert "nobody reviewed its data for overlap and membership: credit overlap DATA --register" in run(
            "close", "2026-01", code=1
        )
    made = [
        json.loads(run(*command, *register, "--json")) for command in (("overlap",), ("membership", "model", "middle"))
    ]
    assert "recorded for the index" in run("membership", "model", "middle", *register)
    with Ledger.open("sqlite:///credit.db") as ledger, ledger.read() as conn:
        assert [(item.kind, item.sha256) for item in reviews(conn)] == [
            (kind, item["review"]) for kind, item in zip(("overlap", "membership"), made, strict=True)
        ]
    printed = run("close", "2026-01", code=0 if enough else 1)
    assert f"certificate {certificate['sha256'][:16]}" in printed
    assert ("4 providers with text that the model hardly learned" in printed) == enough
    assert ("is not enough" in printed) != enough
    run("verify")
