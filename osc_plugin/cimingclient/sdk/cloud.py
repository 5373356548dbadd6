# SPDX-License-Identifier: Apache-2.0
from openstack import resource


class Cloud(resource.Resource):
    """A place where images can live: a zone of this OpenStack, or a registered Cloud."""

    resources_key = "clouds"
    base_path = "/clouds"

    allow_fetch = True
    allow_list = True

    _query_mapping = resource.QueryParameters("name", "provider", "region")

    #: `openstack`, `aws`, `gcp`.
    provider = resource.Body("provider")
    region = resource.Body("region")
    #: `public` or `private`.
    visibility = resource.Body("visibility")
    #: True for a region of the caller's own OpenStack, which nobody registers.
    zone = resource.Body("zone", type=bool)
