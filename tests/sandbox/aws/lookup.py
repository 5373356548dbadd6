# SPDX-License-Identifier: Apache-2.0
"""Images and snapshots by id, as an account sees them in a region.

The codes: https://docs.aws.amazon.com/ec2/latest/devguide/errors-overview.html
Something new may not be seen yet: https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
"""

import re

from tests.sandbox.aws import errors
from tests.sandbox.aws.state import Call, Image, Snapshot

IMAGE_ID = re.compile("ami-([0-9a-f]{8}|[0-9a-f]{17})")
SNAPSHOT_ID = re.compile("snap-([0-9a-f]{8}|[0-9a-f]{17})")


def image(call: Call, image_id: str) -> Image:
    """Return the image if the caller may use it."""
    if not IMAGE_ID.fullmatch(image_id):
        raise errors.Refused("InvalidAMIID.Malformed", f'Invalid id: "{image_id}" (expecting "ami-...")')
    found = call.state.images.get(image_id)
    if found is None or found.region != call.region or call.state.fresh(found.created.timestamp()):
        raise errors.Refused("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    if not found.may_use(call.caller.account):
        raise errors.Refused("AuthFailure", f"Not authorized for images: [{image_id}]", 403)
    return found


def own_image(call: Call, image_id: str) -> Image:
    """Return the image if it is the caller's own."""
    if image_id in call.state.gone:
        raise errors.Refused("InvalidAMIID.Unavailable", f"The image ID '{image_id}' is no longer available")
    found = image(call, image_id)
    if found.owner != call.caller.account:
        raise errors.Refused("AuthFailure", f"Not authorized for image:{image_id}", 403)
    return found


def snapshot(call: Call, snapshot_id: str) -> Snapshot:
    """Return the snapshot if the caller may use it."""
    if not SNAPSHOT_ID.fullmatch(snapshot_id):
        message = f"The snapshot ID '{snapshot_id}' is not valid. The expected format is snap-xxxxxxxx."
        raise errors.Refused("InvalidSnapshotID.Malformed", message)
    found = call.state.snapshots.get(snapshot_id)
    hidden = found is None or found.region != call.region or not found.may_use(call.caller.account)
    if found is None or hidden or call.state.fresh(found.started.timestamp()):
        raise errors.Refused("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    return found


def own_snapshot(call: Call, snapshot_id: str) -> Snapshot:
    """Return the snapshot if it is the caller's own."""
    found = snapshot(call, snapshot_id)
    if found.owner != call.caller.account:
        raise errors.Refused("AuthFailure", f"You do not own the snapshot '{snapshot_id}'", 403)
    return found
