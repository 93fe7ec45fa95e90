"""Each drill comes as it was written down: the alarm, its night, the retraining, the champion."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines.drills.play import Ground
from pipelines.policies.verdicts import judge
from pipelines.settings import Settings
from pipelines.spec import load_spec
from pipelines.spec.reading import load_drills
from tests.cases.champions import NAME
from tests.cases.sluices import DRILLS, lay_out

_NAMES = tuple(yaml.safe_load(DRILLS)["drills"])


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("drills")
    project = lay_out(folder)
    settings = Settings(project=project, home=folder / "var", landing=folder / "landing", code_version="test")
    spec = load_spec(settings.spec_path(NAME))
    return Ground(spec, settings, load_drills(project / "include" / "drills" / f"{NAME}.yaml", spec))


@pytest.mark.parametrize("name", _NAMES)
def test_a_drill_ends_as_it_was_written_down(ground: Ground, name: str) -> None:
    lines: list[str] = []
    base = ground.base(lines.append)
    before = _artifacts(base)
    nights = ground.play(name, base, lines.append)
    claims = judge(ground.drills.drills[name].expect, nights)
    shown = "\n".join([*lines, *(f"{'yes' if each.held else 'NO'}: {each.said}: {each.found}" for each in claims)])
    assert all(each.held for each in claims), shown
    assert _artifacts(base) == before, "what its trainings made is gone"


def _artifacts(base: Path) -> set[Path]:
    return {path for path in (base / "mlflow" / "artifacts").rglob("*") if path.is_file()}
