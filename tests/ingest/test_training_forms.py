"""Training data as people have it: providers by rule, records without ids, forms of other tools, folders of texts."""

from __future__ import annotations

import gzip
import json
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.errors import InputError, InvalidRequestError
from credit.ingest.declarations import Declarations
from credit.ingest.fields import splits_of
from credit.ingest.training import TrainingReader
from credit.ingest.training_source import TrainingSource
from credit.records import PPM, Group, Message

TEXT = {"id": "1", "provider": "ann", "text": "Once upon a time"}


def _write(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def _map(path, *lines):
    path.write_text("\n".join(["value,provider,collection", *lines]) + "\n")
    return path


def _read(*paths, **source):
    reader = TrainingReader(list(paths), source=TrainingSource(**source))
    return list(reader), reader


def test_a_provider_is_named_for_all_records_that_name_none(tmp_path):
    path = _write(tmp_path / "a.jsonl", {"id": "1", "text": "one"}, {"id": "2", "provider": "bob", "text": "two"})
    records, _ = _read(path, provider="ann")
    assert [(r.id, r.group) for r in records] == [("1", Group("ann")), ("2", Group("bob"))]
    with pytest.raises(InvalidRequestError, match="both say whose"):
        TrainingSource(provider="ann", provider_from="url")
    with pytest.raises(InvalidRequestError, match="needs --provider-from"):
        TrainingSource(provider_map=path)
    with pytest.raises(InvalidRequestError, match="'Ann' is not a provider key"):
        TrainingSource(provider="Ann")


def test_the_longest_part_of_a_domain_or_path_tells_the_provider(tmp_path):
    lines = ("example.org,ann,", "https://Example.org/blog/,ben,posts", "anna/novels,cleo,", "exact,dan,")
    rules = _map(tmp_path / "map.csv", *lines)
    wanted = {
        "https://Example.ORG/a": Group("ann"),
        "http://www.example.org:8080/blogs?x=1": Group("ann"),
        "example.org/blog/2020/may#top": Group("ben", "posts"),
        "https://me@news.example.org/blog": Group("ben", "posts"),
        "anna/novels/harbour.txt": Group("cleo"),
        "exact": Group("dan"),
        "https://notexample.org/": None,
        "anna/letters.txt": None,
        "": None,
    }
    rows = [{"id": str(i), "text": f"text {i}", "metadata": {"source": value}} for i, value in enumerate(wanted)]
    records, reader = _read(_write(tmp_path / "a.jsonl", *rows), provider_from="metadata.source", provider_map=rules)
    assert [record.group for record in records] == [group for group in wanted.values() if group]
    assert [item.place.line for item in reader.quarantined] == [7, 8, 9]
    assert "'https://notexample.org/' has no line in" in reader.quarantined[0].error
    _map(rules, "example.org,ann,", "*,rest,")
    records, _ = _read(tmp_path / "a.jsonl", provider_from="metadata.source", provider_map=rules)
    assert [record.group.provider for record in records] == ["ann"] * 4 + ["rest"] * 4
    _map(rules, "example.org,ann,", "www.example.org/,Ben,")
    with pytest.raises(InputError, match=r"map\.csv:3: .*not a provider key.*mend the map"):
        _read(tmp_path / "a.jsonl", provider_from="metadata.source", provider_map=rules)
    _map(rules, "example.org,ann,", "https://example.org,ben,")
    with pytest.raises(InputError, match="stands there twice, with another provider"):
        _read(tmp_path / "a.jsonl", provider_from="metadata.source", provider_map=rules)


def test_a_folder_of_texts_is_read_with_its_folders_as_providers(tmp_path):
    corpus = tmp_path / "corpus"
    (corpus / "anna" / "novels").mkdir(parents=True)
    (corpus / "anna" / "novels" / "harbour.txt").write_text("\ufeffThe harbour\nlay still.")
    (corpus / "anna" / "rain.md.gz").write_bytes(gzip.compress(b"On rain."))
    (corpus / "anna" / "cover.png").write_bytes(b"\x89PNG")
    (corpus / "README.md").write_text("about it")
    (corpus / "anna" / ".hidden.txt").write_text("no")
    (corpus / "empty.txt").write_text("")
    _write(corpus / "ben" / "more.jsonl", {"text": "hills"})
    (corpus / "cleo.txt").write_bytes(b"\xff\xfe broken".replace(b"\xff\xfe", b"\xc3"))
    records, reader = _read(corpus, provider_from="path")
    assert sorted((r.id, str(r.group), r.completion) for r in records if not r.id.startswith("content-")) == [
        ("anna/novels/harbour.txt", "anna/default", "The harbour\nlay still."),
        ("anna/rain.md.gz", "anna/default", "On rain."),
    ]
    assert [str(r.group) for r in records if r.id.startswith("content-")] == ["ben/default"]
    (corpus / "dan.txt").write_bytes(gzip.compress(b"cut off")[:-4])
    (corpus / "eve.txt").write_bytes("wide".encode("utf-16"))
    again = TrainingReader([corpus], source=TrainingSource(provider_from="path"))
    assert list(again) == records
    reasons = [item.error for item in again.quarantined]
    assert [item.place.file[-7:] for item in again.quarantined] == ["leo.txt", "dan.txt", "eve.txt"]
    assert all(word in reason for word, reason in zip(("not UTF-8", "gzip", "UTF-16"), reasons, strict=True))
    assert {"not read: 1 files ending in .png", "not read: 1 empty files"} <= set(reader.notices)
    moved = tmp_path / "elsewhere"
    corpus.rename(moved)
    assert [r.id for r in _read(moved, provider_from="path")[0]] == [r.id for r in records]
    with pytest.raises(InputError, match="folder without a data set or a file that is read"):
        _read(_write(tmp_path / "none" / "x.bin", {}).parent)


def test_a_file_of_records_may_end_in_txt(tmp_path):
    assert [r.id for r in _read(_write(tmp_path / "train.txt", TEXT))[0]] == ["1"]


def test_a_record_without_an_id_keeps_its_name_wherever_it_stands(tmp_path):
    rows = [{"provider": "ann", "text": "one"}, {"provider": "ann", "text": "two"}, {"provider": "bob", "text": "one"}]
    first, reader = _read(_write(tmp_path / "a.jsonl", *rows))
    assert "3 records without an id: named by a hash of provider and content" in reader.notices
    second, _ = _read(_write(tmp_path / "b.jsonl", *rows[::-1]))
    assert {r.id: r for r in first} == {r.id: r for r in second}
    assert len({r.id for r in first}) == 3
    again, reader = _read(_write(tmp_path / "c.jsonl", *rows, rows[0]))
    assert (len(again), reader.counts.duplicates) == (3, 1)


def _turns(*turns):
    return tuple(Message(role, content) for role, content in turns)


ASKED = (("user", "How do hills get green?"), ("assistant", "Slowly, while it rains."))
FORMS = {
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": ASKED[0][1]}, {"from": "gpt", "value": ASKED[1][1]}]},
        _turns(*ASKED),
    ),
    "ShareGPT with a system prompt": (
        {"system": "Be brief.", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        _turns(("system", "Be brief."), ("user", "a"), ("assistant", "b")),
    ),
    "roles in conversations": (
        {"conversations": [{"role": role, "content": content} for role, content in ASKED]},
        _turns(*ASKED),
    ),
    "Alpaca": (
        {"instruction": "Translate to German.", "input": "The harbour", "output": "Der Hafen"},
        _turns(("user", "Translate to German.\nThe harbour"), ("assistant", "Der Hafen")),
    ),
    "prompt and completion as turns": (
        {
            "prompt": [{"role": "user", "content": ASKED[0][1]}],
            "completion": [{"role": "assistant", "content": ASKED[1][1]}],
        },
        _turns(*ASKED),
    ),
    "preference as turns": (
        {
            "prompt": [{"role": "user", "content": ASKED[0][1]}],
            "chosen": [{"role": "assistant", "content": ASKED[1][1]}],
            "rejected": [{"role": "assistant", "content": "Never."}],
        },
        _turns(*ASKED),
    ),
    "preference without a prompt": (
        {
            "chosen": [{"role": role, "content": content} for role, content in ASKED],
            "rejected": [{"role": "user", "content": ASKED[0][1]}, {"role": "assistant", "content": "Never."}],
        },
        _turns(*ASKED),
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "csv"])
def test_forms_of_other_tools_become_chats_in_every_kind_of_file(tmp_path, form, kind):
    row, wanted = FORMS[form]
    row = {"id": "1", **row}
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pl.DataFrame([row]).write_parquet(path)
    elif kind == "csv":
        pl.DataFrame([{k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()}]).write_csv(path)
    elif kind == "json":
        path.write_text(json.dumps([row], indent=1))
    else:
        _write(path, row)
    records, reader = _read(path, provider="ann")
    assert not reader.quarantined
    assert [record.messages for record in records] == [wanted]
    assert any(notice.startswith("1 record read from") for notice in reader.notices)
    assert not any("is not used" in notice for notice in reader.notices)


def test_instructions_can_be_read_in_the_words_of_alpaca(tmp_path):
    row = {"instruction": "Translate to {German}.", "input": "The harbour", "output": "Der Hafen"}
    path = _write(tmp_path / "a.jsonl", row, {**row, "input": ""})
    (with_input, without), _ = _read(path, provider="ann", instructions="alpaca")
    assert with_input.completion == without.completion == "Der Hafen"
    assert with_input.prompt == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nTranslate to {German}.\n\n### Input:\nThe harbour\n\n### Response:\n"
    )
    assert without.prompt.endswith("request.\n\n### Instruction:\nTranslate to {German}.\n\n### Response:\n")


