from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from credit.errors import InputError, IntegrityError, MismatchError, ValuationError
from credit.records import Group, LoggedOutput, TrainingRecord
from credit.storage import sha256_file
from credit.valuation import AttributionIndex, build_index, load_model
from credit.valuation.language_model import LanguageModel
from credit.valuation.layers import choose_layers
from credit.valuation.manifest import verify_files
from credit.valuation.projection import random_projections
from credit.valuation.rows import fold_key
from credit.valuation.tokens import Encoder, Window
from tests.models import HIDDEN, hidden_settings, save_tiny_model
from tests.valuation import oracle
from tests.valuation.conftest import FOLDED, LONE, SINGLE, make_output
from tests.valuation.faults import stopped_often

RANKS = pytest.mark.parametrize("rank", [3, 1000], ids=["rank3", "full-rank"])


def _examples(model: LanguageModel, data: Sequence[TrainingRecord]) -> list[tuple[Group | None, Window]]:
    encoder = Encoder(model.tokenizer, model.max_length)
    return [(record.group, example) for record in data for example in encoder.training(record)]


def _truth(
    model: LanguageModel,
    data: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
    rank: int,
    damping: float = 0.1,
) -> Tensor:
    """Exact influence of every example on every output, from autograd and a dense inverse."""
    layers = choose_layers(model.module, HIDDEN)
    projections = random_projections(layers.shapes, rank=rank, seed=0)
    names = list(layers.watched)
    encoder = Encoder(model.tokenizer, model.max_length)

    def gradient(example: Window) -> dict[str, Tensor]:
        return oracle.projected(oracle.weight_gradients(model, example, names), projections)

    train = [gradient(example) for _, example in _examples(model, data)]
    queries = [gradient(encoder.output(output)[0]) for output in outputs]
    return oracle.influence_matrix(train, queries, damping)


@RANKS
@pytest.mark.parametrize("tokens_per_batch", [1, 60, 100_000], ids=["one", "few", "all"])
def test_influence_and_support_equal_the_dense_definition_for_any_batch_size(
    model, data, outputs, out, rank, tokens_per_batch
):
    settings = hidden_settings(rank=rank, rows_per_group=5)
    build_index(model, data, out, settings, name="tiny", tokens_per_batch=tokens_per_batch)
    index = AttributionIndex.open(out)
    valuation = index.value(model, outputs, noise_floor=0.7, tokens_per_batch=tokens_per_batch)
    truth = _truth(model, data, outputs, rank)
    examples = _examples(model, data)
    for q in range(len(outputs)):
        folds = {group: {} for group in index.groups}
        for column, (group, example) in enumerate(examples):
            key = fold_key(example.id) % 5 if group == FOLDED else example.id
            total, count = folds[group].get(key, (0.0, 0))
            folds[group][key] = (total + float(truth[q, column]), count + 1)
        layout = [list(folds[group].values()) for group in index.groups]
        noise = 0.7 * oracle.pooled_sigma(layout)
        assert valuation.noise[q].item() == pytest.approx(noise, rel=1e-7)
        for g, group in enumerate(index.groups):
            influence, support = oracle.group_numbers(layout[g], noise)
            assert valuation.influence[q, g].item() == pytest.approx(influence, rel=1e-6, abs=1e-12), group
            assert valuation.support[q, g].item() == pytest.approx(support, rel=1e-6, abs=1e-12), group
            n = sum(m for _, m in layout[g])
            beyond = max(abs(influence) - noise * math.sqrt(n), 0.0)
            assert valuation.excess[q, g].item() == pytest.approx(math.copysign(beyond, influence), rel=1e-6, abs=1e-12)
            assert valuation.volume[q, g].item() == pytest.approx(n * noise / 0.7, rel=1e-7)
    assert index.groups == (FOLDED, SINGLE, LONE)
    assert (valuation.excess != 0).any(), "some influence is beyond the noise"
    assert (valuation.excess == 0).any(), "some is within"
    torch.testing.assert_close(valuation.effect(), valuation.excess + valuation.support)
    bare = index.value(model, outputs, noise_floor=0.0)
    torch.testing.assert_close(bare.excess, bare.influence, rtol=0, atol=0)
    for floor in (-0.1, math.nan, math.inf):
        with pytest.raises(ValuationError, match="must be 0 or more, and finite"):
            index.value(model, outputs, noise_floor=floor)


