# SPDX-License-Identifier: Apache-2.0
"""Can a Cloud be used? Answered while somebody waits, so within seconds, whatever the Cloud does."""

import dataclasses
import threading
from typing import Any

from oslo_config import cfg
from oslo_log import log

from ciming import custody, exceptions, rpc, sealing
from ciming.db import models
from ciming.engine import locating, tools
from ciming.providers import base

LOG = log.getLogger(__name__)
PATIENCE = 20.0     # seconds


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

    asking = threading.Thread(target=ask, name="check", daemon=True)
    asking.start()
    asking.join(patience)
    told = list(found)
    if asking.is_alive():
        silence = f"{place['cloud']} did not answer within {patience:.0f} s."
        told.append(base.Verdict("answer", False, silence))
        for each in cloud:
            each.hang_up()
    return [dataclasses.asdict(each) for each in told]
