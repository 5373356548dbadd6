# SPDX-License-Identifier: Apache-2.0
"""A whole upload at its end."""

import pathlib
from collections.abc import Iterator

import pytest
from oslo_config import cfg
from oslo_db import exception as db_exceptions

from ciming import exceptions, staging
from ciming.api import receiving, staging_area
from ciming.db import uploads


@pytest.mark.parametrize(
    ("error", "stays"),
    [(exceptions.Gone("It was given up."), False), (db_exceptions.DBConnectionError(), True)],
    ids=lambda value: type(value).__name__,
)
def test_bytes_stay_where_the_row_may_call_them_whole(
    conf: cfg.ConfigOpts,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    stays: bool,
) -> None:
    """The answer to a commit may be lost, and the commit be done."""
    area = staging.StagingArea(str(tmp_path), quota=0, keep_free=0)
    lease = uploads.Lease("job-1", 1, 3, 1 << 30)

    def body(_timeout: float) -> Iterator[bytes]:
        yield b"abc"

    def complete(*_: object) -> None:
        raise error

    monkeypatch.setattr(staging_area, "get", lambda: area)
    monkeypatch.setattr(receiving, "body", body)
    monkeypatch.setattr(uploads, "complete", complete)
    with pytest.raises(type(error)):
        receiving.whole(lease)
    assert area.upload_path("job-1", 1).exists() is stays
