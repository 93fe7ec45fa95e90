"""Metrics as Prometheus asks for them, and as its own parser reads them."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(url: str) -> str:
    """What the endpoint answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        assert answer.status == 200
        return str(answer.read().decode())


def parsed(page: str) -> Series:
    """Every series of a page, as Prometheus' own parser reads it."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def values(series: Series, name: str, *, by: str, where: Mapping[str, str] | None = None) -> dict[str, float]:
    """The values of one metric, by one of its labels, where others have these values."""
    found = {}
    for (metric, pairs), value in series.items():
        labels = dict(pairs)
        if metric == name and by in labels and (where or {}).items() <= labels.items():
            assert labels[by] not in found, f"{name} {labels[by]} twice"
            found[labels[by]] = value
    return found
