"""The errors of Overnight. Whether a retry makes sense is a decision of the type.

    OvernightError
    ├── TerminalError            a retry cannot help; a person or a new file must
    │   ├── SpecError            a use case's YAML says something it may not
    │   ├── InputError           a landed file cannot be read as the spec says
    │   │   └── MissingInput     the file is not there (yet)
    │   ├── QuarantinedError     a partition failed validation and was set aside with its report
    │   ├── AuditError           a publish without a passing audit of exactly these bytes
    │   ├── IntegrityError       bytes differ from the digest that was recorded for them
    │   ├── NotFoundError        a snapshot, partition or model version that does not exist
    │   │   └── RemovedError     bytes that were there and were erased or collected, as a tombstone says
    │   ├── StrayWriteError      somebody wrote to main without the publisher; nothing can be merged until it is gone
    │   ├── SchemaMismatch       a model and a snapshot disagree about a column
    │   ├── TrainingError        training cannot give a usable model
    │   ├── ServiceRefused       a service said no for good: no permission, a wrong request, no quota
    │   └── GateRefused          a gate said no; the champion stays
    └── TransientError           the same call may succeed later
        ├── ConflictError        another writer won; read again and decide again
        ├── InterruptedTraining  training was told to stop; it goes on from its checkpoint
        └── UnavailableError     a server or a disk did not answer

Every message says where, what, which values are allowed, and the remedy: build it with `explain`.
"""

from __future__ import annotations


class OvernightError(Exception):
    """The root of every error that Overnight raises on purpose."""


class TerminalError(OvernightError):
    """A retry cannot help."""


class TransientError(OvernightError):
    """The same call may succeed later."""


class SpecError(TerminalError):
    """A use case's YAML file says something that it may not say."""


class InputError(TerminalError):
    """A landed file cannot be read as the spec describes it."""


class MissingInput(InputError):
    """The file of a partition is not in the landing zone."""


class QuarantinedError(TerminalError):
    """A partition failed validation and lies in quarantine with its report."""


class AuditError(TerminalError):
    """A publish was asked for without a passing audit of exactly these bytes."""


class IntegrityError(TerminalError):
    """Bytes differ from the digest that was recorded for them."""


class NotFoundError(TerminalError):
    """A snapshot, partition, run or model version does not exist."""


class RemovedError(NotFoundError):
    """The bytes were erased or collected; a tombstone says when and why."""


class StrayWriteError(TerminalError):
    """Main holds uncommitted changes that no publish made: every publish fails until they are gone."""


class SchemaMismatch(TerminalError):
    """A model's inputs and the columns it is given disagree."""


class TrainingError(TerminalError):
    """Training cannot give a usable model from this data and this spec."""


class ServiceRefused(TerminalError):
    """A service said no for good: a permission, a quota or a value of the request must change first."""


class GateRefused(TerminalError):
    """A promotion gate said no; the champion stays as it was."""


class ConflictError(TransientError):
    """Another writer won the race; read the state again and decide again."""


class InterruptedTraining(TransientError):
    """Training was told to stop; the same call goes on from its checkpoint."""


class UnavailableError(TransientError):
    """A server, a disk or a network did not answer as it should."""


def explain(where: str, what: str, *, allowed: str | None = None, remedy: str | None = None) -> str:
    """Builds a message that says where, what, which values are allowed, and the remedy.

    >>> explain("orders/rows 2013-09-08", "column 'amount' holds text", remedy="send the file again")
    "orders/rows 2013-09-08: column 'amount' holds text. Remedy: send the file again."
    """
    parts = [f"{where}: {what.rstrip('.')}."]
    if allowed is not None:
        parts.append(f"Allowed: {allowed.rstrip('.')}.")
    if remedy is not None:
        parts.append(f"Remedy: {remedy.rstrip('.')}.")
    return " ".join(parts)
