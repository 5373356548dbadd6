# SPDX-License-Identifier: Apache-2.0
"""What is said of an image after it was made: its name and tags, and that it is deprecated.

https://cloud.google.com/compute/docs/reference/rest/v1/images/patch (of the rest, only a description can be
changed), https://cloud.google.com/compute/docs/images/deprecate-custom
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.cloud import compute_v1

from ciming import exceptions, points
from ciming.providers import base
from ciming.providers.gcp import images, metadata
from ciming.providers.gcp.account import Account, Refusal

PATIENCE = 300.0        # seconds for Google to change something
STATES = ("ACTIVE", "DEPRECATED", "OBSOLETE", "DELETED")      # each can be used less than the one before


def update(
    account: Account,
    image: Mapping[str, Any],
    changes: base.Changes,
    alive: base.Alive,
    deprecate_to: str = "DEPRECATED",
) -> Sequence[str]:
    """Say it of an image of the project; what Google can not be told.

    :param deprecate_to: the state of a deprecated image; one that can be used still less stays so
    """
    lost: list[str] = []
    if changes.name is not None:
        lost += _rename(account, image, changes.name, alive)
    if changes.tags is not None:
        lost += _label(account, str(image["name"]), changes, alive)
    if changes.hidden:
        lost.append("Google Cloud hides no image. Its lists leave out deprecated ones: --deprecated.")
    if changes.deprecated is not None:
        wanted = deprecate_to if changes.deprecated else "ACTIVE"
        fine = STATES[STATES.index(wanted) :] if changes.deprecated else ("ACTIVE",)
        if (image.get("deprecated", {}).get("state") or "ACTIVE") not in fine:
            alive()
            images.wait(account, _deprecate(account, image["name"], wanted), alive, PATIENCE)
    return lost


def _rename(account: Account, image: Mapping[str, Any], name: str, alive: base.Alive) -> Sequence[str]:
    renamed, own = metadata.renamed(image, name), image["name"]
    if renamed is None:
        return [] if own == name else [f"Google Cloud renames no image: its name stays {own}."]
    if renamed != image.get("description"):
        alive()
        images.wait(account, _describe(account, own, renamed), alive, PATIENCE)
    return [
        f"Google Cloud renames no image: its own name stays {own}, the first line of its description is "
        "changed."
    ]


def _label(account: Account, name: str, changes: base.Changes, alive: base.Alive) -> Sequence[str]:
    """Read and write, as long as others write in between."""
    for _ in range(images.TRIES):
        image = images.show(account, account.project, name)
        if image is None:
            raise base.gone(account.name, images.ref_in(account.project, name))
        there = image.get("labels", {})
        wanted, refused = _labels(there, changes)
        if wanted != there:
            alive()
            try:
                operation = _set_labels(account, name, wanted, image["label_fingerprint"])
            except Refusal as error:
                if error.http_status != 412:
                    raise
                continue
            images.wait(account, operation, alive, PATIENCE)
        return [f"{tag[:100]} could not become a label in Google Cloud." for tag in refused]
    raise exceptions.TransientProviderError(
        f"{account.name}: others change the labels of {name}, again and again."
    )


def _labels(there: Mapping[str, str], changes: base.Changes) -> tuple[dict[str, str], list[str]]:
    """All labels that it is to have, and tags that can not be among them."""
    gone = {tag for tag in changes.untag if there.get(tag) == "" and metadata.fits(tag)}
    wanted = {key: value for key, value in there.items() if key not in gone}
    refused = []
    for tag in changes.tags or ():
        if wanted.get(tag) == "":
            continue
        if tag in wanted or not metadata.fits(tag) or len(wanted) >= metadata.MOST_LABELS:
            refused.append(tag)
        else:
            wanted[tag] = ""
    return wanted, refused


@points.mutation
def _describe(account: Account, name: str, description: str) -> str:
    wanted = compute_v1.Image(description=description)
    made = account.call(
        "compute.images.update",
        lambda: account.images.patch_unary(
            project=account.project, image=name, image_resource=wanted, **images.asked(account)
        ),
    )
    return str(made.name)


@points.mutation
def _set_labels(account: Account, name: str, labels: Mapping[str, str], fingerprint: str) -> str:
    wanted = compute_v1.GlobalSetLabelsRequest(labels=dict(labels), label_fingerprint=fingerprint)
    made = account.call(
        "compute.images.setLabels",
        lambda: account.images.set_labels_unary(
            project=account.project,
            resource=name,
            global_set_labels_request_resource=wanted,
            **images.asked(account),
        ),
    )
    return str(made.name)


@points.mutation
def _deprecate(account: Account, name: str, state: str) -> str:
    wanted = compute_v1.DeprecationStatus(state=state)
    made = account.call(
        "compute.images.deprecate",
        lambda: account.images.deprecate_unary(
            project=account.project,
            image=name,
            deprecation_status_resource=wanted,
            **images.asked(account),
        ),
    )
    return str(made.name)
