# SPDX-License-Identifier: Apache-2.0
from openstack import resource


class Cloud(resource.Resource):
    """A place where images can live: a zone of this OpenStack, or a registered Cloud."""

    resources_key = "clouds"
    base_path = "/clouds"

    allow_fetch = True
    allow_list = True
    allow_delete = True

    _query_mapping = resource.QueryParameters("name", "provider", "region")

    #: `openstack`, `aws`, `gcp`.
    provider = resource.Body("provider")
    region = resource.Body("region")
    #: `public` or `private`.
    visibility = resource.Body("visibility")
    #: True for a region of the caller's own OpenStack, which nobody registers.
    zone = resource.Body("zone", type=bool)
    #: The project that registered it; None for zones.
    project_id = resource.Body("project_id")
    #: Where it is, as its provider has to be told; empty for zones.
    config = resource.Body("config", type=dict)
    #: Href of the Barbican secret with its credential, for its own project.
    credential_ref = resource.Body("credential_ref")
    created_at = resource.Body("created_at")
    updated_at = resource.Body("updated_at")
    #: After a change: what else that has done, where there is something to be said.
    note = resource.Body("note")
