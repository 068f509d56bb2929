"""Heads at the command line: signed, kept, checked, proved, witnessed and time-stamped."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from credit.errors import EXIT_INTEGRITY
from credit.ledger.database import Ledger
from credit.ledger.heads import ledger_tree
from credit.proofs import COSIGNATURE, key_id, read_extension, read_heads, read_key
from tests.cli.helpers import Command
from tests.conftest import ON_SQLITE
from tests.kills import die_at_commit_of, die_at_file, die_before, killed
from tests.ledger.tampering import unguarded

SIGN = "head sign --signing-key FOLDER/key.pem --out FOLDER/heads.txt"


@pytest.fixture
def signing(credit: Command) -> Command:
    """A ledger with a signing key and one signed head."""
    credit("signing-key new FOLDER/key.pem --origin example.com/credit")
    credit(SIGN)
    return credit


def test_a_head_is_signed_shown_and_extended(signing):
    shown = json.loads(signing("head show --json"))
    (kept,) = read_heads((signing.folder / "heads.txt").read_text("utf-8"))
    assert [item["size"] for item in shown["signed"]] == [kept.size] == [shown["size"] - 1]
    assert shown["last_entry"] == "head 1"
    with Ledger.open(signing.url) as ledger, ledger.read() as conn:
        tree = ledger_tree(conn)
    assert (tree.root(kept.size), tree.root().hex()) == (kept.root, shown["root"])
    signing("providers add ben Ben")
    assert "the ledger extends this head" in signing("head check FOLDER/heads.txt")
    assert "unknown" not in signing("verify --head FOLDER/heads.txt")
    assert "whether everything was written anew" in signing("verify")


def test_signed_again_without_news_it_is_the_same_and_later_ones_are_appended(signing):
    path = signing.folder / "heads.txt"
    before = path.read_bytes()
    signing(SIGN)
    assert path.read_bytes() == before
    path.unlink()  # as if killed between the ledger and the file
    signing(SIGN)
    assert path.read_bytes() == before
    signing("providers add ben Ben")
    signing(SIGN)
    assert path.read_bytes().startswith(before)
    first, second = read_heads(path.read_text("utf-8"))
    assert first.size < second.size
    assert signing("head check FOLDER/heads.txt").count("the ledger extends") == 2
    (signing.folder / "notes.txt").write_text("mine")
    assert "holds no heads" in signing("head sign --signing-key FOLDER/key.pem --out FOLDER/notes.txt", code=2)


def test_what_was_changed_since_is_named_between_two_heads(signing, database_url):
    signing("providers add ben Ben")
    signing(SIGN)
    with unguarded(database_url) as conn:
        conn.exec_driver_sql(f"UPDATE seal SET hash = '{'7' * 64}' WHERE table_name = 'provider' AND row_id = 3")
    said = signing("head check FOLDER/heads.txt", code=EXIT_INTEGRITY)
    assert said.count("\n") == 1
    assert "now head 1 to provider 3, somebody changed, inserted or removed at least one" in said


def signer(point: str, url: str, folder: Path) -> None:
    """Sign a head, and die at a point of it."""
    if point == "before the row":
        die_before("head")
    elif point == "before the commit":
        die_at_commit_of("head")
    else:
        die_at_file("begun", folder / "heads.txt")
    Command(url, folder)(SIGN)


@pytest.mark.parametrize("point", ["before the row", "before the commit", "before the file"])
def test_a_killed_signing_leaves_nothing_or_is_finished_by_the_next(signing, point):
    before = (signing.folder / "heads.txt").read_bytes()
    signing("providers add ben Ben")
    killed(signer, point, signing.url, signing.folder)
    assert (signing.folder / "heads.txt").read_bytes() == before
    signing(SIGN)
    assert len(json.loads(signing("head show --json"))["signed"]) == 2
    assert signing("head check FOLDER/heads.txt").count("the ledger extends this head") == 2
    assert signing("verify").startswith("everything is as it was written")


@pytest.mark.parametrize("head", ["1f8e", "1f8e...", "F" * 64, "0" * 63])
def test_a_shortened_head_is_wrong_usage(credit, head):
    said = credit(f"verify --head {head}", code=2)
    assert "neither a file nor a whole hash of 64 digits" in said


def test_a_file_without_a_whole_head_is_wrong_usage(signing):
    whole = (signing.folder / "heads.txt").read_text("utf-8")
    for content in ("", "a\n", whole[:40], whole.split("\n\n")[0], whole[:-60]):
        (signing.folder / "cut.txt").write_text(content)
        assert "holds no signed head" in signing("verify --head FOLDER/cut.txt", code=2)
    assert "cannot be read" in signing("head check FOLDER/none.txt", code=1)


def test_heads_of_another_key_or_ledger_are_named(signing):
    path = signing.folder / "heads.txt"
    text = path.read_text("utf-8")
    path.write_text(text.replace("example.com/credit\n", "example.com/other\n", 1))
    assert "was not signed with a key of this ledger" in signing("head check FOLDER/heads.txt", code=EXIT_INTEGRITY)
    signing("signing-key rotate FOLDER/key.pem FOLDER/next.pem")
    other = signing("signing-key show FOLDER/next.pem").strip()
    path.write_text(text)
    signing(f"head check FOLDER/heads.txt --key {other}", code=EXIT_INTEGRITY)
    signing("head check FOLDER/heads.txt")
    assert "not the active signing key" in signing(SIGN, code=1)


@ON_SQLITE
def test_a_witness_cosigns_what_extends_the_last_head(signing, database_url):
    issuer = signing("signing-key show FOLDER/key.pem").strip()
    stranger = Command(f"sqlite:///{signing.folder}/witness.db", signing.folder)
    stranger("init")
    public = stranger("signing-key new FOLDER/w1.pem").strip()
    cosign = f"head cosign --name w.example/1 --witness-key FOLDER/w1.pem --key {issuer}"
    stranger(f"{cosign} FOLDER/heads.txt --out FOLDER/seen.txt")
    signing("providers add ben Ben")
    signing("head sign --signing-key FOLDER/key.pem --out FOLDER/later.txt")
    assert "ask the issuer for credit head prove" in stranger(
        f"{cosign} FOLDER/later.txt --last FOLDER/seen.txt --out FOLDER/x.txt", code=2
    )
    signing("head prove FOLDER/seen.txt --out FOLDER/request.txt")
    stranger(f"{cosign} FOLDER/request.txt --last FOLDER/seen.txt --out FOLDER/seen-2.txt")
    of_key = base64.b64encode(COSIGNATURE + base64.b64decode(public)).decode()
    vkey = f"w.example/1+{key_id('w.example/1', read_key(public), COSIGNATURE).hex()}+{of_key}"
    assert "cosigned by w.example/1 at 20" in signing(f"head check FOLDER/seen-2.txt --witness {vkey}")
    assert "is not cosigned" in signing(f"head check FOLDER/later.txt --witness {vkey}", code=EXIT_INTEGRITY)
    request = signing.folder / "request.txt"
    _, path, _ = read_extension(request.read_text("utf-8"))
    lines = request.read_text("utf-8").splitlines(keepends=True)
    request.write_text("".join([lines[0], *lines[2:]]))
    assert path
    refused = f"{cosign} FOLDER/request.txt --last FOLDER/seen.txt --out FOLDER/x.txt"
    assert "not cosigned" in stranger(refused, code=EXIT_INTEGRITY)
    assert not (signing.folder / "x.txt").exists()


@ON_SQLITE
def test_a_key_with_a_passphrase_signs_by_file_or_environment(credit, monkeypatch):
    (credit.folder / "secret.txt").write_text("correct horse\n")
    credit("signing-key new FOLDER/key.pem --passphrase-file FOLDER/secret.txt")
    assert "needs its passphrase" in credit(SIGN, code=2)
    credit(f"{SIGN} --passphrase-file FOLDER/secret.txt")
    monkeypatch.setenv("CREDIT_SIGNING_PASSPHRASE", "battery")
    assert "passphrase is not its own" in credit(SIGN, code=2)
    (credit.folder / "empty.txt").write_text("\n")
    assert "holds no passphrase" in credit(f"{SIGN} --passphrase-file FOLDER/empty.txt", code=2)
    credit("providers add ben Ben")
    monkeypatch.setenv("CREDIT_SIGNING_PASSPHRASE", "correct horse")
    credit(SIGN)


@ON_SQLITE
def test_keys_are_listed_handed_over_and_revoked(credit):
    first = credit("signing-key new FOLDER/key.pem").strip()
    assert "never overwritten" in credit("signing-key new FOLDER/key.pem", code=2)
    assert credit("signing-key new FOLDER/key.pem --existing").strip() == first
    assert "hand over from it" in credit("signing-key new FOLDER/other.pem", code=1)
    second = credit("signing-key rotate FOLDER/key.pem FOLDER/next.pem").strip()
    assert credit("signing-key rotate FOLDER/key.pem FOLDER/next.pem").strip() == second
    credit(f"signing-key revoke {first} --reason", "it was on a lost disk")
    lines = credit("signing-key list").splitlines()
    assert [line.split()[0] for line in lines] == [first, second, first]
    assert lines[1].endswith("signs now")
    assert lines[2].endswith("it was on a lost disk")
    assert credit("verify").startswith("everything is as it was written")


TSA = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
"""