def test_single_rows_give_the_exact_support_and_the_same_influence_as_folds(model, data, outputs, tmp_path):
    build_index(model, data, tmp_path / "all", hidden_settings(rank=3, rows_per_group=None), name="tiny")
    build_index(model, data, tmp_path / "folds", hidden_settings(rank=3, rows_per_group=4), name="tiny")
    every, folded = AttributionIndex.open(tmp_path / "all"), AttributionIndex.open(tmp_path / "folds")
    truth = _truth(model, data, outputs, rank=3)
    groups = [group for group, _ in _examples(model, data)]
    exact = every.value(model, outputs)
    for g, group in enumerate(every.groups):
        columns = [i for i, other in enumerate(groups) if other == group]
        values = truth[:, columns]
        above = torch.where(values > exact.noise[:, None], values, 0.0).sum(1)
        torch.testing.assert_close(exact.support[:, g], above, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(folded.value(model, outputs).influence, exact.influence, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_lower_precision_stays_close_to_float64(model, data, outputs, tmp_path, device):
    build_index(model, data, tmp_path / "fp64", hidden_settings(rank=4), name="tiny")
    exact = AttributionIndex.open(tmp_path / "fp64").value(model, outputs).influence
    for dtype, bound in (("fp32", 1e-3), ("bf16", 0.2)):
        other = load_model(model.path, dtype=dtype, device=device)
        build_index(other, data, tmp_path / dtype, hidden_settings(rank=4), name="tiny")
        ours = AttributionIndex.open(tmp_path / dtype).value(other, outputs).influence
        error = (ours - exact).norm() / exact.norm()
        assert error < bound, f"{dtype}: relative error {error:.3g}"


def test_a_build_stopped_anywhere_continues_to_the_same_index(model, data, outputs, tmp_path, write_limits):
    write_limits(shard_bytes=1, waiting_bytes=0)
    settings = hidden_settings(rank=3, rows_per_group=4)
    build_index(model, data, tmp_path / "whole", settings, name="tiny")
    whole = AttributionIndex.open(tmp_path / "whole")
    assert len(whole.manifest.shards) > 5
    _, steps = stopped_often(
        lambda stop: build_index(model, data, tmp_path / "stopped", settings, name="tiny", progress=stop), most=50
    )
    assert len(steps) > 9
    stopped = AttributionIndex.open(tmp_path / "stopped")
    assert stopped.manifest.files == whole.manifest.files | {}
    torch.testing.assert_close(
        stopped.value(model, outputs).effect(), whole.value(model, outputs).effect(), rtol=0, atol=0
    )


def test_a_finished_index_is_left_alone_and_other_inputs_are_refused(model, data, out):
    settings = hidden_settings(rank=3)
    assert not build_index(model, data, out, settings, name="tiny").existed
    assert build_index(model, list(reversed(data)), out, settings, name="tiny").existed, "order must not matter"
    with pytest.raises(MismatchError, match="other data"):
        build_index(model, data[:-1], out, settings, name="tiny")
    with pytest.raises(MismatchError, match="other settings"):
        build_index(model, data, out, hidden_settings(rank=2), name="tiny")


def test_an_index_refuses_another_model_and_another_tokenizer(model, data, outputs, out, tmp_path):
    build_index(model, data, out, hidden_settings(rank=3), name="tiny")
    index = AttributionIndex.open(out)
    kind = model.module.config.model_type
    other = load_model(save_tiny_model(tmp_path / "other", kind, seed=1), dtype="fp64")
    with pytest.raises(MismatchError, match="is not the model"):
        index.value(other, outputs)
    shutil.copytree(model.path, tmp_path / "retokenised")
    config = tmp_path / "retokenised" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"clean_up_tokenization_spaces": True}))
    with pytest.raises(MismatchError, match="another tokenizer"):
        index.value(load_model(tmp_path / "retokenised", dtype="fp64"), outputs)


