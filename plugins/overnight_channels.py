"""Telling people of alerts over Airflow's own notifiers: Slack, e-mail, a webhook.

It lies here because the triggerer, which tells of late nights, imports plugins and no DAG folder. The book of alerts is
what counts: a message that could not be sent stays unsaid in it, and whoever tells something next sends it first.
"""

from __future__ import annotations

import asyncio
import hashlib
import html
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk.configuration import conf

from pipelines.errors import UnavailableError, explain

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier

    from pipelines.alerts import AlertBook, Telling
    from pipelines.records import Alert
    from pipelines.spec import Channel, UseCase

_log = logging.getLogger("overnight.alerts")


def tell(spec: UseCase, book: AlertBook) -> int:
    """Sends what each channel is still to be told; gives how many messages were sent.

    Raises:
        UnavailableError: a channel did not take a message; it is sent next time. The others were told all the same.
    """
    sent, failed = 0, []
    for channel in spec.alerts:
        try:
            with book.channel(channel.name) as turn:
                for alert, notifier in _messages(channel, turn):
                    notifier(notifier.context)
                    turn.done(alert)
                    sent += 1
        except Exception as error:
            failed.append(_failed(channel, error))
    return _result(spec, sent, failed)


async def tell_from_triggerer(spec: UseCase, book: AlertBook) -> int:
    """The same where connections are looked up by the event loop; raises what `tell` does."""
    sent, failed = 0, []
    for channel in spec.alerts:
        try:
            turns = book.channel(channel.name)
            turn = await asyncio.to_thread(turns.__enter__)  # another process may have the turn for seconds
            try:
                for alert, notifier in _messages(channel, turn):
                    await notifier
                    await asyncio.to_thread(turn.done, alert)
                    sent += 1
            finally:
                turns.__exit__(None, None, None)
        except Exception as error:
            failed.append(_failed(channel, error))
    return _result(spec, sent, failed)


def _failed(channel: Channel, error: Exception) -> str:
    return f"{channel.name}: {type(error).__name__}: {str(error)[:200]}"


def _result(spec: UseCase, sent: int, failed: list[str]) -> int:
    if failed:
        raise UnavailableError(
            explain(
                f"{spec.name}: alerts",
                f"not every channel could be told: {'; '.join(failed)}",
                remedy="see that its connection is there and the other side well; the next run sends it again",
            )
        )
    return sent


def _messages(channel: Channel, turn: Telling) -> Iterator[tuple[Alert, BaseNotifier]]:
    """What the channel asked for, oldest first."""
    for alert in turn.unsaid:
        wanted = not channel.kinds or alert.kind in channel.kinds
        if wanted and (channel.resolved or alert.state == "open"):
            yield alert, notifier_of(channel, alert)


def notifier_of(channel: Channel, alert: Alert) -> BaseNotifier:
    """Airflow's notifier with the alert as its message.

    A notifier renders its arguments as Jinja templates, and an alert holds text out of data: so the arguments are
    fixed templates, and the text is what they are rendered with.
    """
    from pipelines.alerts import message, subject  # every process of Airflow imports this file, few tell anything

    base = (conf.get("api", "base_url", fallback="") or "").rstrip("/")
    dag, _, run = alert.run.partition("/")
    link = f"{base}/dags/{quote(dag, safe='')}/runs/{quote(run, safe='')}" if base else ""
    if alert.evidence.endswith(".html"):
        alert = alert.model_copy(update={"evidence": f"{base}/overnight/reports/{quote(alert.evidence)}"})
    title, text = subject(alert), message(alert, link)
    if channel.to == "slack":
        from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

        said = _slack(f"*{title}*\n{text}")
        return SlackWebhookNotifier(
            slack_webhook_conn_id=channel.connection,
            text="{{ said }}",
            unfurl_links=False,
            timeout=30,
            context={"said": said},
        )
    if channel.to == "email":
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        return SmtpNotifier(
            smtp_conn_id=channel.connection,
            to=list(channel.recipients),
            subject="{{ title }}",
            html_content="<pre style='font: 14px/1.5 sans-serif; white-space: pre-wrap'>{{ said }}</pre>",
            mime_subtype="alternative",
            context={"title": " ".join(title.split()), "said": html.escape(text)},
        )
    from airflow.providers.http.notifications.http import HttpNotifier

    incident = "\n".join((alert.use_case, *map(str, alert.incident), alert.state))
    told = alert.model_dump(mode="json") | {"title": title, "link": link}
    return HttpNotifier(
        http_conn_id=channel.connection,
        endpoint=channel.endpoint,
        json={name: "{{ told." + name + " }}" for name in told},
        headers={"Idempotency-Key": hashlib.sha256(incident.encode()).hexdigest()},
        context={"told": told},
    )


def _slack(text: str) -> str:
    """Text in which nothing is a mention or a link of Slack's own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def quietly(spec: UseCase, book: AlertBook, told: Any) -> None:
    """`tell`, for whoever is not to fail for it; nothing when `told` says that nothing is new."""
    if not told or not spec.alerts:
        return
    try:
        tell(spec, book)
    except UnavailableError as error:
        _log.warning("%s", error)
