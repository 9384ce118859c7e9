"""Why AWS does not answer: each cause is named, since what to do differs."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    SSOTokenLoadError,
)

from local.commands import aws_access, deployment
from local.commands.deployment import DeploymentNotFound
from local.system import cloud

AT = "http://127.0.0.1:1"
STS = "https://sts.ap-northeast-1.amazonaws.com/"


def of_code(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "it says"}}, "DescribeStacks")


WHY: list[tuple[Exception, str, str]] = [
    (NoCredentialsError(), "credentials of an AWS account: ", "`aws configure sso`"),
    (ProfileNotFound(profile="p"), "credentials of an AWS account: ", "AWS_PROFILE"),
    (SSOTokenLoadError(error_msg="old"), "credentials could not be loaded: ", "sign in again"),
    *(
        (of_code(code), "AWS does not accept these credentials: ", "renew them")
        for code in ("ExpiredToken", "InvalidClientTokenId")
    ),
    (of_code("AccessDenied"), "ClientError", "these credentials lack that right"),
    *(
        (error(endpoint_url=STS), "AWS is not reached: ", "is this machine online?")
        for error in (EndpointConnectionError, ConnectTimeoutError)
    ),
    (ReadTimeoutError(endpoint_url=STS), "AWS is not reached: ", "is this machine online?"),
    (of_code("ThrottlingException"), "ClientError", "it says"),
]


@pytest.mark.parametrize(("error", "begins", "has"), WHY, ids=lambda each: type(each).__name__)
def test_each_reason_has_its_words(
    error: Exception, begins: str, has: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    text = aws_access.why(error)
    assert text.startswith(begins) and has in text


def test_where_requests_go_is_said_if_not_to_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    assert aws_access.endpoint_note({}) == ""
    set_here = {"AWS_ENDPOINT_URL": AT, "AWS_ENDPOINT_URL_S3": "http://s3", "AWS_REGION": "x"}
    assert aws_access.endpoint_note(set_here).startswith(
        f"AWS_ENDPOINT_URL={AT} and AWS_ENDPOINT_URL_S3=http://s3: requests go there and not to AWS"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", AT)
    assert f"unset AWS_ENDPOINT_URL={AT} for AWS" in aws_access.why(EndpointConnectionError(endpoint_url=AT))


@pytest.mark.parametrize(
    ("error", "message", "not_said"),
    [
        (EndpointConnectionError(endpoint_url=STS), "AWS is not reached", "not found|credentials"),
        (NoCredentialsError(), "credentials of an AWS account", "not found in"),
        (of_code("ExpiredToken"), "does not accept these credentials", "not found"),
        (of_code("ValidationError"), "not found in ap-northeast-1 .*make deploy ENV=prod", "not reached"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_stack_is_missing_only_if_aws_says_so(
    error: Exception, message: str, not_said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(client: Any, stack: str) -> dict[str, str]:
        raise error

    monkeypatch.setattr(cloud, "outputs_of", refused)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with pytest.raises(DeploymentNotFound, match=message) as raised:
        deployment.in_aws("prod")
    assert not any(word in str(raised.value) for word in not_said.split("|"))


def test_a_deployment_that_is_not_in_aws_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "outputs_of", lambda client, stack: {})
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert deployment.in_aws("prod").title == "AWS, prod"
    monkeypatch.setenv("AWS_ENDPOINT_URL", AT)
    assert deployment.in_aws("prod").title == f"AWS, prod (AWS_ENDPOINT_URL={AT})"
