"""Signed folders: what was signed is known by its key alone, every file of it, and nothing else passes for it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from credit import proofs
from credit.cli.main import cli
from credit.errors import EXIT_INTEGRITY, IntegrityError, InvalidRequestError, LedgerError
from credit.ledger import signing_keys
from credit.ledger.database import Ledger
from credit.proofs import EXTENSION_FILE, MANIFEST_FILE, PROOF_FILE, key_text
from credit.reporting.export import FILES, SIGNED_FILES, export_period
from credit.reporting.signatures import CHECK_FILE, create_key, is_protected, load_key, verify_folder
from tests.ledger import samples
from tests.ledger.forgeries import rehash
from tests.ledger.tampering import unguarded
from tests.reporting import ledgers
from tests.reporting.ledgers import OCTOBER, Valued, at

KEY = samples.KEY
PUBLIC = key_text(KEY.public_key())
NOVEMBER = "2026-11"
LATER = ledgers.NOW + timedelta(days=30)


@pytest.fixture
def signed(month: Ledger) -> Ledger:
    """October, closed, in a ledger with a signing key."""
    ledgers.close(month, OCTOBER)
    with month.write() as conn:
        signing_keys.enter_key(conn, KEY.public_key(), now=ledgers.NOW, origin="example.com/credit")
    return month


@pytest.fixture
def folder(signed: Ledger, books: Path, tmp_path: Path) -> Path:
    """Ada's signed export of October."""
    return export_period(signed, books, OCTOBER, tmp_path / "out", key=KEY, now=ledgers.NOW)[0]


@pytest.fixture
def next_folder(folder: Path, signed: Ledger, books: Path, tmp_path: Path) -> Path:
    """Ada's signed export of November."""
    ledgers.value(signed, books, [Valued("november", at(11, 1), {ledgers.ADA: (1.0, 1_000_000)})])
    ledgers.close(signed, NOVEMBER)
    return export_period(signed, books, NOVEMBER, tmp_path / "next", key=KEY, now=LATER)[0]


def check(folder: Path, *more: str, key: str = PUBLIC) -> tuple[int, str]:
    """Run the command where there is no ledger."""
    result = CliRunner(env={"CREDIT_DATABASE_URL": "sqlite:////nowhere/credit.db"}).invoke(
        cli, ["verify-statement", str(folder), "--key", key, *more]
    )
    return result.exit_code, result.output


def refused(folder: Path) -> str:
    with pytest.raises(IntegrityError) as caught:
        verify_folder(folder, [KEY.public_key()])
    return str(caught.value)


def test_a_signed_folder_is_known_by_its_key_alone(folder):
    assert sorted(item.name for item in folder.iterdir()) == sorted({*FILES, *SIGNED_FILES} - {EXTENSION_FILE})
    assert f"python check.py --key {PUBLIC}" in (folder / "README.txt").read_text("utf-8")
    page = (folder / "statement.html").read_text("utf-8")
    assert "What is proved" in page
    code, said = check(folder)
    assert code == 0, said
    assert f"signed     all 7 files, with the key {PUBLIC}" in said
    assert "statement  ada, 2026-10, version 1, issued 2026-12-05" in said
    assert "to be paid 580.00 EUR" in said
    assert "in example.com/credit, by 2026-12-05" in said
    assert "unchanged  unknown: this is the first head" in said


def test_the_key_is_taken_from_a_file_too(folder, tmp_path):
    public = tmp_path / "public.pem"
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(KEY.public_key().public_bytes(encoding, form))
    assert check(folder, key=str(public))[0] == 0


