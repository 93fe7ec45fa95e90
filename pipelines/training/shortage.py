"""When memory is too small for a batch: half of it is tried, once, from the network's beginning."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import torch
from torch import nn

from pipelines.errors import InterruptedTraining, TrainingError, explain
from pipelines.training.session import Session

_log = logging.getLogger(__name__)
_SAID = re.compile(r"out of memory|not enough memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED", re.I)


def halved(session: Session, net: nn.Module, name: str, batch_rows: int, fit: Callable[[int], None]) -> None:
    """Calls `fit(batch_rows)`; when memory is too small for that, `fit(batch_rows // 2)` on the network as it was.

    The second call begins as the first did: it gives what a spec with half the `batch_rows` gives. With several
    processes one cannot begin again without the others: all end, the half is noted beside the checkpoints, and the next
    try takes it.

    Raises:
        TrainingError: half is too much as well, or a second time too much.
        InterruptedTraining: several processes are to be started again.
    """
    noted = session.store.batch_rows(name) if session.store and session.team.leads else None
    half = int(session.team.share(str(noted or 0).encode()))
    if not half:
        weights = {key: tensor.cpu().clone() for key, tensor in net.state_dict().items()}
        random = torch.get_rng_state()
        if shortage := _short_of_memory(fit, batch_rows):
            half = _agree_to_halve(session, name, batch_rows, shortage)
            net.load_state_dict(weights)
            torch.set_rng_state(random)
            if session.device.type == "cuda":
                torch.cuda.empty_cache()
    if half:
        session.facts[f"{name}_batch_rows_halved_to"] = half
        if shortage := _short_of_memory(fit, half):
            raise TrainingError(
                explain(
                    f"{name} with {half} rows a batch, half of what it began with",
                    f"memory is too small: {shortage}",
                    remedy="lower batch_rows, k, width or depth, or train where there is more memory",
                )
            )


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or the GPU, was too small."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_SAID.search(str(error)))


def _short_of_memory(fit: Callable[[int], None], batch_rows: int) -> str | None:
    """What was said when memory was too small. The error itself would hold on to the tensors of its step."""
    try:
        fit(batch_rows)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return None


def _agree_to_halve(session: Session, name: str, batch_rows: int, shortage: str) -> int:
    half = batch_rows // 2
    where, what, size = f"{name} with {batch_rows} rows a batch", f"memory is too small: {shortage}", session.team.size
    if half < size or (size > 1 and session.store is None):
        raise TrainingError(explain(where, what, remedy="lower batch_rows, or train where there is more memory"))
    if session.store is not None:
        session.store.halve(name, half)
    if size > 1:
        raise InterruptedTraining(explain(where, what, remedy=f"start again: it then takes {half}"))
    _log.warning("%s: %s: from the beginning with %d", where, what, half)
    session.progress({"epoch": 0, f"{name}_batch_rows": half})
    return half
