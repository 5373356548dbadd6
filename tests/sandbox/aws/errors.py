# SPDX-License-Identifier: Apache-2.0
"""What each service of AWS says when it refuses: the codes are the documents', one column a service.

EC2: https://docs.aws.amazon.com/ec2/latest/devguide/errors-overview.html
EBS direct: https://docs.aws.amazon.com/ebs/latest/APIReference/CommonErrors.html
STS: https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
KMS: https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html
S3: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from typing import Literal, NamedTuple

Cause = Literal[
    "unsigned",
    "malformed",
    "unknown key",
    "no token",
    "bad token",
    "bad signature",
    "skewed",
    "expired token",
    "denied",
    "unknown action",
    "invalid",
    "missing",
    "unknown parameter",
    "throttled",
    "internal",
    "unavailable",
]


class Refused(Exception):
    """An answer that is an error; `more` is what else its document has, such as EBS's Reason."""

    def __init__(self, code: str, message: str, status: int = 400, **more: str) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.more = code, message, status, more


class Dropped(Exception):
    """No answer: the connection ends."""


class Code(NamedTuple):
    """An error code and its HTTP status."""

    name: str
    status: int = 400


EC2: dict[Cause, Code] = {
    "unsigned": Code("MissingAuthenticationToken", 403),
    "malformed": Code("IncompleteSignature"),
    "unknown key": Code("AuthFailure", 401),
    "no token": Code("AuthFailure", 401),
    "bad token": Code("AuthFailure", 401),
    "bad signature": Code("SignatureDoesNotMatch", 403),
    "skewed": Code("RequestExpired"),
    "expired token": Code("RequestExpired"),
    "denied": Code("UnauthorizedOperation", 403),
    "unknown action": Code("InvalidAction"),
    "invalid": Code("InvalidParameterValue"),
    "missing": Code("MissingParameter"),
    "unknown parameter": Code("UnknownParameter"),
    "throttled": Code("RequestLimitExceeded", 503),
    "internal": Code("InternalError", 500),
    "unavailable": Code("Unavailable", 503),
}
EBS: dict[Cause, Code] = {
    "unsigned": Code("MissingAuthenticationTokenException", 403),
    "malformed": Code("IncompleteSignatureException"),
    "unknown key": Code("UnrecognizedClientException", 403),
    "no token": Code("UnrecognizedClientException", 403),
    "bad token": Code("UnrecognizedClientException", 403),
    "bad signature": Code("InvalidSignatureException", 403),
    "skewed": Code("InvalidSignatureException", 403),
    "expired token": Code("ExpiredTokenException", 403),
    "denied": Code("AccessDeniedException", 403),
    "unknown action": Code("UnknownOperationException", 404),
    "invalid": Code("ValidationException"),
    "missing": Code("ValidationException"),
    "unknown parameter": Code("SerializationException"),
    "throttled": Code("RequestThrottledException"),
    "internal": Code("InternalServerException", 500),
    "unavailable": Code("ServiceUnavailableException", 503),
}
KMS = EBS | {"throttled": Code("ThrottlingException"), "internal": Code("KMSInternalException", 500)}
STS: dict[Cause, Code] = {
    "unsigned": Code("MissingAuthenticationToken", 403),
    "malformed": Code("IncompleteSignature"),
    "unknown key": Code("InvalidClientTokenId", 403),
    "no token": Code("InvalidClientTokenId", 403),
    "bad token": Code("InvalidClientTokenId", 403),
    "bad signature": Code("SignatureDoesNotMatch", 403),
    "skewed": Code("SignatureDoesNotMatch", 403),
    "expired token": Code("ExpiredToken", 403),
    "denied": Code("AccessDenied", 403),
    "unknown action": Code("InvalidAction"),
    "invalid": Code("ValidationError"),
    "missing": Code("ValidationError"),
    "unknown parameter": Code("ValidationError"),
    "throttled": Code("Throttling"),
    "internal": Code("InternalFailure", 500),
    "unavailable": Code("ServiceUnavailable", 503),
}
S3: dict[Cause, Code] = {
    "unsigned": Code("AccessDenied", 403),
    "malformed": Code("AuthorizationHeaderMalformed"),
    "unknown key": Code("InvalidAccessKeyId", 403),
    "no token": Code("InvalidAccessKeyId", 403),
    "bad token": Code("InvalidToken"),
    "bad signature": Code("SignatureDoesNotMatch", 403),
    "skewed": Code("RequestTimeTooSkewed", 403),
    "expired token": Code("ExpiredToken"),
    "denied": Code("AccessDenied", 403),
    "unknown action": Code("MethodNotAllowed", 405),
    "invalid": Code("InvalidArgument"),
    "missing": Code("InvalidArgument"),
    "unknown parameter": Code("InvalidArgument"),
    "throttled": Code("SlowDown", 503),
    "internal": Code("InternalError", 500),
    "unavailable": Code("ServiceUnavailable", 503),
}
CODES = {"ec2": EC2, "ebs": EBS, "kms": KMS, "sts": STS, "s3": S3}


def refusal(service: str, cause: Cause, message: str, **more: str) -> Refused:
    """Return what this service says of the cause."""
    code = CODES[service][cause]
    if service == "ebs" and code.name == "ValidationException":
        more.setdefault("Reason", "INVALID_PARAMETER_VALUE")
    return Refused(code.name, message, code.status, **more)
