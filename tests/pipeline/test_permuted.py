"""Two months from the log to the statements, told in another order and with other scores of the same proportions.

What a statement says does not depend on the order in which files, records, providers, terms, pools and score books
came, on how outputs are spread over books, on a factor common to all scores, or on the engine. What may differ, and is
taken out before texts are compared byte by byte: the heads of the chains, and in a list of corrections the number and
the hash of each transaction with the place in the list that they give it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from random import Random
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from credit.accounting.credits import Policy
from credit.ledger import corrections, fx, holds, indexes, pools, providers, statements, terms
from credit.ledger.database import Ledger
from credit.ledger.verify import verify
from credit.pipeline.close import ClosePolicy, close_period
from credit.pipeline.ingest_outputs import ingest_outputs
from credit.pipeline.workspace import Workspace
from credit.records import GivenRate, Group, Provider, Rate, Terms
from tests.pipeline.books_of_account import FEBRUARY, JANUARY, NOW
from tests.pipeline.samples import write_jsonl
from tests.pipeline.scored import INDEX, MODEL, Scored, at, post_scores

T = TypeVar("T")

KEYS = ("ann", "ben", "cas")
GROUPS = (*(Group(key, name) for key in KEYS for name in ("books", "blog")), Group("own"))
PEOPLE = (*(Provider(key, key.title()) for key in KEYS), Provider("own", "Own data", "house"))
POLICIES = [
    Policy(measure, basis=basis, negative=negative)
    for measure in ("effect", "support", "influence")
    for basis in ("output", "period")
    for negative in ("zero", "net")
]
AGREED = (
    ("ann", "EUR", Terms(rate_ppm=700_001, minimum_payout_minor=2_000, withholding_ppm=150_000, fee_minor=7)),
    ("ben", "EUR", Terms(reserve_ppm=333_333, reserve_release_periods=1, recoupment_ppm=500_000)),
    ("cas", "EUR", Terms(pay_in="USD")),
    ("cas", "USD", Terms(minimum_payout_minor=1_000)),
)
RATES = tuple(
    GivenRate("EUR", "USD", date(2026, month, 28), Rate(coefficient, 4), "a bank")
    for month, coefficient in ((1, 10_842), (2, 9_999))
)


@dataclass(frozen=True)
class Story:
    """What happens in two months; the order in which it is told is another matter."""

    outputs: tuple[Scored, ...]
    nets: tuple[tuple[str, str, str, int], ...]
    adjusted: tuple[tuple[str, int], ...]
    policy: Policy
    house: str

    def scaled(self, factor: float) -> Story:
        """The same with every measure times a factor."""
        return replace(
            self,
            outputs=tuple(
                replace(item, measures={group: (factor * i, factor * s) for group, (i, s) in item.measures.items()})
                for item in self.outputs
            ),
        )


# Whole numbers: times a small factor they are exact in doubles, so that proportions are the same to the last digit.
scores = st.tuples(st.integers(-(10**6), 10**6), st.integers(0, 10**6))
output = st.tuples(
    st.sampled_from([1, 1, 1, 2]), st.integers(1, 28), st.lists(scores, min_size=7, max_size=7), st.integers(0, 10**9)
)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    outputs = tuple(
        Scored(f"o{number}", at(month, day), dict(zip(GROUPS, measures, strict=True)), weight)
        for number, (month, day, measures, weight) in enumerate(draw(st.lists(output, min_size=2, max_size=7)))
    )
    outputs += (Scored("always", at(1, 1), dict.fromkeys(GROUPS, (1, 1))), Scored("too", at(2, 1), {GROUPS[0]: (1, 1)}))
    nets = [
        (month, code, name, draw(st.integers(0, 10**6)))
        for month in (JANUARY, FEBRUARY)
        for code in ("EUR", "USD")
        for name in ("licences", "subscriptions")
    ]
    adjusted = draw(st.lists(st.tuples(st.sampled_from(KEYS), st.integers(1, 500)), max_size=3, unique=True))
    house = draw(st.sampled_from(["return", "redistribute", "escrow"]))
    return Story(outputs, tuple(nets), tuple(adjusted), draw(st.sampled_from(POLICIES)), house)


def told(story: Story, url: str, folder: Path, order: Random | None) -> dict[tuple[str, str, int], str]:
    """Tell a story to a ledger, in an order; return the statements, without what may differ."""

    def some(items: Sequence[T]) -> list[T]:
        return order.sample(items, len(items)) if order else list(items)

    workspace = Workspace(url, folder)
    with Ledger.open(url) as ledger:
        with ledger.write() as conn:
            for item in some(PEOPLE):
                providers.add_provider(conn, item, now=NOW)
            indexes.register_index(conn, MODEL, INDEX, "index", "{}", now=NOW)
        for number, part in enumerate(_parts(some(story.outputs), order)):
            ingest_outputs(workspace, write_jsonl(folder / f"log{number}.jsonl", map(_row, part)), strict=True)
        for part in _parts(some(story.outputs), order):
            turned = [replace(item, measures=dict(some(list(item.measures.items())))) for item in part]
            post_scores(ledger, workspace.books, turned, story.policy)
        with ledger.write() as conn:
            acts: list[Callable[[], object]] = [
                *(lambda it=it: terms.agree(conn, it[0], it[1], it[2], date(2026, 1, 1), now=NOW) for it in AGREED),
                *(lambda it=it: fx.give_rate(conn, it, now=NOW) for it in RATES),
                *(lambda it=it: pools.add_pool(conn, it[0], it[1], it[3], 0, it[2], NOW) for it in story.nets),
                *(
                    lambda it=it: corrections.adjust(
                        conn, it[0], it[1], "EUR", period=JANUARY, reason=f"{it[1]} too few", now=NOW
                    )
                    for it in story.adjusted
                ),
                lambda: holds.place_hold(conn, "ann", "USD", "a dispute", now=NOW),
            ]
            for act in some(acts):
                act()
        policy = ClosePolicy(house=story.house, unvalidated="a test", unreviewed="a test")
        for month in (JANUARY, FEBRUARY):
            close_period(ledger, month, policy, books=workspace.books, now=NOW)
        assert verify(ledger, workspace.books).problems == ()
        with ledger.read() as conn:
            return {
                (item.period, item.provider, item.version): _plain(item.body_json)
                for month in (JANUARY, FEBRUARY)
                for item in statements.statements(conn, month)
            }


def _parts(items: list[T], order: Random | None) -> list[list[T]]:
    """Cut a list in two somewhere, or leave it whole."""
    cut = order.randrange(1, len(items)) if order else len(items)
    return [part for part in (items[:cut], items[cut:]) if part]


def _row(item: Scored) -> dict[str, object]:
    row = {"id": item.name, "occurred_at": item.moment.isoformat(), "model": MODEL, "prompt": "p", "completion": "c"}
    return row | {"weight": f"{item.weight_micro // 10**6}.{item.weight_micro % 10**6:06d}"}


def _plain(body_json: str) -> str:
    body = json.loads(body_json)
    del body["chain_head"], body["seal_head"]
    for line in body["corrections"]:
        del line["transaction"], line["hash"], line["cites"]
    body["corrections"].sort(key=json.dumps)
    return json.dumps(body)  # in the order that the statement has


def test_neither_order_nor_scale_nor_engine_changes_a_statement(postgres, sqlite_template, tmp_path_factory):
    @settings(
        max_examples=10,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(stories(), st.randoms(use_true_random=False), st.sampled_from([0.125, 3.0, 1000.0]))
    def tell(story: Story, order: Random, factor: float) -> None:
        found = []
        for engine, telling, shuffled in (
            ("sqlite", story, None),
            ("sqlite", story.scaled(factor), order),
            ("postgresql", story, order),
        ):
            folder = tmp_path_factory.mktemp("told")
            url = f"sqlite:///{folder / 'credit.db'}"
            if engine == "sqlite":
                (folder / "credit.db").write_bytes(sqlite_template.read_bytes())
            else:
                url = postgres.create(migrated=True)
            found.append(told(telling, url, folder, shuffled))
            if engine == "postgresql":
                postgres.drop(url)
        assert found[0].keys() >= {(JANUARY, "ann", 1), (JANUARY, "ben", 1), (JANUARY, "cas", 1), (FEBRUARY, "ann", 1)}
        assert found[1] == found[0], "another order and scale"
        assert found[2] == found[0], "another order and engine"

    tell()
