"""The log of a training job, line by line, each line once. CloudWatch has one stream a host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.records import LogTail

GROUP = "/aws/sagemaker/TrainingJobs"
#: A page holds 10,000 events or 1 MB: what a look reads of each stream at most.
_PAGES = 20


def tail(logs: Any, name: str, position: Mapping[str, str]) -> LogTail:
    """What was logged after `position`.

    Args:
        logs: a boto3 client of CloudWatch Logs.
        position: CloudWatch's forward token by stream.
    """
    try:
        streams = [stream for stream in _streams(logs, name) if stream.startswith(f"{name}/")]
    except logs.exceptions.ResourceNotFoundException:
        # The group is made with the account's first job, the stream when a job's machines are there.
        return LogTail(position=dict(position))
    lines: list[str] = []
    after = dict(position)
    for stream in streams:
        for _ in range(_PAGES):
            more = {"nextToken": after[stream]} if stream in after else {}
            page = logs.get_log_events(logGroupName=GROUP, logStreamName=stream, startFromHead=True, **more)
            lines += [event["message"].rstrip("\n") for event in page["events"]]
            # At the end of a stream CloudWatch gives back the token that it was given.
            if after.get(stream) == page["nextForwardToken"]:
                break
            after[stream] = page["nextForwardToken"]
    return LogTail(lines=tuple(lines), position=after)


def _streams(logs: Any, name: str) -> list[str]:
    pages = logs.get_paginator("describe_log_streams").paginate(logGroupName=GROUP, logStreamNamePrefix=f"{name}/")
    return sorted(stream["logStreamName"] for page in pages for stream in page["logStreams"])
