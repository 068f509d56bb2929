"""Echo: tokens of an output that repeat its prompt are read and not paid for."""

from __future__ import annotations

import torch

from credit.valuation import AttributionIndex, build_index
from credit.valuation.batches import make_batch
from credit.valuation.layers import choose_layers
from credit.valuation.tokens import Encoder
from tests.models import hidden_settings, sentence
from tests.valuation.conftest import make_output

PROMPT = sentence(70, 25)
HALF = make_output(0, PROMPT, f" {sentence(71, 6)} {PROMPT} {sentence(72, 6)}")
FREE = make_output(1, PROMPT, " " + sentence(73, 12))
ALL = make_output(2, PROMPT, " " + PROMPT)


def gradients_by_hand(model, output, echo, names):
    """Gradients of the losses of the tokens that are paid for, summed one by one."""
    (window,) = Encoder(model.tokenizer, model.max_length).output(output, echo)
    logits = model.module(torch.as_tensor(window.tokens[None].astype("int64"))).logits[0]
    log_p = torch.log_softmax(logits.double(), -1)
    paid = [place for place in range(window.start, window.size) if not (echo and window.echo[place])]
    loss = -sum(log_p[place - 1, int(window.tokens[place])] for place in paid)
    weights = [dict(model.module.named_modules())[name].weight for name in names]
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, weights)])


def test_the_gradient_is_that_of_the_tokens_that_are_paid_for(model, data, out):
    build_index(model, data, out, hidden_settings(rank=1000), name="tiny")
    index = AttributionIndex.open(out)
    for parameter in model.module.parameters():
        parameter.requires_grad_(True)
    names = list(choose_layers(model.module, ("!lm_head",)).watched)
    for echo in (0, 8):
        ours = index.output_gradients(model, [HALF, FREE], echo=echo)
        size = [sum(float(rows[place].square().sum()) for rows in ours.values()) for place in (0, 1)]
        for place, output in enumerate((HALF, FREE)):
            truth = gradients_by_hand(model, output, echo, names)
            # At full rank a projection turns the gradient and keeps its length.
            torch.testing.assert_close(size[place], float(truth.square().sum()), rtol=1e-4, atol=0)


def test_an_output_without_echo_is_valued_as_before_and_one_of_echo_alone_by_nothing(model, data, out):
    build_index(model, data, out, hidden_settings(rank=4), name="tiny")
    index = AttributionIndex.open(out)
    before, after = (index.value(model, [FREE, HALF], echo=echo) for echo in (0, 8))
    torch.testing.assert_close(after.influence[0], before.influence[0], rtol=1e-5, atol=1e-7)
    assert not torch.allclose(after.influence[1], before.influence[1])
    windows = Encoder(model.tokenizer, model.max_length).output(ALL, 8)
    echoed = make_batch(windows).labels
    assert int((echoed != -100).sum()) <= 2
    nothing = index.value(model, [ALL], echo=1)
    assert float(nothing.influence.abs().max()) == 0.0
    assert float(nothing.effect().abs().max()) == 0.0
