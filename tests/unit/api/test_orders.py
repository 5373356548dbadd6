# SPDX-License-Identifier: Apache-2.0
"""What somebody who asks for a Job means, and is answered."""

import flask
import pytest

from ciming import exceptions
from ciming.api import orders
from ciming.db import models, session
from tests.unit import rows

ZONE = models.Link(cloud_key="east", cloud="east", provider="openstack", region="east", image_ref="a")
REGISTERED = models.Link(cloud_key="1234", cloud="east", provider="openstack", region="One", image_ref="b")


@pytest.mark.parametrize("links", [[ZONE, REGISTERED], [REGISTERED, ZONE]])
def test_a_zone_comes_before_a_cloud_of_its_name(links: list[models.Link]) -> None:
    """As everywhere else; the other one has an id."""
    image = models.Image(id="image", links=links)
    assert orders.linked(image, ["east"]) == [ZONE]
    assert orders.linked(image, ["1234"]) == [REGISTERED]
    assert orders.linked(image, ["1234", "east", "east"]) == [REGISTERED, ZONE]
    with pytest.raises(exceptions.NotFound):
        orders.linked(image, ["west"])


def test_who_deleted_an_image_is_answered_by_it(database: rows.Database) -> None:
    """The Job may be faster than its answer."""
    job = rows.make_job()
    with session.writer() as writing:
        writing.get_one(models.Image, job.image_id).deleted_at = models.now()
    with flask.Flask("orders").test_request_context():
        answer, status, _headers = orders.started(job.image_id, job.id)
    assert (answer["image"].id, answer["job"].id, status) == (job.image_id, job.id, 202)
