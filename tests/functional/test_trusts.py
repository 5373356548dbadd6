# SPDX-License-Identifier: Apache-2.0
"""What CIMinG relies on in Keystone's trusts, in a process with the engine's configuration."""

import json
import subprocess
import sys

from tests.person import Person
from tests.sandbox import ciming, processes

BEGIN = """
import json, os, sys
from datetime import UTC, datetime, timedelta

from ciming import cmd, config, context, trusts
from ciming.api import delegation
from ciming.db import models, pending

config.load(["--config-file", sys.argv[1]], prog="test-trusts")
caller = context.RequestContext(**json.loads(os.environ["CALLER"]))
at = datetime.now(UTC).replace(microsecond=123456) + timedelta(hours=1)
"""
ONE_AT_A_TIME = """
first = trusts.create(caller, at)
try:
    trusts.create(caller, at)
except trusts.Taken:
    print("taken")
[seen] = [trust for trust in trusts.given() if trust.id == first]
print(seen.trustor_user_id == caller.user_id, seen.project_id == caller.project_id)
print(seen.expires_at == at.replace(microsecond=0))
print(trusts.delete(first), trusts.delete(first), first in [trust.id for trust in trusts.given()])
print(trusts.take_back(caller, first))
"""
ONE_LOGIN = """
from keystoneauth1.identity.v3 import Password

asked = []
log_in = Password.get_auth_ref

def counted(self, session):
    asked.append(self)
    return log_in(self, session)

Password.get_auth_ref = counted
first = trusts.create(caller, at)
second = trusts.create(caller, at + timedelta(seconds=1))
asked.clear()
print(trusts.session(first).get_project_id() == caller.project_id, len(asked))
print(bool(trusts.session(first).get_token()), len(asked))
print(trusts.delete(first), len(asked))
print(trusts.delete(second), len(asked))

third = trusts.create(caller, at + timedelta(seconds=2))
session = trusts.session(third)
session.get_token()
trusts.take_back(caller, third)     # and what Keystone told before is worth nothing
print(trusts.delete(third), third in [trust.id for trust in trusts.given()])
"""
ALL_AT_ONE_MOMENT = """
class Stopped(datetime):
    @classmethod
    def now(cls, tz=None):
        return at

delegation.datetime = Stopped
try:
    with delegation.delegated(caller, {}) as one, delegation.delegated(caller, {}) as two:
        made = [trust for trust in trusts.given() if trust.id in (one.trust.id, two.trust.id)]
        print(len(made), len({trust.expires_at for trust in made}))
        print(len(pending.lost(models.now() + 1)))
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print(len(trusts.given()) , len(pending.lost(models.now() + 1)))
"""


def run(service: ciming.Ciming, member: Person, script: str) -> list[str]:
    """What a script says that has the member's token."""
    caller = {"auth_token": member.token(), "user_id": member.user_id, "project_id": member.project_id}
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script, str(service.config_files[-1])],
        env=processes.environment(CALLER=json.dumps(caller)),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_a_trust_looks_like_and_that_it_may_be_deleted_twice(
    service: ciming.Ciming, member: Person
) -> None:
    """So that a process may die between any two of these steps."""
    assert run(service, member, ONE_AT_A_TIME) == [
        "taken",
        "True True",
        "True",
        "True True False",
        "True",
    ]


def test_who_has_logged_in_deletes_without_another_login(service: ciming.Ciming, member: Person) -> None:
    assert run(service, member, ONE_LOGIN) == ["True 1", "True 1", "True 1", "True 2", "True False"]


def test_two_trusts_at_the_same_moment(service: ciming.Ciming, member: Person) -> None:
    """Keystone lets them not have the same end; what nobody wants is taken back."""
    before = len(member.trusts())
    assert run(service, member, ALL_AT_ONE_MOMENT) == ["2 2", "2", f"{before} 0"]
    assert len(member.trusts()) == before
