# SPDX-License-Identifier: Apache-2.0
"""Which Links of an Image somebody means."""

import pytest

from ciming import exceptions
from ciming.api import orders
from ciming.db import models

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