def test_of_a_preference_pair_the_chosen_answer_counts_or_both_do(tmp_path):
    row = {"id": "p1", "provider": "ben", "prompt": "How?", "chosen": " Slowly.", "rejected": " Never."}
    path = _write(tmp_path / "a.jsonl", row)
    (chosen,), reader = _read(path)
    assert (chosen.id, chosen.prompt, chosen.completion) == ("p1", "How?", " Slowly.")
    assert any("1 rejected answer left out" in notice for notice in reader.notices)
    both, reader = _read(path, preference="both")
    assert [(r.id, r.completion) for r in both] == [("p1", " Slowly."), ("p1!rejected", " Never.")]
    assert not any("rejected" in notice for notice in reader.notices)


def test_a_speaker_that_nobody_knows_is_quarantined(tmp_path):
    row = {"id": "1", "conversations": [{"from": "narrator", "value": "a"}]}
    _, reader = _read(_write(tmp_path / "a.jsonl", row, {"id": "2", "conversations": "no"}), provider="ann")
    assert [item.error[:60] for item in reader.quarantined] == [
        "`conversations` 0: 'narrator' is no known speaker; known are",
        "malformed JSON: Expecting value at character 1",
    ]


def test_large_corpora_are_read_by_naming_where_things_are(tmp_path):
    dolma = {"id": "d", "text": "a b", "source": "web", "added": "x", "metadata": {"url": "https://a.example/x"}}
    c4 = {"text": "c d", "timestamp": "2019-04-25T12:57:54Z", "url": "https://b.example/y"}
    fineweb = {"text": "e f", "id": "<urn:uuid:1>", "dump": "CC", "url": "http://a.example/z", "token_count": 2}
    stack = {"content": "g h", "max_stars_repo_name": "someone/thing", "max_stars_repo_licenses": ["MIT"]}
    rules = _map(tmp_path / "map.csv", "a.example,ann,", "b.example,bob,", "someone,cleo,")
    for row, where, fields, provider in (
        (dolma, "metadata.url", {}, "ann"),
        (c4, "url", {}, "bob"),
        (fineweb, "url", {}, "ann"),
        (stack, "max_stars_repo_name", {"text": "content"}, "cleo"),
    ):
        frame = pl.DataFrame([row])
        frame.write_parquet(tmp_path / "a.parquet")
        for path in (tmp_path / "a.parquet", _write(tmp_path / "a.jsonl", row)):
            (record,), _ = _read(path, provider_from=where, provider_map=rules, fields=fields)
            assert record.group == Group(provider)
            assert record.completion in {"a b", "c d", "e f", "g h"}


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = '{"tool_calls":[{"function":{"arguments":{"at":"sea"},"name":"weather"},"type":"function"}]}'
CALLED = (
    Message("user", "Rain?"),
    Message("assistant", "", CALL),
    Message("tool", "wet"),
    Message("assistant", "Yes."),
)
WITH_TOOLS = {
    "chat": {
        "messages": [
            {"role": "user", "content": "Rain?"},
            {"role": "assistant", "content": None, "tool_calls": [
                {"type": "function", "function": {"name": "weather", "arguments": '{"at": "sea"}'}},
            ]},
            {"role": "tool", "content": "wet"},
            {"role": "assistant", "content": "Yes."},
        ],
        "tools": [WEATHER],
    },
    "ShareGPT": {
        "conversations": [
            {"from": "human", "value": "Rain?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"at": "sea"}}'},
            {"from": "observation", "value": "wet"},
            {"from": "gpt", "value": "Yes."},
        ],
        "tools": json.dumps([WEATHER["function"]]),
    },
}  # fmt: skip


@pytest.mark.parametrize("form", WITH_TOOLS)
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_calls_of_tools_and_their_definitions_are_what_the_template_gets(tmp_path, form, kind):
    row = {"id": "1", **WITH_TOOLS[form]}
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        pl.DataFrame([{k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()}]).write_csv(path)
    else:
        _write(path, row)
    (record,), reader = _read(path, provider="ann")
    assert not reader.quarantined
    assert record.messages == CALLED
    assert json.loads(record.template) == {"tools": [WEATHER]}
    assert not any("is not used" in notice for notice in reader.notices)


def test_other_tools_make_another_record_and_none_leave_the_id_as_it_was(tmp_path):
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    given = ({}, {"tools": []}, {"tools": [WEATHER]}, {"chat_template_kwargs": {"enable_thinking": True}})
    records, reader = _read(_write(tmp_path / "a.jsonl", *(chat | more for more in given)), provider="ann")
    assert len({record.id for record in records}) == 3
    assert records[0].id == "content-000239afa499aad2a56b33233d4076da"
    assert reader.counts.duplicates == 1


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"tools": "{"}, "`tools` malformed JSON"),
        ({"tools": ["weather"]}, "`tools` malformed JSON"),
        ({"tools": {"name": "x"}}, "`tools` must be a list of tools"),
        ({"chat_template_kwargs": {"tokenize": True}}, "`chat_template_kwargs` sets tokenize, which cannot be"),
    ],
)
def test_what_the_template_cannot_get_is_quarantined(tmp_path, more, error):
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], **more}
    records, reader = _read(_write(tmp_path / "a.jsonl", row), provider="ann")
    assert not records
    assert error in reader.quarantined[0].error


