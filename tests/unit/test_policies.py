# SPDX-License-Identifier: Apache-2.0
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml
from oslo_config import cfg
from oslo_policy import policy

from ciming import context, exceptions, policies
from ciming.api import app

ROOT = pathlib.Path(__file__).parents[2]
PUBLIC = {("GET", "/"), ("GET", "/v1"), ("OPTIONS", "/v1/images/{image}/file")}
READS = {
    *("cloud:list", "cloud:show", "cloud:images", "image:list", "image:show", "image:availability"),
    *("job:list", "job:show"),
}
WRITES = {
    *("cloud:create", "cloud:update", "cloud:delete", "cloud:check"),
    *("image:create", "image:upload", "image:update", "image:delete"),
    *("image:sync", "image:link", "image:unlink", "zone_sync:create"),
    *("job:cancel", "job:retry", "job:resume"),
}
ADMINS = {
    *("cloud:public", "all_projects", "image:list:all_projects", "job:list:all_projects"),
    "zone_sync:everything",
}


@pytest.fixture(autouse=True)
def _own_enforcer(conf: cfg.ConfigOpts) -> Iterator[None]:
    policies.get_enforcer.cache_clear()
    yield
    policies.get_enforcer.cache_clear()


def caller(*roles: str, project_id: str | None = "studio") -> context.RequestContext:
    return context.RequestContext(roles=list(roles), project_id=project_id, user_id="alice")


def allowed(rule: str, who: context.RequestContext) -> bool:
    try:
        policies.authorize(f"ciming:{rule}", who)
    except exceptions.Forbidden as error:
        assert rule in error.detail or "project" in error.detail
        return False
    return True


def test_every_rule_is_documented() -> None:
    for rule in policies.list_rules():
        assert rule.name.startswith("ciming:")
        assert rule.description and rule.description.endswith(".")
    for rule in policies.RULES:
        assert isinstance(rule, policy.DocumentedRuleDefault)
        assert rule.operations
        assert rule.scope_types == ["project"]


def test_every_operation_has_one_rule() -> None:
    document = app.create_flask_app().test_client().get("/v1/openapi.json").get_json()
    served = {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if method != "parameters"
    }
    ruled = [
        (operation["method"], operation["path"])
        for rule in policies.RULES
        if rule.name.removeprefix("ciming:") not in ADMINS     # what they add to another rule
        for operation in rule.operations
    ]
    assert len(set(ruled)) == len(ruled)
    assert set(ruled) == served - PUBLIC


@pytest.mark.parametrize(
    ("roles", "may"),
    [
        ((), set()),
        (("reader",), READS),
        (("member",), WRITES),      # Keystone's member implies reader; a token names both
        (("member", "reader"), READS | WRITES),
        (("admin",), READS | WRITES | ADMINS),
        (("service",), set()),
        (("Auditor",), set()),
    ],
)
def test_who_may_what(roles: tuple[str, ...], may: set[str]) -> None:
    rules = {rule.name.removeprefix("ciming:") for rule in policies.RULES}
    assert rules == READS | WRITES | ADMINS
    assert {rule for rule in rules if allowed(rule, caller(*roles))} == may


@pytest.mark.parametrize("roles", [("admin",), ("member", "reader")])
def test_a_token_without_a_project_may_nothing(roles: tuple[str, ...]) -> None:
    for rule in READS | WRITES | ADMINS:
        assert not allowed(rule, caller(*roles, project_id=None))
    system = context.RequestContext(roles=list(roles), system_scope="all")
    assert not allowed("image:list", system)


def test_an_operators_file_wins(conf: cfg.ConfigOpts, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump({"ciming:image:create": "role:publisher"}))
    conf.set_override("policy_file", str(file), group="oslo_policy")
    try:
        assert allowed("image:create", caller("publisher"))
        assert not allowed("image:create", caller("member"))
        assert allowed("image:list", caller("reader"))
    finally:
        conf.clear_override("policy_file", group="oslo_policy")


def test_sample(tmp_path: pathlib.Path) -> None:
    sample = tmp_path / "policy.yaml.sample"
    program = pathlib.Path(sys.executable).parent / "oslopolicy-sample-generator"
    command = [str(program), "--namespace", "ciming", "--output-file", str(sample)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    text = sample.read_text()
    for rule in policies.list_rules():
        assert f'#"{rule.name}": "{rule.check_str}"' in text
