"""The student in torch fp32, eager mode, as someone would write it who has its weights: the same scores but for int8.

Shapes: n rows, v numbers that vary, u indicators, c texts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipelines.machine import usable_cores
from pipelines.spec import UseCase
from pipelines.training import prepare
from pipelines.training.data import read
from pipelines.training.networks import Student


class TorchPeer:
    """An artifact's student, with the preparation that its training rows give, on all cores."""

    def __init__(self, spec: UseCase, artifact: Path, train: Path) -> None:
        self.preparation = prepare.fit(read(spec, train))
        self.card: Mapping[str, Any] = json.loads((artifact / "model.json").read_text("utf-8"))
        self.student = Student(spec.training.student, self.preparation, 1)
        self.student.load_state_dict(load_file(artifact / "student.safetensors"))
        self.student.eval()
        self._low, self._high, self._centre, self._scale, self._width = (
            torch.as_tensor(np.asarray(part, np.float32))
            for part in (
                self.preparation.low,
                self.preparation.high,
                self.preparation.centre,
                self.preparation.scale,
                self.preparation.width,
            )
        )
        self._varying = torch.as_tensor(self.preparation.varying)
        self._flagged = torch.as_tensor(self.preparation.flagged, dtype=torch.int64)
        knots = np.asarray(self.card["calibration"].get("knots") or [], np.float32).reshape(-1, 2)
        self._x, self._y = torch.from_numpy(knots[:, 0].copy()), torch.from_numpy(knots[:, 1].copy())
        self._slope = torch.diff(self._y) / torch.diff(self._x)
        torch.set_num_threads(usable_cores())

    def logits(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """[n, 1, 1] of numbers as they are, [n, all], and codes [n, c]: what the int8 session is given."""
        chosen = numbers[:, self._varying]
        filled = torch.where(chosen.isnan(), self._centre, chosen)
        z = (torch.clamp(filled, self._low, self._high) - self._centre) * self._scale
        bounded = z / torch.sqrt(z * z * (self._width**2 / prepare.BOUND**2) + self._width**2)
        logits: Tensor = self.student(bounded, numbers[:, self._flagged].isnan().float(), codes)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """[n], calibrated as the artifact is."""
        z = logits[:, 0, 0]
        if not len(self._x):
            return torch.sigmoid(z / self.card["calibration"]["temperature"])
        z = torch.clamp(z, self._x[0], self._x[-1])
        at = torch.bucketize(z, self._x[1:-1], right=True)
        return self._y[at] + self._slope[at] * (z - self._x[at])

    def score(self, network: Callable[..., Tensor], arrays: list[Tensor], tile: int) -> Tensor:
        """[n], tile by tile, of what a network takes."""
        rows = len(arrays[0])
        with torch.inference_mode():
            parts = [
                self.probabilities(network(*(part[at : at + tile] for part in arrays))) for at in range(0, rows, tile)
            ]
        return torch.cat(parts)
