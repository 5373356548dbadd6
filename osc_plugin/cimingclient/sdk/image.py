# SPDX-License-Identifier: Apache-2.0
from openstack import resource


class Image(resource.Resource):
    """One logical image, known in each cloud by a Link."""

    resources_key = "images"
    base_path = "/images"

    allow_fetch = True
    allow_list = True

    _query_mapping = resource.QueryParameters(
        "id",
        "name",
        "tag",
        "status",
        "disk_format",
        "size",
        "virtual_size",
        "cloud",
        "created_at",
        "updated_at",
        "sort",
        "all_projects",
    )

    project_id = resource.Body("project_id")
    #: `uploading`, `pending`, `active`, `partial` or `error`.
    status = resource.Body("status")
    disk_format = resource.Body("disk_format")
    #: Bytes of the file; None until it is known.
    size = resource.Body("size", type=int)
    #: Bytes of the disk in it; None until it is known.
    virtual_size = resource.Body("virtual_size", type=int)
    #: `sha256` and `sha512` of the file, `guest` of the disk; None until they are known.
    digests = resource.Body("digests", type=dict)
    #: One dict per cloud: `cloud, provider, region, image_ref, proof, verified_at`.
    links = resource.Body("links", type=list)
    tags = resource.Body("tags", type=list)
    #: What was said of it last; None: nothing.
    hidden = resource.Body("hidden", type=bool)
    #: What was said of it last; None: nothing.
    deprecated = resource.Body("deprecated", type=bool)
    created_at = resource.Body("created_at")
    updated_at = resource.Body("updated_at")
