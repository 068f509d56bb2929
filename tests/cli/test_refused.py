"""What accounting commands refuse: a clear message, the exit code, and nothing written, on both engines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from credit.ledger.database import Ledger
from credit.records import Group
from tests.cli.helpers import Command
from tests.pipeline.books_of_account import FEBRUARY, JANUARY, MARCH, Account
from tests.pipeline.scored import Scored, at, credit_outputs, log_outputs

ANN, BEN = Group("ann"), Group("ben")
THIS_MONTH = f"{datetime.now(UTC):%Y-%m}"


@pytest.fixture(scope="module")
def books(shared_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A ledger with January closed and paid, and February open: with a pool, credits, a hold and a rate."""
    url, folder = shared_database(), tmp_path_factory.mktemp("books")
    made = Command(url, folder)
    with Ledger.open(url) as ledger:
        Account(ledger).start()
        credit_outputs(ledger, folder / "books", [Scored("o1", at(1, 5), {ANN: (1.0, 1.0), BEN: (2.0, 2.0)})])
        credit_outputs(ledger, folder / "books", [Scored("o2", at(2, 5), {ANN: (1.0, 1.0), BEN: (2.0, 2.0)})])
        log_outputs(ledger, [Scored("late", at(2, 9), {})])
    made("providers terms ann --currency EUR --from 2026-01-01 --to 2026-06-30 --rate 70%")
    made("providers details ann --legal-name Ann --paypal ann@example.org")
    made("providers details ben --legal-name Ben --paypal ben@example.org")
    made("providers advance ben 5.00 EUR --paid-on 2026-02-01 --reference first")
    made("fx add 2026-02-10 EUR USD 1.1 --source 'a bank'")
    made(f"pool add {JANUARY} 100.00 EUR")
    made(f"close {JANUARY} --unvalidated 'a test' --unreviewed 'a test'")
    made(f"pool add {FEBRUARY} 100.00 EUR")
    made(f"pool add {MARCH} 100.00 EUR")
    made(f"pay export {JANUARY} --format csv --out FOLDER/paid.csv")
    made("hold place ann --reason 'a dispute'")
    names = [line.split(",")[0] for line in (folder / "paid.csv").read_text().splitlines()[1:]]
    (folder / "other.csv").write_text(f"payout_id,status\nCR9-00000000-{names[0].rpartition('-')[2]},paid\n")
    (folder / "unknown.csv").write_text("payout_id,status\nnonsense,paid\n")
    (folder / "twice.csv").write_text(f"payout_id,status,reason\n{names[0]},paid,\n{names[0]},failed,x\n")
    (folder / "word.csv").write_text(f"payout_id,status\n{names[0]},perhaps\n")
    (folder / "mine.csv").write_text(f"payout_id,status\n{names[0]},paid\n")
    return made


