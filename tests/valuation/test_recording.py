"""Indexes from the passes of a user's own loop."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from credit.errors import InputError, MismatchError, ValuationError
from credit.records import Group
from credit.valuation import (
    AttributionIndex,
    GradientRecorder,
    ModuleTask,
    Sample,
    build_index,
    load_model,
)
from credit.valuation.batching import make_batch
from credit.valuation.explain import explain_output
from credit.valuation.revise import update_index
from tests.models import dense_settings, hidden_settings, save_tiny_model
from tests.valuation.test_non_finite import BAD, poisoned

SETTINGS = {
    "fisher": hidden_settings(rank=3, rows_per_group=4),
    "ekfac": hidden_settings(rank=3, rows_per_group=4, projection="whitened", curvature="ekfac"),
    "unit": hidden_settings(rank=3, rows_per_group=None, weighting="unit", ranks=("in=4",)),
}


def _batches(model, data, size=5):
    """The data in random order, as a loop over a loader sees it: ids and a padded batch."""
    examples = [example for record in data for example in model.encoder(64).training(record)]
    random.Random(0).shuffle(examples)
    for start in range(0, len(examples), size):
        chosen = examples[start : start + size]
        yield [example.id for example in chosen], make_batch(chosen)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_recorded_while_evaluated_equals_built(model, data, outputs, tmp_path, settings):
    build_index(model, data, tmp_path / "built", settings, name="tiny")
    with GradientRecorder(model, data, tmp_path / "recorded", settings, name="tiny") as recorder:
        for ids, batch in _batches(model, data):
            predicted = int((batch.labels[:, 1:] >= 0).sum())
            with recorder.batch(ids, scale=predicted):
                (model.loss(batch) / predicted).backward()  # the mean over tokens, as most loops have it
        model.loss(batch).backward()  # outside a batch, nothing is recorded
        recorder.write()
    model.module.zero_grad()
    recorded, built = AttributionIndex.open(tmp_path / "recorded"), AttributionIndex.open(tmp_path / "built")
    assert recorded.manifest.fingerprint == built.manifest.fingerprint
    for ours, truth in (
        (recorded.value(model, outputs).effect(), built.value(model, outputs).effect()),
        (recorded.row_influence(model, outputs), built.row_influence(model, outputs)),
    ):
        torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-6)  # the norms of a Llama are float32
    assert all(not module._forward_hooks for module in model.module.modules())


def test_while_training_each_gradient_is_that_of_the_weights_it_met(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    samples = [
        Sample(f"s{i}", (torch.randn(4, dtype=torch.float64), torch.tensor(i % 3)), Group("ann")) for i in range(8)
    ]

    def loss(net, x, y):
        return nn.functional.cross_entropy(net(x), y, reduction="sum")

    start = ModuleTask(module, loss)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    settings = dense_settings(rank=9, rows_per_group=None, curvature="none")
    truth = {}
    module.train()
    with GradientRecorder(start, samples, tmp_path / "index", settings, name="own") as recorder:
        for first in range(0, 8, 2):
            chosen = samples[first : first + 2]
            for sample in chosen:
                own = loss(module, *(tensor[None] for tensor in sample.tensors))
                truth[sample.id] = torch.autograd.grad(own, [module[0].weight, module[2].weight])
            with recorder.batch([sample.id for sample in chosen], scale=2.0):
                (
                    loss(module, *(torch.stack(column) for column in zip(*(s.tensors for s in chosen), strict=True)))
                    / 2
                ).backward()
            optimizer.step()
            optimizer.zero_grad()
        assert module.training
        with pytest.raises(ValuationError, match=r"weights have changed meanwhile; save the model"):
            recorder.write()
        trained = ModuleTask(module, loss)
        manifest = recorder.write(trained)
    assert (manifest.model_sha256, manifest.recorded_from) == (trained.model_sha256, start.model_sha256)
    index = AttributionIndex.open(tmp_path / "index")
    order = [line.split('"')[1] for line in index.path("examples.jsonl").read_text().splitlines()]
    (shard,) = (dict(shard) for shard in index.shards(torch.device("cpu")))
    for layer, name in enumerate(("0", "2")):
        for row, sample in enumerate(order):
            torch.testing.assert_close(shard[name][row].reshape(truth[sample][layer].shape), truth[sample][layer])
    build_index(trained, samples, tmp_path / "built", settings, name="own")
    assert AttributionIndex.open(tmp_path / "built").manifest.fingerprint != manifest.fingerprint
    with pytest.raises(MismatchError):
        build_index(trained, samples, tmp_path / "index", settings, name="own")
    with pytest.raises(ValuationError, match="recorded while its model was trained"):
        update_index(tmp_path / "index", trained, samples)
    assert len(explain_output(index, trained, samples[0])) == 8


def test_folds_that_were_recorded_in_training_cannot_be_explained(model, data, outputs, tmp_path):
    kind = model.module.config.model_type
    own = load_model(save_tiny_model(tmp_path / "model", kind), dtype="fp64", device="cpu")
    with GradientRecorder(own, data, tmp_path / "index", SETTINGS["fisher"], name="tiny") as recorder:
        for ids, batch in _batches(own, data):
            with recorder.batch(ids):
                own.loss(batch).backward()
        recorder.write(replace(own, model_sha256="later"))
    later = replace(own, model_sha256="later")
    with pytest.raises(InputError, match=r"ann/books is folded .* recorded while its model was trained"):
        explain_output(AttributionIndex.open(tmp_path / "index"), later, outputs[0], records=data)


def test_what_is_not_finite_is_named_or_left_out(model, data, outputs, tmp_path):
    everything = [*data, *BAD]
    settings = hidden_settings(rank=3, rows_per_group=5)

    def record(folder, **options):
        with poisoned(model), GradientRecorder(model, everything, folder, settings, name="tiny", **options) as recorder:
            for ids, batch in _batches(model, everything):
                with recorder.batch(ids):
                    model.loss(batch).backward()
            return recorder.write()

    with pytest.raises(ValuationError, match=r"gradient of bad-\d is not finite .* exclude_non_finite"):
        record(tmp_path / "failed")
    assert [path.name for path in (tmp_path / "failed").iterdir()] in ([], [".lock"])
    manifest = record(tmp_path / "index", exclude_non_finite=True)
    model.module.zero_grad()
    assert {example.id for example in manifest.excluded} == {example.id for example in BAD}
    build_index(model, data, tmp_path / "good", settings, name="tiny")
    ours, truth = (AttributionIndex.open(tmp_path / name) for name in ("index", "good"))
    ours, truth = (index.value(model, outputs).effect() for index in (ours, truth))
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-6)


def test_each_example_is_passed_through_once(model, data, tmp_path):
    with GradientRecorder(model, data, tmp_path / "index", SETTINGS["fisher"], name="tiny") as recorder:
        ids, batch = next(_batches(model, data))
        with recorder.batch(ids):
            model.loss(batch).backward()
        with pytest.raises(InputError, match="was passed through before"), recorder.batch(ids):
            pass
        with pytest.raises(InputError, match="'odd' is not in the data"), recorder.batch(["odd"]):
            pass
        with pytest.raises(ValuationError, match=r"13 of 18 examples were not passed through, such as"):
            recorder.write()
    model.module.zero_grad()
    assert not (tmp_path / "index" / "manifest.json").exists()
    build_index(model, data, tmp_path / "index", SETTINGS["fisher"], name="tiny")
    with (
        pytest.raises(MismatchError, match="holds an index"),
        GradientRecorder(model, data, tmp_path / "index", SETTINGS["fisher"], name="tiny"),
    ):
        pass
    with pytest.raises(ValuationError, match="second pass"):
        GradientRecorder(model, data, tmp_path / "x", hidden_settings(weighting="relatif"), name="tiny")
