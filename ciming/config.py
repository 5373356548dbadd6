# SPDX-License-Identifier: Apache-2.0
"""Every option of the service, with its help text."""

import ipaddress
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keystoneauth1 import loading as ks_loading
from oslo_config import cfg, types
from oslo_db import options as db_options
from oslo_log import log
from oslo_middleware import cors, healthcheck, http_proxy_to_wsgi
from oslo_policy import opts as policy_opts

from ciming import disk_image

# oslo.messaging reads some of its options from the global object only, so there is one.
CONF = cfg.CONF

GiB = 2**30
QUOTING = {
    "keystoneauth": logging.WARNING,        # requests and answers, whole
    "botocore": logging.INFO,               # the same of AWS, those with a role's credentials too
    "google": logging.INFO,                 # the same of Google, for whoever writes a record's own fields
    "urllib3.connection": logging.ERROR,    # of an answer, what is no header: it may repeat a token
    "urllib3.connectionpool": logging.INFO,     # URLs, one of which may be a part of a credential
}
"""Loggers, and the least level that they have here."""


FORMAT = "|".join(disk_image.DISK_FORMATS)

DEFAULT_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "state_path",
        default="/var/lib/ciming",
        help="Folder for what this host keeps between restarts: locks, and by default the "
        "SQLite database and the staging area.",
    ),
    cfg.BoolOpt(
        "use_keystone_limits",
        default=False,
        help="Do projects have limits, as registered in Keystone for this service: image_count_total, "
        "job_count_active, image_stage_total (MiB)? One that is not registered is 0. See [oslo_limit].",
    ),
]

API_OPTS: list[cfg.Opt] = [
    cfg.HostAddressOpt("bind_host", default="0.0.0.0", help="Address ciming-standalone listens on."),  # noqa: S104
    cfg.PortOpt("bind_port", default=9899, help="Port ciming-standalone listens on."),
    cfg.IntOpt(
        "threads",
        default=32,
        min=2,
        help="Requests that ciming-standalone serves at a time; an upload holds one as long as it "
        "lasts.",
    ),
    cfg.IntOpt(
        "max_uploads",
        default=24,
        min=1,
        help="Uploads that one process takes at a time; below `threads`, so that other calls get through.",
    ),
    cfg.IntOpt(
        "max_project_uploads",
        default=20,
        min=1,
        help="How many of them may be one project's, so that others get in however slow its clients are: at "
        "most all but one.",
    ),
    cfg.FloatOpt(
        "upload_timeout",
        default=60.0,
        min=1,
        help="Seconds without a byte after which a client's connection is given up: one that sends an "
        "image whole, or the head of any request.",
    ),
    cfg.IntOpt(
        "public_cloud_rate",
        default=1000,
        min=0,
        help="Jobs that each project may begin within an hour in one public Cloud; 0: as many as it likes.",
    ),
    cfg.IntOpt("max_targets", default=100, min=1, help="Clouds that one request may name at most."),
    cfg.StrOpt("pid_file", help="File into which ciming-standalone writes its process id."),
    cfg.IntOpt(
        "max_limit", default=1000, min=1, help="Largest page a list call gives, whatever was asked."
    ),
    cfg.IntOpt("default_limit", default=100, min=1, help="Page size where the caller names none."),
    cfg.IntOpt(
        "max_json_body",
        default=1024 * 1024,
        min=1024,
        help="Largest JSON request body in bytes; image data is not bound by it.",
    ),
]

STAGING_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "path",
        default="$state_path/staging",
        help="Folder for image bytes on their way. Its file system needs room for all images that "
        "are being uploaded at the same time.",
    ),
    cfg.IntOpt(
        "quota",
        default=0,
        min=0,
        help="Most bytes that all uploads may hold in the staging area together; 0: no limit but "
        "the disk.",
    ),
    cfg.IntOpt(
        "keep_free",
        default=GiB // 4,
        min=0,
        help="Bytes of the staging file system that CIMinG leaves free.",
    ),
    cfg.IntOpt(
        "max_image_size",
        default=1024 * GiB,
        min=1,
        help="Largest image file in bytes that an upload may hold.",
    ),
    cfg.IntOpt(
        "max_virtual_size",
        default=16 * 1024 * GiB,
        min=1,
        help="Largest virtual disk in bytes that an image may claim.",
    ),
    cfg.IntOpt(
        "retention",
        default=24 * 3600,
        min=0,
        help="Seconds for which the bytes and the spec of a Job that ended partial or in error are "
        "kept, so that it can be retried.",
    ),
    cfg.IntOpt(
        "upload_expiry",
        default=24 * 3600,
        min=1,
        help="Seconds after which an upload is given up when no further byte comes.",
    ),
]

