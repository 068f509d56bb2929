"""Only the owner reads what commands write, whatever the umask, and a wider mode is named."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.helpers import Command

BAD_OUTPUT = '{"id": "o1", "prompt": 5}\n'


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody can enter, under the widest umask."""
    before = os.umask(0)
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
    os.umask(before)


def test_commands_write_for_the_owner_alone_and_a_wider_mode_is_named_with_its_remedy(folder):
    ledger, data = folder / "ledgers" / "credit.db", folder / "data" / "of-credit"
    credit = Command(f"sqlite:///{ledger}", data)
    written = credit("init")
    (folder / "log.jsonl").write_text(BAD_OUTPUT)
    written += credit(f"ingest-outputs {folder}/log.jsonl", code=3)
    written += credit("pool add 2026-10 10.00 EUR")
    written += credit(f"report attribution 2026-10 --out {folder}/attribution.csv --format csv")
    written += credit(f"signing-key new {folder}/key.pem")
    assert "others can read" not in written
    modes = {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in folder.rglob("*")
        if path.name != "log.jsonl"
    }
    assert len([name for name in modes if name.startswith("data/of-credit/quarantine/")]) == 1
    assert modes == {name: 0o700 if (folder / name).is_dir() else 0o600 for name in modes}
    for opened in (ledger.parent, ledger, data.parent, data):
        opened.chmod(0o755)
    assert credit("status").count("others can read") == 1
    assert f"warning: others can read {ledger} {data}; keep it to yourself: chmod -R go= {ledger} {data}\n" in credit(
        "status"
    )
    data.chmod(0o700)
    ledger.parent.chmod(0o700)
    assert "others can read" not in credit("status")
