# SPDX-License-Identifier: Apache-2.0
import logging
import pathlib
import re
import subprocess
import sys

import pytest
from oslo_config import cfg

from ciming import config

ROOT = pathlib.Path(__file__).parents[2]
GENERATOR = ROOT / "etc/ciming/config-generator.conf"
SECRET = re.compile(r"password|secret|token|private|passcode")

OPTIONS = [
    pytest.param(option, id=f"{group or 'DEFAULT'}-{option.name}")
    for group, options in config.list_opts()
    for option in options
]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_has_help(option: cfg.Opt) -> None:
    assert option.help


@pytest.mark.parametrize("option", OPTIONS)
def test_secrets_are_not_logged(option: cfg.Opt) -> None:
    if isinstance(option, cfg.StrOpt) and SECRET.search(option.name):
        assert option.secret


@pytest.mark.parametrize("group", config.GROUPS)
def test_our_help_is_a_sentence_and_our_defaults_are_good(group: str | None) -> None:
    for option in config.GROUPS[group]:
        assert option.help and option.help.endswith("."), option.name
        if option.default not in (None, {}) and "$" not in str(option.default):
            option.type(",".join(option.default) if isinstance(option.default, list) else str(option.default))


def test_numbers_have_bounds() -> None:
    """A negative interval or size would be found late, and far from here."""
    for options in config.GROUPS.values():
        for option in options:
            if isinstance(option, cfg.IntOpt | cfg.FloatOpt):
                assert getattr(option.type, "min", None) is not None, option.name


def test_register_twice(conf: cfg.ConfigOpts) -> None:
    config.register(conf)
    assert conf.engine.max_jobs > 0


def test_where_things_are_follows_state_path(conf: cfg.ConfigOpts, tmp_path: pathlib.Path) -> None:
    assert conf.database.connection == f"sqlite:///{tmp_path}/ciming.sqlite"
    assert conf.staging.path == f"{tmp_path}/staging"
    assert conf.engine.coordination_url == f"file://{tmp_path}/locks"


def test_environment(monkeypatch: pytest.MonkeyPatch, conf: cfg.ConfigOpts) -> None:
    monkeypatch.setenv("OS_ENGINE__MAX_JOBS", "7")
    monkeypatch.setenv("OS_DATABASE__CONNECTION", "sqlite:///elsewhere")
    assert (conf.engine.max_jobs, conf.database.connection) == (7, "sqlite:///elsewhere")


@pytest.mark.parametrize(
    "name", ["keystoneauth.session", "botocore.endpoint", "google.auth.transport.requests", "google.cloud"]
)
def test_who_quotes_credentials_says_less_whatever_is_wanted(name: str) -> None:
    names = (name.partition(".")[0], name)
    before = [logging.getLogger(each).level for each in names]
    for each in names:
        logging.getLogger(each).setLevel(logging.DEBUG)
    config._say_less()
    assert not logging.getLogger(f"{name}.child").isEnabledFor(logging.DEBUG)
    assert logging.getLogger(f"{name}.child").isEnabledFor(logging.WARNING)
    for each, level in zip(names, before, strict=True):
        logging.getLogger(each).setLevel(level)


def test_formats_of_zones(monkeypatch: pytest.MonkeyPatch, conf: cfg.ConfigOpts) -> None:
    monkeypatch.setenv("OS_OPENSTACK__ZONE_FORMATS", "zone-b:raw, zone-c:raw  qcow2")
    assert conf.openstack.zone_formats == {"zone-b": "raw", "zone-c": "raw  qcow2"}
    option = next(option for option in config.OPENSTACK_OPTS if option.name == "zone_formats")
    for wrong in ("zone-b", "zone-b:", "zone-b:qcow3", "zone-b:raw;qcow2", "zone-b:raw,raw"):
        with pytest.raises(ValueError):
            option.type(wrong)


def test_sample(tmp_path: pathlib.Path) -> None:
    """The generator runs as tox runs it, and its sample is a configuration."""
    sample = tmp_path / "ciming.conf.sample"
    program = pathlib.Path(sys.executable).parent / "oslo-config-generator"
    command = [str(program), "--config-file", str(GENERATOR), "--output-file", str(sample)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    text = "\n" + sample.read_text()
    for group, options in config.list_opts():
        section = text.partition(f"\n[{group or 'DEFAULT'}]\n")[2].partition("\n[")[0]
        for option in options:
            assert re.search(rf"^#{option.dest} =( |$)", section, re.MULTILINE), (group, option.name)
    for group in ("keystone_authtoken", "database", "oslo_policy", "healthcheck", "cors"):
        assert f"\n[{group}]\n" in text
    assert "#allowed_origin = <None>" in text and "#enable_proxy_headers_parsing = false" in text
    assert re.search(r"^#expose_headers = .*Tus-Max-Size", text, re.MULTILINE)
    assert "#connection = sqlite:///$state_path/ciming.sqlite" in text
    assert str(pathlib.Path.home()) not in text
    made = cfg.ConfigOpts()
    made([], default_config_files=[str(sample)], default_config_dirs=[])
