"""What heads and proofs cost in a ledger of a million transactions: reading, appending, proving, checking.

    python -m benchmarks.heads [--transactions 1000000] [--engine sqlite|postgresql]

The rows are posted by the ledger's own code, two entries a transaction, so that reading them costs what it does. A
few minutes of the run go into that. Each figure is the best of three, proofs are means of 1 000.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.ledger_speed import NOW, alone, databases, fill
from credit.ledger import heads, signing_keys
from credit.ledger.database import Ledger
from credit.ledger.merkle import MerkleTree
from credit.ledger.verify.heads import check_outside_heads
from credit.proofs import Head, Note, extends, root_by_inclusion

PROOFS = 1_000


def best(act: Callable[[], object], times: int = 3) -> float:
    """Return the shortest of some runs, in seconds."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        act()
        found.append(time.perf_counter() - start)
    return min(found)


def measure(url: str) -> dict[str, float]:
    key = Ed25519PrivateKey.generate()
    with Ledger.open(url) as ledger:
        with ledger.write() as conn:
            signing_keys.enter_key(conn, key.public_key(), now=NOW)
        start = time.perf_counter()
        with ledger.write() as conn:
            signed = heads.sign_head(conn, key, now=NOW)
        signing = time.perf_counter() - start
        with ledger.read() as conn:
            tree = heads.ledger_tree(conn)
            return {
                "leaves": len(tree),
                "root, from all rows, s": best(lambda: heads.ledger_tree(conn).root()),
                "sign, s": signing,
                "check an outside head, s": best(lambda: list(check_outside_heads(conn, [signed])), 1),
                **of_tree(tree),
            }


def of_tree(tree: MerkleTree) -> dict[str, float]:
    """Times of a tree in memory, in microseconds each."""
    size, draw = len(tree), random.Random(1)
    places = [draw.randrange(size) for _ in range(PROOFS)]
    leaves = [draw.randbytes(32) for _ in places]
    prove = best(lambda: [tree.inclusion(place, size) for place in places])
    connect = best(lambda: [tree.consistency(place + 1, size) for place in places])
    root = Head("log", size, tree.root(), "", Note("", ()))
    olds = [Head("log", place + 1, tree.root(place + 1), "", Note("", ())) for place in places]
    paths = [tree.inclusion(place, size) for place in places]
    links = [tree.consistency(place + 1, size) for place in places]
    check = best(lambda: [root_by_inclusion(leaves[0], p, size, path) for p, path in zip(places, paths, strict=True)])
    follow = best(lambda: [extends(old, root, link) for old, link in zip(olds, links, strict=True)])
    start = time.perf_counter()
    for leaf in leaves:
        tree.extend([leaf])
    append = time.perf_counter() - start
    of_each = {"append": append, "prove inclusion": prove, "prove consistency": connect}
    of_each |= {"check inclusion": check, "check consistency": follow}
    return {f"{name}, µs": seconds * 1e6 / PROOFS for name, seconds in of_each.items()} | {
        "hashes in an inclusion proof": sum(map(len, paths)) / PROOFS,
        "hashes in a consistency proof": sum(map(len, links)) / PROOFS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transactions", type=int, default=1_000_000)
    parser.add_argument("--engine", choices=["sqlite", "postgresql"], default="sqlite")
    options = parser.parse_args()
    print(f"load {Path('/proc/loadavg').read_text().split()[0]}, {datetime.now(UTC):%Y-%m-%d}", flush=True)
    with databases(options.engine) as urls:
        url = next(urls)
        clock = fill(url, options.transactions, 2, 100)
        print(f"posted in {clock.wall:.0f} s", flush=True)
        for name, value in alone(measure, url).items():
            print(f"| {name} | {value:,.1f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
