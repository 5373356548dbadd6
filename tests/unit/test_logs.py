# SPDX-License-Identifier: Apache-2.0
"""What a log line says of the Job and the request it belongs to, as text and as JSON."""

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from oslo_config import cfg
from oslo_log import formatters
from oslo_log import log as oslo_log

from ciming import config, context
from ciming.api import app, auth, middleware

JOB = "67ba1d7e-0000-4000-8000-00000000000a"
OTHER = "67ba1d7e-0000-4000-8000-00000000000b"
CALLER = {
    "HTTP_X_IDENTITY_STATUS": "Confirmed",
    "HTTP_X_USER_ID": "alice",
    "HTTP_X_PROJECT_ID": "studio",
    "HTTP_X_ROLES": "member,reader",
    "openstack.request_id": "req-of-the-caller",
}
Lines = Callable[[], list[str]]


@pytest.fixture(params=["text", "json"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def lines(conf: cfg.ConfigOpts, kind: str) -> Iterator[Lines]:
    """What any library logged."""
    context.forget()    # of other tests
    own = cfg.ConfigOpts()      # the global one was read without the options of logging
    oslo_log.register_options(own)
    own([], default_config_files=[], default_config_dirs=[])
    formatter = formatters.JSONFormatter() if kind == "json" else formatters.ContextFormatter(config=own)
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(formatter)
    logger = logging.getLogger("anybody")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield lambda: written.getvalue().splitlines()
    logger.removeHandler(handler)
    context.forget()


def say(text: str) -> None:
    logging.getLogger("anybody").info(text)


def ids(line: str, kind: str) -> tuple[Any, Any]:
    """Request id and Job id of a line."""
    if kind == "json":
        found = json.loads(line)["context"]
        return found.get("request_id"), found.get("job_id")
    of_request = [word.strip("[]") for word in line.split() if word.startswith("req-")]
    of_job = line.partition("[job ")[2].partition("]")[0]
    return of_request[0] if of_request else None, of_job or None


def test_in_a_jobs_thread(lines: Lines, kind: str) -> None:
    say("before")
    context.for_job(JOB, "req-1", "alice", "studio")
    say("within")
    context.for_job(OTHER, "req-2")
    say("within another")
    context.forget()
    say("after")
    said = [ids(line, kind) for line in lines()]
    assert said == [(None, None), ("req-1", JOB), ("req-2", OTHER), (None, None)]


def test_threads_do_not_mix(lines: Lines, kind: str) -> None:
    def elsewhere() -> None:
        context.for_job(OTHER, "req-2")
        say("there")

    context.for_job(JOB, "req-1")
    other = threading.Thread(target=elsewhere)
    other.start()
    other.join()
    say("here")
    assert [ids(line, kind) for line in lines()] == [("req-2", OTHER), ("req-1", JOB)]


def test_a_request_begins_with_nothing_of_the_one_before(lines: Lines, kind: str) -> None:
    """Also where nobody has looked at its token yet."""
    context.for_job(JOB, "req-1", "alice")

    def served(_environ: object, _start_response: object) -> list[bytes]:
        say("a request")
        return []

    wrapped = middleware._logged(served, config.CONF)
    wrapped({"openstack.request_id": "req-2", "HTTP_X_USER_ID": "mallory"}, None)
    [line] = lines()
    assert ids(line, kind) == ("req-2", None)
    assert "alice" not in line and "mallory" not in line


@pytest.mark.parametrize(("path", "job_id"), [(JOB, JOB), (JOB.upper(), JOB), ("a%0Ab", None)])
def test_a_call_that_names_a_job(lines: Lines, kind: str, path: str, job_id: str | None) -> None:
    api = app.create_flask_app()

    @auth.needs("job:show")
    def look(job: str) -> dict[str, str]:
        say("looked")
        return {}

    api.add_url_rule("/v1/looks/<string:job>", "look", look)
    assert api.test_client().get(f"/v1/looks/{path}", environ_overrides=CALLER).status_code == 200
    assert [ids(line, kind) for line in lines()] == [("req-of-the-caller", job_id)]


def test_a_call_that_finds_its_job(lines: Lines, kind: str) -> None:
    api = app.create_flask_app()

    @auth.needs("image:upload")
    def upload() -> dict[str, str]:
        context.about(JOB)
        say("uploading")
        return {}

    api.add_url_rule("/v1/upload", "upload", upload)
    assert api.test_client().get("/v1/upload", environ_overrides=CALLER).status_code == 200
    [line] = lines()
    assert ids(line, kind) == ("req-of-the-caller", JOB)
    assert "alice" in line and "studio" in line


def test_no_token_is_in_a_line(lines: Lines, kind: str) -> None:
    context.RequestContext(auth_token="swordfish", service_catalog=[{"x": "tuna"}], job_id=JOB)
    say("something")
    [line] = lines()
    assert "swordfish" not in line and "tuna" not in line


def test_outside_of_a_request_there_is_nothing_to_add_to() -> None:
    context.forget()
    context.about(JOB)
    assert context.ids() == (None, None)
