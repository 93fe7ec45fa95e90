"""What became of a call or a job, as errors whose type says whether a retry makes sense.

| what AWS says | error | what a retry does |
|---|---|---|
| AlgorithmError with TrainingError or SpecError | TrainingError | nothing: the same key gives the same answer |
| AlgorithmError with InterruptedTraining or UnavailableError | transient | the next attempt, from the checkpoints |
| another AlgorithmError (a crash, out of memory) | ServiceRefused | when a person asks: the next attempt |
| CapacityError, InternalServerError, no reason | UnavailableError | the next attempt |
| ClientError (an image or data that cannot be read) | ServiceRefused | when a person asks: the next attempt |
| Stopped: MaxWaitTimeExceeded, Interrupted | InterruptedTraining | the next attempt, from the checkpoints |
| Stopped: MaxRuntimeExceeded; stopped by a person | ServiceRefused | when a person asks: the next attempt |
| throttling, 5xx, no connection | UnavailableError | the same job is found again |
| AccessDenied, ValidationException, a quota, no credentials | ServiceRefused | nothing, until a person has acted |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipelines.errors import (
    InterruptedTraining,
    NotFoundError,
    OvernightError,
    ServiceRefused,
    TrainingError,
    UnavailableError,
    explain,
)
from pipelines.records import JobStatus

_STATES: dict[str, Any] = {
    "InProgress": "running",
    "Stopping": "stopping",
    "Completed": "completed",
    "Failed": "failed",
    "Stopped": "stopped",
    "Deleting": "stopping",
}
_DENIED = (
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "ExpiredTokenException",
    "403",
)
_THROTTLED = (
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "SlowDown",
    "ServiceUnavailable",
    "InternalFailure",
    "InternalServerError",
    "RequestTimeout",
)
#: How the training itself named its failure (see pipelines.training.contract).
_OWN = re.compile(
    r"(TrainingError|SpecError|InputError|IntegrityError|InterruptedTraining|UnavailableError): (.+)", re.S
)
_AGAIN = ("InterruptedTraining", "UnavailableError")
_EXIT_CODE = re.compile(r",? *exit code: *\d+ *$")


def status_of(described: dict[str, Any]) -> JobStatus:
    """The status in a DescribeTrainingJob answer."""
    return JobStatus(
        state=_STATES[described["TrainingJobStatus"]],
        secondary=described.get("SecondaryStatus", ""),
        reason=described.get("FailureReason") or "",
    )


def missing(error: Exception) -> bool:
    """Whether SageMaker said that there is no such job."""
    said = getattr(error, "response", {}).get("Error", {})
    wrong = said.get("Code") in ("ValidationException", "ResourceNotFound", "ValidationError")
    return wrong and "not find" in said.get("Message", "").lower()


def raise_for(name: str, status: JobStatus) -> None:
    """Does nothing for a completed job.

    Raises:
        TrainingError, ServiceRefused, UnavailableError, InterruptedTraining: see the table above.
    """
    where, reason = f"training job {name}", _EXIT_CODE.sub("", status.reason)
    if status.state == "completed":
        return
    if not status.over:
        raise UnavailableError(explain(where, f"it is not over yet ({status.secondary})", remedy="wait for it"))
    if status.state == "stopped":
        raise _stopped(where, status)
    kind, _, what = reason.partition(":")
    if kind == "AlgorithmError":
        raise _algorithm(where, what.strip())
    if kind == "ClientError":
        raise ServiceRefused(
            explain(
                where,
                reason,
                remedy="let the role read image and bucket, then run this again: a new attempt is made",
            )
        )
    if kind == "CapacityError":
        raise UnavailableError(
            explain(where, reason, remedy="a retry asks again; or name another sagemaker.instance_type")
        )
    raise UnavailableError(explain(where, reason or f"failed ({status.secondary})", remedy="a retry may do"))


def final(status: JobStatus) -> bool:
    """Whether the same key can only fail the same way: the training itself said that this data gives no model."""
    own = _OWN.search(status.reason)
    return status.state == "failed" and own is not None and own.group(1) not in _AGAIN


def _algorithm(where: str, what: str) -> OvernightError:
    own = _OWN.search(what)
    if own is None:
        remedy = "read the job's log; after changing image or instance run this again: a new attempt is made"
        return ServiceRefused(explain(where, f"the training broke off: {what}", remedy=remedy))
    kind, said = own.groups()
    if kind == "InterruptedTraining":
        return InterruptedTraining(explain(where, said, remedy="a retry goes on from the checkpoint"))
    if kind == "UnavailableError":
        return UnavailableError(explain(where, said, remedy="a retry may do"))
    return TrainingError(f"{where}: {said}")


def _stopped(where: str, status: JobStatus) -> OvernightError:
    if status.secondary in ("MaxWaitTimeExceeded", "Interrupted"):
        what = f"its spot machines were taken away or not given for too long ({status.secondary})"
        return InterruptedTraining(
            explain(where, what, remedy="a retry goes on from the checkpoint; or set sagemaker.spot: false")
        )
    if status.secondary == "MaxRuntimeExceeded":
        remedy = "raise sagemaker.max_minutes, or train less"
        return ServiceRefused(explain(where, "it took longer than it may (MaxRuntimeExceeded)", remedy=remedy))
    remedy = "run this again: the next attempt goes on from the checkpoint"
    return ServiceRefused(explain(where, "somebody stopped it", remedy=remedy))


@contextmanager
def aws_calls(where: str) -> Iterator[None]:
    """Turns what boto3 raises into errors that say whether a retry can help; no message holds a credential.

    Raises:
        NotFoundError: there is no such job, bucket or object.
        ServiceRefused: permission, quota, or a request that is wrong.
        UnavailableError: anything that may pass.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        NoRegionError,
        ParamValidationError,
        PartialCredentialsError,
        ProfileNotFound,
    )

    try:
        yield
    except ClientError as error:
        raise _refusal(where, error) from None
    except (NoCredentialsError, PartialCredentialsError, NoRegionError, ProfileNotFound) as error:
        remedy = "set AWS_ACCESS_KEY_ID and its secret, or OVERNIGHT_SAGEMAKER_PROFILE; OVERNIGHT_SAGEMAKER_REGION"
        raise ServiceRefused(explain(where, str(error), remedy=remedy)) from None
    except ParamValidationError as error:
        raise ServiceRefused(explain(where, f"the request is malformed: {error}", remedy="see the spec")) from None
    except (BotoCoreError, Boto3Error, OSError) as error:
        what = f"AWS did not answer as it should: {error}"
        raise UnavailableError(explain(where, what, remedy="a retry may do")) from None


def _refusal(where: str, error: Any) -> OvernightError:
    said = error.response.get("Error", {})
    code, message = said.get("Code", "Unknown"), said.get("Message", "")
    http = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    what = f"{code}: {message}"
    if missing(error) or code in ("NoSuchKey", "NoSuchBucket", "404", "ResourceNotFound"):
        return NotFoundError(explain(where, what))
    if code in _THROTTLED or http >= 500 or http == 429:
        return UnavailableError(explain(where, what, remedy="a retry may do"))
    if code in _DENIED:
        return ServiceRefused(explain(where, what, remedy="give the credentials of this machine that permission"))
    if code in ("ResourceLimitExceeded", "LimitExceededException"):
        return ServiceRefused(
            explain(where, what, remedy="ask AWS for a higher quota, or name another sagemaker.instance_type")
        )
    return ServiceRefused(explain(where, what, remedy="correct what it names in the spec or in OVERNIGHT_SAGEMAKER_*"))