ENGINE_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "coordination_url",
        default="file://$state_path/locks",
        secret=True,
        help="Where engines show that they live. file:///FOLDER: on one host, freed the moment an engine "
        "dies. For several hosts postgresql://, mysql:// (one server of MariaDB or MySQL, never Galera), "
        "etcd3+http://, etcd3+https:// or redis://, with USER:PASSWORD@HOST:PORT/DATABASE as far as the "
        "service has them. The same for all engines; ${database.connection} is the database itself.",
    ),
    cfg.IntOpt(
        "coordination_ttl",
        default=15,
        min=3,
        help="Seconds after which the coordination service takes an engine for dead that it hears nothing "
        "of: one that is cut off, or stopped. A third of it is between two signs of life. One that is "
        "killed is found out at once, but with etcd and Redis. file:// has no such time.",
    ),
    cfg.FloatOpt(
        "poll_interval",
        default=1.0,
        min=0.05,
        help="Seconds between looks for Jobs whose knock was lost or whose engine died.",
    ),
    cfg.FloatOpt(
        "housekeeping_interval",
        default=30.0,
        min=0.1,
        help="Seconds between looks for expired uploads, Jobs past their retention and left-over trusts.",
    ),
    cfg.IntOpt(
        "max_jobs",
        default=32,
        min=1,
        help="Jobs that one engine runs at a time. A quarter is kept from any one project, so that others "
        "do not wait while its Clouds hang.",
    ),
    cfg.IntOpt(
        "max_stages",
        default=2,
        min=1,
        help="Images that one engine looks at and hashes at a time; about as many as it may use cores.",
    ),
    cfg.IntOpt(
        "max_conversions",
        default=1,
        min=1,
        help="Images that one engine converts to another format at a time. Each takes about two cores.",
    ),
    cfg.IntOpt("max_transfers", default=16, min=1, help="Uploads to Clouds that one engine runs at a time."),
    cfg.IntOpt(
        "max_transfers_per_cloud", default=4, min=1, help="Those of them that go to the same Cloud."
    ),
    cfg.IntOpt(
        "max_transfers_per_project", default=8, min=1, help="Those of them that are for the same project."
    ),
    cfg.IntOpt(
        "large_image",
        default=4 * GiB,
        min=1,
        help="Bytes from which on an image is large: a quarter of `max_jobs`, `max_stages` and "
        "`max_transfers` is kept from large ones, so that small ones do not wait for them.",
    ),
    cfg.FloatOpt(
        "max_stall",
        default=20.0,
        min=3.0,
        help="Seconds for which an upload to a Cloud is held open without a byte, where the image is still "
        "on its way in. Then it is given up, and begins again when the image is whole. Must be below "
        "the timeouts of what is between CIMinG and the Clouds.",
    ),
    cfg.IntOpt(
        "max_attempts",
        default=10,
        min=1,
        help="Attempts at a step of a Target while the cloud's errors are of the passing kind.",
    ),
    cfg.FloatOpt(
        "retry_delay",
        default=1.0,
        min=0,
        help="Seconds before the second attempt; doubled for each further one, with jitter.",
    ),
    cfg.FloatOpt(
        "max_retry_delay", default=60.0, min=0, help="Longest wait in seconds between two attempts."
    ),
    cfg.FloatOpt(
        "look_timeout",
        default=10.0,
        min=0.1,
        max=25.0,
        help="Seconds for which a Cloud is waited for when somebody wants to see what it has now. Clouds are "
        "asked at the same time: one that takes longer is shown as unreachable, and delays no other. "
        "Keystone and Barbican are given up after as long without a byte, then and in a check of a Cloud.",
    ),
]

METRICS_OPTS: list[cfg.Opt] = [
    cfg.HostAddressOpt(
        "bind_host",
        default="127.0.0.1",
        help="Address on which an engine, or ciming-standalone, gives its metrics to Prometheus. There is no "
        "login: choose one that only those reach who may know how busy it is.",
    ),
    cfg.PortOpt("bind_port", default=0, help="Port of the same; 0: metrics are not served."),
]

TRUST_OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "roles",
        default=["member"],
        help="Roles that a caller delegates to the service for one Job. The caller must have them.",
    ),
    cfg.IntOpt(
        "expiry",
        default=7 * 24 * 3600,
        min=1,
        help="Seconds after which a trust ends by itself, whatever became of its Job. A trust is also "
        "found again by the moment at which it ends, so there is none without.",
    ),
    cfg.StrOpt(
        "trustee_user_id",
        help="Id of the engine's service user, to whom trusts are given. Not needed where the API "
        "has [service_user] itself, as ciming-standalone has.",
    ),
]

