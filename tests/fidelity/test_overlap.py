# ruff: noqa: RUF001 - letters that look alike are what is tested
"""What providers have in common, held against sets of strings."""

from __future__ import annotations

import json
import random
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from credit.cli.main import cli
from credit.errors import InvalidRequestError
from credit.fidelity import overlap
from credit.fidelity.folding import folded
from credit.fidelity.overlap import BLOCK, DENSE, LEAST, SHINGLE, find_overlap
from credit.records import Group, Message, Share, TrainingRecord


def record(id: str, provider: str, text: str) -> TrainingRecord:  # noqa: A002 - the name of the field
    return TrainingRecord(id, Group(provider), text)


def words(seed: int, count: int = 80) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(count))


def runs(item: TrainingRecord) -> list[str]:
    letters = "".join(c for c in item.completion.casefold() if c.isalnum())
    length = min(SHINGLE, len(letters))
    return [letters[i : i + length] for i in range(len(letters) - length + 1)] if letters else []


def blocks(count: int) -> list[range]:
    """Places of a record's shingles, block by block: the last one takes what is no half of a block."""
    starts = range(0, max(count - BLOCK // 2, 0) + 1, BLOCK)
    ends = [*starts[1:], count]
    return [range(start, end) for start, end in zip(starts, ends, strict=True)]


def whole(hits: Sequence[set[str]]) -> float:
    """Fraction of a record found, given the providers with each of its shingles."""
    found = 0
    for places in blocks(len(hits)):
        most = max((sum(who in hits[n] for n in places) for who in set().union(*(hits[n] for n in places))), default=0)
        enough = most >= max(DENSE * len(places), LEAST)
        found += len(places) if enough else sum(bool(hits[n]) for n in places)
    return found / max(len(hits), 1)


def oracle(records: Sequence[TrainingRecord]) -> list[tuple[float, float, float]]:
    """Shared, before and repeated of each record, by sets of strings."""
    first: dict[str, dict[str, int]] = defaultdict(dict)
    for number, item in enumerate(records):
        for run in runs(item):
            first[run].setdefault(item.group.provider, number)
    found = []
    for number, item in enumerate(records):
        mine = item.group.provider
        others = [{who: n for who, n in first[run].items() if who != mine} for run in runs(item)]
        own = [{mine} if first[run][mine] < number else set() for run in runs(item)]
        before = [{who for who, n in one.items() if n < number} for one in others]
        found.append((whole([set(one) for one in others]), whole(before), whole(own)))
    return found


PIECES = [words(seed, 12) for seed in range(6)] + [words(7, 4), "", "x", "K ß"]


@pytest.mark.parametrize("piece", [1, 7, SHINGLE, 1000])
def test_a_text_in_pieces_has_the_same_shingles(piece, monkeypatch):
    records = [
        record("1", "ann", words(1) + words(2)),
        record("2", "ben", words(2) + words(1)),
        record("3", "cem", "x"),
    ]
    entire = find_overlap(records, least=1e-9)
    monkeypatch.setattr(overlap, "PIECE", piece)
    assert find_overlap(records, least=1e-9) == entire


@given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.sampled_from(PIECES), max_size=4)), max_size=8))
def test_what_is_shared_is_what_sets_of_strings_share(parts):
    records = [record(str(n), who, " ".join(pieces)) for n, (who, pieces) in enumerate(parts)]
    found = find_overlap(records, least=1e-9)
    expected = [(r.id, *parts) for r, parts in zip(records, oracle(records), strict=True) if parts[0] or parts[2]]
    assert [(item.id, item.shared, item.before, item.repeated) for item in found.records] == expected
    assert found.sampled == 1
    assert [item.provider for item in found.providers] == sorted({who for who, _ in parts})
    for item in found.providers:
        own = [run for r in records if r.group.provider == item.provider for run in runs(r)]
        assert item.repeated == pytest.approx(1 - len(set(own)) / len(own) if own else 0)


@pytest.mark.parametrize("change", [str.upper, lambda text: text.replace(" ", " ,\n"), lambda text: f" {text}."])
def test_case_blanks_and_punctuation_hide_no_copy(change):
    text = words(1)
    original, copy = record("1", "ann", text), record("2", "ben", change(text))
    found = find_overlap([original, copy])
    assert [(item.id, item.shared, item.before, item.other) for item in found.records] == [
        ("1", 1.0, 0.0, "ben"),
        ("2", 1.0, 1.0, "ann"),
    ]


