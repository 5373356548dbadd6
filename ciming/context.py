# SPDX-License-Identifier: Apache-2.0
"""Who asks: project, user, roles, request id, and the zones of their catalog."""

import json
from collections.abc import Mapping
from typing import Any

from oslo_context import context


class RequestContext(context.RequestContext):
    """The caller of one request; its token stays in memory."""

    def __init__(self, service_catalog: list[dict[str, Any]] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.service_catalog = service_catalog or []

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


def from_environ(environ: Mapping[str, Any]) -> RequestContext:
    """The context of a request that keystonemiddleware has looked at."""
    catalog = environ.get("HTTP_X_SERVICE_CATALOG")
    made: RequestContext = RequestContext.from_environ(
        dict(environ), service_catalog=json.loads(catalog) if catalog else []
    )
    return made
