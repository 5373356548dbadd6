# SPDX-License-Identifier: Apache-2.0
"""Can a Cloud be used? Answered while somebody waits, so within seconds, whatever the Cloud does."""

import dataclasses
import threading
from typing import Any

from oslo_config import cfg
from oslo_log import log

from ciming import custody, exceptions, rpc, sealing
from ciming.db import models
from ciming.engine import hanging, locating, slots, tools
from ciming.providers import base

LOG = log.getLogger(__name__)
PATIENCE = 20.0     # seconds
REMOVAL_SECONDS = 20.0  # between two hang-ups after that: what was created is to be removed meanwhile
SLOTS = slots.Slots(slots.Limits(32, per_project=8))    # of one engine, for those too that hang
TOO_MANY = "CIMinG checks too many Clouds now, for your project or for all. Try again later."


def check(
    project_id: str, bundle: sealing.Bundle, place: dict[str, Any], patience: float = PATIENCE
) -> rpc.Verdicts:
    """What works and what does not, in the order in which it was tried.

    :param bundle: of whoever asks, as whom it is looked
    :param place: the fields of a Place
    """
    job = models.Job(id=models.new_id(), project_id=project_id)     # of no row
    found: list[base.Verdict] = []
    cloud: list[base.Provider] = []
    slot = SLOTS.slot(project=project_id)

    def ask() -> None:
        try:
            custody.hold(job.id, bundle)
            hurry = cfg.CONF.engine.look_timeout    # until there is a provider, nobody can be hung up on
            cloud.append(tools.provider_of(job, locating.Place(**place), hurry))
            found.append(base.Verdict("credential", True, "It is there."))
            for verdict in cloud[0].probe():
                found.append(verdict)       # one by one: what there is by then is told
        except exceptions.CimingError as error:
            found.append(base.Verdict("credential", False, error.detail))
        except Exception:       # its text may hold anything: for the log only
            LOG.exception("Unexpected error in a check of %s", place["cloud"])
            found.append(base.Verdict("check", False, "Something in CIMinG went wrong."))
        finally:
            custody.drop(job.id)
            slot.free()

    asking = threading.Thread(target=ask, name="check", daemon=True)
    try:
        slot.take(_too_many)
        asking.start()
    except (exceptions.Unavailable, RuntimeError) as error:     # or there can be no more threads
        LOG.warning("Can not check %s now: %s", place["cloud"], error)
        slot.free()
        return [dataclasses.asdict(base.Verdict("check", False, TOO_MANY))]
    asking.join(patience)
    told = list(found)
    if asking.is_alive():
        silence = f"{place['cloud']} did not answer within {patience:.0f} s."
        told.append(base.Verdict("answer", False, silence))
        hanging.hang_up(asking, lambda: cloud, REMOVAL_SECONDS)
    return [dataclasses.asdict(each) for each in told]


def _too_many() -> None:
    """Nobody waits for a slot."""
    raise exceptions.Unavailable(TOO_MANY)