def test_half_a_copy_is_half_shared_and_own_words_are_not():
    records = [record("1", "ann", words(1)), record("2", "ben", f"{words(2)} {words(1)}"), record("3", "cem", words(3))]
    ann, ben, cem = find_overlap(records).providers
    assert (ann.shared, ann.before, ann.others) == (1.0, 0.0, (("ben", 1.0),))
    assert ben.shared == ben.before == pytest.approx(0.5, abs=0.1)
    assert (cem.shared, cem.repeated, cem.others) == (0.0, 0.0, ())
    assert [item.id for item in find_overlap(records, least=0.9).records] == ["1"]


def every(step: int, text: str) -> str:
    return " ".join("qqqqq" if n % step == 0 else word for n, word in enumerate(text.split()))


@pytest.mark.parametrize(
    "disguise",
    [
        str.upper,
        lambda text: text.translate(str.maketrans("aceij", "асеіј")),
        lambda text: text.upper().translate(str.maketrans("ABCEH", "АВСЕН")),
        lambda text: text.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)}),
        lambda text: "".join(f"{c}\u0301" if c in "aei" else c for c in text),
        "\u200b".join,
        "\u3164".join,
        lambda text: " ".join(f"{word}7" if n % 4 == 0 else f"12{word}" for n, word in enumerate(text.split())),
        lambda text: text.translate(str.maketrans("aei", "431")),
        lambda text: every(10, text),
        lambda text: " ".join(text.split()[60:] + text.split()[:60]),
    ],
    ids=["case", "Cyrillic", "Cyrillic capitals", "full width", "accents", "zero width", "fillers", "digits",
         "leetspeak", "words replaced", "halves exchanged"],
)  # fmt: skip
def test_a_disguised_copy_is_found(disguise):
    text = words(1, 120)
    assert disguise(text) != text
    texts = {"ann": text, "ben": disguise(text), "cem": words(2, 120)}
    found = find_overlap([record(str(n + 1), who, said) for n, (who, said) in enumerate(texts.items())])
    assert [(item.id, item.other) for item in found.records] == [("1", "ben"), ("2", "ann")]
    assert found.providers[1].shared > 0.9
    assert found.providers[2].shared == 0


def test_too_many_words_replaced_are_another_text():
    text = words(1, 400)
    _, ben = find_overlap([record("1", "ann", text), record("2", "ben", every(4, text))]).providers
    assert ben.shared < 0.25


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The 12 ships, 1st of 3.", "the12shipsstof3"),
        ("v2.5 of layer2", "v5oflayer"),
        ("ПОЛЕ и поле", "пoлeипoлe"),
        ("ﬁne Straße CO₂", "finestrasseco"),
        ("한국어 日本語", "한국어日本語"),
        ("\u202eabc\u200d\u00ad d", "abcd"),
    ],
)
def test_folding_keeps_what_a_reader_tells_apart(text, plain):
    assert unicodedata.normalize("NFC", folded(text)) == plain


def test_one_common_phrase_makes_no_copy_of_a_short_text():
    phrase = "i am sorry but i cannot help"
    records = [record("1", "ann", f"{phrase} {words(1, 6)}"), record("2", "ben", f"{phrase} {words(2, 6)}")]
    assert all(item.shared < 0.3 for item in find_overlap(records).providers)


def test_answers_of_chats_are_compared_and_questions_are_not():
    def chat(id: str, provider: str, question: str, answer: str) -> TrainingRecord:  # noqa: A002
        return TrainingRecord(id, Group(provider), messages=(Message("user", question), Message("assistant", answer)))

    records = [chat("1", "ann", words(1), words(2)), chat("2", "ben", words(1), words(3))]
    assert [item.shared for item in find_overlap(records).providers] == [0.0, 0.0]
    again = [chat("1", "ann", words(1), words(2)), chat("2", "ben", words(4), words(2))]
    assert [item.shared for item in find_overlap(again).providers] == [1.0, 1.0]


def test_those_who_share_a_record_are_no_others_to_each_other():
    both = (Share(Group("ann"), 500_000), Share(Group("ben", "b"), 300_000), Share(Group("ben", "c"), 200_000))
    shared = TrainingRecord("1", None, words(1), splits=both)
    records = [shared, record("2", "ben", words(2)), record("3", "cem", words(1))]
    found = find_overlap(records)
    assert [(item.id, item.provider, item.shared, item.other) for item in found.records] == [
        ("1", "ann, ben", 1.0, "cem"),
        ("3", "cem", 1.0, "ann"),
    ]
    assert [item.records for item in found.providers] == [1, 2, 1]
    assert find_overlap(records[:2]).records == ()


