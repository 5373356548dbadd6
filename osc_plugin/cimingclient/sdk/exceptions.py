# SPDX-License-Identifier: Apache-2.0
"""What can go wrong on this side of the wire; all else is openstacksdk's and keystoneauth's."""

from openstack import exceptions


class SourceError(exceptions.SDKException):
    """The bytes to upload could not be read, or not a second time."""


class CacheError(exceptions.SDKException):
    """What is kept cannot be used, or cannot be kept."""


class NothingKept(CacheError):
    """Nothing of the kind was kept yet."""


class QueryError(exceptions.SDKException):
    """A filter or an order of what is kept cannot be understood."""
