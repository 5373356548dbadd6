# SPDX-License-Identifier: Apache-2.0
from openstack import resource

#: Images that are asked about at a time, where nobody says how many.
PAGE = 500


class Availability(resource.Resource):
    """Where one Image is now."""

    #: The Image: a dict with `id, name, status, digests, links, tags, …`.
    image = resource.Body("image", type=dict)
    #: One dict per Cloud: `cloud, cloud_id, provider, region, status, image_ref, proof`; `differs`, dicts
    #: with `what, expected, found`; `metadata`, what the Cloud says of it; `error`, why it was not seen.
    clouds = resource.Body("clouds", type=list)


class CloudImage(resource.Resource):
    """What a Cloud has, whether it is tracked or not."""

    #: What it is called there.
    image_ref = resource.Body("image_ref")
    #: Of the Image that it is linked to; None: it is untracked.
    image_id = resource.Body("image_id")
    #: What has the same digest: dicts with `name` and either `image_id` or `cloud, image_ref`.
    candidates = resource.Body("candidates", type=list)
    #: In the Cloud's own word.
    status = resource.Body("status")
    #: `ready`, `pending` or `off`.
    state = resource.Body("state")
    #: Bytes of its file, and of its disk.
    size = resource.Body("size", type=int)
    virtual_size = resource.Body("virtual_size", type=int)
    digests = resource.Body("digests", type=dict)
    disk_format = resource.Body("disk_format")
    container_format = resource.Body("container_format")
    min_disk = resource.Body("min_disk", type=int)
    min_ram = resource.Body("min_ram", type=int)
    visibility = resource.Body("visibility")
    owner = resource.Body("owner")
    tags = resource.Body("tags", type=list)
    properties = resource.Body("properties", type=dict)
    hidden = resource.Body("hidden", type=bool)
    deprecated = resource.Body("deprecated", type=bool)
    protected = resource.Body("protected", type=bool)
    created_at = resource.Body("created_at")