def test_a_sample_tells_much_the_same_and_finds_copies_for_sure():
    records = [record(f"{who}{n}", who, words(100 * k + n, 150)) for k, who in enumerate("abc") for n in range(40)]
    records += [record(f"copy{n}", "c", words(n, 150)) for n in range(20)]  # of what a has
    whole, sampled = find_overlap(records), find_overlap(records, kept=10_000)
    assert whole.sampled == 1
    assert 1 / 64 < sampled.sampled < 1 / 8
    for item, rough in zip(whole.providers, sampled.providers, strict=True):
        assert rough.shared == pytest.approx(item.shared, abs=0.03)
        assert rough.repeated == pytest.approx(item.repeated, abs=0.03)
        assert rough.characters == item.characters
    named = {item.id for item in sampled.records}
    assert named == {item.id for item in whole.records}
    assert len(named) == 40


def test_the_order_of_records_changes_before_alone():
    records = [record(str(n), "abc"[n % 3], f"{words(n % 4, 30)} {words(n + 10, 30)}") for n in range(12)]
    one, other = find_overlap(records), find_overlap(records[::-1])
    assert [(p.provider, p.shared, p.repeated, p.others) for p in one.providers] == [
        (p.provider, p.shared, p.repeated, p.others) for p in other.providers
    ]


@pytest.mark.parametrize(("least", "kept"), [(0.0, 10), (1.1, 10), (float("nan"), 10), (0.5, 0)])
def test_what_makes_no_sense_is_refused(least, kept):
    with pytest.raises(InvalidRequestError):
        find_overlap([], least=least, kept=kept)


def test_the_command_shows_who_shares_with_whom_and_writes_the_records(tmp_path):
    data, out = tmp_path / "train.jsonl", tmp_path / "copies.csv"
    rows = [("=1", "ann", words(1)), ("2", "ben", words(1).upper()), ("3", "cem", words(3))]
    data.write_text("".join(json.dumps({"id": i, "provider": p, "content": t}) + "\n" for i, p, t in rows) + "{\n")
    done = CliRunner().invoke(cli, ["overlap", str(data), "--field", "text=content", "--records", str(out)])
    assert done.exit_code == 3, done.output
    assert "ben 1 100.00 % 100.00 % 0.00 % ann 100.00 %" in " ".join(done.stdout.split())
    assert (
        f"2 records found in others' text, or before in their provider's own, to 80% or more; listed in {out}"
        in done.stdout
    )
    assert ":4: " in done.stderr, "what cannot be read is named"
    assert out.read_text().splitlines() == [
        "id,provider,shared,before,repeated,other", "'=1,ann,1.0,0.0,0.0,ben", "2,ben,1.0,1.0,0.0,ann"
    ]  # fmt: skip
    facts = json.loads(CliRunner().invoke(cli, ["overlap", str(data), "--field", "text=content", "--json"]).stdout)
    assert [item["shared"] for item in facts["providers"]] == [1.0, 1.0, 0.0]


def test_the_command_refuses_what_it_cannot_read_and_writes_nothing(tmp_path):
    bad, good, out = tmp_path / "bad.jsonl", tmp_path / "good.jsonl", tmp_path / "copies.csv"
    bad.write_text("{\n")
    good.write_text(json.dumps({"id": "1", "provider": "ann", "text": "one"}) + "\n")
    runner = CliRunner()
    assert "there is no text to compare" in runner.invoke(cli, ["overlap", str(bad)]).stdout
    for code, arguments in (
        (1, [str(tmp_path / "none.jsonl")]),
        (2, [str(good), "--least", "2"]),
        (2, [str(good), "--field", "text"]),
        (2, []),
    ):
        done = runner.invoke(cli, ["overlap", *arguments, "--records", str(out)])
        assert done.exit_code == code, done.output
        assert not out.exists()
    nowhere = runner.invoke(cli, ["overlap", str(good), "--records", str(tmp_path / "no" / "x.csv")])
    assert nowhere.exit_code == 1
    assert f"Error: {tmp_path / 'no' / 'x.csv'}: No such file or directory; name another path" in nowhere.stderr
