"""Windows of tokens from records and outputs, and the examples that windows are cut into. No token is dropped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from credit.errors import InputError
from credit.records import LoggedOutput, Message, TrainingRecord
from credit.valuation.chats import (
    ChatTemplate,
    template_arguments,
    template_messages,
    with_thoughts,
    without_open_mark,
)
from credit.valuation.logged_tokens import answer_range

TEMPLATE_DATE = "2024-07-26"
"""Date that a chat template takes for today in training data, unless told otherwise: the one in Llama's own templates.

A run is its inputs. The day of the build would make another index of the same data on every day.
"""

_BARRIERS = ("\n", "a")
"""Texts to put before a continuation. Tokenizers rarely join the first to a word, or the second to a line break."""

_SPAN = re.compile(r"\[\d+:\d+\]$")


@dataclass(frozen=True, slots=True)
class Window:
    """One sequence of at most max_length tokens: context up to `start`, then predicted tokens.

    The model reads it in one pass. It is an example itself, unless it is cut into segments. `echo` is True for each
    token of an output that repeats the prompt: the model reads it, and its prediction does not enter the loss.
    """

    id: str
    tokens: NDArray[np.int32]
    start: int
    echo: NDArray[np.bool_] | None = None

    @property
    def size(self) -> int:
        """Number of tokens, context and predicted."""
        return len(self.tokens)

    @property
    def predicted(self) -> int:
        """Number of predicted tokens."""
        return len(self.tokens) - self.start

    @property
    def said(self) -> NDArray[np.int32]:
        """The predicted tokens."""
        return self.tokens[self.start :]

    def digest(self) -> bytes:
        """Return the SHA-256 of id, tokens and the border between context and prediction."""
        hasher = hashlib.sha256(self.id.encode())
        hasher.update(b"\0%d\0" % self.start)
        # Little-endian on every machine: digests are compared between them.
        hasher.update(self.tokens.astype("<i4").tobytes())
        return hasher.digest()


@dataclass(frozen=True, slots=True)
class Segment:
    """Example cut from a window: the tokens from `start` to `stop`, predicted with everything before them as context.

    A layer's gradient is a sum over the window's positions. A segment has the terms of the positions that predict its
    tokens; the first of a window also has the context's. So the segments of a window sum to its gradient. In the output
    head a segment's terms are the gradient of its own loss. In lower layers they are the gradient through its
    positions, with a part of later tokens. Borders lie at multiples of `length` positions.
    """

    window: Window
    start: int
    stop: int
    length: int

    @property
    def id(self) -> str:
        """The window's id and the range of its tokens, counted from 0."""
        return f"{self.window.id}[{self.start}:{self.stop}]"

    @property
    def positions(self) -> range:
        """Its positions in the window."""
        return range(0 if self.start == self.window.start else self.start - 1, self.stop - 1)

    @property
    def size(self) -> int:
        """Number of its positions, and one more for the window's last token, which predicts nothing."""
        return len(self.positions) + (self.stop == self.window.size)

    @property
    def predicted(self) -> int:
        """Number of predicted tokens."""
        return self.stop - self.start

    @property
    def said(self) -> NDArray[np.int32]:
        """The predicted tokens."""
        return self.window.tokens[self.start : self.stop]

    def digest(self) -> bytes:
        """Return the SHA-256 of the window and the segment's range in it."""
        return hashlib.sha256(self.window.digest() + b"\0%d:%d" % (self.start, self.stop)).digest()