def test_every_changed_missing_and_added_file_is_named(folder):
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for place in (0, len(content) // 2, len(content) - 2):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            assert path.name in refused(folder)
        for bad in (b"", content[: len(content) // 2], content + b"\n\nmore\n"):
            path.write_bytes(bad)
            assert path.name in refused(folder)
        path.unlink()
        assert path.name in refused(folder)
        path.write_bytes(content)
    (folder / "invoice.csv").write_text("pay here")
    assert "invoice.csv was not signed" in refused(folder)
    (folder / "invoice.csv").unlink()
    (folder / "outputs.csv").rename(folder.parent / "outputs.csv")
    (folder / "outputs.csv").symlink_to(folder.parent / "outputs.csv")
    assert "outputs.csv is missing, or is no file" in refused(folder)


def test_parts_of_another_folder_and_another_key_are_refused(folder):
    bell = folder.parent / "bell"
    code, said = check(folder, key=key_text(samples.NEXT_KEY.public_key()))
    assert (code, "the key is another" in said) == (EXIT_INTEGRITY, True)
    for name in (MANIFEST_FILE, PROOF_FILE):
        own = (folder / name).read_bytes()
        shutil.copy(bell / name, folder / name)
        assert refused(folder)
        (folder / name).write_bytes(own)
    assert check(folder)[0] == 0


def signed_again(folder: Path) -> None:
    """Sign a folder as it is: the thief has the key."""
    note = proofs.read_notes((folder / MANIFEST_FILE).read_text("utf-8"))[0]
    said = proofs.Manifest.read(note.text)
    files = {item.name: hashlib.sha256(item.read_bytes()).hexdigest() for item in folder.iterdir()}
    del files[MANIFEST_FILE]
    anew = replace(said, files=files).text
    number = note.signatures[0].key_id
    mark = proofs.NoteSignature(note.signatures[0].name, number, KEY.sign(anew.encode()))
    (folder / MANIFEST_FILE).write_text(str(proofs.Note(anew, (mark,))))


@pytest.mark.parametrize(
    "content", ["[" * 10_000, '{"a": ' + "[" * 10_000, "[]", "{}", '{"format":"credit.invoice.v1"}']
)
def test_signed_garbage_is_refused_in_one_line(folder, content):
    for name in ("statement.json", PROOF_FILE):
        old = (folder / name).read_bytes()
        (folder / name).write_text(content)
        signed_again(folder)
        assert "\n" not in refused(folder)
        (folder / name).write_bytes(old)


def test_a_statement_that_is_not_in_the_ledger_is_refused_though_signed(folder):
    path = folder / "statement.json"
    path.write_bytes(path.read_bytes().replace(b'"payable":"580.00"', b'"payable":"580.01"'))
    assert "statement.json is not what was signed" in refused(folder)
    signed_again(folder)
    assert "the statement is not in the ledger of the signed head" in refused(folder)


@pytest.mark.parametrize("key", ["", "abc", "A" * 44, "no-such-file.pem", f"{'A' * 42}A="])
def test_what_is_no_public_key_is_wrong_usage(folder, key):
    code, said = check(folder, key=key)
    assert code == 2, said


def test_the_next_head_extends_the_one_that_was_kept(folder, next_folder):
    assert EXTENSION_FILE in {item.name for item in next_folder.iterdir()}
    assert "unchanged  not compared" in check(next_folder)[1]
    code, said = check(next_folder, "--before", str(folder))
    assert (code, "entries of the ledger are as they were in the head that you kept" in said) == (0, True), said
    code, said = check(folder, "--before", str(next_folder))
    assert (code, "ask the issuer for a proof" in said) == (EXIT_INTEGRITY, True)


def test_a_provider_finds_that_the_ledger_was_rewritten(folder, next_folder, signed, books, database_url):
    with unguarded(database_url) as conn:
        conn.execute(text("UPDATE pool SET reference = 'gifts' WHERE period_id = '2026-10'"))
        conn.execute(text("UPDATE ledger_txn SET memo = 'a gift' WHERE id = 1"))
        rehash(conn)
    out = next_folder.parent.parent / "forged"
    forged = export_period(signed, books, NOVEMBER, out, key=KEY, now=LATER)[0]
    assert check(forged)[0] == 0
    code, said = check(forged, "--before", str(folder))
    assert (code, "the ledger was rewritten" in said) == (EXIT_INTEGRITY, True), said


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with `cryptography` and what it needs, and nothing else."""
    site, here = tmp_path_factory.mktemp("site"), Path(sysconfig.get_path("platlib"))
    for name in ("cryptography", "cffi", "pycparser"):
        if (here / name).exists():
            (site / name).symlink_to(here / name)
    for extension in here.glob("_cffi_backend*"):
        (site / extension.name).symlink_to(extension)
    return site


_ALONE = """
import json, runpy, sys
sys.path.insert(0, sys.argv[1])
import io
told = []
for script, *arguments in json.loads(sys.argv[2]):
    out, sys.stdout = sys.stdout, io.StringIO()
    main = runpy.run_path(script)["main"]
    told.append([main(arguments), sys.stdout.getvalue()])
    sys.stdout = out
loaded = {name.split(".")[0] for name in sys.modules} - sys.stdlib_module_names
print(json.dumps([told, sorted(loaded)]))
"""


def run_alone(site: Path, *calls: tuple[Path, ...]) -> list[tuple[int, str]]:
    """Run check.py of folders in Python without site packages; return exit codes and what was printed."""
    given = json.dumps([list(map(str, call)) for call in calls])
    command = [sys.executable, "-I", "-S", "-c", _ALONE, str(site), given]
    told, loaded = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert set(loaded) <= {"__main__", "cryptography", "cffi", "_cffi_backend", "pycparser", "_openssl"}
    return [(code, said) for code, said in told]


def test_the_script_in_the_folder_needs_cryptography_alone(folder, next_folder, alone, tmp_path):
    altered, cut, strange = (tmp_path / name for name in ("altered", "cut", "strange"))
    for copy in (altered, cut, strange):
        shutil.copytree(next_folder, copy)
    (altered / "attribution.csv").write_text("day,collection\n")
    manifest = (cut / MANIFEST_FILE).read_text("utf-8").splitlines(keepends=True)
    (cut / MANIFEST_FILE).write_text("".join(manifest[:7] + manifest[-2:]))
    shutil.copy(folder / PROOF_FILE, strange / PROOF_FILE)
    script, key = str(next_folder / CHECK_FILE), ("--key", PUBLIC)
    good, since, *bad = run_alone(
        alone,
        (script, folder, *key),
        (script, next_folder, *key, "--before", folder),
        *((script, place, *key) for place in (altered, cut, strange, tmp_path / "none")),
        (script, next_folder, "--key", key_text(samples.NEXT_KEY.public_key())),
    )
    assert (good[0], since[0]) == (0, 0), good[1] + since[1]
    assert "as they were in the head that you kept" in since[1]
    assert [code for code, _ in bad] == [4] * 5
    assert all(said.startswith("NOT AS SIGNED: ") for _, said in bad)


def test_the_script_in_the_folder_is_the_one_of_this_program(folder):
    assert (folder / CHECK_FILE).read_bytes() == Path(proofs.__file__).read_bytes()


def test_exported_again_it_is_the_same_and_is_never_unsigned_by_oversight(folder, signed, books):
    before = {item.name: (item.read_bytes(), item.stat().st_mtime_ns) for item in folder.iterdir()}
    export_period(signed, books, OCTOBER, folder.parent, key=KEY, now=LATER)
    assert {item.name: (item.read_bytes(), item.stat().st_mtime_ns) for item in folder.iterdir()} == before
    other = folder.parent / "unsigned"
    for out in (folder.parent, other):
        with pytest.raises(InvalidRequestError, match="exports of this ledger are signed since 2026-12-05"):
            export_period(signed, books, OCTOBER, out)
    with pytest.raises(InvalidRequestError, match="is signed; sign again"):
        export_period(signed, books, OCTOBER, folder.parent, unsigned=True)
    unsigned = export_period(signed, books, OCTOBER, other, unsigned=True)[0]
    assert "This statement is not signed." in (unsigned / "README.txt").read_text("utf-8")
    assert (unsigned / "statement.json").read_bytes() == before["statement.json"][0]
    with pytest.raises(LedgerError, match="not the active signing key"):
        export_period(signed, books, OCTOBER, other, key=samples.NEXT_KEY)
    export_period(signed, books, OCTOBER, other, key=KEY)
    assert (unsigned / MANIFEST_FILE).read_bytes() == before[MANIFEST_FILE][0]


def test_a_folder_of_the_next_key_is_trusted_by_the_word_of_the_old_one(folder, signed, books, tmp_path):
    with signed.write() as conn:
        signing_keys.rotate_key(conn, KEY, samples.NEXT_KEY.public_key(), now=LATER)
    (after, _) = export_period(signed, books, OCTOBER, tmp_path / "rotated", key=samples.NEXT_KEY, now=LATER)
    new = key_text(samples.NEXT_KEY.public_key())
    assert f"with the key {new}" in check(after)[1]
    assert check(after, key=new)[0] == 0
    ledgers.value(signed, books, [Valued("november", at(11, 1), {ledgers.ADA: (1.0, 1_000_000)})])
    ledgers.close(signed, NOVEMBER)
    november = export_period(signed, books, NOVEMBER, tmp_path / "next", key=samples.NEXT_KEY, now=LATER)[0]
    code, said = check(november, "--before", str(folder))
    assert (code, "in the head that you kept" in said) == (0, True), said
    stranger = key_text(Ed25519PrivateKey.generate().public_key())
    assert check(after, key=stranger)[0] == EXIT_INTEGRITY
    with signed.write() as conn:
        signing_keys.revoke_key(conn, PUBLIC, reason="the laptop was stolen", now=LATER)
    (revoked, _) = export_period(signed, books, OCTOBER, tmp_path / "revoked", key=samples.NEXT_KEY, now=LATER)
    code, said = check(revoked)
    assert (code, "this key was revoked on 2027-01-04" in said) == (EXIT_INTEGRITY, True)
    assert check(revoked, key=new)[0] == 0


def test_a_revoked_key_signs_no_more(signed, books, tmp_path):
    with signed.write() as conn:
        signing_keys.revoke_key(conn, PUBLIC, reason="lost", now=LATER)
        signing_keys.revoke_key(conn, PUBLIC, reason="lost", now=LATER)
    with pytest.raises(LedgerError, match="not the active signing key"):
        export_period(signed, books, OCTOBER, tmp_path / "out", key=KEY)
    with signed.write() as conn, pytest.raises(LedgerError, match="was active before"):
        signing_keys.enter_key(conn, KEY.public_key(), now=LATER)


def test_a_key_is_its_owners_alone_and_may_have_a_passphrase(tmp_path):
    path = tmp_path / "key.pem"
    made = create_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not is_protected(path)
    assert load_key(path, "not needed").private_bytes_raw() == made.private_bytes_raw()
    with pytest.raises(InvalidRequestError, match="never overwritten"):
        create_key(path)
    path.chmod(0o640)
    with pytest.raises(InvalidRequestError, match="chmod 600"):
        load_key(path)
    secret = tmp_path / "secret.pem"
    made = create_key(secret, "correct horse")
    assert is_protected(secret)
    assert load_key(secret, "correct horse").private_bytes_raw() == made.private_bytes_raw()
    for wrong, message in (("", "needs its passphrase"), ("battery", "passphrase is not its own")):
        with pytest.raises(InvalidRequestError, match=message):
            load_key(secret, wrong)


def test_what_is_no_signing_key_is_refused(tmp_path):
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    cases = ((b"x", "is not a key of"), (other, "is not an Ed25519 key"), (None, "cannot be read"))
    for content, message in cases:
        path = tmp_path / "key"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
            path.chmod(0o600)
        with pytest.raises(InvalidRequestError, match=message):
            load_key(path)


def test_the_commands_beside_a_statement_check_it_without_this_program(folder):
    """The README's lines are run as they stand there; OpenSSL knows the key and the signature by itself."""
    version = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=False).stdout.split()
    if not version or version[0] != "OpenSSL" or int(version[1].split(".")[0]) < 3:
        pytest.skip("needs OpenSSL 3")
    said = (folder / "README.txt").read_text("utf-8").split("an OK for each file:\n")[1].split("\n\nThis folder")[0]

    def run() -> subprocess.CompletedProcess[str]:
        command = ["sh", "-e", "-c", textwrap.dedent(said)]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    first, *files = run().stdout.splitlines()
    assert (run().returncode, first) == (0, "Signature Verified Successfully")
    assert len(files) == 7
    assert all(line.endswith(": OK") for line in files)
    path = folder / "outputs.csv"
    path.write_bytes(path.read_bytes() + b"\n")
    assert run().returncode == 1
