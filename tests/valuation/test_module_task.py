"""A user's own module and loss, against autograd one sample at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from credit.errors import InputError, MismatchError, ValuationError
from credit.records import Group
from credit.valuation import AttributionIndex, ModuleTask, TensorSample, build_index
from credit.valuation.revise import update_index, withdraw_provider
from tests.models import dense_settings

ANN, BEN = Group("ann"), Group("ben")


class Patches(nn.Module):
    """Linear layers over samples (N, 6), over positions (N, 4, 6), by name, and over a grid of them (N, 2, 2, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = nn.Linear(6, 5)
        self.row = nn.Linear(5, 7)
        self.pooled = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.grid(x.unflatten(1, (2, 2))).tanh().flatten(1, 2)
        return self.pooled(self.row(input=y).tanh().mean(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Dropout(0.5), nn.Linear(9, 3))


def classify(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(module(x), y, reduction="sum")


def regress(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return 0.5 * (module(x) - y).square().sum()


def _samples(shape: tuple[int, ...], count: int, *, seed: int = 0, regression: bool = False) -> list[TensorSample]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(count):
        x = torch.randn(*shape, 6, generator=generator, dtype=torch.float64)
        y = torch.randn(3, generator=generator, dtype=torch.float64) if regression else torch.tensor(i % 3)
        made.append(TensorSample(f"s{seed}-{i}", (x, y), ANN if i % 3 else BEN))
    return made


CASES = {
    "mlp": (mlp, (), classify),
    "regression": (mlp, (), regress),
    "positions and grids": (Patches, (4,), classify),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> tuple[ModuleTask, list[TensorSample], list[TensorSample]]:
    """A task, its training samples and two queries."""
    make, shape, loss = request.param
    torch.manual_seed(0)
    task = ModuleTask(make().double(), loss)
    regression = loss is regress
    return task, _samples(shape, 17, regression=regression), _samples(shape, 2, seed=1, regression=regression)


def _gradients(task: ModuleTask, sample: TensorSample, names: Sequence[str]) -> tuple[Tensor, ...]:
    task.module.eval()
    weights = [task.module.get_submodule(name).weight for name in names]
    loss = task.loss(task.module, *(tensor[None] for tensor in sample.tensors))
    return torch.autograd.grad(loss, weights)


@pytest.mark.parametrize("tokens_per_batch", [1, 5, 1000])
def test_full_rank_influence_is_that_of_autograd_and_a_dense_inverse(case, out, tokens_per_batch):
    task, samples, queries = case
    settings = dense_settings(rank=99, rows_per_group=None, damping=0.3)
    build_index(task, samples, out, settings, name="own", tokens_per_batch=tokens_per_batch)
    index = AttributionIndex.open(out)
    names = [layer.name for layer in index.manifest.layers]
    assert len(names) == len([m for m in task.module.modules() if isinstance(m, nn.Linear)])
    train = [_gradients(task, sample, names) for sample in samples]
    truth = torch.zeros(len(queries), len(samples), dtype=torch.float64)
    for q, query in enumerate(queries):
        for layer, g_q in enumerate(_gradients(task, query, names)):
            rows = torch.stack([gradients[layer].flatten() for gradients in train])
            fisher = rows.mT @ rows / len(rows)
            damped = fisher + 0.3 * fisher.diagonal().mean() * torch.eye(len(fisher), dtype=torch.float64)
            truth[q] += torch.linalg.solve(damped, g_q.flatten()) @ rows.mT / len(rows)
    order = [line.split('"')[1] for line in index.path("examples.jsonl").read_text().splitlines()]
    columns = [order.index(sample.id) for sample in samples]
    torch.testing.assert_close(index.row_influence(task, queries)[:, columns], truth, rtol=1e-6, atol=1e-12)
    for column, group in enumerate(index.groups):
        members = [i for i, sample in enumerate(samples) if sample.group == group]
        influence = index.value(task, queries).influence[:, column]
        torch.testing.assert_close(influence, truth[:, members].sum(1), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("projection", "curvature"), [("pca", "fisher"), ("pca", "none"), ("random", "ekfac")])
def test_projections_are_fitted_and_indexes_revised_as_those_of_language_models(case, tmp_path, projection, curvature):
    task, samples, queries = case
    settings = dense_settings(rank=3, projection=projection, curvature=curvature, rows_per_group=4)
    build_index(task, samples, tmp_path / "index", settings, name="own")
    before = AttributionIndex.open(tmp_path / "index").value(task, queries).effect()
    update_index(tmp_path / "index", task, [TensorSample(f"more-{s.id}", s.tensors, s.group) for s in samples[:5]])
    new = [TensorSample("later", samples[0].tensors, Group("eve"))]
    update_index(tmp_path / "index", task, new)
    withdraw_provider(tmp_path / "index", task, "eve", new)
    assert before.isfinite().all()
    with pytest.raises(MismatchError, match="another content"):
        update_index(tmp_path / "index", task, [TensorSample(samples[0].id, samples[1].tensors, samples[0].group)])


def mean_loss(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(module(x), y)


def contrasted(module: nn.Module, x: Tensor, _y: Tensor) -> Tensor:
    return (module(x) @ module(x).mT).logsumexp(1).sum()


def mean_of_positions(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(module(x), y, reduction="sum") / x[0].numel()


@pytest.mark.parametrize("loss", [mean_loss, contrasted])
@pytest.mark.parametrize("training", [True, False])
def test_a_loss_that_is_no_sum_over_the_examples_is_refused(out, loss, training):
    module = mlp().double().train(training)
    task = ModuleTask(module, loss)
    with pytest.raises(ValuationError, match=r"s0-\d+ and s0-\d+ together is .*reduction='sum'"):
        build_index(task, _samples((), 8), out, dense_settings(rank=3), name="own")
    assert {part.training for part in module.modules()} == {training}
    index_of_sums = ModuleTask(module, mean_of_positions)
    build_index(index_of_sums, _samples((), 8), out.parent / "sums", dense_settings(rank=3), name="own")
    with pytest.raises(ValuationError, match="together is"):
        AttributionIndex.open(out.parent / "sums").value(task, _samples((), 2, seed=1))


def test_a_loss_is_checked_once_without_dropout_and_not_where_it_is_drawn():
    calls = []

    def counted(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        assert not module.training
        calls.append(len(x))
        return classify(module, x, y)

    def drawn(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return classify(module, x + torch.randn_like(x), y)

    task, samples = ModuleTask(mlp().double(), counted), _samples((), 3)
    for _ in range(3):
        task.batch(samples)
        task.batch(samples[:1])
    assert calls == [2, 2, 1, 1]
    ModuleTask(mlp().double(), drawn).batch(samples)


def test_a_task_is_known_by_its_weights(out):
    torch.manual_seed(0)
    module = mlp()
    samples = [TensorSample(s.id, (s.tensors[0].float(), s.tensors[1]), s.group) for s in _samples((), 9)]
    build_index(ModuleTask(module, classify), samples, out, dense_settings(rank=3), name="own")
    index = AttributionIndex.open(out)
    index.value(ModuleTask(module, classify), samples[:1])
    with torch.no_grad():
        module[0].weight[0, 0] += 1
    with pytest.raises(MismatchError, match="is not the model"):
        index.value(ModuleTask(module, classify), samples[:1])


def test_tensors_of_unlike_shapes_need_a_collate(out):
    """Padded by the user, who also leaves the padding out of the loss."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(6, 2)).double()
    samples = [
        TensorSample(f"s{n}", (torch.randn(n, 6, dtype=torch.float64),), ANN if n % 2 else BEN, size=n)
        for n in range(1, 8)
    ]

    def loss(module: nn.Module, x: Tensor, real: Tensor) -> Tensor:
        return (module(x).square().sum(-1) * real).sum()

    def collate(chosen: Sequence[TensorSample]) -> tuple[Tensor, Tensor]:
        x = nn.utils.rnn.pad_sequence([sample.tensors[0] for sample in chosen], batch_first=True)
        lengths = torch.tensor([len(sample.tensors[0]) for sample in chosen])
        return x, torch.arange(x.shape[1]) < lengths[:, None]

    with pytest.raises(InputError, match=r"s1 and s2 hold tensors .* give ModuleTask a collate"):
        build_index(ModuleTask(layer, loss), samples, out, dense_settings(rank=9), name="own")
    task = ModuleTask(layer, loss, collate)
    settings = dense_settings(rank=9, curvature="none", rows_per_group=None)
    build_index(task, samples, out.with_name("padded"), settings, name="own", tokens_per_batch=14)
    index = AttributionIndex.open(out.with_name("padded"))
    truth = [torch.autograd.grad(loss(layer, *collate([s])), layer[0].weight)[0] for s in samples]
    order = [line.split('"')[1] for line in index.path("examples.jsonl").read_text().splitlines()]
    values = index.row_influence(task, samples[:1])[0]
    for sample, gradient in zip(samples, truth, strict=True):
        expected = float((gradient * truth[0]).sum()) / len(samples)
        assert values[order.index(sample.id)].item() == pytest.approx(expected, rel=1e-9)


def test_what_cannot_be_used_is_said(out):
    task = ModuleTask(mlp(), lambda module, x: module(x).sum(1))
    x = torch.zeros(6)
    with pytest.raises(InputError, match="sample s has no group"):
        build_index(task, [TensorSample("s", (x,))], out, dense_settings(rank=2), name="own")
    with pytest.raises(ValuationError, match=r"loss has shape \(1,\); it must be the sum"):
        build_index(task, [TensorSample("s", (x,), ANN)], out, dense_settings(rank=2), name="own")
