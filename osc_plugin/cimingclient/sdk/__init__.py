# SPDX-License-Identifier: Apache-2.0
"""The openstacksdk service `multicloud`::

    conn = openstack.connect(cloud="mine")
    multicloud = cimingclient.sdk.add_to(conn).multicloud
    image, job = multicloud.create_image(name="demo", clouds=["zone-a", "zone-b"])
    multicloud.upload_image(image, "demo.qcow2")
    job = multicloud.wait_for_job(job)

Lists, finds and gets are those of any openstacksdk service.
"""

from typing import TYPE_CHECKING, Any

from openstack import connection, service_description

from cimingclient.sdk import _proxy

if TYPE_CHECKING:
    _Description = service_description.ServiceDescription[_proxy.Proxy]
else:
    # Older releases of openstacksdk have no parameter there.
    _Description = service_description.ServiceDescription


class MulticloudService(_Description):
    """Found in the catalog under its service type; the API's versions under its URL."""

    supported_versions = {"1": _proxy.Proxy}


def add_to(conn: connection.Connection) -> Any:
    """Give a connection the attribute `multicloud`, and return the connection.

    Costs no request; doing it again changes nothing.
    """
    conn.add_service(MulticloudService("multicloud"))
    return conn
