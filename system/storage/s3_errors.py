"""What S3 and boto3 raise, told apart: what passes and is tried again, what a person has to mend, what is a fault."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    InvalidRegionError,
    MetadataRetrievalError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as RequestError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from system.errors import DataError, StorageFault, TubeletError
from system.secret_words import has_user, without_user
from system.storage.errors import MissingError, UnsupportedError
from system.storage.objects import endpoint
from system.storage.retry import is_passing


class ShortError(Exception):
    """An answer that ended before it should, or took longer than it may."""


MISSING = {"404", "NoSuchKey", "NotFound"}
_REFUSED = {
    "401",
    "403",
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "AuthFailure",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "Unauthorized",
}
_ELSEWHERE = {"301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
# A person's settings, found wrong before any request is sent.
_MISTAKES = (
    ConfigNotFound,
    ConfigParseError,
    InvalidRegionError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)


# What a request ends with when the way to the store, or the store, breaks.
_BROKEN = (
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    RequestError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    HTTPError,
)


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of a URI.

    Raises:
        DataError: if it names no bucket, or a user or a key, which is not repeated, for messages are stored.
    """
    if has_user(uri):
        raise DataError(
            f"{without_user(uri)} was given with something before an @: an S3 URI is s3://bucket/key. Credentials come"
            " from a role, the environment or a profile (docs/security.md)"
        )
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise DataError(f"{uri}: an S3 URI is s3://bucket/key, got no bucket")
    return bucket, key


def code_of(error: ClientError) -> str:
    """Return the word, or the number, that a store gave for its refusal."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """Return the HTTP status of a store's refusal; 0 if there was none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def passing(error: Exception) -> str:
    """Return a sentence for an error that may be gone when the request is sent again; "" for any other."""
    if isinstance(error, ClientError):
        return _answer(error) if is_passing(status_of(error), code_of(error)) else ""
    if isinstance(error, EndpointConnectionError):
        return f"could not connect to {endpoint()}; check AWS_ENDPOINT_URL and the network"
    if isinstance(error, ResponseParserError):
        return f"{endpoint()} sent an answer that is no XML, or a part of one"
    if isinstance(error, ShortError):
        return f"{endpoint()} {error}"
    return f"{endpoint()}: {_sentence(error)}" if isinstance(error, _BROKEN) else ""


@contextmanager
def told(uri: str) -> Iterator[None]:
    """Turn what boto3 raises, the making of its client included, into our errors: one sentence, what was tried."""
    try:
        yield
    except ClientError as error:
        raise _answered(uri, error) from error
    except NoCredentialsError as error:
        raise DataError(f"{uri}: no AWS credentials were found; set AWS_PROFILE or run under a role") from error
    except ParamValidationError as error:
        raise DataError(f"{uri}: S3 knows no bucket or key of such a name") from error
    except _MISTAKES as error:
        raise DataError(
            f"{uri}: {_sentence(error)}; check AWS_PROFILE, AWS_REGION, the AWS_ keys and ~/.aws"
        ) from error
    except (BotoCoreError, HTTPError, OSError) as error:
        raise StorageFault(f"{uri}: {endpoint()}: {_sentence(error)}") from error
    except ValueError as error:  # what botocore raises for an endpoint that is no URL
        raise DataError(
            f"{uri}: {_sentence(error)}; AWS_ENDPOINT_URL is http(s)://host:port, got {endpoint()}"
        ) from error


def _sentence(error: BaseException) -> str:
    return without_user(" ".join(str(error).split()))[:300] or type(error).__name__


def _answer(error: ClientError) -> str:
    return f"{endpoint()} answered {code_of(error)}: {_sentence(error)}"


def _answered(uri: str, error: ClientError) -> TubeletError:
    """Return our error for one that a store answered."""
    code = code_of(error)
    if code in MISSING:
        return MissingError(f"{uri}: there is no such object at {endpoint()}")
    if code == "NotImplemented":
        return UnsupportedError(f"{uri}: {endpoint()} does not do what was asked: {_sentence(error)}")
    mistake = _mistake(code, split(uri)[0])
    return DataError(f"{uri}: {mistake}") if mistake else StorageFault(f"{uri}: {_answer(error)}")


def _mistake(code: str, bucket: str) -> str:
    """Say what a person has to mend after an answer; "" if it is nothing of theirs."""
    if code in _REFUSED:
        return (
            f"{endpoint()} refused the credentials ({code}); check AWS_PROFILE or the instance's role, and"
            f" that they may read and list the bucket {bucket}"
        )
    if code in _ELSEWHERE:
        return f"the bucket {bucket} lies in another region ({code}); set AWS_REGION to it"
    return {
        "NoSuchBucket": f"there is no bucket {bucket} at {endpoint()}",
        "InvalidBucketName": f"no bucket may be named {bucket}",
        "InvalidObjectState": "the object is archived; restore it from its storage class before it is read",
        # Of a HEAD, whose answer has no body to give a reason in.
        "400": f"{endpoint()} answered 400 without a reason, as it does to an expired token; renew the credentials,"
        " and check AWS_REGION",
    }.get(code, "")
