"""The metrics of the gates, by task. scikit-learn is imported inside the functions: it costs a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.errors import TrainingError, explain
from pipelines.spec import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
    if task == "regression":
        error = scores - labels
        return {"rmse": float(np.sqrt(np.mean(error**2))), "mae": float(np.mean(np.abs(error)))}
    if task == "multiclass":
        return _multiclass(labels, scores)
    return _binary(labels, scores)


def _check_labels(task: Task, label: NDArray[np.float64], classes: int | None) -> None:
    import numpy as np

    allowed = {"binary": "0 and 1", "multiclass": f"0 to {(classes or 1) - 1}", "regression": "finite numbers"}[task]
    good = np.isfinite(label) if task == "regression" else np.isin(label, np.arange(classes or 2))
    if not good.all():
        bad = label[~good][0]
        raise TrainingError(explain("metrics", f"{int((~good).sum())} labels such as {bad}", allowed=allowed))


def _binary(label: NDArray[np.float64], score: NDArray[np.float64]) -> dict[str, float]:
    import numpy as np
    from sklearn.metrics import roc_auc_score

    if not np.isfinite(score).all():
        return {"auc": float("nan"), "log_loss": float("nan"), "brier": float("nan")}
    one_class = label.min() == label.max()
    probability = np.clip(score, 1e-15, 1 - 1e-15)
    return {
        "auc": float("nan") if one_class else float(roc_auc_score(label, score)),
        "log_loss": float(-np.mean(label * np.log(probability) + (1 - label) * np.log1p(-probability))),
        "brier": float(np.mean((score - label) ** 2)),
    }


def _multiclass(label: NDArray[np.float64], score: NDArray[np.float64]) -> dict[str, float]:
    import numpy as np

    if not np.isfinite(score).all():
        return {"accuracy": float("nan"), "log_loss": float("nan")}
    index = label.astype(np.int64)
    chosen = np.clip(score[np.arange(len(index)), index], 1e-15, 1.0)
    return {
        "accuracy": float(np.mean(score.argmax(axis=1) == index)),
        "log_loss": float(-np.mean(np.log(chosen))),
    }
