from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from credit.valuation import losses as losses_module
from credit.valuation.losses import sequence_losses


def _plain(logits: Tensor, labels: Tensor) -> Tensor:
    """The definition: one example, one token at a time."""
    return torch.stack(
        [
            sum(
                (-row[t - 1].log_softmax(-1)[token] for t, token in enumerate(own) if t and token >= 0),
                start=torch.zeros((), dtype=logits.dtype),
            )
            for row, own in zip(logits, labels.tolist(), strict=True)
        ]
    )


@given(
    windows=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4),
    vocabulary=st.integers(2, 9),
    chunk=st.integers(1, 60),
    scaled=st.booleans(),
)
def test_losses_and_gradients_are_those_of_single_tokens_whatever_the_chunks(windows, vocabulary, chunk, scaled):
    generator = torch.Generator().manual_seed(vocabulary)
    logits = 3 * torch.randn(len(windows), 6, vocabulary, generator=generator, dtype=torch.float64)
    labels = torch.randint(vocabulary, (len(windows), 6), generator=generator)
    labels[~torch.tensor(windows)] = -100
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    weights = torch.rand(len(windows), generator=generator, dtype=torch.float64) if scaled else 1.0
    with patch.object(losses_module, "CHUNK_LOGITS", {"cpu": chunk}):
        found = sequence_losses(ours, labels)
        (found * weights).sum().backward()
        with torch.no_grad():
            assert torch.equal(sequence_losses(ours, labels), found)
    expected = _plain(theirs, labels)
    torch.testing.assert_close(found, expected)
    if expected.requires_grad:
        (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, torch.zeros_like(logits) if theirs.grad is None else theirs.grad)


@pytest.mark.parametrize("junk", [torch.nan, torch.inf])
def test_what_stands_where_nothing_is_predicted_does_not_matter(junk):
    logits = torch.randn(2, 5, 7)
    labels = torch.tensor([[-100, -100, 3, 4, -100], [1, 2, -100, 6, -100]])
    broken = logits.clone()
    broken[0, [0, 3, 4]] = broken[1, [1, 3, 4]] = junk
    gradients = []
    for values in (logits, broken):
        own = values.requires_grad_()
        found = sequence_losses(own, labels)
        assert found.isfinite().all()
        gradients.append(torch.autograd.grad(found.sum(), own)[0])
    assert torch.equal(*gradients)
    assert not gradients[0][0, [0, 3, 4]].any()


def test_float16_keeps_the_gradients_of_improbable_tokens():
    logits = torch.linspace(0, 20, 4000).half().expand(1, 5, -1).clone()  # probabilities down to 1e-11
    labels = torch.full((1, 5), 3999)
    exact, rounded = logits.double().requires_grad_(), logits.clone().requires_grad_()
    sequence_losses(exact, labels).sum().backward()
    (sequence_losses(rounded, labels) * 256.0).sum().backward()  # as a tap scales the loss
    ours, truth = rounded.grad.double() / 256, exact.grad
    large = truth.abs() > 2e-7
    assert float(large.double().mean()) > 0.3
    torch.testing.assert_close(ours[large], truth[large], rtol=2e-3, atol=0)
    assert bool((ours[truth.abs() > 1e-9] != 0).all()), "below 6e-8, where float16 ends"


def test_low_precision_is_rounded_once_at_the_end():
    logits = torch.randn(3, 40, 50).bfloat16()
    labels = torch.randint(50, (3, 40))
    exact, rounded = logits.float().requires_grad_(), logits.clone().requires_grad_()
    wide, narrow = sequence_losses(exact, labels), sequence_losses(rounded, labels)
    assert torch.equal(wide, narrow)
    assert narrow.dtype == torch.float32
    wide.sum().backward()
    narrow.sum().backward()
    assert torch.equal(exact.grad.bfloat16(), rounded.grad)


def test_beside_the_logits_one_matrix_of_their_size_is_all_that_is_kept():
    logits = torch.randn(4, 64, 512, requires_grad=True)
    labels = torch.randint(512, (4, 64))
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        found = sequence_losses(logits, labels)
    assert sum(size for size in kept if size >= 512) == logits.numel()
    found.sum().backward()
    reference = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(logits.grad, torch.autograd.grad(reference, logits)[0])