PACKED = {"input_ids": [0, 5, 6, 0, 7, 8, 9]}
BORDERS = {
    "lengths": {"seq_lengths": [3, 4]},
    "numbers": {"document_ids": [0, 0, 0, 1, 1, 1, 1]},
    "positions": {"position_ids": [0, 1, 2, 0, 1, 2, 3]},
    "attention masks": {"attention_mask": [1, 1, 1, 2, 2, 2, 2]},
}


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_documents_of_a_packed_sequence_are_records_of_their_own(tmp_path, border, kind):
    row = {"id": "p", "provider": ["ann", "ben"], **PACKED, **BORDERS[border]}
    path = tmp_path / f"a.{kind}"
    pl.DataFrame([row]).write_parquet(path) if kind == "parquet" else _write(path, row)
    records, reader = _read(path)
    assert not reader.quarantined
    assert [(r.id, r.group.provider, r.prompt_ids, r.completion_ids) for r in records] == [
        ("p!0", "ann", (), (0, 5, 6)),
        ("p!1", "ben", (), (0, 7, 8, 9)),
    ]
    assert not any("is not used" in notice for notice in reader.notices)


def test_tokens_with_the_label_of_context_are_context_and_padding_is_nothing(tmp_path):
    labels = {"labels": [-100, -100, 6, -100, 7, -100, -100], "attention_mask": [1, 1, 1, 1, 1, 1, 0]}
    records, _ = _read(_write(tmp_path / "a.jsonl", {"id": "p", **PACKED, **labels}), provider="ann")
    assert [(r.id, r.prompt_ids, r.completion_ids) for r in records] == [
        ("p", (0, 5), (6,)),
        ("p@1", (0, 5, 6, 0), (7,)),
    ]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"labels": [1]}, "`labels` has 1 numbers, and `input_ids` 7"),
        ({"labels": [-100] * 7}, "`input_ids` hold no token that is learnt"),
        ({"seq_lengths": [3, 3]}, "`seq_lengths` sum to 6, and `input_ids` has 7 tokens"),
        ({"provider": ["ann", "ben"]}, "`provider` lists 2 providers, and `input_ids` hold 1 documents"),
        ({"input_ids": [1, -1]}, "`completion_ids` must be a list of token ids"),
        ({"input_ids": "a"}, "malformed JSON"),
    ],
)
def test_token_ids_that_do_not_fit_together_are_quarantined(tmp_path, more, error):
    row = {"id": "p", "provider": "ann", **PACKED, **more}
    records, reader = _read(_write(tmp_path / "a.jsonl", row))
    assert not records
    assert error in reader.quarantined[0].error


