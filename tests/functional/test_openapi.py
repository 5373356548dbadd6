# SPDX-License-Identifier: Apache-2.0
"""Everything that the OpenAPI document allows, and much that it forbids, against the real service."""

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import TOLD
from tests.functional.conftest import soon
from tests.person import Person
from tests.sandbox import ciming, processes, sandbox

ALL = "CIMING_TEST_ALL" in os.environ
Record = Callable[[str, object], None]
EXAMPLES = 100 if ALL else 10
SEED = () if ALL else ("--seed", "1")       # the long run sees something else each time
PHASES = ("examples", "coverage", "fuzzing", "stateful")
TOOL = pathlib.Path(sys.executable).parent / "schemathesis"
OPTIONS = {
    ("staging", "keep_free"): "0",
    ("staging", "max_image_size"): str(1 << 30),        # more is a 400, and no 507 of a small disk
    ("staging", "upload_expiry"): "5",                  # nobody sends what was announced
    ("engine", "housekeeping_interval"): "1",
}
CONFIG = """
headers = { X-Auth-Token = "${TOKEN}" }
hooks = "hooks.py"

[checks]
negative_data_rejection.expected-statuses = ["4xx"]
missing_required_header.expected-statuses = ["4xx"]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "410"]

# Whether a marker, Cloud or zone is known, whether a body is as long as was announced, and that it has to
# say something, no schema says.
[[operations]]
include-operation-id = [
    "list_images", "list_jobs", "list_availability", "list_cloud_images", "create_image", "upload_image",
    "sync_image", "link_image", "update_image", "create_cloud", "update_cloud", "retry_job", "resume_job",
    "sync_zones",
]
[operations.checks]
positive_data_acceptance.enabled = false

# It has headers of its own, so that others, which are none of its business, count as wrong.
[[operations]]
include-operation-id = ["continue_upload"]
[operations.checks]
positive_data_acceptance.enabled = false
negative_data_rejection.enabled = false

# What may be done with uploads is the same for all, also for those that are gone.
[[operations]]
include-operation-id = ["show_upload_options"]
[operations.checks]
use_after_free.enabled = false
"""
HOOKS = """
import schemathesis

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")


@schemathesis.hook
def before_call(context, case, kwargs):
    # Of an image that nobody tracks, `image` is null: followed as a link, that is no id.
    case.path_parameters = {
        name: "00000000-0000-4000-8000-000000000000" if value == "None" else value
        for name, value in (case.path_parameters or {}).items()
    }
"""


@pytest.fixture(scope="module")
def own(cloud: sandbox.Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ciming.Ciming]:
    """A service that may be left with what nobody wants; its trusts are gone at the end."""
    folder = tmp_path_factory.mktemp("openapi")
    port = processes.free_block(str(folder))
    with ciming.Ciming(cloud, folder, OPTIONS, port=port) as service:
        yield service
        administrator = Person(cloud, "admin", service.url)
        waiting = {"status": "nin:success,partial,error,cancelled", "all_projects": "true"}
        soon(lambda: administrator.get("/v1/jobs", params=waiting).json() == {"jobs": [], "links": []}, 30)


OTHERS = [pytest.param(who, marks=pytest.mark.with_all) for who in ("reader", "admin", None)]


@pytest.mark.parametrize("who", ["member", *OTHERS])
def test_every_answer_is_in_the_document(
    own: ciming.Ciming, tmp_path: pathlib.Path, record_property: Record, who: str | None
) -> None:
    """schemathesis: no answer from 500 on, and each of a status, type, headers and shape that is said."""
    person = Person(own.sandbox, who, own.url) if who else None
    output = run(own, person.token() if person else None, tmp_path)
    summary = output[output.index("= SUMMARY =") :]
    record_property(TOLD, f"schemathesis as {who or 'nobody'}: {summary}")
    assert output.endswith("rc 0"), output
    document = (person or Person(own.sandbox, "member", own.url)).get("/v1/openapi.json").json()
    operations = sum(len(methods.keys() - {"parameters"}) for methods in document["paths"].values())
    assert f"Tested: {operations}\n" in summary
    generated, passed = re.search(r"(\d+) generated, (\d+) passed", summary).groups()  # type: ignore[union-attr]
    assert int(generated) == int(passed) > 20 * operations, summary
    if person and who != "reader":
        mine = {image["project_id"] for image in person.get("/v1/images").json()["images"]}
        assert person.project_id in mine, "not one Image was created"


def run(service: ciming.Ciming, token: str | None, folder: pathlib.Path) -> str:
    """Its output; `rc` and the exit status come last."""
    phases = PHASES if token else PHASES[:2]        # what is always a 401 needs no variety
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    (folder / "hooks.py").write_text(HOOKS)
    command = [
        *(str(TOOL), "--config-file", str(config), "run", f"{service.url}/v1/openapi.json"),
        *("--max-examples", str(EXAMPLES), "--generation-database", "none", "--no-color", *SEED),
        *("--phases", ",".join(phases)),
    ]
    done = subprocess.run(
        command,
        cwd=folder,
        env=processes.environment(TOKEN=token or "", COLUMNS="100"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800 if ALL else 240,
        check=False,
    )
    return f"{done.stdout}\nrc {done.returncode}"
