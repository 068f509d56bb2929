"""Windows of tokens from records and outputs, and the examples that windows are cut into. No token is dropped."""

from __future__ import annotations

import hashlib
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from credit.errors import InputError
from credit.records import LoggedOutput, Message, TrainingRecord

TEMPLATE_SECONDS = 5.0
"""Computing time for the chat template of one conversation, at most. A template is a program of the model's maker."""

TEMPLATE_GROWTH = 100
"""Most characters that a template makes of each one of the messages, which count as 1000 more than they have."""

_SPAN = re.compile(r"\[\d+:\d+\]$")


@dataclass(frozen=True, slots=True)
class Window:
    """One sequence of at most max_length tokens: context up to `start`, then predicted tokens.

    The model reads it in one pass. It is an example itself, unless it is cut into segments.
    """

    id: str
    tokens: NDArray[np.int32]
    start: int

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
        hasher.update(self.tokens.astype("<i4").tobytes())
        return hasher.digest()


@dataclass(frozen=True, slots=True)
class Segment:
    """Example cut from a window: the tokens from `start` to `stop`, predicted with everything before them as context.

    A layer's gradient is a sum over the window's positions. A segment has the terms of the positions that predict its
    tokens; the first of a window also has the context's. So the segments of a window sum to its gradient. In the output
    head a segment's terms are the gradient of its own loss. In lower layers they are the gradient that passes through
    its positions, which later tokens contribute to. Borders lie at multiples of `length` positions.
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


class Encoder:
    """Encoder of texts, prompt/completion pairs and chats into windows, with a model's own tokenizer.

    Special tokens go to the tokenizer's default places. Prompt and completion are tokenised apart and joined: there the
    model saw the border.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        if max_length < 2:
            raise InputError(f"max_length {max_length}: a window needs at least two tokens")
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._prefix, self._suffix = _special_tokens(tokenizer)

    def cut(self, window: Window, length: int) -> Sequence[Window | Segment]:
        """Return the examples of a window; see `cut_window`."""
        return cut_window(window, length)

    def training(self, record: TrainingRecord) -> Iterator[Window]:
        """Yield the windows of a training record. Each token of a text or completion is predicted once."""
        if record.messages:
            # One window for each turn of the assistant, which completed all turns before it.
            turns = [i for i, m in enumerate(record.messages) if m.role == "assistant"]
            if not turns:
                raise InputError(f"record {record.id}: a chat without an assistant's message teaches nothing")
            for turn in turns:
                with _named(f"record {record.id}"):
                    prompt, closing = self._chat(record.messages[:turn], record.messages[: turn + 1])
                name = record.id if len(turns) == 1 else f"{record.id}@{turn}"
                yield from self._windows(name, prompt, self._encode(closing))
        elif record.prompt is not None:
            prompt = [*self._prefix, *self._encode(record.prompt)]
            yield from self._windows(record.id, prompt, [*self._encode(record.completion), *self._suffix])
        else:
            yield from self._windows(record.id, list(self._prefix), [*self._encode(record.completion), *self._suffix])

    def output(self, output: LoggedOutput) -> list[Window]:
        """Return the windows of a logged output: its completion's tokens, given its prompt.

        The end-of-sequence token is not predicted: a log does not tell if the model ended or was cut off.
        """
        if output.messages:
            with _named(output.name):
                prompt = self._encode(self._render(output.messages, generate=True))
        else:
            prompt = [*self._prefix, *self._encode(output.prompt)]
        windows = list(self._windows(output.external_id, prompt, self._encode(output.completion)))
        if not windows:
            raise InputError(f"{output.name}: there is no token to predict")
        return windows

    def _windows(self, name: str, context: list[int], predicted: list[int]) -> Iterator[Window]:
        tokens = np.asarray(context + predicted, dtype=np.int32)
        start = max(len(context), 1)  # nothing predicts the very first token
        if len(tokens) <= start:
            return
        limit = self._max_length
        if len(tokens) <= limit:
            yield Window(name, tokens, start)
            return
        kept = len(self._prefix) if context[: len(self._prefix)] == self._prefix else 0
        if len(predicted) + max(kept, 1) <= limit:
            # The prompt loses its oldest tokens. Special tokens at its head stay, where the model expects them.
            tail = limit - kept
            yield Window(name, np.concatenate([tokens[:kept], tokens[-tail:]]), limit - len(predicted))
            return
        # Longer than a window: windows overlap by one token, so that each token is predicted once.
        first = max(start - 1, 0)
        for part, low in enumerate(range(first, len(tokens) - 1, limit - 1)):
            yield Window(f"{name}#{part}", tokens[low : low + limit], 1)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _chat(self, before: Sequence[Message], after: Sequence[Message]) -> tuple[list[int], str]:
        prompt = self._render(before, generate=True)
        whole = self._render(after, generate=False)
        if not whole.startswith(prompt):
            raise InputError(
                "the chat template does not continue its own generation prompt; "
                "give such records as prompt and completion"
            )
        return self._encode(prompt), whole[len(prompt) :]

    def _render(self, messages: Sequence[Message], *, generate: bool) -> str:
        if not getattr(self._tokenizer, "chat_template", None):
            raise InputError("the model has no chat template; give prompt and completion instead of messages")
        try:
            with _bounded_time(TEMPLATE_SECONDS):
                text: str = self._tokenizer.apply_chat_template(
                    [{"role": m.role, "content": m.content} for m in messages],
                    tokenize=False,
                    add_generation_prompt=generate,
                )
        except _TemplateStopped:
            raise InputError(
                f"the model's chat template is not done after {TEMPLATE_SECONDS:g} seconds; give prompt and completion "
                "instead, or another template"
            ) from None
        except ImportError:  # a library of the templates is missing: no chat's fault
            raise
        except Exception as error:
            # A template is a program. It raises on chats that its model was not trained on, as on a system message.
            raise InputError(
                f"the model's chat template refuses these messages ({error}); give prompt and completion instead"
            ) from error
        if len(text) > TEMPLATE_GROWTH * (1000 + sum(len(m.content) for m in messages)):
            raise InputError(
                f"the model's chat template makes {len(text)} characters of these messages; give prompt and completion "
                "instead, or another template"
            )
        return text


class _TemplateStopped(BaseException):
    """The time of a template is over. It is no Exception: jinja swallows these while it compiles."""


@contextmanager
def _bounded_time(seconds: float) -> Iterator[None]:
    """Context that raises `_TemplateStopped` after `seconds` of the process's own time.

    It does so in the main thread alone, on POSIX. A signal stops more than a thread could: it comes through
    also while Python multiplies huge numbers.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "ITIMER_VIRTUAL"):
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _TemplateStopped

    handler = signal.signal(signal.SIGVTALRM, stop)
    remaining, interval = signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, remaining, interval)
        signal.signal(signal.SIGVTALRM, handler)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Context that puts the name of a record or output before its errors."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer puts before and after a text by default."""
    plain: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    dressed: list[int] = tokenizer("a")["input_ids"]
    for at in range(len(dressed) - len(plain) + 1):
        if dressed[at : at + len(plain)] == plain:
            return dressed[:at], dressed[at + len(plain) :]
    raise InputError("the tokenizer does not put its special tokens around a text; its borders are unknown")