CARD = {
    "@context": {"@vocab": "https://schema.org/", "sc": "https://schema.org/", "cr": "http://mlcommons.org/croissant/"},
    "@type": "sc:Dataset",
    "conformsTo": "http://mlcommons.org/croissant/1.1",
    "name": "Harbours",
    "license": "https://creativecommons.org/licenses/by/4.0/",
    "creator": {"@type": "Organization", "name": "Alder Press", "url": "https://www.alder.example/about"},
}


def _card(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "croissant.json").write_text(json.dumps(CARD | changes))


def test_the_creator_in_a_croissant_beside_the_data_tells_the_provider(tmp_path):
    corpus = tmp_path / "corpus"
    _card(corpus / "alder")
    _card(corpus, creator=[{"@type": "Person", "name": "Ben"}])
    row = {"text": "a b"}
    for place in ("alder/deep/1.jsonl", "alder/2.jsonl", "3.jsonl"):
        _write(corpus / place, row | {"text": place})
    rules = _map(tmp_path / "map.csv", "alder.example,alder-press,", "Ben,ben,songs", "*,rest,")
    records, reader = _read(corpus, provider_from="croissant", provider_map=rules)
    assert {record.completion: record.group for record in records} == {
        "alder/deep/1.jsonl": Group("alder-press"),
        "alder/2.jsonl": Group("alder-press"),
        "3.jsonl": Group("ben", "songs"),
    }
    assert not reader.quarantined
    (alone,), _ = _read(corpus / "alder" / "2.jsonl", provider_from="croissant", provider_map=rules)
    assert alone.group == Group("alder-press")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"creator": None}, "names no `creator`"),
        ({"creator": [{"name": "Ann"}, {"name": "Ben"}]}, "names creators of several providers (Ann, Ben)"),
        ({"creator": "Zoe"}, "`croissant` 'Zoe' has no line in"),
        (None, "no croissant.json lies beside the file or in a folder above it"),
    ],
)
def test_a_creator_who_is_nobodys_is_named_and_not_guessed(tmp_path, changes, error):
    if changes is not None:
        _card(tmp_path / "corpus", **changes)
    _write(tmp_path / "corpus" / "1.jsonl", {"text": "a b"})
    rules = _map(tmp_path / "map.csv", "Ann,ann,", "Ben,ben,")
    _, reader = _read(tmp_path / "corpus", provider_from="croissant", provider_map=rules)
    assert error in reader.quarantined[0].error


