# SPDX-License-Identifier: Apache-2.0
import pathlib
import re

import pytest

import ciming
from ciming import exceptions
from ciming.api import errors as api_errors

SOURCE = pathlib.Path(ciming.__file__).parent
GUIDE = SOURCE.parent / "doc/source/user"
CODE = re.compile(r"[a-z_]+(\.[a-z_]+)*")


def _tree(root: type[exceptions.CimingError] = exceptions.CimingError) -> list[type[exceptions.CimingError]]:
    return [root, *(found for below in root.__subclasses__() for found in _tree(below))]


@pytest.mark.parametrize("kind", _tree())
def test_every_error_owns_its_answer(kind: type[exceptions.CimingError]) -> None:
    assert 400 <= kind.status < 600
    assert CODE.fullmatch(kind.code)
    assert kind.title


def test_codes_tell_errors_apart() -> None:
    """A provider's own kinds of them are for itself."""
    codes = [kind.code for kind in _tree() if kind.__module__ == exceptions.__name__]
    assert len(set(codes)) == len(codes)


def test_an_instance_may_narrow_the_code() -> None:
    error = exceptions.NotFound("No image x.", code="image.not_found", field="image")
    assert (str(error), error.detail, error.field) == ("No image x.", "No image x.", "image")
    assert (error.code, error.status) == ("image.not_found", 404)
    assert exceptions.NotFound("No x.").code == "not_found"


def test_the_clouds_own_request_id_is_kept() -> None:
    error = exceptions.TransientProviderError("Stumbled.", cloud_request_id="req-1")
    assert isinstance(error, exceptions.ProviderError)
    assert error.cloud_request_id == "req-1"
    assert exceptions.ProviderError("No.").cloud_request_id is None


@pytest.mark.parametrize("kind", [exceptions.Interrupted, exceptions.ClaimLost])
def test_an_interruption_is_no_error(kind: type[BaseException]) -> None:
    """TaskFlow reverts a flow for an Exception, and would delete a successor's work."""
    assert not issubclass(kind, Exception)
    assert issubclass(kind, exceptions.Interrupted)


def test_every_code_is_explained_to_users() -> None:
    code = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    given = set(re.findall(r'''code"?\]?(?:=|: | = )"([a-z]+\.[a-z_.]+)"''', code))
    given |= set(api_errors.CODES.values()) | {kind.code for kind in _tree() if "." in kind.code}
    guide = "".join(page.read_text() for page in GUIDE.glob("*.rst"))
    unexplained = {each for each in given if f"``{each}``" not in guide}
    assert len(given) > 30
    never_told = {"image.rejected", "job.cancelled", "trust.refused"}   # narrowed, or not answered
    assert unexplained == never_told
