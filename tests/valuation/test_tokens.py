"""Windows, dates and quotations: the tokens that a model saw, and the words that a record holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from credit.errors import InputError, NothingToPredictError
from credit.records import Group, Message, TrainingRecord
from credit.valuation import chats
from credit.valuation.examples import encode_training
from credit.valuation.tokens import Encoder, Window, echo_of
from tests.models import sentence, tiny_tokenizer
from tests.valuation.conftest import make_output

ANN = Group("ann")
TURNS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
DATED = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}" + TURNS


def metaspace_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer of SentencePiece's kind, which puts a ▁ before a text: as Llama 2's, or by a pre-tokenizer."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False, unk_token="<unk>"))
    if kind == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=True)
    texts = [sentence(i, 12) + "." for i in range(50)] + ["harbour lay bour\n" * 3]
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


def _pieces(tokenizer: PreTrainedTokenizerFast, window: Window) -> list[str]:
    return tokenizer.convert_ids_to_tokens(window.said.tolist())


@pytest.mark.parametrize("kind", ["first", "always", "normalizer"])
def test_a_completion_that_starts_inside_a_word_starts_without_the_mark_of_a_word(kind):
    tokenizer = metaspace_tokenizer(kind)
    encoder = Encoder(tokenizer, 64)
    for prompt, completion in (("the h", "ills and rain"), ("the har", "bour lay"), ("over ", "green hills")):
        (window,) = encoder.output(make_output(1, prompt, completion))
        assert "".join(_pieces(tokenizer, window)) == completion.replace(" ", "▁"), (prompt, completion)
        prompt_ids = tokenizer(prompt)["input_ids"]
        assert window.tokens[: window.start].tolist() == prompt_ids, "the model saw the prompt alone"
    (window,) = encoder.output(make_output(1, "the cat", " sat on"))
    assert "".join(_pieces(tokenizer, window)) == "▁sat▁on", "one mark for one blank"
    (window,) = encoder.output(make_output(1, "", "the cat"))
    assert "".join(_pieces(tokenizer, window)) == "▁the▁cat", "a text without a prompt starts a word"


@pytest.mark.parametrize("kind", ["first", "always", "normalizer"])
def test_training_reads_a_completion_as_an_output_is_read(kind):
    encoder = Encoder(metaspace_tokenizer(kind), 64)
    (learned,) = encoder.training(TrainingRecord("r", ANN, "ills and rain", "the h"))
    (said,) = encoder.output(make_output(1, "the h", "ills and rain"))
    assert learned.said.tolist() == said.said.tolist()


@given(prompt=st.text("ab \nc.é日", max_size=8), completion=st.text("ab \nc.é日", min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_prompt_and_completion_keep_their_characters_whatever_lies_at_their_border(prompt, completion):
    tokenizer = tiny_tokenizer(bos=False)
    try:
        windows = Encoder(tokenizer, 64).output(make_output(1, prompt, completion))
    except InputError:
        return  # a single token without a prompt
    (window,) = windows
    assert tokenizer.decode(window.tokens) == prompt + completion
    if prompt:
        assert tokenizer.decode(window.tokens[: window.start]) == tokenizer.decode(tokenizer(prompt)["input_ids"])


def test_a_long_output_keeps_its_prompt_and_half_a_window_of_context():
    tokenizer = tiny_tokenizer()
    completion = " ".join(sentence(i, 9) for i in range(30))
    reading = Encoder(tokenizer, 64).read_output(make_output(1, "the cat sat", completion))
    prompt = tokenizer("the cat sat")["input_ids"]
    said = [token for window in reading.windows for token in window.said.tolist()]
    whole = tokenizer("the cat sat" + completion)["input_ids"]
    assert said == tokenizer(completion, add_special_tokens=False)["input_ids"], "each token is predicted once"
    assert reading.windows[0].tokens[: reading.windows[0].start].tolist() == prompt
    assert all(window.start == 32 for window in reading.windows[1:]), "later windows have half of it as context"
    assert all(window.size <= 64 for window in reading.windows)
    assert f"has {len(prompt) + len(said)} tokens with its prompt, and the model reads 64" in reading.shortage
    assert f"valued in {len(reading.windows)} windows" in reading.shortage
    assert whole
    short = Encoder(tokenizer, 64).read_output(make_output(1, "the cat sat", " on a mat"))
    assert not short.shortage
    tail = Encoder(tokenizer, 16).read_output(make_output(1, sentence(3, 40), " on a mat"))
    assert "oldest tokens of its prompt" in tail.shortage


def test_a_long_completion_is_learned_with_its_prompt_before_it():
    tokenizer = tiny_tokenizer()
    completion = " ".join(sentence(i, 9) for i in range(30))
    windows = list(Encoder(tokenizer, 64).training(TrainingRecord("r", ANN, completion, "the cat sat")))
    prompt = tokenizer("the cat sat")["input_ids"]
    assert windows[0].tokens[: windows[0].start].tolist() == prompt
    said = [token for window in windows for token in window.said.tolist()]
    assert said == tokenizer(completion, add_special_tokens=False)["input_ids"]


def test_a_template_sees_the_frozen_date_in_training_and_an_outputs_own_in_an_output():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = DATED
    chat = (Message("user", "now"), Message("assistant", "la"))
    record = TrainingRecord("r", ANN, messages=chat)
    (default,) = Encoder(tokenizer, 64).training(record)
    (chosen,) = Encoder(tokenizer, 64, "2025-01-31").training(record)
    assert tokenizer.decode(default.tokens).startswith("26 Jul 2024<user>now")
    assert tokenizer.decode(chosen.tokens).startswith("31 Jan 2025<user>now")
    output = replace(make_output(1, "", "la"), messages=chat[:1], occurred_at=datetime(2026, 9, 3, tzinfo=UTC))
    (read,) = Encoder(tokenizer, 64, "2025-01-31").output(output)
    assert tokenizer.decode(read.tokens).startswith("03 Sep 2026<user>now")
    with pytest.raises(InputError, match="date for templates, 'May'"):
        Encoder(tokenizer, 64, "May")


def test_a_template_that_never_ends_is_given_up_after_some_conversations(monkeypatch):
    monkeypatch.setattr(chats, "TEMPLATE_SECONDS", 0.05)
    monkeypatch.setattr(chats, "TEMPLATE_STOPS", 2)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ 10 ** (10 ** 9) }}"
    encoder = Encoder(tokenizer, 64)
    chat = (Message("user", "now"), Message("assistant", "la"))
    reasons = []
    found = encode_training(
        [TrainingRecord(f"r{i}", ANN, messages=chat) for i in range(4)] + [TrainingRecord("t", ANN, "the cat sat")],
        encoder,
        unusable=lambda error: reasons.append(str(error)),
    )
    assert [member.id for member in found.members] == ["t"]
    assert ["is not done after" in reason for reason in reasons] == [True, True, False, False]
    assert "not done within its limits for 2 conversations in a row" in reasons[-1]


def test_a_record_that_cannot_be_encoded_or_predicts_nothing_is_told_and_left_out():
    tokenizer = tiny_tokenizer(bos=False)
    tokenizer.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + TURNS
    encoder = Encoder(tokenizer, 64)
    good = TrainingRecord("good", ANN, messages=(Message("user", "now"), Message("assistant", "la")))
    bad = replace(good, id="bad", messages=(Message("system", "be"), *good.messages))
    lone = TrainingRecord("lone", ANN, "a")
    told = []
    found = encode_training([bad, lone, good], encoder, unusable=told.append)
    assert [member.id for member in found.members] == ["good"]
    assert [type(error) for error in told] == [InputError, NothingToPredictError]
    with pytest.raises(InputError, match="record bad: the model's chat template refuses"):
        encode_training([bad, good], encoder)
    with pytest.warns(UserWarning, match="without a token to predict, which are left out: 1"):
        encode_training([lone, good], encoder)


@pytest.mark.parametrize("tokenizer", [tiny_tokenizer(bos=False), tiny_tokenizer(), metaspace_tokenizer("first")])
@pytest.mark.parametrize("prompt", [None, "an old song:", "the h"])
@pytest.mark.parametrize("length", [None, 7])
def test_the_quotations_of_a_record_put_together_are_its_text(tokenizer, prompt, length):
    text = "ills and rain fell over\n  the green hills. " + " ".join(sentence(i, 9) for i in range(12))
    record = TrainingRecord("r", ANN, text, prompt)
    encoder = Encoder(tokenizer, 32)
    quoted = list(encoder.quotations(record, length))
    windows = list(encoder.training(record))
    cut = windows if length is None else [part for window in windows for part in encoder.cut(window, length)]
    assert [name for name, _ in quoted] == [example.id for example in cut]
    assert all(passage and passage in text for _, passage in quoted)
    joined = "".join("".join(passage.split()) for _, passage in quoted)
    assert joined == "".join(text.split())


def test_a_quotation_from_a_chat_is_what_the_assistant_said():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TURNS
    said = ("hills\n and rain", "an old song")
    chat = tuple(Message(*turn) for line in said for turn in (("user", "what"), ("assistant", line)))
    quoted = list(Encoder(tokenizer, 64).quotations(TrainingRecord("r", ANN, messages=chat), None))
    assert quoted == [("r@1", said[0]), ("r@3", said[1])]


ids = st.lists(st.integers(0, 3), max_size=25)


@given(ids, ids, st.integers(1, 6))
def test_echo_is_what_lies_in_a_run_of_tokens_that_the_prompt_has(prompt, completion, length):
    runs = [prompt[at : at + length] for at in range(len(prompt) - length + 1)]
    expected = [
        any(
            completion[first : first + length] in runs
            for first in range(max(0, place - length + 1), min(place, len(completion) - length) + 1)
        )
        for place in range(len(completion))
    ]
    assert echo_of(prompt, completion, length).tolist() == expected


def test_an_output_that_only_repeats_its_prompt_is_all_echo_but_for_its_edges():
    encoder = Encoder(tiny_tokenizer(), 256)
    text = sentence(1, 30)
    reading = encoder.read_output(make_output(1, text, " " + text), 8)
    assert reading.echo >= reading.predicted - 2
    assert encoder.read_output(make_output(1, text, " " + text)).echo == 0
    assert encoder.read_output(make_output(1, text, " " + sentence(2, 30)), 8).echo == 0


def test_echo_stays_with_its_tokens_however_windows_are_cut():
    text = sentence(3, 60)
    output = make_output(1, text, f" {sentence(4, 20)} {text[:120]} {sentence(5, 20)}")
    whole = Encoder(tiny_tokenizer(), 512).output(output, 8)
    assert len(whole) == 1
    parts = Encoder(tiny_tokenizer(), 24).output(output, 8)
    assert len(parts) > 3
    marked = [bool(flag) for part in parts for flag in part.echo[part.start :]]
    assert marked == whole[0].echo[whole[0].start :].tolist()
    assert not any(part.echo[: part.start].any() for part in parts)