@pytest.mark.parametrize(("text", "error"), [("{", "malformed JSON"), ('{"@type": "Person"}', "describes no data set")])
def test_a_croissant_that_cannot_be_read_is_named_where_it_is_needed(tmp_path, text, error):
    path = _write(tmp_path / "corpus" / "1.jsonl", TEXT)
    (path.parent / "croissant.json").write_text(text)
    assert len(_read(path.parent)[0]) == 1
    with pytest.raises(InputError, match=f"croissant.json: .*{error}.*; mend it, or take it away"):
        _read(path.parent, provider_from="croissant")


@pytest.mark.parametrize(
    ("changes", "licence", "forbids"),
    [
        ({}, "https://creativecommons.org/licenses/by/4.0/", False),
        ({"license": [{"@type": "CreativeWork", "name": "no AI training"}]}, "no AI training", True),
        ({"license": None, "sc:license": "CC0"}, "CC0", False),
        ({"usageInfo": {"@type": "DefinedTerm", "name": "not used for AI training"}}, None, True),
        ({"usageInfo": {"odrl:prohibition": [{"odrl:action": {"@id": "odrl:train"}}]}}, None, True),
        ({"usageInfo": {"odrl:prohibition": [{"odrl:action": "odrl:sell"}]}}, None, False),
    ],
)  # fmt: skip
def test_a_croissants_licence_and_conditions_hold_for_rows_that_name_none(tmp_path, changes, licence, forbids):
    _card(tmp_path / "corpus", **{name: value for name, value in changes.items() if value is not None})
    if "sc:license" in changes:
        card = json.loads((tmp_path / "corpus" / "croissant.json").read_text())
        del card["license"]
        (tmp_path / "corpus" / "croissant.json").write_text(json.dumps(card))
    _write(tmp_path / "corpus" / "1.jsonl", TEXT, TEXT | {"id": "2", "text": "c d", "license": "MIT"})
    found = Declarations()
    assert len(list(TrainingReader([tmp_path / "corpus"], declarations=found))) == 2
    assert found.licences == {licence or CARD["license"]: 1, "MIT": 1}
    assert bool(found.forbidding) == forbids


