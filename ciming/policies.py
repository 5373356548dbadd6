# SPDX-License-Identifier: Apache-2.0
"""The rules of who may do what, with their docs; authorize() opens every handler."""

import functools

from oslo_config import cfg
from oslo_policy import policy

from ciming import context, exceptions

READER = "rule:ciming:reader"
MEMBER = "rule:ciming:member"
ADMIN = "role:admin"

BASE_RULES = [
    policy.RuleDefault(
        "ciming:reader",
        "role:admin or (role:reader and project_id:%(project_id)s)",
        "May look at what the project has.",
    ),
    policy.RuleDefault(
        "ciming:member",
        "role:admin or (role:member and project_id:%(project_id)s)",
        "May create and change what the project has.",
    ),
]


def _rule(name: str, check: str, description: str, *operations: str) -> policy.DocumentedRuleDefault:
    return policy.DocumentedRuleDefault(
        f"ciming:{name}",
        check,
        description,
        [{"method": method, "path": path} for method, path in map(str.split, operations)],
        scope_types=["project"],
    )


RULES = [
    _rule("cloud:list", READER, "List the Clouds one may use.", "GET /v1/clouds"),
    _rule("cloud:show", READER, "Show a Cloud.", "GET /v1/clouds/{cloud}"),
    _rule("cloud:create", MEMBER, "Register a Cloud.", "POST /v1/clouds"),
    _rule("cloud:update", MEMBER, "Change a registered Cloud.", "PATCH /v1/clouds/{cloud}"),
    _rule("cloud:delete", MEMBER, "Delete a registered Cloud.", "DELETE /v1/clouds/{cloud}"),
    _rule("cloud:check", MEMBER, "Check whether a Cloud can be used.", "POST /v1/clouds/{cloud}/check"),
    _rule("cloud:images", READER, "List what is in a Cloud now.", "GET /v1/clouds/{cloud}/images"),
    _rule(
        "cloud:public",
        ADMIN,
        "Register, change and delete public Clouds, which all projects may use.",
        "POST /v1/clouds",
        *(f"{method} /v1/clouds/{{cloud}}" for method in ("PATCH", "DELETE")),
    ),
    _rule("image:create", MEMBER, "Create an Image.", "POST /v1/images"),
    _rule(
        "image:upload",
        MEMBER,
        "Send an Image's data, at once or in parts.",
        *(f"{method} /v1/images/{{image}}/file" for method in ("PUT", "HEAD", "PATCH", "DELETE")),
    ),
    _rule("image:list", READER, "List Images.", "GET /v1/images"),
    _rule("image:show", READER, "Show an Image.", "GET /v1/images/{image}"),
    _rule("image:update", MEMBER, "Change an Image, in its Clouds too.", "PATCH /v1/images/{image}"),
    _rule(
        "image:availability",
        READER,
        "See what Clouds have of Images now.",
        "GET /v1/availability",
        "GET /v1/images/{image}/availability",
    ),
    _rule("image:delete", MEMBER, "Delete an Image, in its Clouds too.", "DELETE /v1/images/{image}"),
    _rule("image:sync", MEMBER, "Bring an Image into more Clouds.", "POST /v1/images/{image}/clouds"),
    _rule("image:link", MEMBER, "Link what a Cloud has to an Image.", "POST /v1/images/{image}/links"),
    _rule("image:unlink", MEMBER, "Forget a Link.", "DELETE /v1/images/{image}/links/{cloud}"),
    _rule("zone_sync:create", MEMBER, "Sync zones: the images of one's project.", "POST /v1/zone-syncs"),
    _rule(
        "zone_sync:everything",
        ADMIN,
        "Sync the images of all projects. Who may do so delegates the roles of `[zone_sync] roles`.",
        "POST /v1/zone-syncs",
    ),
    _rule("job:list", READER, "List Jobs.", "GET /v1/jobs"),
    _rule("job:show", READER, "Show a Job.", "GET /v1/jobs/{job}"),
    _rule("job:cancel", MEMBER, "Cancel a Job.", "POST /v1/jobs/{job}/cancel"),
    _rule("job:retry", MEMBER, "Retry a Job.", "POST /v1/jobs/{job}/retry"),
    _rule("job:resume", MEMBER, "Resume a Job that waits for credentials.", "POST /v1/jobs/{job}/resume"),
    *(
        _rule(
            f"{noun}:list:all_projects",
            ADMIN,
            f"List the {noun.title()}s of all projects.",
            f"GET /v1/{noun}s?all_projects=true",
        )
        for noun in ("image", "job")
    ),
    _rule(
        "all_projects",
        ADMIN,
        "Show an Image or a Job of any project, by its id.",
        *(f"GET /v1/{noun}s/{{{noun}}}" for noun in ("image", "job")),
    ),
]


def list_rules() -> list[policy.RuleDefault]:
    return [*BASE_RULES, *RULES]


@functools.cache
def get_enforcer() -> policy.Enforcer:
    enforcer = policy.Enforcer(cfg.CONF)
    enforcer.register_defaults(list_rules())
    return enforcer


def allowed(rule: str, caller: context.RequestContext) -> bool:
    target = {"project_id": caller.project_id}
    return bool(get_enforcer().authorize(rule, target, caller))


def authorize(rule: str, caller: context.RequestContext) -> None:
    """May the caller do this in the project of their token?

    Rows are scoped by project where they are looked up: another project's are not found.

    :raises Forbidden: no, or the token has no project
    """
    if not caller.project_id:
        raise exceptions.Forbidden("This call needs a token that is scoped to a project.")
    try:
        if allowed(rule, caller):
            return
    except policy.InvalidScope:
        pass
    raise exceptions.Forbidden(f"The policy {rule} does not allow this for your roles.")
