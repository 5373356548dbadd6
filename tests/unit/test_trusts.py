# SPDX-License-Identifier: Apache-2.0
"""Whose login is used again for what; nobody is asked for anything here.

In a process of its own: the options of a login, once registered, are wanted at each load.
"""

import pathlib
import subprocess
import sys

from tests.sandbox import processes

CONF = """
[service_user]
auth_type = password
auth_url = http://127.0.0.1:1/v3
username = ciming
password = swordfish
user_domain_id = default
[engine]
max_jobs = 3
"""
BEGIN = """
import sys
from ciming import cmd, config, trusts

config.load(["--config-file", sys.argv[1]], prog="test-trusts")
"""


KEYSTONE = """
from keystoneauth1 import exceptions as ks_exceptions
from oslo_config import cfg
from tests.unit.keystone import Keystone

keystone = Keystone()
trusts.service_session()        # or the option is not known
cfg.CONF.set_override("auth_url", f"{keystone.url}/v3", group="service_user")
"""


def check(folder: pathlib.Path, script: str) -> None:
    conf = folder / "ciming.conf"
    conf.write_text(CONF)
    command = [sys.executable, "-c", BEGIN + script, str(conf)]
    done = subprocess.run(
        command, env=processes.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_each_session_has_a_login_of_its_own_that_begins_with_the_last_token(tmp_path: pathlib.Path) -> None:
    check(
        tmp_path,
        """
first, second, other = trusts.session("one"), trusts.session("one"), trusts.session("two")
assert len({first.auth, second.auth, other.auth}) == 3
token = other.auth.auth_ref = object()      # as if Keystone had let it in
third, fourth = trusts.session("one"), trusts.session("two")
assert third.auth.auth_ref is None and fourth.auth.auth_ref is token
assert fourth.auth.invalidate() and other.auth.auth_ref is token
deleting = trusts._again("one")
assert deleting.auth is third.auth and deleting.session is not third.session
assert trusts._again("one").auth not in (first.auth, second.auth, third.auth, other.auth)
assert trusts._again("two").auth is fourth.auth
""",
    )


def test_no_more_logins_are_kept_than_jobs_run(tmp_path: pathlib.Path) -> None:
    check(
        tmp_path,
        """
sessions = {name: trusts.session(name) for name in "abcde"}
found = [trusts._again(name).auth is sessions[name].auth for name in "abcde"]
assert found == [False, False, True, True, True]
""",
    )


def test_where_keystone_is_is_not_waited_for_longer_than_wanted(tmp_path: pathlib.Path) -> None:
    check(
        tmp_path,
        """
import socket
import time
from keystoneauth1 import exceptions as ks_exceptions
from oslo_config import cfg

silent = socket.create_server(("127.0.0.1", 0))     # takes calls, and never answers
url = f"http://127.0.0.1:{silent.getsockname()[1]}/v3"
trusts.service_session()        # or the option is not known
cfg.CONF.set_override("auth_url", url, group="service_user")
made = trusts.token_session("a token")
assert made.timeout == 300
made.timeout = 0.2
since = time.monotonic()
try:
    made.auth.get_auth_ref(made)
except ks_exceptions.ClientException:
    assert time.monotonic() - since < 20
else:
    raise AssertionError
""",
    )


def test_a_keystone_that_stumbles_is_asked_again_where_its_trusts_are(tmp_path: pathlib.Path) -> None:
    """Nothing is sent to an address without a version: a 404 from there would say that a trust is gone."""
    check(
        tmp_path,
        KEYSTONE
        + """
from datetime import UTC, datetime
from ciming import context, exceptions

found, keystone.answers["GET "] = keystone.answers["GET "], (503, {})
keystone.answers["DELETE /v3/OS-TRUST/trusts/one"] = 204, None
caller = context.RequestContext(auth_token="token", user_id="alice", project_id="studio")
try:
    trusts.auth_url()
except ks_exceptions.DiscoveryFailure:
    pass
else:
    raise AssertionError
assert trusts.delete("one") is False
assert trusts.take_back(caller, "one") is False
for ask in (trusts.given, lambda: trusts.create(caller, datetime.now(UTC))):
    try:
        ask()
    except exceptions.Unavailable:
        pass
    else:
        raise AssertionError
assert not [asked for asked in keystone.asked if "OS-TRUST" in asked]

keystone.answers["GET "] = found
assert trusts.auth_url() == f"{keystone.url}/v3"
assert trusts.delete("one") and trusts.take_back(caller, "one")
assert keystone.asked.count("DELETE /v3/OS-TRUST/trusts/one") == 2
""",
    )


def test_a_trust_that_is_there_but_can_not_be_used_is_not_taken_for_gone(tmp_path: pathlib.Path) -> None:
    """As where its project is disabled, for a while: Keystone lets nobody in by it, as if it were gone."""
    check(
        tmp_path,
        KEYSTONE
        + """
def is_gone(login, delete=(204, None), listed=(200, None), **given):
    trusts._LOGINS.clear()
    keystone.answers["POST /v3/auth/tokens under a trust"] = login
    keystone.answers["DELETE /v3/OS-TRUST/trusts/one"] = delete
    keystone.give(**given)
    if listed[0] != 200:
        keystone.answers["GET /v3/OS-TRUST/trusts"] = listed
    return trusts.delete("one")

let_in = keystone.answers["POST /v3/auth/tokens"]
for refused in ((401, {}), (404, {})):
    assert is_gone(refused, trust_ids=["two"])
    assert is_gone(refused, trust_ids=["one"], ends_in=-1)
    assert not is_gone(refused, trust_ids=["one", "two"])
    assert not is_gone(refused, trust_ids=[], listed=(503, {}))
assert is_gone(let_in, delete=(404, {}), trust_ids=[])
assert not is_gone(let_in, delete=(404, {}), trust_ids=["one"])
assert not is_gone((403, {}), trust_ids=[])
assert is_gone(let_in, trust_ids=[])
keystone.answers["POST /v3/auth/tokens"] = 401, {}      # our own login is wrong
assert not is_gone((401, {}), trust_ids=[])
""",
    )
