"""Why AWS does not answer as expected, in words: no credentials, refused ones, an address that is not
reached, a missing right. Which of them it is decides what to do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from botocore import exceptions
from botocore.exceptions import ClientError

from tickcast.adapters.redaction import describe

SET_CREDENTIALS = (
    "`aws configure sso` and AWS_PROFILE=…, or AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where they are "
    "temporary, AWS_SESSION_TOKEN"
)
_ENDPOINT = "AWS_ENDPOINT_URL"
_MISSING = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
_NOT_LOADED = (
    *(exceptions.CredentialRetrievalError, exceptions.SSOError, exceptions.TokenRetrievalError),
    *(exceptions.LoginError, exceptions.InvalidConfigError),
)
_REFUSED = (
    *("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"),
    *("SignatureDoesNotMatch", "InvalidSignatureException", "AuthFailure", "InvalidAccessKeyId"),
)
_FORBIDDEN = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
_UNREACHED = (exceptions.ConnectionError, exceptions.HTTPClientError)


def why(error: Exception) -> str:
    """An error of boto3's in words, with what to do where that is known."""
    code = error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""
    if isinstance(error, _MISSING):
        return f"credentials of an AWS account: {describe(error)}: {SET_CREDENTIALS}"
    if isinstance(error, _NOT_LOADED):
        return f"credentials could not be loaded: {describe(error)}: sign in again, or {SET_CREDENTIALS}"
    if code in _REFUSED:
        return f"AWS does not accept these credentials: {describe(error)}: renew them, or {SET_CREDENTIALS}"
    if code in _FORBIDDEN:
        return f"{describe(error)}: these credentials lack that right; use ones that may do it"
    if isinstance(error, _UNREACHED):
        set_here = endpoints(os.environ)
        if not set_here and urlsplit(str(error.kwargs.get("endpoint_url", ""))).hostname == "127.0.0.1":
            return f"{describe(error)}: the system there has stopped; start it again: make run"
        advice = f"unset {' and '.join(set_here)} for AWS itself" if set_here else "is this machine online?"
        return f"AWS is not reached: {describe(error)}: {advice}"
    return describe(error)


def endpoints(environment: Mapping[str, str]) -> list[str]:
    """The variables that send requests elsewhere than to AWS, with their values."""
    return [
        f"{name}={value}"
        for name, value in sorted(environment.items())
        if value and (name == _ENDPOINT or name.startswith(f"{_ENDPOINT}_"))
    ]


def endpoint_note(environment: Mapping[str, str] | None = None) -> str:
    """That such variables are set; empty where none is."""
    found = endpoints(os.environ if environment is None else environment)
    if not found:
        return ""
    return f"{' and '.join(found)}: requests go there and not to AWS; unset it for an account"
