# SPDX-License-Identifier: Apache-2.0
"""What the tools of a Target tell its provider."""

from typing import Any

import pytest
from oslo_db import exception as db_exceptions

from ciming import exceptions, staging
from ciming.engine import target_tools

TIB = 1 << 40


class Provider:
    """Takes some formats, and notes what it is asked of."""

    def __init__(self, formats: tuple[str, ...]) -> None:
        self.formats = formats
        self.asked: list[tuple[str, int, int]] = []

    def check(self, staged: staging.StagedFile) -> None:
        self.asked.append((staged.disk_format, staged.size, staged.virtual_size))


@pytest.mark.parametrize(
    ("formats", "asked"),
    [
        (("raw",), ("raw", 2 * TIB, 2 * TIB)),
        (("vmdk", "qcow2"), ("qcow2", 512, 2 * TIB)),
        (("qcow2", "raw"), ("qcow2", 512, 2 * TIB)),
    ],
)
def test_what_is_to_be_converted_is_checked_as_what_it_becomes(
    formats: tuple[str, ...], asked: tuple[str, int, int]
) -> None:
    """A small file may be a large disk; whether a cloud has room for that is known before it is converted."""
    kit: Any = target_tools.TargetTools.__new__(target_tools.TargetTools)
    kit._source = staging.StagedFile("", "qcow2", 512, 2 * TIB, {})
    kit.__dict__["provider"] = Provider(formats)
    kit._check_source()
    assert kit.provider.asked == [asked]


def test_a_database_that_is_away_in_the_midst_of_a_step_ends_no_target() -> None:
    """A registered Cloud is read from there."""
    kit: Any = target_tools.TargetTools.__new__(target_tools.TargetTools)
    told: list[exceptions.CimingError] = []

    def broken() -> None:
        raise db_exceptions.DBConnectionError

    with pytest.raises(exceptions.Interrupted, match="database"):
        kit._until_final("check", broken, lambda error, _final: told.append(error), lambda: None)
    assert not told
