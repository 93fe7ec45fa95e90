"""Every metric of Overnight: its name, its unit and what it means.

Names follow OpenTelemetry's conventions. For Prometheus the dots become underscores and a unit of seconds becomes a
suffix: `overnight.read.age` in seconds is `overnight_read_age_seconds`. A share, an index or a count has no unit: of
"1" some translators make a suffix, of an annotation such as {row} none does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A gauge. Each of its series has the attribute `use_case` besides those that are named here."""

    name: str
    unit: str
    """UCUM: `s` for seconds; empty, or an annotation in braces, for what is counted."""
    description: str
    attributes: tuple[str, ...]

    @property
    def prometheus(self) -> str:
        """Its name in Prometheus."""
        return re.sub(r"[^a-zA-Z0-9_:]", "_", self.name) + ("_seconds" if self.unit == "s" else "")


#: By name.
METRICS: dict[str, Metric] = {}


def _gauge(name: str, description: str, *attributes: str, unit: str = "") -> Metric:
    made = Metric(name=name, unit=unit, description=description, attributes=attributes)
    METRICS[name] = made
    return made


def _interval(name: str, description: str, *attributes: str) -> tuple[Metric, Metric, Metric]:
    """A figure and the ends of its 95 % interval."""
    return (
        _gauge(name, description, *attributes),
        _gauge(f"{name}.low", f"{description}: lower end of the 95 % interval", *attributes),
        _gauge(f"{name}.high", f"{description}: upper end of the 95 % interval", *attributes),
    )


# -- the reading itself ------------------------------------------------------------------------------------------------

READ_SUCCESS = _gauge(
    "overnight.read.success", "1 when the last reading succeeded; 0: the other metrics keep their former values"
)
READ_AGE = _gauge("overnight.read.age", "Time since the last reading that succeeded, or since the start", unit="s")

# -- drift: kind is input or score, scope is partition (the newest) or window (all of it taken together) ---------------

_DRIFT = ("kind", "column", "scope")
PSI = _gauge("overnight.drift.psi", "Population stability index against the champion's frozen reference", *_DRIFT)
THRESHOLD = _gauge("overnight.drift.threshold", "PSI from which a column is in warning or in alarm", *_DRIFT, "level")
LEVEL = _gauge("overnight.drift.level", "0 not enough data to say, 1 calm, 2 warning, 3 alarm", *_DRIFT)
JS = _gauge("overnight.drift.js", "Jensen-Shannon distance (base 2, 0 to 1) of a categorical column", *_DRIFT)
NULLS = _gauge("overnight.drift.null.share", "Share of nulls", *_DRIFT)
UNSEEN = _gauge("overnight.drift.unseen.share", "Share of values that the reference does not hold", *_DRIFT)
VANISHED = _gauge("overnight.drift.vanished", "Categories of the reference that are not there", *_DRIFT)
DECIDED = _gauge("overnight.decided.share", "Share of the newest partition's rows by what was decided", "decision")

# -- quality: scope is partition (the newest that has the figure) or window --------------------------------------------

_QUALITY = ("metric", "scope")
MEASURED = _interval("overnight.quality.measured", "The watched metric on matured labels", *_QUALITY)
EXPECTED = _interval(
    "overnight.quality.expected",
    "An estimate of the watched metric from calibrated scores alone, where labels have not matured",
    *_QUALITY,
)
HOLDOUT = _gauge("overnight.quality.champion", "The watched metric of the champion on its own holdout", "metric")
LABELS = _gauge("overnight.labels.matured", "Matured labels of the window's scored rows", unit="{row}")
NEW_LABELS = _gauge("overnight.labels.new", "Matured labels newer than everything the champion saw", unit="{row}")
UNLABELLED = _gauge("overnight.labels.missing", "Scored rows whose label should be there and is not", unit="{row}")
LATE_LABELS = _gauge("overnight.labels.late", "Partitions whose labels should be there", unit="{partition}")
STRANGE = _gauge("overnight.labels.strange", "Labels of keys that no scored row has", unit="{row}")
DISAGREEING = _gauge("overnight.labels.disagreeing", "Keys with several labels that differ", unit="{key}")
RESTATED = _gauge("overnight.labels.restated", "Partitions with labels published more than once", unit="{partition}")

# -- the data ----------------------------------------------------------------------------------------------------------

ROWS = _gauge("overnight.partition.rows", "Rows of the newest partition that was looked at", unit="{row}")
WINDOW = _gauge("overnight.window.partitions", "Partitions of the window by state", "state", unit="{partition}")
FAILED = _gauge("overnight.validation.failed", "Validations of the window that failed", unit="{validation}")
BEHIND = _gauge(
    "overnight.data.behind", "Partitions from the newest published rows to the one looked at", unit="{partition}"
)
SKEW_SAMPLE = _gauge("overnight.skew.sample", "Rows whose features were made both ways", unit="{row}")
SKEW_COLUMNS = _gauge("overnight.skew.columns", "Features that differ between scoring and training", unit="{column}")
SKEW_ROWS = _gauge("overnight.skew.rows", "Rows of the sample in which a feature differs", "column", unit="{row}")

# -- slices and groups over the window ---------------------------------------------------------------------------------

_SLICE = ("column", "value")
SLICE = _interval("overnight.slice.quality", "The watched metric of a slice on matured labels", *_SLICE, "metric")
SLICE_ROWS = _gauge("overnight.slice.rows", "Rows of a slice", *_SLICE, unit="{row}")
SLICE_LABELS = _gauge("overnight.slice.labels", "Matured labels of a slice", *_SLICE, unit="{row}")
SELECTED = _gauge("overnight.fairness.selected.share", "Share of a group's rows decided for", "column", "group")
RATIO = _gauge("overnight.fairness.ratio", "The lowest share decided for by the highest", "column")

# -- decisions and champions -------------------------------------------------------------------------------------------

AS_OF = _gauge("overnight.observed.timestamp", "End of the newest partition that was decided on", unit="s")
SIGNAL = _gauge("overnight.signal.level", "0 not enough data to say, 1 calm, 2 warning, 3 alarm", "signal")
RETRAIN = _gauge("overnight.retrain.decision", "1: the newest decision asks for a new model; 0: it does not")
ESCALATED = _gauge("overnight.retrain.escalated", "1: a person has to look, the last challenger lost; 0: no")
MONTH = _gauge("overnight.retrain.month", "Retrainings decided on in the calendar month of the newest decision")
CHAMPION = _gauge("overnight.champion.version", "Version of the present champion")
CHAMPION_AGE = _gauge("overnight.champion.age", "Partitions since the champion's training", unit="{partition}")
PROMOTIONS = _gauge("overnight.champion.changes", "Entries of the promotion log", "change")

# -- nights and alerts -------------------------------------------------------------------------------------------------

NIGHTS = _gauge("overnight.nights", "Nights by state", "state", unit="{partition}")
LATE = _gauge("overnight.nights.late", "Nights past their deadline without published scores", unit="{partition}")
GAPS = _gauge("overnight.nights.gaps", "Nights not published, though a later one is", unit="{partition}")
UNPUNCTUAL = _gauge("overnight.nights.labels.late", "Nights whose labels were due and are not published")
SCORED = _gauge("overnight.scored.timestamp", "End of the newest partition that has scores", unit="s")
SCORED_BEHIND = _gauge("overnight.scored.behind", "Nights that were due after the newest scored one")
ALERTS = _gauge("overnight.alerts.open", "Open incidents by kind", "kind", unit="{incident}")
ALERTS_SINCE = _gauge("overnight.alerts.since.timestamp", "Since when the oldest open one is wrong", "kind", unit="s")
