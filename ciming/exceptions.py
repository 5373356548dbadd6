# SPDX-License-Identifier: Apache-2.0
"""Everything that CIMinG says went wrong.

Each class owns its HTTP status and its dotted API code; an instance may narrow the code.
The detail is shown to users and stored in rows: it never holds a secret.
"""


class CimingError(Exception):
    """Base of all errors that a user may see."""

    status = 500
    code = "internal"
    title = "Internal error"

    def __init__(self, detail: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        if code:
            self.code = code


class InvalidRequest(CimingError):
    """The request says something that can not be; `field` names the place."""

    status = 400
    code = "request.invalid"
    title = "Invalid request"


class Forbidden(CimingError):
    status = 403
    code = "policy.forbidden"
    title = "Forbidden"


class TrustRefused(CimingError):
    """Keystone would not let the caller delegate to the service."""

    status = 403
    code = "trust.refused"
    title = "Trust refused"


class NotFound(CimingError):
    """Also the answer for another project's object; give the code of the noun: `image.not_found`."""

    status = 404
    code = "not_found"
    title = "Not found"


class NotAcceptable(CimingError):
    """A version of the API is wanted that this service does not speak."""

    status = 406
    code = "version.unsupported"
    title = "Not acceptable"


class Conflict(CimingError):
    status = 409
    code = "conflict"
    title = "Conflict"


class Gone(CimingError):
    """It was there, and has ended for good."""

    status = 410
    code = "gone"
    title = "Gone"


class PreconditionFailed(CimingError):
    status = 412
    code = "upload.tus_version"
    title = "Precondition failed"


class TooLarge(CimingError):
    """More bytes than may come."""

    status = 413
    code = "image.too_large"
    title = "Too large"


class OverLimit(CimingError):
    """The project may not have more; the status is that of Glance."""

    status = 413
    code = "limit.exceeded"
    title = "Over limit"


class TooOften(CimingError):
    """The project has to wait.

    :param retry_after: seconds
    """

    status = 429
    code = "cloud.too_often"
    title = "Too many requests"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Locked(CimingError):
    """Somebody else is writing it now."""

    status = 423
    code = "locked"
    title = "Locked"


class ChecksumMismatch(CimingError):
    """A part of an upload is not what its sender has; the status is that of tus."""

    status = 460
    code = "upload.checksum_mismatch"
    title = "Checksum mismatch"


class StagingFull(CimingError):
    """No room in the staging area, by quota or by disk."""

    status = 507
    code = "staging.full"
    title = "Staging area full"


class Unavailable(CimingError):
    """A service that CIMinG needs does not answer."""

    status = 503
    code = "service.unavailable"
    title = "Service unavailable"


class ImageRejected(CimingError):
    """The bytes are not an image that may go anywhere. Codes: `image.*`."""

    status = 400
    code = "image.rejected"
    title = "Image rejected"


class ProviderError(CimingError):
    """A cloud said no, for good: it is not asked again.

    `cloud_request_id` is the cloud's own id of the failed call, where it gave one.
    """

    status = 502
    code = "cloud.error"
    title = "Cloud error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        field: str | None = None,
        cloud_request_id: str | None = None,
    ) -> None:
        super().__init__(detail, code=code, field=field)
        self.cloud_request_id = cloud_request_id


class TransientProviderError(ProviderError):
    """A cloud stumbled: worth another attempt."""

    code = "cloud.unavailable"


class CredentialRefused(ProviderError):
    """A cloud did not take the credential. If it had taken it before in the same Job, the Job waits."""

    code = "cloud.auth_failed"


class CredentialNeeded(CredentialRefused):
    """Nothing goes on without another credential of the user's, so the Job waits for that."""

    code = "credential.needed"


class Cancelled(CimingError):
    """Its user does not want the Job any more: end the running task, and undo what was not finished."""

    status = 409
    code = "job.cancelled"
    title = "Cancelled"


class NotReady(Exception):
    """This installation can not be started as it is; the text tells its operator what to do."""


class Interrupted(BaseException):
    """Ends a running task without reverting it; the task is executed again at the next claim.

    Not an Exception: TaskFlow would revert the flow, and so delete a successor's work.
    """


class Waits(Interrupted):
    """The Job can not go on before its user brings a credential."""


class ClaimLost(Interrupted):
    """The Job belongs to another engine (or to nobody) now: stop, touch nothing."""