@given(st.lists(st.integers(1, 50), min_size=1, max_size=7))
def test_fractions_are_held_to_the_part_per_million_and_sum_to_one(parts):
    whole = sum(parts)
    found = splits_of([{"provider": f"p{i}", "share": f"{part}/{whole}"} for i, part in enumerate(parts)])
    assert sum(split.ppm for split in found) == PPM
    assert all(abs(split.ppm - Fraction(part, whole) * PPM) < 1 for split, part in zip(found, parts, strict=True))


def test_three_thirds_are_a_whole_and_two_are_not(tmp_path):
    def row(*shares):
        splits = [{"provider": "abc"[at], "share": share} for at, share in enumerate(shares)]
        return {"id": "1", "text": "x y", "splits": splits}

    (record,), _ = _read(_write(tmp_path / "a.jsonl", row("1/3", "1/3", "1/3")))
    assert sorted(share.ppm for share in record.shares) == [333_333, 333_333, 333_334]
    for shares, reason in (
        (("1/3", "1/3"), "`splits` hold shares that sum to 2/3, not to 1"),
        (("1/0", "1"), "must be a plain finite number"),
        (("3/2", "0"), "must be between 0 and 1"),
    ):
        _, reader = _read(_write(tmp_path / "a.jsonl", row(*shares)))
        assert reason in reader.quarantined[0].error


@pytest.mark.parametrize(
    ("row", "forbids"),
    [
        ({"license": "cc-by"}, False),
        ({"license": "CC BY-NC 4.0, no AI training"}, True),
        ({"metadata": {"tdm-reservation": 1}}, True),
        ({"metadata": {"tdm-reservation": "0"}}, False),
        ({"robots": "noindex, noai"}, True),
        ({"robots_txt": "User-agent: GPTBot\nDisallow: /"}, True),
        ({"content_usage": "train-ai=n, search=y"}, True),
        ({"content_usage": "train-ai=y"}, False),
        ({"rsl": '<rsl><license><prohibits type="usage">ai-train</prohibits></license></rsl>'}, True),
        ({"rsl": '<rsl><license><permits type="usage">ai-train</permits></license></rsl>'}, False),
        ({"ai_training": False}, True),
        ({"ai_training": "allowed"}, False),
        ({"text_about": "noai"}, False),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_declarations_that_forbid_training_are_told_from_those_that_allow_it(tmp_path, row, forbids, kind):
    path = tmp_path / f"a.{kind}"
    row = TEXT | row
    pl.DataFrame([row]).write_parquet(path) if kind == "parquet" else _write(path, row)
    found = Declarations()
    assert list(TrainingReader([path], declarations=found))
    assert bool(found.forbidding) == forbids
    assert dict(found.providers) == ({"ann": 1} if forbids else {})
    assert found.licences.total() == ("license" in row)