OPENSTACK_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "interface",
        default="public",
        choices=["public", "internal", "admin"],
        help="Endpoint interface through which Keystone and the zones' Glances are reached.",
    ),
    cfg.Opt(
        "zone_formats",
        type=types.Dict(types.String(regex=f"^({FORMAT})( +({FORMAT}))*$")),
        default={},
        help="Disk formats that zones are to get, best first, where these are fewer than their Glance takes: "
        "zone-b:raw,zone-c:raw qcow2. An image of another format is converted to the first of raw and qcow2 "
        "that is named. A Glance on Ceph wants raw, for example, as others can not be cloned there.",
    ),
    cfg.FloatOpt(
        "timeout",
        default=300.0,
        min=1,
        help="Seconds without any byte after which a call to Keystone or Glance is given up.",
    ),
]

ZONE_SYNC_OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "properties",
        default=["architecture", "hypervisor_type", "vm_mode", "hw_*", "os_*", "img_*", "trait:*"],
        help="Names of the image properties that a sync of zones carries and compares; * stands for any "
        "characters. Others stay as they are in each zone.",
    ),
    cfg.ListOpt(
        "roles",
        default=["admin"],
        help="Roles that an operator delegates for a sync of the images of all projects, in the project of "
        "their token. With a role of your own here, which the policies of the zones' Glances know, the "
        "service need not be given admin.",
    ),
    cfg.IntOpt(
        "parallel",
        default=8,
        min=1,
        help="Images of one sync that are under way at a time. Jobs that somebody waits for go first.",
    ),
    cfg.IntOpt(
        "max_per_project",
        default=20,
        min=1,
        help="Syncs of zones of one project that have not ended, those that wait for another one included. "
        "Each is a thread of an engine, which writes to the database every few seconds.",
    ),
    cfg.IntOpt(
        "max_images",
        default=10000,
        min=1,
        help="Images that a zone may have which is to be synced. Each takes some KiB of an engine's memory "
        "while the plan is made.",
    ),
]


class _Network(types.String):
    """As `192.0.2.0/24`."""

    def __call__(self, value: object) -> str:
        return str(ipaddress.ip_network(str(value)))


EGRESS_OPTS: list[cfg.Opt] = [
    cfg.BoolOpt(
        "allow_http",
        default=False,
        help="Whether Clouds that users register, and their catalogs, may have http:// addresses. "
        "Credentials go there, so they can be read on the way.",
    ),
    cfg.BoolOpt(
        "allow_loopback",
        default=False,
        help="Whether they may be on the host of the service itself: 127.0.0.0/8, ::1.",
    ),
    cfg.BoolOpt(
        "allow_private",
        default=True,
        help="Whether they may be in private networks: 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7 "
        "and what else is not reachable from everywhere. Without that, users can not have CIMinG ask hosts "
        "that they do not reach themselves. Link-local addresses and metadata services are refused always.",
    ),
    cfg.ListOpt(
        "forbidden",
        default=[],
        item_type=_Network(),
        help="Networks that they may not be in, besides: 198.51.100.0/24, 2001:db8::/32.",
    ),
    cfg.ListOpt(
        "token_urls",
        default=[],
        help="URLs at which a key of Google's may be exchanged for a token, beside Google's own. A key names "
        "one itself, and whoever is there can ask for tokens in the key's name.",
    ),
]

UPLOAD_HEADERS = ["Tus-Resumable", "Upload-Length", "Upload-Metadata", "Upload-Offset"]
CORS_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
CORS_ALLOWED = [
    *("X-Auth-Token", "Content-Type", "OpenStack-API-Version", "X-Openstack-Request-Id"),
    *(*UPLOAD_HEADERS, "Upload-Checksum", "Upload-Defer-Length", "X-HTTP-Method-Override"),
]
"""What a page may send to us."""
CORS_EXPOSED = [
    *("X-Openstack-Request-Id", "OpenStack-API-Version", "Location", "Link", "Retry-After"),
    *("Allow", "ETag", *UPLOAD_HEADERS, "Upload-Defer-Length", "Upload-Expires"),
    *("Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm"),
]
"""What a page may read of our answers, beside what every page may."""

SERVICE_USER_GROUP = "service_user"

GROUPS: dict[str | None, list[cfg.Opt]] = {
    None: DEFAULT_OPTS,
    "api": API_OPTS,
    "staging": STAGING_OPTS,
    "engine": ENGINE_OPTS,
    "metrics": METRICS_OPTS,
    "trust": TRUST_OPTS,
    "openstack": OPENSTACK_OPTS,
    "zone_sync": ZONE_SYNC_OPTS,
    "egress": EGRESS_OPTS,
}


