"""A made-up use case with a landing zone: what drills are played on in the tests.

What makes a sluice stick is known (pressure and wear), a model learns it in a moment, and there are no seasons.

Two verdicts came otherwise than they were first written down: decay was expected by night 4. A change in the middle of
a window makes its nights differ, which widens the interval that decay must be past; it is told on night 5.
"""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl

from pipelines import partitions
from tests.cases.champions import NAME, SPEC, write_project

FIRST, LAST, END = "2024-03-01", "2024-04-29", "2024-06-15"
ROWS = 400

_RANGE = {"expect": "column_values_to_be_between", "kwargs": {"column": "wear", "min_value": -1, "max_value": 2}}
#: Differences to the use case of `champions`.
_CHANGES = {
    "tables": {**SPEC["tables"], "rows": {**SPEC["tables"]["rows"], "expectations": [_RANGE]}},
    "drift": {"window": 6, "min_rows": 100, "alarm": 0.1, "warn": 0.05},
    "retraining": {
        "signals": ["inputs", "decay"],
        "decay": 0.08,
        "share": 0.5,
        "raised": 2,
        "of": 3,
        "cooldown": 10,
        "min_labels": 300,
        "train_on": "after_change",
        "last": 8,
    },
    "training": {"model": "lightgbm", "validation": 2, "holdout": 2},
    "gates": {"margin_over_champion": 0.0},
}

DRILLS = f"""\
first: "{FIRST}"
last: "{LAST}"
drills:
  sudden_shift:
    title: The pressure is another from one night on
    fault: {{kind: shift, table: rows, columns: [pressure], add: 1.5}}
    nights: 4
    expect: {{alerts: {{inputs: 1, scores: 1}}, retrain: 4, most_retrainings: 1, champion: either}}
  gradual_shift:
    title: The pressure rises a little each night
    fault: {{kind: shift, table: rows, columns: [pressure], add: 1.5, over: 6}}
    nights: 6
    expect: {{alerts: {{inputs: 4}}, silent: [data, skew], retrain: 6, champion: either}}
  concept:
    title: What makes a sluice stick is no longer what it was
    fault: {{kind: concept}}
    nights: 8
    expect: {{alerts: {{decay: 6}}, silent: [inputs, data], retrain: 7, champion: same}}
  noise_1:
    title: One label in a hundred is wrong
    fault: {{kind: flip, share: 0.01}}
    nights: 6
    expect: {{silent: [inputs, scores, decay, data, labels, skew]}}
  noise_40:
    title: Two labels in five are wrong
    fault: {{kind: flip, share: 0.4}}
    nights: 8
    expect: {{alerts: {{decay: 6}}, silent: [inputs], retrain: 7, most_retrainings: 1, champion: same}}
  stuck_sensor:
    title: The pressure is the same everywhere
    fault: {{kind: stuck, table: rows, columns: [pressure], value: 0.2}}
    nights: 3
    expect: {{alerts: {{inputs: 1}}, silent: [data, skew], retrain: 3, champion: same}}
  newcomer:
    title: A site that nobody has seen
    fault: {{kind: newcomer, table: rows, columns: [site], value: west, share: 0.15}}
    nights: 3
    expect: {{alerts: {{inputs: 1}}, silent: [decay, data, skew], retrain: 3, champion: either}}
  unknown:
    title: A site that nobody has seen, in half of the rows, which the audit of the scores does not let pass
    fault: {{kind: newcomer, table: rows, columns: [site], value: west, share: 0.5}}
    nights: 2
    expect: {{silent: [decay, data], quarantined: true}}
  unit:
    title: The pressure comes in another unit
    fault: {{kind: scale, table: rows, columns: [pressure], by: 1.609}}
    nights: 3
    expect: {{alerts: {{inputs: 1}}, silent: [data, skew], retrain: 3, champion: either}}
  held_back:
    title: The wear comes in another unit, and the gate of the data knows its range
    fault: {{kind: scale, table: rows, columns: [wear], by: 100}}
    nights: 2
    expect: {{alerts: {{data: 1}}, silent: [decay, inputs], quarantined: true}}
  dropped:
    title: Three values in ten are gone
    fault: {{kind: nulls, table: rows, columns: [wear], share: 0.3}}
    nights: 3
    expect: {{alerts: {{inputs: 1}}, silent: [data, skew], retrain: 3, champion: either}}
  quiet_season:
    title: A third of the rows does not come, of all kinds alike
    fault: {{kind: thin, share: 0.67}}
    nights: 8
    expect: {{silent: [inputs, scores, decay, data, labels, skew], most_messages: 0}}
  one_bad_night:
    title: One night in another unit
    fault: {{kind: scale, table: rows, columns: [pressure], by: 3}}
    nights: 1
    after: 3
    expect: {{alerts: {{inputs: 1}}, over: [inputs, scores], silent: [decay, data]}}
  late_labels:
    title: Labels come three nights late
    fault: {{kind: late_labels, nights: 3}}
    nights: 3
    after: 4
    expect: {{alerts: {{labels: 2}}, over: [labels], silent: [decay, inputs]}}
  lost_night:
    title: A night's file never comes
    fault: {{kind: lost}}
    nights: 1
    after: 1
    expect: {{alerts: {{data: 1}}, silent: [inputs, decay]}}
  storm:
    title: Every column is another, for a month
    fault: {{kind: shift, table: rows, columns: [pressure, wear], add: 0.4}}
    nights: 30
    expect: {{alerts: {{inputs: 2}}, silent: [data, skew], most_messages: 8, retrain: 4, most_retrainings: 3,
      champion: either}}
"""


def lay_out(folder: Path) -> Path:
    """Writes the project and its landing zone; gives the project's folder."""
    project = write_project(folder / "project", **_CHANGES)
    drills = project / "include" / "drills"
    drills.mkdir(parents=True)
    (drills / f"{NAME}.yaml").write_text(DRILLS, "utf-8")
    dice = random.Random(11)
    for day in partitions.span(FIRST, END, "day"):
        found = [(f"{day}-{n}", dice.gauss(0, 1), dice.random(), dice.choice(("north", "south"))) for n in range(ROWS)]
        stuck = [pressure + wear + dice.gauss(0, 0.5) > 0.5 for _, pressure, wear, _ in found]
        rows = pl.DataFrame(found, schema=["id", "pressure", "wear", "site"], orient="row")
        for table, frame in (("rows", rows), ("labels", rows.select("id", pl.Series("stuck", stuck)))):
            path = folder / "landing" / table / f"{day}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.write_csv(path)
    return project
