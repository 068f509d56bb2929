"""What only a GPU can show. Without one these tests are skipped. Where there is one, and little else is installed:

    python -m pytest --confcutdir tests/valuation tests/valuation/test_gpu.py


The same sums as on a CPU, the same bytes at every build, no layer that waits for the device, and real ends of memory.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from credit.records import TrainingRecord
from credit.valuation import AttributionIndex, IndexSettings, build_index, load_model
from credit.valuation.batches import IGNORED, by_window, make_cut
from credit.valuation.gradients import add_grams, mirror
from credit.valuation.hooks import GradientTap
from credit.valuation.influence import projected_gradient
from credit.valuation.language_model import LanguageModel
from credit.valuation.layers import choose_layers
from credit.valuation.losses import sequence_losses
from credit.valuation.manifest import verify_files
from credit.valuation.projection import SideSpec as Side
from credit.valuation.projection import random_projections, vocabulary_hashing
from credit.valuation.revise import update_index, withdraw_provider
from credit.valuation.tokens import cut_window
from tests.models import HIDDEN, hidden_settings, records, save_tiny_model, sentence
from tests.valuation.conftest import FOLDED, SINGLE, make_output
from tests.valuation.engine import example_gradients
from tests.valuation.faults import stopped_often

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

KINDS = {
    "default": IndexSettings(rank=4, example_length=8),
    "fisher": hidden_settings(rank=4, example_length=8),
    "ekfac": hidden_settings(rank=4, curvature="ekfac", projection="pca", example_length=8),
    "pca": hidden_settings(rank=4, curvature="none", projection="pca", layers=("*",)),
    "relatif": hidden_settings(rank=4, weighting="relatif"),
    "split": hidden_settings(rank=4, rows_per_group=3),
}
EACH = pytest.mark.parametrize("settings", [*KINDS.values()], ids=[*KINDS])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("gpu") / "llama", "llama")


@pytest.fixture(scope="module")
def gpu(folder: Path) -> LanguageModel:
    return load_model(folder, dtype="fp64", device="cuda")


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_a_model_in_parts_on_a_gpu_a_cpu_and_a_disk_has_the_gradients_of_the_whole(folder, gpu, data):
    parts = {"model": 0, "model.layers.0": "cpu", "model.layers.1": "disk", "lm_head": "cpu"}
    placed = load_model(folder, dtype="fp64", device=json.dumps(parts))
    assert placed.device == gpu.device
    windows = [window for record in data[:6] for window in gpu.encoder(64).training(record)]
    found = []
    for model in (gpu, placed):
        layers = choose_layers(model.module, ("*",))
        projections = random_projections(layers.shapes, rank=3, seed=1)
        with GradientTap(model.module, layers.watched, projections) as tap:
            found.append(example_gradients(model, tap, windows))
    assert all(torch.equal(found[1][name], rows) for name, rows in found[0].items())


@EACH
def test_a_gpu_credits_as_a_cpu_does(folder, gpu, data, outputs, tmp_path, settings):
    cpu = load_model(folder, dtype="fp64", device="cpu")
    for name, model in (("cpu", cpu), ("gpu", gpu)):
        build_index(model, data, tmp_path / name, settings, name="tiny")
    ours, theirs = (AttributionIndex.open(tmp_path / name) for name in ("gpu", "cpu"))
    verify_files(tmp_path / "gpu", ours.manifest)
    effect = theirs.value(cpu, outputs).effect()
    assert effect.abs().max() > 0
    torch.testing.assert_close(ours.value(gpu, outputs).effect().cpu(), effect, rtol=1e-6, atol=1e-10)
    crossed = AttributionIndex.open(tmp_path / "gpu").value(cpu, outputs).effect()  # built on one, read on the other
    torch.testing.assert_close(crossed, effect, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@EACH
def test_two_builds_and_two_valuations_are_the_same_to_the_last_bit(folder, data, tmp_path, settings, dtype):
    model = load_model(folder, dtype=dtype, device="cuda")
    long = [make_output(i, "", sentence(600 + i, 90 + i)) for i in range(4)]  # of several windows each
    effects = []
    for name in "ab":
        build_index(model, data, tmp_path / name, settings, name="tiny")
        effects.append(AttributionIndex.open(tmp_path / name).value(model, long).effect())
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    assert torch.equal(*effects)


def test_a_build_stopped_anywhere_continues_to_the_same_bytes(gpu, data, tmp_path, write_limits):
    write_limits(shard_bytes=1, waiting_bytes=0)
    build_index(gpu, data, tmp_path / "whole", KINDS["fisher"], name="tiny")
    _, steps = stopped_often(
        lambda stop: build_index(gpu, data, tmp_path / "stopped", KINDS["fisher"], name="tiny", progress=stop), most=100
    )
    assert len(steps) > 6
    assert _bytes(tmp_path / "stopped") == _bytes(tmp_path / "whole")


@pytest.mark.parametrize("name", ["default", "fisher", "split"])
def test_a_changed_index_equals_a_rebuild(gpu, data, outputs, tmp_path, name):
    # Fitted projections stay those of the first data, so that only random ones can be held against a rebuild.
    settings = replace(KINDS[name], projection="random", curvature="fisher")
    more = [replace(r, id=f"new-{r.id}") for r in records({SINGLE: 3, FOLDED: 2}, seed=5)]
    build_index(gpu, data, tmp_path / "grown", settings, name="tiny")
    update_index(tmp_path / "grown", gpu, [*data, *more])
    build_index(gpu, [*data, *more], tmp_path / "new", settings, name="tiny")
    grown, new = (AttributionIndex.open(tmp_path / f) for f in ("grown", "new"))
    torch.testing.assert_close(grown.value(gpu, outputs).effect(), new.value(gpu, outputs).effect())
    withdraw_provider(tmp_path / "grown", gpu, "ben", [*data, *more])
    build_index(gpu, [r for r in [*data, *more] if r.group.provider != "ben"], tmp_path / "left", settings, name="tiny")
    grown, left = (AttributionIndex.open(tmp_path / f) for f in ("grown", "left"))
    torch.testing.assert_close(grown.value(gpu, outputs).effect(), left.value(gpu, outputs).effect())


@pytest.mark.parametrize("hashed", [False, True])
def test_products_of_bf16_lose_nothing(hashed):
    torch.manual_seed(0)
    x, dy = (torch.randn(3, 300, width, device="cuda", dtype=torch.bfloat16) for width in (24, 40))
    p_out = vocabulary_hashing(Side(40, 16, 1)).to(x.device, torch.float32) if hashed else None
    truth = dy.double().mT @ x.double()
    if hashed:
        truth = vocabulary_hashing(Side(40, 16, 1)).to(x.device, torch.float64).sum(truth, 1)
    ours = projected_gradient(x, dy, None, p_out)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), truth, rtol=1e-5, atol=1e-4)
    rows = torch.randn(700, 1500, device="cuda", dtype=torch.bfloat16)
    total = torch.zeros(1500, 1500, device="cuda")
    add_grams([total], rows[None])
    add_grams([total], rows[None])
    torch.testing.assert_close(mirror(total).double(), 2 * rows.double().mT @ rows.double(), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_and_its_gradient_are_those_of_the_logits_as_they_are(dtype):
    torch.manual_seed(0)
    logits = (8 * torch.randn(3, 50, 4000, device="cuda")).to(dtype).requires_grad_()
    labels = torch.randint(4000, (3, 50), device="cuda")
    labels[0, :30] = labels[1, 40:] = IGNORED
    logits.data[2, 3, labels[2, 4]] = 60.0  # as good as certain: p - 1 is far below bf16's last place of p
    exact = logits.detach().double().requires_grad_()
    truth = torch.nn.functional.cross_entropy(exact[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    losses = sequence_losses(logits, labels)
    torch.testing.assert_close(losses.double(), truth.view(3, -1).sum(1), rtol=1e-5, atol=1e-4)
    losses.sum().backward()
    truth.sum().backward()
    places = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-18
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=2 * places, atol=1e-7)


def _waits(folder: Path, settings: IndexSettings, data: Sequence[TrainingRecord]) -> list[str]:
    """Return where the host waits for the device in one pass."""
    model = load_model(folder, dtype="bf16", device="cuda")
    layers = choose_layers(model.module, HIDDEN)
    windows = [w for record in data for w in model.encoder(64).training(record)]
    examples = [e for window in windows for e in cut_window(window, settings.example_length)]
    batch = by_window(examples)
    with GradientTap(model.module, layers.watched, random_projections(layers.shapes, rank=4, seed=0)) as tap:
        made, cut = model.batch([r.window for r in batch]), make_cut(batch, examples, model.device)
        tap.collect(made.loss, made.size, cut)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                tap.collect(made.loss, made.size, cut)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    return [f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]


def test_no_layer_waits_for_the_device(data, tmp_path):
    shallow, deep = (save_tiny_model(tmp_path / f"{n}", "llama", layers=n) for n in (1, 6))
    _waits(shallow, KINDS["fisher"], data)  # what is set up by the first pass of all
    waits = [_waits(folder, KINDS["fisher"], data) for folder in (shallow, deep)]
    assert len(waits[0]) == len(waits[1]) <= 3, waits


def test_where_a_gpus_memory_ends_batches_are_split(folder, data, tmp_path):
    model = load_model(folder, dtype="fp32", device="cuda")
    many = [replace(record, id=f"{record.id}-{copy}") for copy in range(400) for record in data]
    settings = hidden_settings(rank=3, rows_per_group=4, curvature="ekfac")
    build_index(model, many, tmp_path / "roomy", settings, name="tiny")
    sizes = []
    handle = model.module.get_input_embeddings().register_forward_pre_hook(lambda _, a: sizes.append(a[0].numel()))
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 150e6) / total)
    try:
        build_index(model, many, tmp_path / "tight", settings, name="tiny", tokens_per_batch=10**8)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        handle.remove()
    assert max(sizes) > 4 * sizes[-1], "what was too much was halved"
    ours, theirs = (AttributionIndex.open(tmp_path / f) for f in ("tight", "roomy"))
    for (name, a), (_, b) in zip(*(next(i.shards(model.device)) for i in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