CLOSE = ("--unvalidated", "a test", "--unreviewed", "a test")
REFUSED = {
    "a term that overlaps another": (
        "providers terms ann --currency EUR --from 2026-03-01 --to 2026-05-31 --rate 60%",
        1,
        "overlap version 1 of ann's terms in EUR",
    ),
    "a term that begins in a closed period": (
        "providers terms ben --currency EUR --from 2026-01-15 --rate 60%", 1, "period 2026-01 is closed"
    ),
    "a term that ends before it begins": (
        "providers terms ben --currency EUR --from 2026-05-01 --to 2026-04-01 --rate 60%", 1, "before they begin"
    ),
    "a rate above all": ("providers terms ben --currency EUR --rate 101%", 2, "100%"),
    "terms in an unknown currency": ("providers terms ben --currency XYZ --rate 60%", 2, "XYZ"),
    "terms of somebody unknown": ("providers terms eve --currency EUR --rate 60%", 1, "unknown provider 'eve'"),
    "terms of the house": ("providers terms house --currency EUR --rate 60%", 1, "it has no terms"),
    "a negative pool": ("pool add 2026-02 -5.00 EUR", 2, "-5"),
    "deductions of more than the pool": (
        "pool add 2026-02 5 EUR --deductions 6 --reference x", 1, "is not money to distribute"
    ),
    "a pool in an unknown currency": ("pool add 2026-02 5.00 XYZ", 2, "'XYZ' is not a current ISO 4217"),
    "a pool in a currency in small letters": ("pool add 2026-02 5.00 eur", 2, "'eur'"),
    "a pool of half a cent": ("pool add 2026-02 5.005 EUR", 2, "5.005"),
    "a pool of more than fits": ("pool add 2026-02 99999999999999999999 EUR --reference x", 2, "99999999999999999999"),
    "a pool after close": ("pool add 2026-01 5.00 EUR --reference late", 1, "period 2026-01 is closed"),
    "another amount for a pool": ("pool add 2026-02 6.00 EUR", 1, "needs a reference of its own"),
    "a pool of no month": ("pool add 2026-13 5.00 EUR", 2, "'2026-13' is not a period"),
    "a period closed twice": ("close 2026-01", 1, "period 2026-01 is closed already"),
    "a period closed out of order": ("close 2026-03", 1, "period 2026-02 is still open; close it first"),
    "a period closed in the future": (f"close {THIS_MONTH}", 1, "is not over; it can be closed from"),
    "a period that there is not": ("close 2019-05", 1, "is closed already|there is no period 2019-05"),
    "no month closed": ("close february", 2, "'february' is not a period"),
    "a close that waits for an output": ("close 2026-02", 1, "not valued yet: 1 output of 2026-02 (late)"),
    "a grace of less than nothing": ("close 2026-02 --grace-days -1", 2, "-1"),
    "a confirm file for another batch": ("pay confirm FOLDER/other.csv", 1, "other.csv:2: there is no payout"),
    "a confirm file for a batch that is not named": ("pay confirm FOLDER/mine.csv --batch 99", 1, "99"),
    "a result of no payout": ("pay confirm FOLDER/unknown.csv", 1, "unknown.csv:2: 'nonsense' is not a payout"),
    "a payout that is paid and failed": ("pay confirm FOLDER/twice.csv", 1, "twice.csv:3"),
    "a result that is none": ("pay confirm FOLDER/word.csv", 1, "word.csv:2"),
    "a confirm file that is not there": ("pay confirm FOLDER/gone.csv", 1, "gone.csv"),
    "an export of an open period": ("pay export 2026-02 --format csv --out FOLDER/x.csv", 1, "2026-02"),
    "an adjustment without a reason": ("adjust ann 5 EUR --period 2026-02", 2, "--reason"),
    "an adjustment of nothing": ("adjust ann 0 EUR --period 2026-02 --reason x", 1, "of nothing makes no sense"),
    "an adjustment in a closed period": ("adjust ann 5 EUR --period 2026-01 --reason x", 1, "period 2026-01 is closed"),
    "an adjustment in the future": ("adjust ann 5 EUR --period 2099-01 --reason x", 1, "has begun"),
    "an adjustment of the house": ("adjust own 5 EUR --period 2026-02 --reason x", 1, "the house's"),
    "an adjustment that cites nothing": (
        "adjust ann 5 EUR --period 2026-02 --reason x --cites 999", 1, "there is no transaction 999"
    ),
    "a reversal of what a close posted": ("reverse 5 --reason x", 1, "cannot be reversed"),
    "a rate that is no percentage": ("restate 2026-01 --terms ann EUR 0.7 --reason x", 2, "write 0% to 100%"),
    "a rate without a pool": ("restate 2026-01 --terms ann USD 70% --reason x", 2, "earned nothing in USD"),
    "a rate in no currency": ("restate 2026-01 --terms ann EURO 70% --reason x", 2, "not a current ISO 4217"),
    "a reversal of nothing": ("reverse 999 --reason x", 1, "there is no transaction 999"),
    "a reversal of a number that no row has": ("reverse 99999999999999999999 --reason x", 2, "is not in the range"),
    "an adjustment that cites such a number": (
        "adjust ann 5 EUR --period 2026-02 --reason x --cites 99999999999999999999", 2, "is not in the range"
    ),
    "an adjustment for half a character": ("adjust ann 5 EUR --period 2026-02 --reason \ud800", 1, "can keep"),
    "a month before there are days": ("close 0000-01", 2, "'0000-01' is not a period"),
    "a month after there are days": ("pool add 9999-12 5.00 EUR", 2, "'9999-12' is not a period"),
    "a grace that never ends": ("close 2026-02 --grace-days 99999999999999999999", 2, "is not in the range"),
    "a reserve that is never released": (
        "providers terms ben --currency EUR --reserve 1% --release-after 99999999999999999999", 2, "is not in the range"
    ),
    "a balance at a moment before all time": (
        "balance ann --recorded 0001-01-01T00:00:00+14:00", 2, "not in the years"
    ),
    "an advance in the future": (
        "providers advance ann 5 EUR --paid-on 2099-01-01 --reference x", 1, "still to come"
    ),
    "an advance of another amount": (
        "providers advance ben 6.00 EUR --paid-on 2026-02-01 --reference first", 1, "belongs to transaction"
    ),
    "a negative advance": ("providers advance ann -5 EUR --paid-on 2026-02-01 --reference x", 2, "-5"),
    "a rate for a closed period": ("fx add 2026-01-31 EUR USD 1.2 --source x", 1, "period 2026-01 is closed"),
    "another rate for the day": ("fx add 2026-02-10 EUR USD 1.2 --source x", 1, "given already"),
    "a rate of nothing": ("fx add 2026-02-11 EUR USD 0 --source x", 2, "0"),
    "a rate with an exponent": ("fx add 2026-02-11 EUR USD 1e3 --source x", 2, "1e3"),
    "a rate to an unknown currency": ("fx add 2026-02-11 EUR XYZ 1.2 --source x", 2, "XYZ"),
    "a rate of a currency to itself": ("fx add 2026-02-11 EUR EUR 1.2 --source x", 1, "one currency"),
    "a rate without a source": ("fx add 2026-02-11 EUR USD 1.2", 2, "--source"),
    "a rate of tomorrow": ("fx add 2099-01-01 EUR USD 1.2 --source x", 1, "still to come"),
    "a hold for another reason": ("hold place ann --reason other", 1, "is on hold already: a dispute"),
    "a release of what is not held": ("hold release ben --reason x", 1, "is not on hold"),
    "a hold of an unknown currency": ("hold place ben --currency EUE --reason x", 2, "'EUE' is not a current ISO 4217"),
    "a hold of the house": ("hold place house --reason x", 1, "is never paid"),
    "a restatement of an open period": ("restate 2026-02 --reason x", 1, "is open, it has paid nobody yet"),
    "a restatement by what the books do not hold": ("restate 2026-01 --gamma 1 --reason x", 2, "--index DIR"),
    "a valued output taken out": ("outputs unvalue o1 --reason x", 1, "'o1' is valued and credited"),
    "an output taken out that is not there": ("outputs unvalue late o9 --reason x", 1, "there is no output 'o9'"),
    "an output taken out for no reason": ("outputs unvalue late", 2, "--reason"),
    "an output restored that is not unvalued": ("outputs restore late --reason x", 1, "is not unvalued"),
    "an explanation of somebody unknown": ("explain payout eve 2026-01", 1, "unknown provider 'eve'"),
    "a report of an open period": ("report payouts 2026-02", 1, "is open, it has no statements yet"),
    "a balance of nobody": ("balance eve", 1, "is neither a provider nor an account"),
    "an erasure for no reason": ("providers erase ann", 2, "--reason"),
    "an unknown provider erased": ("providers erase eve --reason x", 1, "unknown provider 'eve'"),
    "an IBAN that is none": ("providers details ann --iban DE00000000000000000000", 2, "IBAN"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_a_clear_message_and_nothing_is_written(books, case):
    line, code, message = REFUSED[case]
    before = books.holds()
    output = books(line, *(CLOSE if line.startswith("close") else ()), code=code)
    assert any(part in " ".join(output.split()) for part in message.split("|")), output
    assert "Traceback" not in output
    assert books.holds() == before


def test_the_ledger_is_as_it_was_and_goes_on(books):
    books("verify")
    books(f"close {FEBRUARY} --leave-pending --dry-run", *CLOSE)
