"""Token ids in a log are what is valued, as far as they spell the text of the answer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.errors import InputError
from credit.records import Group, LoggedOutput, Message, TrainingRecord
from credit.valuation.logged_tokens import answer_range
from credit.valuation.tokens import Encoder, OutputReading
from tests.models import tiny_tokenizer
from tests.valuation.conftest import make_output

TOKENIZER = tiny_tokenizer()
TOKENIZER.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
END = TOKENIZER.eos_token_id


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def letters(text: str) -> list[int]:
    """The tokens of a text, one a character: not those that the tokenizer would choose."""
    return [token for letter in text for token in ids(letter)]


def logged(asked: list[int], said: list[int], completion: str, **more: object) -> LoggedOutput:
    output = make_output(1, "the cat", completion)
    return replace(output, prompt_ids=tuple(asked), completion_ids=tuple(said), **more)


def read(output: LoggedOutput, echo: int = 0) -> tuple[list[int], list[int], OutputReading]:
    reading = Encoder(TOKENIZER, 128).read_output(output, echo)
    (window,) = reading.windows
    return window.tokens[: window.start].tolist(), window.said.tolist(), reading


def test_the_ids_of_the_tokenizer_itself_give_the_windows_of_the_text():
    by_text = make_output(1, "the cat", " on a mat")
    by_ids = logged([TOKENIZER.bos_token_id, *ids("the cat")], [*ids(" on a mat"), END], " on a mat")
    assert read(by_ids)[:2] == read(by_text)[:2]


def test_what_the_model_saw_and_wrote_is_valued_and_not_the_text_tokenised_again():
    asked, said = letters("a quite other prompt"), letters(" on a mat")
    assert said != ids(" on a mat")
    assert read(logged(asked, said, " on a mat"))[:2] == (asked, said)
    chat = logged(asked, said, " on a mat", prompt="", messages=(Message("user", "the cat"),))
    assert read(chat)[:2] == (asked, said)


def test_thoughts_are_context_and_a_stop_text_and_the_end_are_no_answer():
    thoughts, answer = letters("<think>green hills</think>\n\n"), letters("on a mat")
    output = logged(letters("Q"), [*thoughts, *answer, *letters("STOP"), END], "on a mat", thoughts="green hills")
    assert read(output)[:2] == ([*letters("Q"), *thoughts], answer)
    echoing = logged(letters("on a mat"), [*thoughts, *answer], "on a mat", thoughts="green hills")
    assert read(echoing, echo=4)[2].echo == len(answer)


@pytest.mark.parametrize("said", [letters("at sea"), [3000], ids("on a mat")[:-1]])
def test_ids_that_do_not_spell_the_text_are_left_for_the_text_and_named(said):
    context, predicted, reading = read(logged(letters("Q"), said, " on a mat"))
    assert (context, predicted) == read(make_output(1, "the cat", " on a mat"))[:2]
    assert reading.shortage == (
        "has token ids that do not spell its text with the model's tokenizer: valued by its text"
    )


def test_a_prompt_of_ids_alone_is_the_context_and_must_be_of_the_models_vocabulary():
    output = logged(letters("the cat"), [], " on a mat", prompt="")
    assert read(output)[:2] == (letters("the cat"), ids(" on a mat"))
    with pytest.raises(InputError, match="o1: the log has its prompt as token ids alone, and they are not of"):
        read(replace(output, prompt_ids=(5000,)))
    with pytest.raises(InputError, match="its prompt as token ids alone"):
        read(replace(output, completion_ids=(4,)))


def test_paid_thoughts_are_valued_by_their_text():
    output = logged(letters("Q"), letters("<think>a</think>b"), "b", thoughts="a").with_thoughts_in_completion
    assert TOKENIZER.decode(read(output)[1]) == "<think>\na\n</think>\n\nb"


def test_training_data_in_tokens_is_learnt_token_by_token_and_quoted_decoded():
    encoder = Encoder(TOKENIZER, 128)
    text = TrainingRecord("r", Group("ann"), "the cat on a mat")
    tokens = replace(text, completion="", completion_ids=(TOKENIZER.bos_token_id, *ids("the cat on a mat")))
    (of_text,), (of_tokens,) = encoder.training(text), encoder.training(tokens)
    assert of_tokens.tokens.tolist() == of_text.tokens.tolist()
    after = replace(tokens, prompt_ids=tuple(ids("the cat")), completion_ids=tuple(letters("on a mat")))
    (window,) = encoder.training(after)
    assert (window.tokens[: window.start].tolist(), window.said.tolist()) == (ids("the cat"), letters("on a mat"))
    assert list(encoder.quotations(after, None)) == [("r", "on a mat")]
    with pytest.raises(InputError, match="record r: the token id 5000 is beyond the model's vocabulary of 320"):
        list(encoder.training(replace(after, completion_ids=(5000,))))


@given(
    before=st.text("ab <>/\n", max_size=12),
    answer=st.text("abcé \n€", min_size=1, max_size=12).filter(str.strip),
    after=st.lists(st.sampled_from([END]), max_size=2),
)
def test_an_answer_is_found_among_the_tokens_wherever_it_stands(before, answer, after):
    said = [*ids(before), *ids(answer), *after]
    begin, end = answer_range(TOKENIZER, said, answer)
    assert TOKENIZER.decode(said[begin:end], skip_special_tokens=True).strip() == answer.strip()
    if not before:
        assert said[begin:end] == ids(answer)
