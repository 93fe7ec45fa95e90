"""The metrics of the gates, by task, and calibration. scikit-learn is imported inside the function: it costs a second.

Shapes: n rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.errors import TrainingError, explain
from pipelines.spec import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Metrics that are a mean over rows (rmse: the root of one), by task. The AUC is none.
_BY_ROW: dict[Task, tuple[str, ...]] = {
    "binary": ("log_loss", "brier"),
    "multiclass": ("accuracy", "log_loss"),
    "regression": ("rmse", "mae"),
}
_BINS = 15


def metrics(
    task: Task, label: NDArray[np.floating], score: NDArray[np.floating], classes: int | None = None
) -> dict[str, float]:
    """Measures scores against labels.

    Args:
        task: binary gives auc, log_loss (nats) and brier; multiclass accuracy and log_loss; regression rmse and mae, in
            the label's unit.
        label: [n]; 0 or 1, a class index, or a value.
        score: [n], the probability of 1, or the value; for multiclass [n, classes], the class probabilities.
        classes: multiclass only, how many there are; the width of `score` when absent.

    Returns:
        The metrics by name. The AUC of labels of one class only is not defined: it is NaN, and a gate on it fails
        closed. A score that is not finite makes every metric NaN.

    Raises:
        TrainingError: no rows, shapes that do not fit each other, or labels that are null or outside the classes.
    """
    import numpy as np

    labels, scores = checked(task, label, score, classes)
    names = (("auc",) if task == "binary" else ()) + _BY_ROW[task]
    if not np.isfinite(scores).all():
        return dict.fromkeys(names, float("nan"))
    found = {}
    for name in names:
        if name == "auc":
            found[name] = _auc(labels, scores)
        else:
            mean = np.mean(row_losses(task, name, labels, scores))
            found[name] = float(np.sqrt(mean) if name == "rmse" else mean)
    return found


def checked(
    task: Task, label: NDArray[np.floating], score: NDArray[np.floating], classes: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Labels and scores that go with each other, as float64; see `metrics`.

    Raises:
        TrainingError: no rows, shapes that do not fit each other, or labels that are null or outside the classes.
    """
    import numpy as np

    labels, scores = label.astype(np.float64), score.astype(np.float64)
    width = (classes or (scores.shape[-1] if scores.ndim == 2 else 0),) if task == "multiclass" else ()
    if labels.ndim != 1 or not labels.size or scores.shape != labels.shape + width:
        raise TrainingError(
            explain(
                "metrics",
                f"{task} labels of shape {label.shape} do not go with scores of shape {score.shape}",
                allowed="labels [n] and scores [n] (multiclass: [n, classes]), n at least 1",
            )
        )
    _check_labels(task, labels, width[0] if width else None)
    return labels, scores


def _check_labels(task: Task, label: NDArray[np.float64], classes: int | None) -> None:
    import numpy as np

    allowed = {"binary": "0 and 1", "multiclass": f"0 to {(classes or 1) - 1}", "regression": "finite numbers"}[task]
    good = np.isfinite(label) if task == "regression" else np.isin(label, np.arange(classes or 2))
    if not good.all():
        bad = label[~good][0]
        raise TrainingError(explain("metrics", f"{int((~good).sum())} labels such as {bad}", allowed=allowed))


def _auc(label: NDArray[np.float64], score: NDArray[np.float64]) -> float:
    from sklearn.metrics import roc_auc_score

    return float("nan") if label.min() == label.max() else float(roc_auc_score(label, score))


def row_losses(task: Task, metric: str, label: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n], what each row adds to a metric, which is the mean of them (rmse: its root; accuracy: hits, not losses).

    Args:
        label: as `checked` gives it.
        score: as `checked` gives it; finite.

    Raises:
        TrainingError: the metric is no mean over rows, or not of this task.
    """
    import numpy as np

    if metric not in _BY_ROW[task]:
        raise TrainingError(
            explain("metrics", f"{metric!r} is no mean over rows of task {task}", allowed=", ".join(_BY_ROW[task]))
        )
    if metric == "brier":
        return (score - label) ** 2
    if metric == "log_loss" and task == "binary":
        probability = np.clip(score, 1e-15, 1 - 1e-15)
        return -(label * np.log(probability) + (1 - label) * np.log1p(-probability))
    if metric == "log_loss":
        chosen = score[np.arange(len(label)), label.astype(np.int64)]
        return -np.log(np.clip(chosen, 1e-15, 1.0))
    if metric == "accuracy":
        hits: NDArray[np.float64] = (score.argmax(axis=1) == label).astype(np.float64)
        return hits
    return (score - label) ** 2 if metric == "rmse" else np.abs(score - label)


def calibration_error(task: Task, label: NDArray[np.floating], score: NDArray[np.floating]) -> float | None:
    """Expected calibration error, 0 to 1: the mean over rows of |confidence - accuracy| of the row's bin.

    Guo et al. (arXiv 1706.04599) with 15 bins, of equal rows rather than equal width (Nixon et al., arXiv
    1904.01685); rows of equal confidence share a bin.

    Args:
        label: [n].
        score: binary [n]; multiclass [n, classes], of which the highest is judged.

    Returns:
        None for a regression, and where a score is not finite.
    """
    import numpy as np

    if task == "regression" or not np.isfinite(score).all():
        return None
    if task == "multiclass":
        confidence, right = score.max(axis=1).astype(np.float64), (score.argmax(axis=1) == label).astype(np.float64)
    else:
        confidence, right = score.astype(np.float64), label.astype(np.float64)
    edges = np.unique(np.quantile(confidence, np.arange(1, _BINS) / _BINS, method="lower"))
    place = np.searchsorted(edges, confidence, side="left")
    gaps = np.bincount(place, weights=confidence - right, minlength=len(edges) + 1)
    return float(np.abs(gaps).sum() / len(confidence))