def service_user_opts() -> list[cfg.Opt]:
    """Options by which the engine logs in to Keystone as the trustee."""
    return [
        *ks_loading.get_session_conf_options(),
        *ks_loading.get_auth_common_conf_options(),
        *ks_loading.get_auth_plugin_conf_options("password"),
    ]


def list_opts() -> list[tuple[str | None, Sequence[cfg.Opt]]]:
    """All options by group, for the sample generator and the reference."""
    return [*GROUPS.items(), (SERVICE_USER_GROUP, service_user_opts())]


def set_lib_defaults() -> None:
    """Defaults of libraries' options that differ here."""
    # There is no public way to their defaults.
    from oslo_log import _options as log_options
    from oslo_messaging._drivers import impl_rabbit

    cfg.set_defaults(
        db_options.database_opts,
        connection="sqlite:///$state_path/ciming.sqlite",
        max_retries=0,      # a database that is away ends the start: systemd tries again
    )
    cfg.set_defaults(
        impl_rabbit.rabbit_opts, rabbit_quorum_queue=True, rabbit_transient_quorum_queue=True
    )
    # A part of both of oslo.log's formats: what a line is about, in our case a Job.
    cfg.set_defaults(log_options.log_opts, instance_uuid_format="[job %(uuid)s] ")
    policy_opts.set_defaults(cfg.CONF, policy_file="policy.yaml")
    cors.set_defaults(
        allow_methods=CORS_METHODS,
        allow_headers=CORS_ALLOWED,
        expose_headers=CORS_EXPOSED,
        allow_credentials=False,    # the token is a header like any other; there are no cookies
    )


def register(conf: cfg.ConfigOpts = CONF) -> None:
    """Make all options known; may be called again."""
    from oslo_messaging import opts as messaging_opts  # not before ciming.cmd has settled its threads

    for group, opts in GROUPS.items():
        conf.register_opts(opts, group=group)
    ks_loading.register_session_conf_options(conf, SERVICE_USER_GROUP)
    ks_loading.register_auth_conf_options(conf, SERVICE_USER_GROUP)
    conf.register_opts(healthcheck.opts.HEALTHCHECK_OPTS, group="healthcheck")
    conf.register_opts(healthcheck.opts.DISABLE_BY_FILE_OPTS, group="healthcheck")
    set_lib_defaults()
    conf.register_opts(cors.OPTS, group="cors")
    conf.register_opts(http_proxy_to_wsgi.OPTS, group="oslo_middleware")
    conf.register_opts(db_options.database_opts, group="database")
    for name, opts in messaging_opts.list_opts():
        if name == "oslo_messaging_notifications":
            conf.register_opts(opts, group=name)


def _say_less() -> None:
    """Whatever the options say: what these loggers quote below this level may be a credential."""
    for name in {*QUOTING, *logging.root.manager.loggerDict}:
        for quoting, level in QUOTING.items():
            if f"{name}.".startswith(f"{quoting}."):
                logger = logging.getLogger(name)
                logger.setLevel(max(logger.level, level))


def load(args: Sequence[str] | None = None, conf: cfg.ConfigOpts = CONF, **kwargs: Any) -> cfg.ConfigOpts:
    """Read command line, configuration files and environment, and set up logging.

    :param kwargs: for oslo.config; the log in `log_dir` is named after `prog`, or else the script
    :raises SystemExit: with one line, for a file or value that can not be read
    """
    from ciming import version

    register(conf)
    log.register_options(conf)
    log.set_defaults(
        default_log_levels=[
            *log.get_default_log_levels(),
            "taskflow=WARN",
            "oslo.service=INFO",
            "oslo_messaging=INFO",
            "alembic=WARN",
            "taskflow.persistence=ERROR",   # what these log is raised as well
            "oslo_db.sqlalchemy.exc_filters=CRITICAL",
            "openstack=INFO",
        ]
    )
    conf(args, project="ciming", version=version.version_string(), **kwargs)
    if conf.log_dir:
        Path(conf.log_dir).mkdir(parents=True, exist_ok=True)
        if "prog" in kwargs:
            conf.set_default("log_file", f"{kwargs['prog']}.log")
    log.setup(conf, "ciming")
    _say_less()
    for group, opts in GROUPS.items():      # a value of no use is found now, not when it is used
        for opt in opts:
            getattr(conf[group] if group else conf, opt.dest)
    return conf
