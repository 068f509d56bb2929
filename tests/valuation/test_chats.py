"""Thoughts and tools reach the model as its own template writes them; the answer alone is valued."""

from __future__ import annotations

from dataclasses import replace

import pytest

from credit.errors import InputError
from credit.records import Group, LoggedOutput, Message, TrainingRecord
from credit.valuation.tokens import Encoder
from tests.models import tiny_tokenizer
from tests.valuation.conftest import make_output

ASKED = (Message("user", "the cat"),)
PLAIN = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
OPENS = PLAIN.replace("<assistant>{%", "<assistant><think>\n{%")
RENDERS = (
    "{% for m in messages %}<{{ m.role }}>{% if m.reasoning_content %}(({{ m.reasoning_content }})){% endif %}"
    "{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
BRACKETS = PLAIN + "{# [THINK] [/THINK] #}"
TOOLS = (
    "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}({{ c.function.name }}:{{ c.function.arguments.city }}){% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def thought(text: str = " on a mat", thoughts: str = "green hills", **fields: object) -> LoggedOutput:
    return replace(make_output(1, "", text), messages=ASKED, thoughts=thoughts, **fields)


def read(template: str, output: LoggedOutput) -> tuple[str, str]:
    """The context of an output and its predicted text."""
    tokenizer = tiny_tokenizer(bos=False)
    tokenizer.chat_template = template
    (window,) = Encoder(tokenizer, 128).output(output)
    return tokenizer.decode(window.tokens[: window.start]), tokenizer.decode(window.said)


@pytest.mark.parametrize(
    ("template", "context"),
    [
        (PLAIN, "<user>the cat<assistant><think>\ngreen hills\n</think>\n\n"),
        (OPENS, "<user>the cat<assistant><think>\ngreen hills\n</think>\n\n"),
        (RENDERS, "<user>the cat<assistant>((green hills))"),
        (BRACKETS, "<user>the cat<assistant>[THINK]\ngreen hills\n[/THINK]\n\n"),
    ],
)
def test_thoughts_are_context_where_the_models_template_or_its_marks_put_them(template, context):
    assert read(template, thought("on a mat")) == (context, "on a mat")


def test_thoughts_before_the_continuation_of_a_prompt_stand_between_marks():
    output = replace(make_output(1, "the cat", "on a mat"), thoughts="green hills")
    assert read(PLAIN, output) == ("the cat<think>\ngreen hills\n</think>\n\n", "on a mat")


@pytest.mark.parametrize("template", [PLAIN, OPENS])
def test_paid_thoughts_are_predicted_with_the_answer(template):
    context, said = read(template, thought("on a mat").with_thoughts_in_completion)
    assert context + said == "<user>the cat<assistant><think>\ngreen hills\n</think>\n\non a mat"
    assert context == ("<user>the cat<assistant>" if template == PLAIN else "<user>the cat<assistant><think>\n")


def test_tools_and_their_results_are_rendered_by_the_template():
    called = Message("assistant", "", '{"tool_calls":[{"function":{"arguments":{"city":"har"},"name":"hills"}}]}')
    chat = (*ASKED, called, Message("tool", "rain", '{"tool_call_id":"c1"}'))
    output = replace(thought("on a mat", ""), messages=chat, template='{"tools":[{"function":{"name":"hills"}}]}')
    assert read(TOOLS, output) == ("[hills]<user>the cat<assistant>(hills:har)<tool>rain<assistant>", "on a mat")


def test_a_chat_that_was_trained_on_with_tools_has_them_in_its_context_and_learns_its_calls():
    called = Message("assistant", "", '{"tool_calls":[{"function":{"arguments":{"city":"har"},"name":"hills"}}]}')
    chat = (*ASKED, called, Message("tool", "rain"), Message("assistant", "on a mat"))
    record = TrainingRecord("r", Group("ann"), messages=chat, template='{"tools":[{"function":{"name":"hills"}}]}')
    tokenizer = tiny_tokenizer(bos=False)
    tokenizer.chat_template = TOOLS
    call, answer = Encoder(tokenizer, 128).training(record)
    assert tokenizer.decode(call.tokens[: call.start]) == "[hills]<user>the cat<assistant>"
    assert tokenizer.decode(call.said) == "(hills:har)"
    assert tokenizer.decode(answer.tokens[: answer.start]).endswith("<tool>rain<assistant>")
    assert tokenizer.decode(answer.said) == "on a mat"


@pytest.mark.parametrize("template", ["{", "[]", '"x"'])
def test_what_the_template_got_must_be_an_object(template):
    with pytest.raises(InputError, match="fields for the chat template are no JSON"):
        read(PLAIN, thought(template=template))


@pytest.mark.parametrize("name", ["chat_template", "tokenize", "add_generation_prompt", "time_codes"])
def test_what_a_log_gives_to_the_template_cannot_replace_it(name):
    assert read(PLAIN, thought("on", "", template=f'{{"{name}":"x"}}')) == ("<user>the cat<assistant>", "on")
