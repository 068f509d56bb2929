"""Pseudonyms: keyed hashes in place of users and texts. The ledger holds no id of a user.

Both are HMAC-SHA256 under a secret key of 32 random bytes. With the key, somebody who knows a user's id finds that
user's outputs; without it, nobody can try ids out. The key is a file for its owner alone, and never in the ledger.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path

from credit.errors import InputError
from credit.records import Message
from credit.storage import canonical_json, create_file, make_folder, name_beside, quoted

_BYTES = 32
_DIGITS = 32
"""Hexadecimal digits of a hash that are kept: 128 bits."""


class PseudonymKey:
    """A secret key. `id` tells keys apart and begins every pseudonym; nobody can compute the key from it."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != _BYTES:
            raise InputError(f"the key of pseudonyms has {len(secret)} bytes, not {_BYTES}")
        self._secret = secret
        self.id = hashlib.sha256(b"credit.key.1\0" + secret).hexdigest()[:8]

    def user(self, name: str) -> str:
        """Return the pseudonym of a user's id; empty for an empty one."""
        return self._of("credit.user.1", quoted(name)) if name else ""

    def text(
        self, model: str, prompt: str, messages: Sequence[Message], completion: str, prompt_ids: Sequence[int] = ()
    ) -> str:
        """Return the pseudonym of an output's text: model, prompt and completion, without regard to blanks."""
        turns = ",".join([f"[{quoted(turn.role)},{quoted(_folded(turn.content))}]" for turn in messages])
        said = f"{quoted(_folded(prompt))},[{turns}]"
        if prompt_ids and not (prompt or turns):
            said += f",{canonical_json(prompt_ids)}"
        return self._of("credit.text.1", f"{quoted(model)},{said},{quoted(_folded(completion))}")

    def output(self, name: str) -> str:
        """Return the pseudonym of an output for its providers."""
        return self._of("credit.output.1", quoted(name))

    def salt(self, source: str, external_id: str) -> str:
        """Return the salt of an output's content hash: without the key, nobody can make it again after a purge."""
        return self._of("credit.salt.1", f"{quoted(source)},{quoted(external_id)}")

    def _of(self, kind: str, parts: str) -> str:
        """Return the pseudonym of parts in canonical JSON, with commas between them."""
        digest = hmac.digest(self._secret, f'["{kind}",{parts}]'.encode(), "sha256").hex()
        return f"{self.id}-{digest[:_DIGITS]}"


def key_id(pseudonym: str) -> str:
    """Return the id of a pseudonym's key."""
    return pseudonym.partition("-")[0]


def _folded(text: str) -> str:
    """Return a text with each run of blanks as one. More would make one of texts that differ, such as two programs."""
    return " ".join(text.split())


def read_key(path: Path) -> PseudonymKey:
    """Read the key from its file.

    Raises:
        InputError: the file is missing or holds no key.
    """
    try:
        return PseudonymKey(bytes.fromhex(path.read_text("ascii")))
    except FileNotFoundError:
        raise InputError(f"{path}, the key of pseudonyms, is missing; copy it from the machine that made it") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} holds no key of pseudonyms: 64 hexadecimal digits ({error})") from error


def own_key(path: Path) -> PseudonymKey:
    """Read the key of a data folder, and draw a new one at first need.

    Raises:
        InputError: the file holds no key.
    """
    if not path.exists():
        make_folder(path.parent)
        beside = name_beside(path)
        with create_file(beside) as file:
            file.write(secrets.token_hex(_BYTES).encode() + b"\n")
        try:
            path.hardlink_to(beside)  # unlike a rename, it leaves a key that another process made meanwhile
        except FileExistsError:
            pass
        finally:
            beside.unlink()
    return read_key(path)
