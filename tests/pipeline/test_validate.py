"""Which outputs a validation draws: all that have a value which could be checked."""

from __future__ import annotations

from tests.pipeline.samples import OUTPUTS, output_row


def test_outputs_that_cannot_be_tokenised_or_are_unvalued_are_passed_over(site):
    chat = output_row(100, prompt=None, messages=[{"role": "user", "content": "sing"}])  # the model has no template
    site.log("late.jsonl", [chat, output_row(102)])
    site.run("outputs", "unvalue", "o102", "--reason", "a test")
    found = site.json("validate", site.folder / "index", site.folder / "train.jsonl", "--quick", "--outputs", "1000")
    assert found["outputs"] == OUTPUTS
