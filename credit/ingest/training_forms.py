"""Forms of training records: those of other tools become credit's own fields, one row giving one record or several.

own            text; prompt and completion; messages
TRL            prompt and completion as lists of messages
ShareGPT       conversations of {from, value}
preference     prompt and chosen (and rejected), as texts or messages
Alpaca         instruction, input, output
tokens         input_ids, with labels, and with the borders of documents where several were packed into one sequence
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from credit.errors import InputError
from credit.ingest.json_documents import parse_json
from credit.ingest.training_source import TrainingSource

_LENGTHS = ("seq_lengths", "sequence_lengths", "document_lengths")
_NUMBERS = ("document_ids", "sequence_ids")
_TOKENS = frozenset({"input_ids", "labels", "attention_mask", "position_ids", *_LENGTHS, *_NUMBERS})
FOREIGN_FIELDS = ("conversations", "chosen", "rejected", "instruction", "input", "output", "system", *sorted(_TOKENS))
"""Fields of other tools' forms. They are read in records without one of credit's own forms."""

_CONTEXT = -100
"""Label of a token that is not learnt, in PyTorch's losses."""

_ROLES = {
    "human": "user", "user": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip

_ALPACA = (
    "Below is an instruction that describes a task{more}. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}{input}\n\n### Response:\n"
)
"""Prompt of Stanford Alpaca (https://github.com/tatsu-lab/stanford_alpaca), word for word."""

Values = dict[str, object]


@dataclass(frozen=True, slots=True)
class Formed:
    """A record in credit's own fields.

    Attributes:
        values: the fields by our names.
        used: names in the file that it was made of.
        form: in words, for a form of other tools; empty for our own.
        suffix: what tells several records of one row apart, put behind the row's id.
        rejected: True if a rejected answer was left out.
    """

    values: Values
    used: frozenset[str]
    form: str = ""
    suffix: str = ""
    rejected: bool = False


def formed_records(own: Values, record: Mapping[str, object], source: TrainingSource) -> Iterator[Formed]:
    """Yield the records of a row.

    Args:
        own: its values by our names of fields, without missing ones.
        record: all its fields as in the file.
        source: how to read forms that leave a choice.

    Raises:
        InputError: the form is not what its names promise.
    """
    base = {name: value for name, value in own.items() if name not in {"text", "prompt", "completion", "messages"}}
    if _is_turns(own.get("prompt")) and _is_turns(own.get("completion")):
        values = base | {"messages": [*_turns("prompt", own["prompt"]), *_turns("completion", own["completion"])]}
        yield Formed(values, frozenset(), "chats as prompt and completion")
    elif own.keys() & {"text", "completion", "messages", "completion_ids"}:
        yield Formed(own, frozenset())
    elif record.get("chosen") is not None:
        yield from _preference(base, own.get("prompt"), record, source)
    elif record.get("conversations") is not None:
        turns = [*_system(record), *_turns("conversations", record["conversations"])]
        yield Formed(base | {"messages": turns}, frozenset({"conversations", "system"}), "ShareGPT's form")
    elif record.get("instruction") is not None and record.get("output") is not None:
        used = frozenset({"instruction", "input", "output", "system"})
        yield Formed(base | _instruction(record, source), used, "Alpaca's form")
    elif record.get("input_ids") is not None:
        yield from _tokens(base, record)
    else:
        yield Formed(own, frozenset())


def _tokens(base: Values, record: Mapping[str, object]) -> Iterator[Formed]:
    """Yield each stretch of tokens that was learnt, after those before it in its document.

    Tokens whose label is -100 are context. Tokens that the attention mask leaves out are padding.

    Raises:
        InputError: a column is no list of whole numbers, or is not as long as the tokens.
    """
    ids = _whole_numbers(record, "input_ids")
    labels = _whole_numbers(record, "labels", len(ids)) or ids
    mask = _whole_numbers(record, "attention_mask", len(ids)) or [1] * len(ids)
    documents = _documents(record, mask)
    owners = base.get("provider")
    if isinstance(owners, list) and len(owners) != len(documents):
        raise InputError(f"`provider` lists {len(owners)} providers, and `input_ids` hold {len(documents)} documents")
    found = False
    for number, document in enumerate(documents):
        own = base | ({"provider": owners[number]} if isinstance(owners, list) else {})
        places = [at for at in document if mask[at]]
        tokens = [ids[at] for at in places]
        for turn, (begin, end) in enumerate(_learnt([labels[at] for at in places])):
            found = True
            values = {"prompt_ids": tokens[:begin], "completion_ids": tokens[begin:end]}
            suffix = (f"!{number}" if len(documents) > 1 else "") + (f"@{turn}" if turn else "")
            yield Formed(own | values, _TOKENS, "token ids", suffix=suffix)
    if not found:
        raise InputError("`input_ids` hold no token that is learnt: all are masked, or their labels are -100")


def _documents(record: Mapping[str, object], mask: Sequence[int]) -> list[range]:
    """Return the places of each document of a packed sequence, as lengths, numbers or positions tell; else one."""
    size = len(mask)
    if name := next((name for name in _LENGTHS if record.get(name) is not None), None):
        lengths = _whole_numbers(record, name)
        if sum(lengths) != size or min(lengths, default=0) < 0:
            raise InputError(f"`{name}` sum to {sum(lengths)}, and `input_ids` has {size} tokens")
        starts = [0, *accumulate(lengths)][:-1]
    else:
        numbers = next((found for name in _NUMBERS if (found := _whole_numbers(record, name, size))), [])
        if not numbers and max(mask, default=0) > 1:
            numbers = list(mask)
        positions = [] if numbers else _whole_numbers(record, "position_ids", size)
        borders = (at for at in range(1, size) if numbers and numbers[at] != numbers[at - 1])
        starts = [0, *borders, *(at for at in range(1, size) if positions and positions[at] == 0)]
    spans = [range(begin, end) for begin, end in pairwise([*starts, size])]
    return [places for places in spans if any(mask[at] for at in places)]


def _learnt(labels: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the beginning and end of each stretch without the label of context."""
    begin = None
    for at, label in enumerate([*labels, _CONTEXT]):
        if label == _CONTEXT and begin is not None:
            yield begin, at
            begin = None
        elif label != _CONTEXT and begin is None:
            begin = at


def _whole_numbers(record: Mapping[str, object], name: str, size: int | None = None) -> list[int]:
    value = record.get(name)
    if value is None:
        return []
    if isinstance(value, str):
        value = parse_json(value)
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise InputError(f"`{name}` must be a list of whole numbers")
    if size is not None and len(value) != size:
        raise InputError(f"`{name}` has {len(value)} numbers, and `input_ids` {size}")
    return value


def _preference(base: Values, prompt: object, record: Mapping[str, object], source: TrainingSource) -> Iterator[Formed]:
    """Yield the chosen answer of a pair, and the rejected one if both were trained on."""
    used, rejected = frozenset({"chosen", "rejected"}), record.get("rejected")
    left_out = rejected is not None and source.preference == "chosen"
    form = "preference pairs"
    yield Formed(base | _answer("chosen", prompt, record["chosen"]), used, form, rejected=left_out)
    if rejected is not None and source.preference == "both":
        yield Formed(base | _answer("rejected", prompt, rejected), used, form, suffix="!rejected")


def _answer(name: str, prompt: object, answer: object) -> Values:
    if _is_turns(answer):
        # Without a prompt of its own, each side of a pair is the whole chat.
        before = _turns("prompt", prompt) if _is_turns(prompt) else _asked(prompt)
        return {"messages": [*before, *_turns(name, answer)]}
    if _is_turns(prompt):
        return {"messages": [*_turns("prompt", prompt), {"role": "assistant", "content": answer}]}
    return {"prompt": "" if prompt is None else prompt, "completion": answer}


def _asked(prompt: object) -> list[Values]:
    """Return a prompt as a turn; none for the trainers that repeat it in front of both answers."""
    return [] if not prompt else [{"role": "user", "content": prompt}]


def _instruction(record: Mapping[str, object], source: TrainingSource) -> Values:
    for name in ("instruction", "input", "output"):
        if not isinstance(record.get(name) or "", str):
            raise InputError(f"`{name}` must be a text")
    instruction, given = str(record["instruction"]), str(record.get("input") or "")
    if source.instructions == "alpaca":
        more = ", paired with an input that provides further context" if given else ""
        more_input = f"\n\n### Input:\n{given}" if given else ""
        return {
            "prompt": _ALPACA.format(more=more, instruction=instruction, input=more_input),
            "completion": record["output"],
        }
    asked = f"{instruction}\n{given}" if given else instruction
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": record["output"]}]
    return {"messages": [*_system(record), *turns]}


def _system(record: Mapping[str, object]) -> list[Values]:
    system = record.get("system")
    return [{"role": "system", "content": system}] if isinstance(system, str) and system else []


def _is_turns(value: object) -> bool:
    """Return True for a list of objects, or the JSON text of one, as CSV has it."""
    if isinstance(value, str) and value.lstrip()[:2] in {"[{", "[ "}:
        try:
            value = parse_json(value)
        except InputError:
            return False
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _turns(name: str, value: object) -> list[Values]:
    """Return turns with role and content, from those or from {from, value}."""
    if isinstance(value, str):
        value = parse_json(value)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InputError(f"`{name}` must be a list of objects, each with role and content or with from and value")
    turns = []
    for number, item in enumerate(value):
        if "role" in item or "from" not in item:
            turns.append(item)
            continue
        if item["from"] == "function_call":
            turns.append({"role": "assistant", "content": "", "tool_calls": _called(name, number, item.get("value"))})
            continue
        role = _ROLES.get(str(item["from"]))
        if role is None:
            raise InputError(f"`{name}` {number}: {item['from']!r} is no known speaker; known are {', '.join(_ROLES)}")
        turns.append({"role": role, "content": item.get("value")})
    return turns


def _called(name: str, number: int, value: object) -> list[object]:
    """Return the calls of tools in a turn of ShareGPT's form: `{name, arguments}`, or a list of them, as JSON."""
    found = parse_json(value) if isinstance(value, str) else value
    calls = found if isinstance(found, list) else [found]
    if not all(isinstance(call, dict) and call.get("name") for call in calls):
        raise InputError(f"`{name}` {number}: a function_call must be the JSON of name and arguments")
    return calls
