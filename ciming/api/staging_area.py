# SPDX-License-Identifier: Apache-2.0
"""The API's view of the staging area: what may come in, and until when."""

import functools

from oslo_config import cfg

from ciming import exceptions, staging
from ciming.db import models


@functools.cache
def get() -> staging.StagingArea:
    return staging.open_area(cfg.CONF.staging)


def room(held: int, coming: int) -> int:
    """Bytes that may still come, where so many are held or promised, and so many of those to come."""
    return get().room(held=held, coming=coming)


def expiry() -> int:
    """When an upload from which no more bytes come is given up, in ms since the epoch."""
    return models.now() + int(cfg.CONF.staging.upload_expiry) * 1000


def check_size(size: int) -> None:
    """:raises InvalidRequest: more bytes than any image may have"""
    largest = cfg.CONF.staging.max_image_size
    if size > largest:
        raise exceptions.InvalidRequest(
            f"An image may have at most {largest} bytes.", code="image.too_large", field="size"
        )
