"""Holds what came of a drill against what was written down before. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.records import Claim, PlayedNight
from pipelines.spec.drills import Verdict


def judge(expected: Verdict, nights: Sequence[PlayedNight]) -> list[Claim]:
    """One claim for each thing that the verdict says.

    Args:
        nights: all that were played, in order, the calm ones before the fault too.
    """
    told = {alert.kind: night.night for night in reversed(nights) for alert in night.began}
    claims = [_told(kind, by, told.get(kind)) for kind, by in expected.alerts.items()]
    claims += [
        Claim(said=f"nobody is told of {kind}", held=kind not in told, found=_night(told.get(kind)))
        for kind in expected.silent
    ]
    claims += [
        Claim(
            said=f"{kind} is over at the end",
            held=kind not in nights[-1].open,
            found="open" if kind in nights[-1].open else "over",
        )
        for kind in expected.over
    ]
    if expected.most_messages is not None:
        count = sum(len(night.began) for night in nights)
        said = f"{expected.most_messages} incidents are told of at most"
        claims.append(Claim(said=said, held=count <= expected.most_messages, found=str(count)))
    claims += _retrained(expected, nights)
    held_back = [name for night in nights if night.night >= 1 for name in night.quarantined]
    claims.append(
        Claim(
            said="the data is held back" if expected.quarantined else "no data is held back",
            held=bool(held_back) == expected.quarantined,
            found=f"{len(held_back)} held back" if held_back else "none",
        )
    )
    return claims


def _told(kind: str, by: int, found: int | None) -> Claim:
    # Told before the fault began, it was not the fault that it told of.
    return Claim(said=f"{kind} is told by night {by}", held=found is not None and 1 <= found <= by, found=_night(found))


def _night(found: int | None) -> str:
    return "never" if found is None else f"night {found}"


def _retrained(expected: Verdict, nights: Sequence[PlayedNight]) -> list[Claim]:
    asked = [night.night for night in nights if night.decision.retrain]
    found = ", ".join(f"night {number}" for number in asked) or "never"
    if expected.retrain == "never":
        claims = [Claim(said="no retraining", held=not asked, found=found)]
    else:
        held = bool(asked) and 1 <= asked[0] <= expected.retrain
        claims = [Claim(said=f"a retraining by night {expected.retrain}", held=held, found=found)]
    if expected.most_retrainings is not None:
        said = f"{expected.most_retrainings} retrainings at most"
        claims.append(Claim(said=said, held=len(asked) <= expected.most_retrainings, found=found))
    champions = list(dict.fromkeys(night.champion for night in nights))
    if expected.champion != "either":
        changed = any(night.trained is not None for night in nights)
        claims.append(
            Claim(
                said=f"the champion is {'another' if expected.champion == 'changed' else 'the same'}",
                held=changed == (expected.champion == "changed"),
                found=", then ".join(f"version {version}" for version in champions),
            )
        )
    return claims
