# SPDX-License-Identifier: Apache-2.0
from openstack import resource

ENDS = frozenset({"success", "partial", "error", "cancelled"})
#: Where waiting stops: an end, or nothing moves before the user acts.
STOPS = ENDS | {"waiting-credentials"}


class Job(resource.Resource):
    """What a user asked for, with one Target per cloud."""

    resources_key = "jobs"
    base_path = "/jobs"

    allow_fetch = True
    allow_list = True

    _query_mapping = resource.QueryParameters(
        "id",
        "status",
        "kind",
        "image_id",
        "parent",
        "request_id",
        "cloud",
        "created_at",
        "started_at",
        "finished_at",
        "sort",
        "all_projects",
    )

    #: `create`, `sync`, `link`, `update`, `delete` or `zone-sync`.
    kind = resource.Body("kind")
    #: `uploading`, `queued`, `running`, `waiting-credentials`, or one of the ends.
    status = resource.Body("status")
    #: `run`, or `cancel` when somebody wants it to end.
    wanted = resource.Body("wanted")
    image_id = resource.Body("image_id")
    #: The Job that this one is a part of.
    parent = resource.Body("parent")
    #: Of a sync of zones what became of its images: `step`, counts (`same, left, only_there, created,
    #: updated, replaced, pruned, failed, cannot, cancelled`), `not_pruned`, `failures` (dicts with `zone,
    #: image, name, job, code, message`) and `digest`; None for other kinds.
    report = resource.Body("report", type=dict)
    #: `bytes_done` and `bytes_total`; of a sync of zones also `images_done`, `images_total`,
    #: `bytes_per_second` and `seconds_left`.
    progress = resource.Body("progress", type=dict)
    #: One dict per cloud: `id, cloud, status, step, bytes_done, bytes_total, attempts,
    #: image_ref, error{code, message, cloud_request_id}, remarks`.
    targets = resource.Body("targets", type=list)
    #: Why the work that all Targets share failed: `code` and `message`; None when it did not.
    error = resource.Body("error", type=dict)
    request_id = resource.Body("request_id")
    project_id = resource.Body("project_id")
    created_at = resource.Body("created_at")
    started_at = resource.Body("started_at")
    finished_at = resource.Body("finished_at")