@ON_SQLITE
def test_the_two_commands_for_a_time_stamp_work_as_written(signing):
    """An authority of RFC 3161, made here by OpenSSL, stamps the heads."""
    if shutil.which("openssl") is None:
        pytest.skip("needs OpenSSL")
    folder: Path = signing.folder

    def run(line: str, code: int = 0) -> None:
        done = subprocess.run(line.split(), cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr

    (folder / "tsa.cnf").write_text(TSA.format(folder=folder))
    (folder / "serial").write_text("01\n")
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tsa.key -out tsa.pem"
    run(f"{new} -subj /CN=tsa -days 2 -addext extendedKeyUsage=critical,timeStamping")
    said = (Path(__file__).parents[2] / "SECURITY.md").read_text("utf-8")
    query = "openssl ts -query -data heads.txt -sha256 -cert -out heads.tsq"
    verify = "openssl ts -verify -data heads.txt -in heads.tsr -CAfile authority.pem"
    assert query in said
    assert verify in said
    run(query)
    run("openssl ts -reply -config tsa.cnf -queryfile heads.tsq -out heads.tsr")
    (folder / "authority.pem").write_bytes((folder / "tsa.pem").read_bytes())
    run(verify)
    (folder / "heads.txt").write_text("another")
    run(verify, code=1)
