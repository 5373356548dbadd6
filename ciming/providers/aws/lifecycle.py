# SPDX-License-Identifier: Apache-2.0
"""What is said of an image after it was made: its name and tags, and that it is deprecated.

An image is deprecated at a time to come; minutes after it, AWS lists it for its owner only:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-deprecate.html
"""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from ciming import points
from ciming.providers import base
from ciming.providers.aws import metadata, snapshots
from ciming.providers.aws.account import Account


def update(
    account: Account, described: Mapping[str, Any], changes: base.Changes, alive: base.Alive
) -> Sequence[str]:
    """Say it of an image, or of a snapshot; what AWS can not be told.

    :param described: as EC2 does that
    """
    ref = str(described.get("ImageId") or described["SnapshotId"])
    tags, lost = snapshots.of_tags(described), []
    if changes.name is not None and "Name" in described and described["Name"] != changes.name:
        lost.append(f"AWS renames no image: its own name stays {described['Name']}, its tag Name is changed.")
    gone = {tag: "" for tag in changes.untag if tags.get(tag) == "" and metadata.fits(tag)}
    wanted, refused = _tags(tags, gone, changes)
    lost += [f"{tag[:100]} could not become a tag in AWS." for tag in refused]
    if gone:
        alive()
        _untag(account, ref, gone)
    if wanted:
        alive()
        snapshots.tag(account, ref, wanted)
    if changes.hidden:
        lost.append("AWS hides no image. Its lists for others leave out deprecated ones: --deprecated.")
    if changes.deprecated is not None and "ImageId" in described:
        _deprecate(account, described, alive, deprecated=changes.deprecated)
    elif changes.deprecated:
        lost.append("AWS deprecates images, but no snapshots.")
    return lost


def _tags(
    there: Mapping[str, str], gone: Mapping[str, str], changes: base.Changes
) -> tuple[dict[str, str], list[str]]:
    """Tags to be written, and those that can not be."""
    named = {} if changes.name is None else {"Name": changes.name[: metadata.LONGEST_VALUE]}
    wanted = {key: value for key, value in named.items() if there.get(key) != value}
    refused, room = [], metadata.MOST_TAGS - len(there.keys() - gone.keys() | wanted.keys())
    for tag in changes.tags or ():
        if there.get(tag) == "":
            continue
        if tag in there or tag in wanted or not metadata.fits(tag) or room < 1:
            refused.append(tag)
        else:
            wanted[tag], room = "", room - 1
    return wanted, refused


def _deprecate(
    account: Account, image: Mapping[str, Any], alive: base.Alive, *, deprecated: bool
) -> None:
    at = image.get("DeprecationTime")
    if deprecated and not metadata.is_over(at):
        alive()
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=metadata.SOON)
        _enable_deprecation(account, image["ImageId"], soon)
    elif at is not None and not deprecated:
        alive()
        _disable_deprecation(account, image["ImageId"])


@points.mutation
def _untag(account: Account, ref: str, tags: Mapping[str, str]) -> None:
    account.call("ec2", "DeleteTags", Resources=[ref], Tags=snapshots.as_tags(tags))


@points.mutation
def _enable_deprecation(account: Account, image_id: str, at: datetime.datetime) -> None:
    account.call("ec2", "EnableImageDeprecation", ImageId=image_id, DeprecateAt=at)


@points.mutation
def _disable_deprecation(account: Account, image_id: str) -> None:
    account.call("ec2", "DisableImageDeprecation", ImageId=image_id)
