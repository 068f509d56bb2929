"""What is approved by a second person is exactly what happens, once; all else is refused by the ledger itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.queues import Queue

import pytest
from sqlalchemy import text

from credit.approval import proposals
from credit.approval.actions import (
    ACTIONS,
    AddPool,
    Adjust,
    AmendTerms,
    Effect,
    GiveRate,
    PayAdvance,
    ReleaseHold,
    Reverse,
    SetDetails,
    SwitchOff,
)
from credit.approval.proposals import give, perform, refuse, require, view
from credit.errors import InvalidRequestError, LedgerError
from credit.ledger import approvals, holds, journal, pools, terms
from credit.ledger.approvals import Proposal, waiting
from credit.ledger.database import Ledger
from credit.ledger.guards import BY_ACTION, SWITCH_OFF
from credit.ledger.personal_data import current_details, erase_details
from credit.ledger.transactions import transactions
from credit.ledger.verify import verify
from tests.approval.people import NOW, OCTOBER, two_people, url_of
from tests.kills import die, die_after, die_at_commit_of, die_before, killed
from tests.ledger import samples
from tests.ledger.tampering import unguarded
from tests.processes import FORKS

POOL = AddPool(OCTOBER, "EUR", 10_000, 0, "main")
EACH = (
    POOL,
    AmendTerms("ada", "EUR", {"rate_ppm": 700_000}, "2026-10-01"),
    SetDetails("ada", {"town": "London", "country": "GB"}),
    Adjust("ada", 500, "EUR", OCTOBER, "a gift"),
    PayAdvance("ada", 500, "EUR", "2026-10-01", "transfer-1"),
    GiveRate("EUR", "USD", "2026-10-02", "1.0842", "a bank"),
)
People = tuple[Ledger, Ledger]


@pytest.fixture
def people(database_url: str) -> Iterator[People]:
    with two_people(database_url) as both:
        yield both


def proposed(ledger: Ledger, action: object) -> Proposal:
    found = perform(ledger, action, now=NOW)
    assert isinstance(found, Proposal)
    return found


def problems(ledger: Ledger) -> list[str]:
    return [str(problem) for problem in verify(ledger, None).problems]


def test_every_guard_has_its_action():
    assert ACTIONS.keys() == BY_ACTION.keys()


@pytest.mark.parametrize("action", EACH, ids=lambda action: action.name)
def test_an_action_is_done_at_once_until_somebody_requires_an_approval(people, action):
    anna, ben = people
    undo = perform(anna, action, now=NOW)
    assert isinstance(undo, Effect)
    require(anna, frozenset(ACTIONS) - {SWITCH_OFF}, now=NOW)
    assert isinstance(perform(ben, action, now=NOW), Effect), "what was done is answered as ever"
    assert problems(anna) == []


@pytest.mark.parametrize("action", EACH, ids=lambda action: action.name)
def test_an_action_that_needs_an_approval_is_done_by_it_once(people, action):
    anna, ben = people
    assert require(anna, frozenset({action.name}), now=NOW) == {action.name}
    item = proposed(anna, action)
    assert proposed(anna, action) == item, "the same proposal again is the same"
    assert view(ben, item.id, now=NOW).changed == ""
    with anna.read() as conn:
        before = transactions(conn)
    with pytest.raises(LedgerError, match="anna proposed 1 and cannot approve it"):
        give(anna, item.id, now=NOW)
    assert isinstance(give(ben, item.id, now=NOW), Effect)
    assert give(ben, item.id, now=NOW) is None
    with pytest.raises(LedgerError, match="was given by ben before"):
        refuse(anna, item.id, reason="too late", now=NOW)
    with anna.read() as conn:
        assert [row.actor for row in transactions(conn)[len(before) :]] in ([], ["ben"])
        assert waiting(conn) == []
    assert problems(anna) == []


def test_a_reversal_needs_its_own_approval(people):
    anna, ben = people
    perform(anna, POOL, now=NOW)
    require(anna, frozenset({"reversal"}), now=NOW)
    item = proposed(ben, Reverse(1, "entered twice"))
    give(anna, item.id, now=NOW)
    assert problems(anna) == []


def test_money_is_held_back_by_one_person_and_released_by_two(people):
    anna, ben = people
    require(anna, frozenset({"hold-release"}), now=NOW)
    with anna.write() as conn:
        holds.place_hold(conn, "ada", None, "a question", now=NOW)
    with pytest.raises(LedgerError, match="hold-release needs the approval"), anna.write() as conn:
        holds.release_hold(conn, "ada", None, "answered", now=NOW)
    item = proposed(anna, ReleaseHold("ada", "answered"))
    with ben.read() as conn:
        assert len(holds.holds(conn)) == 1
    give(ben, item.id, now=NOW)
    with ben.read() as conn:
        assert holds.holds(conn) == {}
    assert problems(anna) == []


def test_a_refused_proposal_stays_refused(people):
    anna, ben = people
    require(anna, frozenset({"pool"}), now=NOW)
    item = proposed(anna, POOL)
    refuse(anna, item.id, reason="a slip", now=NOW)
    refuse(anna, item.id, reason="again", now=NOW)
    with pytest.raises(LedgerError, match="was refused by anna before"):
        give(ben, item.id, now=NOW)
    assert proposed(anna, POOL).id == 2


def test_something_else_than_was_proposed_is_refused_and_named(people):
    anna, ben = people
    require(anna, frozenset({"terms", "pool"}), now=NOW)
    item = proposed(anna, AmendTerms("ada", "EUR", {"fee_minor": 100}, "2026-10-01"))
    other = proposed(anna, AmendTerms("ada", "EUR", {"rate_ppm": 1}, "2026-09-01"))
    give(ben, other.id, now=NOW)  # changes what the first one amends
    assert "would do something else now" in view(ben, item.id, now=NOW).changed
    with pytest.raises(LedgerError, match=r"not any more: version 1 .*; now: version 2 .*propose it again"):
        give(ben, item.id, now=NOW)
    taken = proposed(anna, POOL)
    give(ben, proposed(anna, replace(POOL, gross_minor=9)).id, now=NOW)
    with pytest.raises(LedgerError, match=r"proposal 3 cannot be done any more: .*another amount"):
        give(ben, taken.id, now=NOW)
    assert problems(anna) == []


def test_nobody_switches_it_off_alone(people):
    anna, ben = people
    with pytest.raises(InvalidRequestError, match="actions are pool, terms"):
        require(anna, frozenset({"pools"}), now=NOW)
    require(anna, frozenset({"pool"}), now=NOW)
    with pytest.raises(LedgerError, match="needs the approval of a second person"), anna.write() as conn:
        approvals.record_rule(conn, "pool", required=False, now=NOW)
    item = proposed(anna, SwitchOff("pool"))
    with pytest.raises(LedgerError, match="cannot approve it"):
        give(anna, item.id, now=NOW)
    give(ben, item.id, now=NOW)
    assert isinstance(perform(anna, POOL, now=NOW), Effect)
    assert problems(anna) == []


@pytest.mark.parametrize("name", ["pool", "terms"])
def test_the_database_refuses_an_action_around_it(people, name):
    anna, _ = people
    require(anna, frozenset({name}), now=NOW)
    act = POOL if name == "pool" else EACH[1]
    with (
        pytest.raises(LedgerError, match=f"refuses: {name} needs the approval of a second person"),
        anna.write() as conn,
    ):
        act.do(proposals.Session(conn, None, NOW))


def test_a_preview_cannot_be_kept(people):
    anna, _ = people
    with anna.write() as conn:
        journal.post(conn, samples.credit_posting("opens October"), now=NOW)
    require(anna, frozenset({"pool"}), now=NOW)
    row = (
        "INSERT INTO proposal (id, action, arguments_json, summary, facts_sha256, row_count, proposed_by, role,"
        f" created_at, preview_of) SELECT {{0}}, 'x', '{{{{}}}}', '', '{'0' * 64}', 0, 'anna', {{1}},"
        " '2026-10-05T12:30:00.000000Z', {2}"
    )
    role = "session_user" if "postgresql" in anna.url else "NULL"
    with pytest.raises(LedgerError, match=r"(?i)foreign key"):
        run(anna, row.format(1, role, 2), f"INSERT INTO pool VALUES (1, '{OCTOBER}', 'EUR', 'x', 0, 0, 0, NULL)")
    for second in (row.format(2, role, "NULL"), row.format(1, role, 1)):
        with pytest.raises(LedgerError, match="a preview is undone before"):
            run(anna, row.format(1, role, 2), second)


def run(ledger: Ledger, *statements: str) -> None:
    with ledger.write() as conn:
        for statement in statements:
            conn.execute(text(statement))


APPROVAL = (
    "INSERT INTO approval (id, proposal_id, decision, action, first_row, last_row, after_txn, decided_by, role, reason,"
    " created_at) VALUES (1, 1, 'given', '{action}', {first}, {last}, 0, '{by}', {role}, '',"
    " '2026-10-05T12:30:00.000000Z')"
)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"by": "anna"}, "a proposal of their own"),
        ({"action": "terms"}, "of its proposal's action"),
        ({"last": 2}, "as many rows"),
        ({"first": 7, "last": 7}, "comes before what it approves"),
    ],
    ids=str,
)
def test_the_database_refuses_an_approval_that_is_none(people, changes, match):
    anna, ben = people
    require(anna, frozenset({"pool"}), now=NOW)
    proposed(anna, POOL)
    role = "session_user" if "postgresql" in anna.url else "NULL"
    said = APPROVAL.format(**{"action": "pool", "first": 1, "last": 1, "by": "ben", "role": role, **changes})
    with pytest.raises(LedgerError, match=match):
        run(ben, said)


def test_the_same_role_of_the_database_is_no_second_person(people, database_url, engine_name):
    anna, _ = people
    require(anna, frozenset({"pool"}), now=NOW)
    item = proposed(anna, POOL)
    with Ledger.open(url_of(database_url, "anna"), actor="ben") as other:
        if engine_name == "sqlite":
            assert isinstance(give(other, item.id, now=NOW), Effect), "on SQLite a name is all there is"
            return
        with pytest.raises(LedgerError, match="under the database role anna"):
            give(other, item.id, now=NOW)
        with pytest.raises(LedgerError, match="what the same database role proposed"):
            run(other, APPROVAL.format(action="pool", first=1, last=1, by="ben", role="session_user"))
        with pytest.raises(LedgerError, match="role is the role of the session"):
            run(other, APPROVAL.format(action="pool", first=1, last=1, by="ben", role="'cho'"))


def test_personal_data_of_a_proposal_are_erased_with_the_others(people):
    anna, ben = people
    require(anna, frozenset({"details"}), now=NOW)
    item = proposed(anna, SetDetails("ada", {"iban": "DE02120300000000202051"}))
    assert "DE02" not in item.arguments_json + item.summary
    assert view(ben, item.id, now=NOW).personal == {"iban": "DE02120300000000202051"}
    with anna.write() as conn:
        assert erase_details(conn, "ada", reason="asked to", now=NOW) == 1
    anna.scrub()
    with pytest.raises(LedgerError, match="the details of proposal 1 were erased"):
        give(ben, item.id, now=NOW)
    path = anna.sqlite_path
    if path is not None:
        assert all(b"DE0212030000" not in file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    with anna.read() as conn:
        assert current_details(conn, "ada") is None
    assert problems(anna) == []


def dying_giver(url: str, point: str) -> None:
    if point == "before the approval":
        die_before("approval")
    elif point == "before the action":
        die_after("approval")
    elif point == "before the commit":
        die_at_commit_of("approval")
    with Ledger.open(url_of(url, "ben"), actor="ben") as ledger:
        give(ledger, 1, now=NOW)
        die()


@pytest.mark.parametrize("point", ["before the approval", "before the action", "before the commit", "after it"])
def test_a_kill_leaves_the_action_with_its_approval_or_neither(people, database_url, point):
    anna, ben = people
    require(anna, frozenset({"pool"}), now=NOW)
    item = proposed(anna, POOL)
    killed(dying_giver, database_url, point)
    with anna.read() as conn:
        done = len(pools.pools(conn, OCTOBER))
        assert (len(waiting(conn)), done) == ((0, 1) if point == "after it" else (1, 0))
    give(ben, item.id, now=NOW)
    with anna.read() as conn:
        assert len(pools.pools(conn, OCTOBER)) == 1
    assert problems(anna) == []


def racing_giver(url: str, name: str, results: Queue[str]) -> None:
    with Ledger.open(url_of(url, name), actor=name) as ledger:
        try:
            give(ledger, 1, now=NOW)
            results.put("done")
        except LedgerError as error:
            results.put(str(error))


def test_of_two_who_approve_at_once_one_does(people, database_url):
    anna, _ = people
    require(anna, frozenset({"pool"}), now=NOW)
    proposed(anna, POOL)
    url_of(database_url, "cho")
    results = FORKS.Queue()
    processes = [FORKS.Process(target=racing_giver, args=(database_url, name, results)) for name in ("ben", "cho")]
    for process in processes:
        process.start()
    said = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert said[0] == "done"
    assert "was given by" in said[1]
    with anna.read() as conn:
        assert len(pools.pools(conn, OCTOBER)) == 1


def test_verify_names_what_went_around_an_approval(people, database_url):
    anna, ben = people
    require(anna, frozenset({"pool", "adjustment", "terms"}), now=NOW)
    give(ben, proposed(anna, POOL).id, now=NOW)
    with unguarded(database_url) as raw:
        # As whoever owns the database can: without triggers, and with the library's own functions.
        conn = raw.execution_options(credit_actor="anna")
        pools.add_pool(conn, OCTOBER, "USD", 5, 0, "more", NOW)
        terms.amend(conn, "bell", "EUR", {"fee_minor": 1}, samples.NOW.date(), now=NOW)
        Adjust("ada", 5, "EUR", OCTOBER, "a gift").do(proposals.Session(conn, None, NOW))
    assert problems(anna) == [
        "pool 2: needed the approval of a second person (pool), and has none",
        "contract_term 1: needed the approval of a second person (terms), and has none",
        "ledger_txn 3: needed the approval of a second person (adjustment), and has none",
    ]
    with ben.write() as conn:
        item = approvals.add_proposal(
            conn, "adjustment", {}, summary=["gift"], facts_sha256="0" * 64, row_count=1, now=NOW
        )
    with unguarded(database_url) as raw:
        approvals.decide(raw.execution_options(credit_actor="cho"), item, "given", first_row=3, now=NOW)
    assert "ledger_txn 3: was approved (adjustment) after it was done" in problems(anna)