def cut_window(window: Window, length: int) -> Sequence[Window | Segment]:
    """Cut a window into segments of at most `length` predicted tokens. A short window stays whole."""
    first, end = window.start - 1, window.size - 1  # the positions that predict something
    borders = [first, *range((first // length + 1) * length, end, length), end]
    if len(borders) == 2:
        return [window]
    return [Segment(window, low + 1, high + 1, length) for low, high in pairwise(borders)]


def window_of(example_id: str) -> str:
    """Return the id of an example's window, from the example's id."""
    return _SPAN.sub("", example_id)


@dataclass(frozen=True, slots=True)
class OutputReading:
    """Windows of an output, and in words the context they lack of the model's own; mostly none."""

    windows: list[Window]
    shortage: str = ""

    @property
    def predicted(self) -> int:
        """Number of predicted tokens."""
        return sum(window.predicted for window in self.windows)

    @property
    def echo(self) -> int:
        """Number of those that repeat the prompt."""
        return sum(int(window.echo.sum()) for window in self.windows if window.echo is not None)


@dataclass(frozen=True, slots=True)
class _Turn:
    """A context and the tokens that a model learns to predict after it.

    Attributes:
        name: id of the record, with the turn's number where it has several.
        context: tokens before.
        predicted: tokens to predict: those of `text`, then special ones.
        text: the text to predict.
        quotable: the part of `text` that stands in the record; a template adds to it.
        before: text after which `text` was tokenised.
    """

    name: str
    context: list[int]
    predicted: list[int]
    text: str
    quotable: str
    before: str = ""


def echo_of(prompt: Sequence[int], completion: Sequence[int], length: int) -> NDArray[np.bool_]:
    """Return True for each token of a completion inside `length` tokens in a row that also stand in its prompt.

    Args:
        prompt: tokens before the completion.
        completion: its tokens.
        length: tokens in a row, at least 1.
    """
    # As bytes: a slice of them is hashed at once.
    asked, said = (np.asarray(tokens, dtype=np.int32).tobytes() for tokens in (prompt, completion))
    size = 4 * length
    known = {asked[at : at + size] for at in range(0, len(asked) - size + 1, 4)}
    # Whole tokens alone are compared: slices begin at multiples of 4 here and in `known`.
    found = np.zeros(len(completion), dtype=np.bool_)
    for place in range(len(completion) - length + 1):
        if said[4 * place : 4 * place + size] in known:
            found[place : place + length] = True
    return found


def _marked(windows: Sequence[Window], echo: NDArray[np.bool_]) -> list[Window]:
    """Return windows with the echo of the tokens that they predict, one after the other."""
    at = len(echo) - sum(window.predicted for window in windows)
    found = []
    for window in windows:
        own = np.zeros(window.size, dtype=np.bool_)
        own[window.start :] = echo[at : at + window.predicted]
        at += window.predicted
        found.append(replace(window, echo=own))
    return found


class Encoder:
    """Encoder of texts, prompt/completion pairs and chats into windows, with a model's own tokenizer.

    Special tokens go to the tokenizer's default places. A prompt is tokenised alone, as the model saw it, and a
    completion as its continuation: see `_continuation`.

    Args:
        tokenizer: the model's tokenizer.
        max_length: most tokens of a window.
        template_date: date for chat templates in training data, `YYYY-MM-DD`. An output has its own.
    """

    def __init__(self, tokenizer: Any, max_length: int, template_date: str = TEMPLATE_DATE) -> None:
        if max_length < 2:
            raise InputError(f"max_length {max_length}: a window needs at least two tokens")
        try:
            self._today = datetime.strptime(template_date, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError as error:
            raise InputError(f"the date for templates, {template_date!r}, is not like {TEMPLATE_DATE}") from error
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._prefix, self._suffix = _special_tokens(tokenizer)
        self._template = ChatTemplate(tokenizer)

    def cut(self, window: Window, length: int) -> Sequence[Window | Segment]:
        """Return the examples of a window; see `cut_window`."""
        return cut_window(window, length)

    def training(self, record: TrainingRecord) -> Iterator[Window]:
        """Yield the windows of a training record. Each token of a text or completion is predicted once.

        There is none in a record of one token: nothing predicts the very first token of a text.

        Raises:
            InputError: the chat template refuses the record.
        """
        for turn in self._turns(record):
            yield from self._windows(turn.name, turn.context, turn.predicted, overlap=1)

    def quotations(self, record: TrainingRecord, length: int | None) -> Iterator[tuple[str, str]]:
        """Yield the id of each example of a record with its passage, as it stands in the record.

        The first passage of a text also has the text's first token, which nothing predicts. A passage is empty where
        the tokenizer does not tell its place.

        Args:
            record: the record.
            length: predicted tokens of an example, at most; None leaves windows whole.
        """
        for turn in self._turns(record):
            spans = [] if record.completion_ids else self._spans(turn)
            at = 0 if turn.context else 1
            for window in self._windows(turn.name, turn.context, turn.predicted, overlap=1):
                for example in [window] if length is None else cut_window(window, length):
                    first = 0 if at <= 1 and not turn.context else at
                    at += example.predicted
                    decoded = str(self._tokenizer.decode(turn.predicted[first:at])) if record.completion_ids else ""
                    yield example.id, decoded or _quotation(turn, spans[first:at])

    def output(self, output: LoggedOutput, echo: int = 0) -> list[Window]:
        """Return the windows of a logged output: its completion's tokens, given its prompt; `echo` as in `read_output`.

        The end-of-sequence token is not predicted: a log does not tell if the model ended or was cut off.

        Raises:
            InputError: it has no token to predict, or the chat template refuses it; the message names it.
        """
        return self.read_output(output, echo).windows

    def read_output(self, output: LoggedOutput, echo: int = 0) -> OutputReading:
        """Return the windows of a logged output, and the context they lack; see `output`.

        Tokens that repeat at least `echo` tokens in a row of the prompt are marked; 0 marks none. What repeats the
        model's own thoughts is no echo.
        """
        found = answer_range(self._tokenizer, output.completion_ids, output.completion)
        with _named(output.name):
            context, predicted = self._logged(output, found)
        windows = list(self._windows(output.external_id, context, predicted, overlap=self._max_length // 2))
        if not windows:
            raise InputError(f"{output.name}: there is no token to predict")
        if echo:
            unthought = replace(output, thoughts="", completion_ids=())
            prompt = self._logged(unthought, None)[0] if output.thoughts else context
            windows = _marked(windows, echo_of(prompt, predicted, echo))
        remarks = [self._shortage(context, predicted, windows)]
        if output.completion_ids and found is None:
            remarks.append("has token ids that do not spell its text with the model's tokenizer: valued by its text")
        return OutputReading(windows, "; ".join(filter(None, remarks)))

    def _logged(self, output: LoggedOutput, answer: tuple[int, int] | None) -> tuple[list[int], list[int]]:
        """Return the tokens before an answer and its own: those in the log, or else those of its texts.

        Args:
            output: the output.
            answer: place of the answer among the tokens that the model wrote; None: they are not known.
        """
        saw = [*output.prompt_ids] if answer or not output.completion_ids else []
        if saw and max(saw) >= len(self._tokenizer):
            saw = []
        if output.prompt_ids and not (saw or output.prompt or output.messages):
            raise InputError("the log has its prompt as token ids alone, and they are not of the model's tokenizer")
        if saw and answer:
            begin, end = answer
            return [*saw, *output.completion_ids[:begin]], [*output.completion_ids[begin:end]]
        if saw and not output.thoughts:
            before = str(self._tokenizer.decode(saw))
            return saw, self._continuation(before, without_open_mark(before, output.completion))[0]
        before = self._before(output)
        predicted = [*output.completion_ids[slice(*answer)]] if answer else []
        text = without_open_mark(before, output.completion)
        return self._context(output, before), predicted or self._continuation(before, text)[0]

    def _context(self, output: LoggedOutput, before: str) -> list[int]:
        return self._encode(before) if output.messages else [*self._prefix, *self._encode(before)]

    def _before(self, output: LoggedOutput) -> str:
        """Return the text that the model saw when it began the answer: the prompt or chat, and its thoughts."""
        if not output.messages:
            prompt = output.prompt or str(self._tokenizer.decode(output.prompt_ids, skip_special_tokens=True))
            return with_thoughts(prompt, output, "", None) if output.thoughts else prompt
        chat, given = template_messages(output.messages), template_arguments(output.template)
        prompt = self._template.render(chat, output.occurred_at, given, generate=True)
        if not output.thoughts:
            return prompt
        return with_thoughts(
            prompt,
            output,
            str(self._tokenizer.chat_template),
            lambda answer: self._template.render([*chat, answer], output.occurred_at, given, generate=False),
        )

    def _shortage(self, context: Sequence[int], predicted: Sequence[int], windows: Sequence[Window]) -> str:
        size, limit = len(context) + len(predicted), self._max_length
        if size <= limit:
            return ""
        longer = f"has {size} tokens with its prompt, and the model reads {limit}"
        if len(windows) > 1:
            return f"{longer}: valued in {len(windows)} windows, the later ones without the prompt"
        return f"{longer}: valued without the {size - limit} oldest tokens of its prompt"

    def _turns(self, record: TrainingRecord) -> Iterator[_Turn]:
        """Yield what a record teaches: its text, its completion, or each turn of the assistant after all before it."""
        if record.messages:
            turns = [i for i, m in enumerate(record.messages) if m.role == "assistant"]
            if not turns:
                raise InputError(f"record {record.id}: a chat without an assistant's message teaches nothing")
            for turn in turns:
                with _named(f"record {record.id}"):
                    given = template_arguments(record.template)
                    prompt, closing = self._chat(record.messages[:turn], record.messages[: turn + 1], given)
                name = record.id if len(turns) == 1 else f"{record.id}@{turn}"
                predicted, before = self._continuation(prompt, closing)
                said = record.messages[turn].content
                yield _Turn(name, self._encode(prompt), predicted, closing, said.strip(), before)
        elif record.completion_ids:
            if (largest := max((*record.prompt_ids, *record.completion_ids))) >= len(self._tokenizer):
                raise InputError(
                    f"record {record.id}: the token id {largest} is beyond the model's vocabulary of"
                    f" {len(self._tokenizer)}; was it tokenised for another model?"
                )
            yield _Turn(record.id, [*record.prompt_ids], [*record.completion_ids], "", "")
        else:
            prompt, text = record.prompt or "", record.completion
            context = [*self._prefix, *self._encode(prompt)]
            predicted, before = self._continuation(prompt, text)
            yield _Turn(record.id, context, [*predicted, *self._suffix], text, text, before)

    def _windows(self, name: str, context: list[int], predicted: list[int], *, overlap: int) -> Iterator[Window]:
        """Yield windows in which each token of `predicted` is predicted once.

        A long context loses its oldest tokens. Special tokens at its head stay, where the model expects them. If
        context and prediction do not fit into a window, the first one keeps as much context as half of it holds, and
        each later one has `overlap` tokens before those that it predicts.
        """
        start = max(len(context), 1)  # nothing predicts the very first token
        if len(context) + len(predicted) <= start:
            return
        limit = self._max_length
        kept = len(self._prefix) if context[: len(self._prefix)] == self._prefix else 0
        if len(context) + len(predicted) > limit:
            fits = len(predicted) + max(kept, 1) <= limit
            room = limit - len(predicted) if fits else max(limit // 2, kept)
            if room < len(context):
                context = [*context[:kept], *context[len(context) - room + kept :]]
        tokens = np.asarray(context + predicted, dtype=np.int32)
        start = max(len(context), 1)
        if len(tokens) <= limit:
            yield Window(name, tokens, start)
            return
        yield Window(f"{name}#0", tokens[:limit], start)
        for part, at in enumerate(range(limit, len(tokens), limit - overlap), start=1):
            yield Window(f"{name}#{part}", tokens[at - overlap : at - overlap + limit], overlap)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _continuation(self, before: str, text: str) -> tuple[list[int], str]:
        """Return the tokens of a text after another, and the text before it when it was tokenised.

        Many tokenizers take the beginning of a text for that of a word: alone, "bour" after "har" would get the token
        of " bour". So both are tokenised together. Where that changes the tokens of the first (its end and the
        beginning of the second are one token), the model did not see it so, and a barrier takes the place of the first.
        """
        for other in (before, *_BARRIERS):
            head, whole = self._encode(other), self._encode(other + text)
            if whole[: len(head)] == head and (head or not other):
                return whole[len(head) :], other
        return self._encode(text), ""

    def _spans(self, turn: _Turn) -> list[tuple[int, int]]:
        """Return the place of each predicted token in the turn's text; none if the tokenizer does not tell."""
        if not self._tokenizer.is_fast:
            return []
        encoded = self._tokenizer(
            turn.before + turn.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        size = len(self._encode(turn.before)) if turn.before else 0
        shift = len(turn.before)
        return [(max(low - shift, 0), max(high - shift, 0)) for low, high in encoded["offset_mapping"][size:]]

    def _chat(
        self, before: Sequence[Message], after: Sequence[Message], given: Mapping[str, object]
    ) -> tuple[str, str]:
        """Return the text of a chat up to the assistant's turn, and the text of that turn."""
        prompt = self._template.render(template_messages(before), self._today, given, generate=True)
        whole = self._template.render(template_messages(after), self._today, given, generate=False)
        if not whole.startswith(prompt):
            raise InputError(
                "the chat template does not continue its own generation prompt; "
                "give such records as prompt and completion"
            )
        return prompt, whole[len(prompt) :]


def _quotation(turn: _Turn, spans: Sequence[tuple[int, int]]) -> str:
    """Return the part of a turn's quotable text that some of its tokens cover."""
    begin = turn.text.find(turn.quotable)
    if begin < 0 or not spans:
        return ""
    low, high = max(spans[0][0], begin), min(max(high for _, high in spans), begin + len(turn.quotable))
    return turn.text[low:high]


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Context that puts the name of a record or output before its errors."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer puts before and after a text by default."""
    # By an example: tokenizers tell their special tokens, but not where they put them.
    plain: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    dressed: list[int] = tokenizer("a")["input_ids"]
    for at in range(len(dressed) - len(plain) + 1):
        if dressed[at : at + len(plain)] == plain:
            return dressed[:at], dressed[at + len(plain) :]
    raise InputError("the tokenizer does not put its special tokens around a text; its borders are unknown")