def test_no_altered_file_is_ever_used(model, data, outputs, out):
    build_index(model, data, out, hidden_settings(rank=3), name="tiny")
    manifest = AttributionIndex.open(out).manifest
    uses = {
        "projections.safetensors": lambda: AttributionIndex.open(out),
        "counts.safetensors": lambda: AttributionIndex.open(out),
        "factors.safetensors": lambda: AttributionIndex.open(out).value(model, outputs),
        "examples.jsonl": lambda: AttributionIndex.open(out).path("examples.jsonl"),
        manifest.statistic: lambda: AttributionIndex.open(out, damping=0.7).value(model, outputs),
        **{shard: lambda: AttributionIndex.open(out).value(model, outputs) for shard in manifest.shards},
    }
    assert set(uses) == set(manifest.files)
    for name, use in uses.items():
        use()
        whole = (out / name).read_bytes()
        (out / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(IntegrityError, match=rf"{re.escape(name)} is not the file"):
            use()
        with pytest.raises(IntegrityError, match=rf"{re.escape(name)} is not the file"):
            verify_files(out, manifest)
        (out / name).write_bytes(whole)


def test_an_index_is_read_only_as_far_as_it_is_used(model, data, outputs, out, monkeypatch):
    build_index(model, data, out, hidden_settings(rank=3), name="tiny")
    read = []
    monkeypatch.setattr(
        "credit.valuation.manifest.sha256_file", lambda path: read.append(path.name) or sha256_file(path)
    )
    index = AttributionIndex.open(out)
    assert sorted(read) == ["counts.safetensors", "projections.safetensors"]
    index.value(model, outputs)
    index.value(model, outputs)
    assert sorted(read[2:]) == ["factors.safetensors", *index.manifest.shards]


def test_a_missing_file_and_an_altered_manifest_are_named(model, data, out):
    build_index(model, data, out, hidden_settings(rank=3), name="tiny")
    (out / AttributionIndex.open(out).manifest.shards[0]).unlink()
    with pytest.raises(IntegrityError, match=r"rows-00000\.safetensors is missing"):
        AttributionIndex.open(out)
    manifest = out / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"rank": 3', '"rank": 4'))
    with pytest.raises(IntegrityError, match="altered"):
        AttributionIndex.open(out)
    manifest.write_text("{")
    with pytest.raises(IntegrityError, match="damaged"):
        AttributionIndex.open(out)


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"first": 1, "more": 2}', "[" * 100_000, None])
def test_a_unit_with_a_damaged_record_or_altered_sums_is_done_again(model, data, tmp_path, write_limits, damage):
    """None alters a byte of a unit's sums; anything else takes the place of its record."""
    write_limits(shard_bytes=1)
    settings = hidden_settings(rank=3, rows_per_group=4)
    whole = build_index(model, data, tmp_path / "whole", settings, name="tiny").manifest

    def stop(_phase: str, done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(model, data, tmp_path / "out", settings, name="tiny", progress=stop)
    (record,) = (tmp_path / "out" / "build").glob("*/gradients-00001-00002.json")
    sums = record.with_suffix(".safetensors")
    if damage is None:
        content = sums.read_bytes()
        sums.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        record.write_text(damage)
    assert build_index(model, data, tmp_path / "out", settings, name="tiny").manifest == whole
    assert not (tmp_path / "out" / "build").exists()


def test_an_unfinished_index_of_other_inputs_is_named_and_stays(model, data, out):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(model, data, out, hidden_settings(rank=3), name="tiny", progress=stop)
    before = sorted(out.rglob("*"))
    with pytest.raises(MismatchError, match="holds an unfinished index of another model, other data or other settings"):
        build_index(model, data, out, hidden_settings(rank=2), name="tiny")
    assert sorted(out.rglob("*")) == before


def test_a_folder_that_is_no_index_is_refused(model, data, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        AttributionIndex.open(tmp_path / "nothing")
    with pytest.raises(InputError, match="not a finished index"):
        AttributionIndex.open(tmp_path)
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not empty"):
        build_index(model, data, tmp_path, hidden_settings(), name="tiny")


def test_long_records_are_split_and_no_token_is_dropped(model, out):
    text = " ".join(["ships sang"] * 200)
    record = TrainingRecord("long", LONE, text)
    encoder = Encoder(model.tokenizer, 64)
    examples = list(encoder.training(record))
    assert len(examples) > 3
    assert all(len(e.tokens) <= 64 for e in examples)
    first = examples[0]
    predicted = [*first.tokens[: first.start], *(t for e in examples for t in e.tokens[e.start :])]
    assert predicted == model.tokenizer(text)["input_ids"]
    build_index(model, [record], out, hidden_settings(rank=2), name="tiny")
    manifest = AttributionIndex.open(out).manifest
    assert manifest.examples == manifest.groups[0].examples == len(examples)
    assert manifest.tokens == len(predicted) - first.start


def test_a_long_prompt_loses_its_oldest_tokens_and_the_completion_none(model):
    encoder = Encoder(model.tokenizer, 32)
    completion = model.tokenizer(" rain fell", add_special_tokens=False)["input_ids"]
    (example,) = encoder.output(make_output(0, " ".join(["old song"] * 40), " rain fell"))
    assert len(example.tokens) == 32
    assert example.tokens[example.start :].tolist() == completion
    prefix = model.tokenizer("")["input_ids"]
    assert example.tokens[: len(prefix)].tolist() == prefix


def test_an_output_longer_than_a_window_is_the_sum_of_its_windows(model, data, out):
    build_index(model, data, out, hidden_settings(rank=3), name="tiny")
    index = AttributionIndex.open(out)
    long = make_output(0, "the cat", " ".join(["green hills"] * 100))
    windows = Encoder(model.tokenizer, model.max_length).output(long)
    assert len(windows) > 2
    assert sum(window.predicted for window in windows) == len(
        model.tokenizer(long.completion, add_special_tokens=False)["input_ids"]
    )
    layers = choose_layers(model.module, HIDDEN)
    projections = random_projections(layers.shapes, rank=3, seed=0)
    parts = [
        oracle.projected(oracle.weight_gradients(model, window, list(layers.watched)), projections)
        for window in windows
    ]
    whole = index.output_gradients(model, [long])
    for name in layers.watched:
        torch.testing.assert_close(whole[name][0], sum(part[name] for part in parts), rtol=1e-9, atol=1e-10)


def test_damping_must_be_positive_and_unknown_choices_are_named(model, data, out):
    for settings, message in (
        (hidden_settings(damping=0.0), "damping 0.0"),
        (hidden_settings(projection="magic"), "magic"),
        (hidden_settings(curvature="flat"), "flat"),
        (hidden_settings(rows_per_group=1), "at least 2"),
        (hidden_settings(rank=0), "rank 0"),
    ):
        with pytest.raises(ValuationError, match=message):
            build_index(model, data, out, settings, name="tiny")


def test_a_gradient_that_is_not_finite_is_named_and_nothing_is_written(model, data, tmp_path):
    broken = load_model(model.path, dtype="fp64")
    head = broken.module.get_output_embeddings()
    token = broken.tokenizer(" ships", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        head.weight[token] = float("nan")
    with pytest.raises(ValuationError, match=r"gradient of .* is not finite"):
        build_index(broken, data, tmp_path / "broken", hidden_settings(rank=2), name="tiny")
    assert not (tmp_path / "broken" / "manifest.json").exists()


def test_an_output_is_read_with_the_models_whole_context_however_finely_data_is_cut(model, data, out):
    """Cut or not, the same projections give the same gradient; the examples' number shows that data was cut."""
    for name, length in (("fine", 8), ("whole", None)):
        build_index(model, data, out.with_name(name), hidden_settings(rank=3, max_length=length), name="tiny")
    fine, whole = (AttributionIndex.open(out.with_name(name)) for name in ("fine", "whole"))
    assert fine.manifest.examples > whole.manifest.examples
    output = make_output(0, "the cat sat and the ships fell", "old hills and green rain")
    cut, uncut = (Encoder(model.tokenizer, length).output(output)[0] for length in (8, model.max_length))
    assert cut.size < uncut.size
    for name, gradient in whole.output_gradients(model, [output]).items():
        torch.testing.assert_close(fine.output_gradients(model, [output])[name], gradient)
