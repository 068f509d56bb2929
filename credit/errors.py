"""Every error that `credit` raises on purpose, and the exit code that each becomes.

    CreditError                   1  failed
    ├── InvalidRequestError       2  the command or call asks for something that makes no sense
    ├── InputError                1  a file or record that cannot be used
    ├── ValuationError            1  the engine cannot compute the number that was asked for
    │   └── MismatchError         1  an index of another model, tokenizer, data or settings
    ├── LedgerError               1  the ledger refuses
    │   ├── IdempotencyError      1  the same key with another content
    │   └── PeriodClosedError     1  a post into a closed period
    ├── IntegrityError            4  stored data is not what was written
    └── LockHeldError            11  another run is at work

A message names the place and the remedy. Nothing is raised where a warning would do, and nothing is only
warned of where money could follow a wrong number.
"""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PARTIAL = 3
EXIT_INTEGRITY = 4
EXIT_LOCKED = 11


class CreditError(Exception):
    """Base of all errors that `credit` raises on purpose."""

    exit_code = EXIT_FAILED


class InvalidRequestError(CreditError):
    """The command or call asks for something that makes no sense."""

    exit_code = EXIT_USAGE


class InputError(CreditError):
    """A file or record cannot be used; the message names file and line."""


class ValuationError(CreditError):
    """The engine cannot compute the number that was asked for."""


class MismatchError(ValuationError):
    """An index belongs to another model, tokenizer, data set or setting."""


class LedgerError(CreditError):
    """The ledger refuses what was asked."""


class IdempotencyError(LedgerError):
    """An idempotency key was used before with another content."""


class PeriodClosedError(LedgerError):
    """A post into a period that is closed."""


class IntegrityError(CreditError):
    """Stored data is not what was written; the message names the first bad place."""

    exit_code = EXIT_INTEGRITY


class LockHeldError(CreditError):
    """Another run is in the way; nothing was done, or the message says what, and the same command does the rest."""

    exit_code = EXIT_LOCKED
