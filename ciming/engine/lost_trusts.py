# SPDX-License-Identifier: Apache-2.0
"""Trusts that no Job names: of an API process that died before it wrote the Job, or of an earlier run."""

from collections.abc import Mapping, Sequence

from oslo_log import log

from ciming import exceptions, trusts
from ciming.db import models, pending

LOG = log.getLogger(__name__)
PATIENCE_MS = 60_000        # after which a trust that was announced is looked for,
TOO_LATE_MS = 3600_000      # and after which it will not come any more


def delete() -> None:
    """Delete them. Those that Keystone does not delete now are there the next time."""
    for pending_id, trust_id in pending.condemned():
        if trusts.delete(trust_id):
            pending.forget(pending_id)
    lost = pending.lost(models.now() - PATIENCE_MS)
    if not lost:
        return
    try:
        given = trusts.given()
    except exceptions.Unavailable as error:
        LOG.warning("Trusts that are in no Job can not be looked for now: %s", error)
        return
    for likeness, trust_ids in _alike(lost, given).items():
        _delete(likeness, trust_ids)


def _alike(
    lost: Sequence[pending.Likeness], given: Sequence[trusts.Trust]
) -> Mapping[pending.Likeness, list[str]]:
    """For each likeness, ids of the trusts that have it."""
    found: dict[pending.Likeness, list[str]] = {likeness: [] for likeness in lost}
    for trust in given:
        expires_at = int(trust.expires_at.timestamp()) * 1000
        likeness = pending.Likeness(trust.trustor_user_id, trust.project_id, expires_at)
        if likeness in found:
            found[likeness].append(trust.id)
    return found


def _delete(likeness: pending.Likeness, trust_ids: list[str]) -> None:
    """Delete those that are in no Job. First it is made sure that they will come into none."""
    announced = pending.doom(likeness)
    if not announced:
        return      # it is in a Job after all
    nameless = pending.nameless(trust_ids)
    deleted = [trust_id for trust_id in nameless if trusts.delete(trust_id)]
    if deleted:
        LOG.info("Deleted trusts of Jobs that never came to be: %s", deleted)
    if len(deleted) >= announced:
        pending.forget_like(likeness)
    elif not nameless:      # one may be on its way still
        pending.forget_like(likeness, before=models.now() - TOO_LATE_MS)
