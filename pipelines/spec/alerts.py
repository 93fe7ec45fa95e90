"""Who is told when something is wrong, besides the book of alerts that every use case has.

    alerts:
      - name: team
        to: slack                # Airflow's Slack webhook notifier
        connection: slack_nights
      - name: on_call
        to: email                # Airflow's SMTP notifier
        connection: smtp_nights
        recipients: [nights@example.com]
        kinds: [late, decay, person]
      - name: pager
        to: webhook              # Airflow's HTTP notifier: a POST of the alert as JSON
        connection: http_pager
        endpoint: /events
        resolved: false

A connection is Airflow's: its address and password are never in a spec.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from pipelines.spec.base import Name, SpecModel

_Connection = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,250}$")]
AlertKind = Literal["late", "inputs", "scores", "decay", "data", "labels", "skew", "person"]
"""late: a night's scores were not published by its deadline. inputs, scores: they drift. decay: the watched metric is
worse than the champion's. data: partitions are missing or in quarantine. labels: they are late, or disagree. skew:
scoring and training make different features. person: there is reason to retrain, and the last challenger lost."""


class _Channel(SpecModel):
    """What every channel says."""

    name: Name
    """Of this channel: what it was told is kept under it."""
    connection: _Connection
    """Id of a connection in Airflow."""
    kinds: tuple[AlertKind, ...] = ()
    """Kinds of incidents that it is told of; all when not given."""
    resolved: bool = True
    """Whether it is told that an incident is over as well."""


class SlackChannel(_Channel):
    """An incoming webhook of Slack, or of a service that speaks like it."""

    to: Literal["slack"]


class EmailChannel(_Channel):
    """E-mail over SMTP. The sender is the connection's."""

    to: Literal["email"]
    recipients: Annotated[tuple[str, ...], Field(min_length=1)]

    @field_validator("recipients")
    @classmethod
    def _one_line(cls, recipients: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [one for one in recipients if "@" not in one or any(sign.isspace() for sign in one)]:
            raise ValueError(f"no address of e-mail: {', '.join(map(repr, wrong))}")
        return recipients


class WebhookChannel(_Channel):
    """A POST of the alert as JSON, under an `Idempotency-Key`."""

    to: Literal["webhook"]
    endpoint: Annotated[str, StringConstraints(pattern=r"^[^\s{}]*$")] = ""
    """Path after the connection's address."""


Channel = Annotated[SlackChannel | EmailChannel | WebhookChannel, Field(discriminator="to")]
