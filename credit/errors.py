"""The errors of `credit`, with the exit code of each.

    CreditError                   1  failed
    ├── InvalidRequestError       2  a command or call that makes no sense
    ├── InputError                1  an unusable file or record
    │   └── NothingToPredictError 1  a record of one token or none
    ├── ValuationError            1  a number that the engine cannot compute
    │   └── MismatchError         1  an index of another model, tokenizer, data or settings
    ├── LedgerError               1  the ledger refuses
    │   ├── IdempotencyError      1  the same key with another content
    │   └── PeriodClosedError     1  a posting into a closed period
    ├── EngineError               1  workers that die, or a cluster that is gone
    ├── IncompleteError           3  parts of a build that are missing or spoiled
    ├── IntegrityError            4  stored data was changed
    └── LockHeldError            11  another run is at work

A message names the place and the remedy. A problem that could move money by a wrong number is an error, never only a
warning.
"""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PARTIAL = 3
EXIT_INTEGRITY = 4
EXIT_PROPOSED = 5
EXIT_LOCKED = 11


class CreditError(Exception):
    """Base of the errors of `credit`."""

    exit_code = EXIT_FAILED


class InvalidRequestError(CreditError):
    """A command or call that makes no sense."""

    exit_code = EXIT_USAGE


class InputError(CreditError):
    """An unusable file or record; the message names file and line."""


class NothingToPredictError(InputError):
    """A record of one token or none: nothing predicts the first token of a text."""


class ValuationError(CreditError):
    """Failure to compute a number."""


class MismatchError(ValuationError):
    """An index belongs to another model, tokenizer, data set or setting."""


class LedgerError(CreditError):
    """A refusal by the ledger."""


class IdempotencyError(LedgerError):
    """An idempotency key that is known with another content."""


class PeriodClosedError(LedgerError):
    """A posting into a closed period."""


class EngineError(CreditError):
    """Workers that die or cannot be reached; what they have finished is kept."""


class IncompleteError(CreditError):
    """Missing or spoiled parts of a build; the message names them."""

    exit_code = EXIT_PARTIAL


class IntegrityError(CreditError):
    """Altered data; the message names the first bad place."""

    exit_code = EXIT_INTEGRITY


class LockHeldError(CreditError):
    """Another run in the way; nothing was done unless the message says so, and the same command does the rest."""

    exit_code = EXIT_LOCKED
