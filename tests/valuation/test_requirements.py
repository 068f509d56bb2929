from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.measure import peak_bytes
from credit.errors import ValuationError
from credit.records import TrainingRecord
from credit.valuation import AttributionIndex, build_index, load_model, requirements
from credit.valuation import writer as writer_module
from credit.valuation.build import plan_index
from credit.valuation.language_model import LanguageModel
from credit.valuation.layers import LayerShape
from credit.valuation.manifest import IndexSettings
from credit.valuation.probe import Probe, storing_seconds
from credit.valuation.requirements import Needs, build_needs, check_needs, duration_in_words
from tests.commands import full_disk
from tests.models import hidden_settings, tiny_tokenizer

SHAPES = tuple(LayerShape(f"l{i}", 4096, 4096) for i in range(24))
CPU = torch.device("cpu")
MB = 10**6


def test_needs_are_those_worked_out_by_hand():
    one = (LayerShape("l", 400, 200),)
    needs = build_needs(5000, 1000, one, hidden_settings(rank=64), 2**30)
    fisher = 4096**2 * 4
    sides = 64 * (400 + 200) * 4
    assert needs.gradient == 4096
    assert needs.disk_bytes == 1000 * (4096 * 4 + 24) + sides + 3 * fisher + 5000 * 56
    assert needs.curvature_bytes == 8 * fisher  # the factor beside what factorising it takes
    assert needs.filling_bytes == sides + 1000 * 4096 * 4 + 256 * 4096 * 4  # a shard, and a block of gradients
    assert needs.fitting_bytes == 0
    many = build_needs(5000, 1000, SHAPES, hidden_settings(rank=64), 2**28)
    assert many.curvature_bytes == 24 * fisher + 7 * fisher
    assert many.filling_bytes == 24 * (64 * 2 * 4096 * 4) + 24 * 256 * 4096 * 4 + 2**28
    assert many.memory_bytes == many.curvature_bytes + many.filling_bytes
    small = build_needs(5000, 1000, one, hidden_settings(rank=64, curvature="ekfac", rows_dtype="int8"), 2**20)
    assert small.disk_bytes == 1000 * (4096 + 4096 // 64 * 2 + 24) + sides + 2 * (2 * 4096 * 4) + 5000 * 56
    assert small.fitting_bytes == sides + (400**2 + 200**2 + 2 * 400**2) * 4
    pca = build_needs(5000, 1000, one, hidden_settings(rank=64, projection="pca"), 2**20)
    assert pca.fitting_bytes == small.fitting_bytes + 6 * 400**2 * 4
    assert replace(needs, batch_bytes=MB).memory_bytes == needs.memory_bytes + MB


@pytest.mark.parametrize("curvature", ["none", "fisher", "ekfac"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_the_estimate_of_disk_is_what_the_index_takes(model, data, out, curvature, dtype):
    seen: list[Needs] = []
    settings = hidden_settings(rank=8, curvature=curvature, rows_dtype=dtype)
    build_index(model, data, out, settings, name="tiny", announce=seen.append)
    manifest = AttributionIndex.open(out).manifest
    tensors = sum((out / name).stat().st_size for name in manifest.files if name.endswith(".safetensors"))
    widened = 2 if dtype == "fp32" or curvature != "none" else 1  # this model is float64, which doubles what is kept
    assert 0.3 * seen[0].disk_bytes < tensors < widened * seen[0].disk_bytes + 40_000


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose moments, curvature or logits take tens of megabytes, according to the settings."""
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4096, hidden_size=512, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64,
        )
    ).save_pretrained(folder)  # fmt: skip
    tiny_tokenizer().save_pretrained(folder)
    return folder


def _peak_of_build(
    channel: Connection,
    path: Path,
    data: Sequence[TrainingRecord],
    out: Path,
    settings: IndexSettings,
    tokens_per_batch: int,
) -> None:
    """In a process of its own: the needs that were announced, and by how much memory grew at the most."""
    torch.set_num_threads(1)
    model = load_model(path, dtype="fp32", device="cpu")
    seen: list[Needs] = []
    # Code and weights come into memory when they are first used.
    warm_up = replace(settings, rank=2, curvature="none")
    build_index(model, data[:20], out.with_name("warm-up"), warm_up, name="wide", tokens_per_batch=64, announce=str)
    before = peak_bytes()
    build_index(model, data, out, settings, name="wide", tokens_per_batch=tokens_per_batch, announce=seen.append)
    channel.send((seen[0], peak_bytes() - before))


@pytest.mark.parametrize(
    ("settings", "tokens_per_batch", "least"),
    [
        pytest.param(hidden_settings(rank=40, layers=("*.self_attn.*",)), 64, 100 * MB, id="curvature"),
        pytest.param(hidden_settings(rank=2, curvature="ekfac"), 64, 50 * MB, id="moments"),
        pytest.param(hidden_settings(rank=2, curvature="none"), 2048, 60 * MB, id="batch"),
    ],
)
def test_the_estimate_of_memory_is_what_a_build_takes(wide_model, data, out, settings, tokens_per_batch, least):
    # A fork would build in what the process of the tests has freed, and would not grow.
    anew = multiprocessing.get_context("spawn")
    ours, theirs = anew.Pipe()
    more = [replace(record, id=f"{record.id}-{copy}") for copy in range(16) for record in data]
    child = anew.Process(target=_peak_of_build, args=(theirs, wide_model, more, out, settings, tokens_per_batch))
    child.start()
    theirs.close()
    needs, grown = ours.recv()
    child.join()
    assert needs.memory_bytes > least, "too little to be told from the noise"
    # Freed blocks of some megabytes stay with the process, and are used again or not.
    assert 0.4 < grown / needs.memory_bytes < 2.5, f"{needs}, but memory grew by {grown / MB:.0f} MB"


def test_what_cannot_fit_is_refused_with_the_option_that_would_make_it_fit(tmp_path, machine_with):
    with pytest.raises(ValuationError, match=r"1000000\.0 TB of disk.*--rows-per-group.*--rows-dtype int8"):
        check_needs(Needs(1, 10**18), tmp_path, CPU)
    machine_with(10**9)
    for needs, remedy in (
        (
            Needs(1, 0, curvature_bytes=2 * 10**9),
            r"2\.0 GB of memory on cpu .*lower --rank, or use --curv",
        ),
        (Needs(1, 0, fitting_bytes=2 * 10**9), "--layers, or use --projection random"),
        (Needs(1, 0, filling_bytes=2 * 10**9), "lower --rank, or watch fewer layers"),
        (Needs(1, 0, filling_bytes=10**8, batch_bytes=2 * 10**9), "lower --max-length, use --dtype bf16"),
    ):
        with pytest.raises(ValuationError, match=remedy):
            check_needs(needs, tmp_path, CPU)
    check_needs(Needs(1, 0, 10**8, 10**8, 10**8, 10**8), tmp_path, CPU)
    four = Needs(1, 0, filling_bytes=3 * 10**8, workers=4)
    assert "1.2 GB (4 x 300.0 MB) of memory" in str(four)
    with pytest.raises(
        ValuationError, match=r"1\.2 GB \(4 x 300\.0 MB\).*1000\.0 MB are av.*fewer than 4 --workers, or"
    ):
        check_needs(four, tmp_path, CPU)
    check_needs(replace(four, workers=3), tmp_path, CPU)


def test_where_memory_is_short_batches_are_smaller(model, data, out, machine_with):
    settings = hidden_settings(rank=3)

    def build(folder: str, available: int) -> tuple[Needs, list[int], AttributionIndex]:
        machine_with(available)
        seen, tried = [], []
        embedding = model.module.get_input_embeddings()
        with embedding.register_forward_pre_hook(lambda _, args: tried.append(args[0].numel())):
            build_index(model, data, out / folder, settings, name="tiny", announce=seen.append)
        return seen[0], tried, AttributionIndex.open(out / folder)

    needs, tried, roomy = build("roomy", 10**12)
    rest = needs.memory_bytes - needs.batch_bytes
    fewer, smaller, tight = build("tight", rest + needs.batch_bytes // 2)
    assert fewer.memory_bytes <= rest + needs.batch_bytes // 2
    assert max(smaller[-5:]) <= max(tried) / 2
    for (name, a), (_, b) in zip(*(next(i.shards(model.device)) for i in (roomy, tight)), strict=True):
        torch.testing.assert_close(a, b, msg=lambda m, n=name: f"{n}: {m}")
    with pytest.raises(ValuationError, match=r"of memory on cpu .* lower --max-length"):
        build("none", rest + needs.batch_bytes // 1000)


def test_what_an_unfinished_build_has_written_is_not_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr(requirements.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=1000))
    with pytest.raises(ValuationError, match="of disk"):
        check_needs(Needs(1, 1500), tmp_path, CPU)
    (tmp_path / "rows-00000.safetensors").write_bytes(bytes(600))
    check_needs(Needs(1, 1500), tmp_path, CPU)


def test_a_build_that_is_refused_leaves_the_folder_to_other_settings(model, data, out, machine_with):
    machine_with(1024)
    with pytest.raises(ValuationError, match="--rank"):
        build_index(model, data, out, hidden_settings(rank=8), name="tiny")
    machine_with(10**12)
    build_index(model, data, out, hidden_settings(rank=2), name="tiny")


class TestPasses:
    """The time is that of all passes that are left: a probe that says one second a token counts tokens."""

    @pytest.fixture(autouse=True)
    def _a_second_a_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def one_second(*_args: object, fitted: bool, **_kwargs: object) -> Probe:
            return Probe(
                gradient=1.0, moment=0.0 if fitted else 1e6, summing=0.0, weighing=0.0, once=0.0, batch_bytes=7
            )

        monkeypatch.setattr(writer_module, "probe", one_second)
        monkeypatch.setattr(writer_module, "storing_seconds", lambda *_: 0.0)

    def _seconds(
        self, model: LanguageModel, data: Sequence[TrainingRecord], out: Path, settings: IndexSettings, stop_at: int = 0
    ) -> float | None:
        seen: list[Needs] = []

        def stop(phase: str, done: int, total: int) -> None:
            if phase == "gradients" and done >= stop_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build_index(
                model, data, out, settings, name="tiny", tokens_per_batch=1, progress=stop, announce=seen.append
            )
        assert seen[0].batch_bytes == 7
        return seen[0].seconds

    @pytest.mark.parametrize(
        ("settings", "passes", "fits"),
        [
            (hidden_settings(rank=3), 1, False),
            (hidden_settings(rank=3, projection="pca"), 1, True),
            (hidden_settings(rank=3, curvature="ekfac"), 1, True),
            (hidden_settings(rank=3, weighting="unit"), 1, False),
            (hidden_settings(rank=3, weighting="relatif"), 2, False),
            (hidden_settings(rank=3, weighting="relatif", projection="pca", curvature="none"), 1, True),
            (hidden_settings(rank=3, weighting="relatif", curvature="ekfac", sample=5), 2, True),
        ],
    )
    def test_every_pass_is_counted(self, model, data, out, settings, passes, fits):
        examples = [example for record in data for example in model.encoder(64).training(record)]
        total = sum(example.size for example in examples)
        seconds = self._seconds(model, data, out, settings)
        fitting, rest = divmod(seconds, 1e6)
        assert rest == passes * total
        assert bool(fitting) == fits
        assert fitting <= total * min(settings.sample, len(examples)) / len(examples) + 64
        # Stopped in the last pass, it has its projections and its first pass behind it.
        assert self._seconds(model, data, out, settings) == total

    def test_what_is_done_is_not_counted_again(self, model, data, out, write_limits):
        write_limits(shard_bytes=1, waiting_bytes=0)
        settings = hidden_settings(rank=3, rows_per_group=4)
        whole = self._seconds(model, data, out, settings, stop_at=100)
        assert whole - 130 < self._seconds(model, data, out, settings, stop_at=100) < whole - 70

    def test_what_is_stored_is_not_counted_again(self, model, data, out, monkeypatch, write_limits):
        write_limits(shard_bytes=1, waiting_bytes=0)
        asked: list[int] = []
        monkeypatch.setattr(writer_module, "storing_seconds", lambda _folder, size, _device: asked.append(size) or 0.0)
        settings = hidden_settings(rank=3, rows_per_group=4)
        for stop_at in (0, 100, 100):
            self._seconds(model, data, out, settings, stop_at=stop_at)
        plan = plan_index(model, data, out.parent / "other", settings)
        assert asked[0] == asked[3] == plan.needs.disk_bytes
        assert asked[0] == asked[1] > 1.2 * asked[2] > 0


def test_storing_is_timed_in_proportion_and_leaves_nothing(tmp_path):
    folder = tmp_path / "no" / "such" / "index"
    assert storing_seconds(folder, 10, CPU) == 0.0, "a part of it is nothing"
    assert storing_seconds(folder, 10**9, CPU) > 0.0
    assert list(tmp_path.iterdir()) == []


def test_storing_takes_no_known_time_where_nothing_can_be_written(tmp_path):
    with full_disk():
        assert storing_seconds(tmp_path, 10**9, CPU) == 0.0


@pytest.mark.parametrize(
    "settings",
    [
        hidden_settings(rank=3),
        hidden_settings(rank=3, projection="pca", curvature="none"),
        hidden_settings(rank=3, weighting="relatif", curvature="ekfac"),
    ],
    ids=["fisher", "pca", "relatif"],
)
def test_a_probe_is_short_and_changes_nothing(model, data, tmp_path, settings):
    more = [replace(record, id=f"{record.id}-{copy}") for copy in range(10) for record in data]
    build_index(model, more, tmp_path / "plain", settings, name="tiny")
    seen: list[Needs] = []
    tokens: list[int] = []

    def announced(needs: Needs) -> None:
        seen.append(needs)
        handle.remove()

    handle = model.module.get_input_embeddings().register_forward_pre_hook(
        lambda _module, args: tokens.append(args[0].numel())
    )
    manifest = build_index(model, more, tmp_path / "probed", settings, name="tiny", announce=announced).manifest
    assert manifest.files == AttributionIndex.open(tmp_path / "plain").manifest.files
    (needs,) = seen
    assert needs.seconds > 0
    assert needs.batch_bytes > 4096 * 320 * 8 / 2, "the logits of a batch alone are as large"
    total = manifest.tokens
    assert max(tokens) < total / 15
    assert sum(tokens) < total / 3


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "less than a second"),
        (39.1, "about 40 s"),
        (60, "about 1 min"),
        (199, "about 3 min 20 s"),
        (3599, "about 60 min"),
        (5 * 3600 + 601, "about 5 h 10 min"),
        (47.999 * 3600, "about 48 h"),
        (3 * 86400 + 4 * 3600, "about 3 days 4 h"),
        (1e9, "about 11574 days 2 h"),
    ],
)
def test_a_duration_is_said_in_words(seconds, words):
    assert duration_in_words(seconds) == words
