# SPDX-License-Identifier: Apache-2.0
"""Who asks: project, user, roles, request id, the zones of their catalog; and the Job a thread is about.

oslo.log writes what the thread's context has into each line: the request id and the Job's id.
"""

import json
from collections.abc import Mapping
from typing import Any

from oslo_context import context


class RequestContext(context.RequestContext):
    """The caller of one request, or whom a Job runs for; its token stays in memory.

    :param job_id: the Job that this thread is about, where there is one
    """

    def __init__(
        self,
        service_catalog: list[dict[str, Any]] | None = None,
        job_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(resource_uuid=job_id, **kwargs)
        self.service_catalog = service_catalog or []

    def get_logging_values(self) -> dict[str, Any]:
        """What a log line can have of it."""
        return {**super().get_logging_values(), "job_id": self.resource_uuid}

    def redacted_copy(self, **kwargs: Any) -> "RequestContext":
        """Without the token; oslo.messaging makes one for each notification, and it becomes the thread's."""
        made: RequestContext = super().redacted_copy(job_id=self.resource_uuid, **kwargs)
        return made

    @property
    def zones(self) -> list[str]:
        """Regions of the caller's catalog that have an image endpoint, sorted."""
        return sorted(
            {
                endpoint["region"]
                for service in self.service_catalog
                if service.get("type") == "image"
                for endpoint in service.get("endpoints", [])
                if endpoint.get("region")
            }
        )

    def endpoints(self, service_type: str) -> list[str]:
        """URLs that the caller's catalog has of a service, of all interfaces and regions."""
        return [
            endpoint[interface]
            for service in self.service_catalog
            if service.get("type") == service_type
            for endpoint in service.get("endpoints", [])
            for interface in ("publicURL", "internalURL", "adminURL")
            if endpoint.get(interface)
        ]


def from_environ(environ: Mapping[str, Any]) -> RequestContext:
    """The context of a request that keystonemiddleware has looked at."""
    catalog = environ.get("HTTP_X_SERVICE_CATALOG")
    made: RequestContext = RequestContext.from_environ(
        dict(environ), service_catalog=json.loads(catalog) if catalog else []
    )
    return made


def begin_request(environ: Mapping[str, Any]) -> None:
    """From here on this thread's log lines are of this request, whose caller is not known yet."""
    RequestContext(
        request_id=environ.get("openstack.request_id"),
        global_request_id=environ.get("openstack.global_request_id"),
    )


def about(job_id: str) -> None:
    """From here on this request's log lines carry the Job's id as well."""
    current = context.get_current()
    if current is not None:
        current.resource_uuid = job_id


def for_job(
    job_id: str, request_id: str | None, user_id: str | None = None, project_id: str | None = None
) -> RequestContext:
    """From here on this thread's log lines carry the ids of a Job, and of the request that made it."""
    return RequestContext(job_id=job_id, request_id=request_id, user_id=user_id, project_id=project_id)


def forget() -> None:
    """From here on this thread's log lines are about nothing in particular."""
    context._request_store.context = None       # oslo.context has no way to say so


def ids() -> tuple[str | None, str | None]:
    """Of this thread's context: Job id and request id."""
    current = context.get_current()
    return (current.resource_uuid, current.request_id) if current else (None, None)
