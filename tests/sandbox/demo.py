# SPDX-License-Identifier: Apache-2.0
"""The demonstration behind tools/demo.sh: one image, two zones, another OpenStack and AWS, one identity."""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent import futures

import yaml

from tests.sandbox import aws, ciming, disk, distributed, files, gcp, processes, servers, services
from tests.sandbox import sandbox as sandboxes

FOLDER = sandboxes.ROOT / ".demo"
BIN = pathlib.Path(sys.executable).parent
IMAGE = "demo.qcow2"
OTHER = "other"
"""The second OpenStack: its name among the Clouds, and of its user in clouds.yaml."""
AMAZON, REGION = "aws", "eu-central-1"
"""The region of AWS, which a stand-in plays: its name among the Clouds, and its own."""
GOOGLE, BUCKET = "gcp", "demo-images"
"""The project of Google Cloud, which a stand-in plays: its name among the Clouds, and its bucket."""
OPTIONS: ciming.Options = {("openstack", "zone_formats"): "zone-a:qcow2"}
"""That of CIMinG: what comes out of AWS is raw, and becomes small there."""
STANDALONE, DISTRIBUTED = "", "-distributed"
"""Shapes, as the names of folders end."""

ENV = """\
# Point a shell at the demonstration:  . {file}
for name in $(env | sed -n 's/^\\(OS_[A-Z0-9_]*\\)=.*/\\1/p'); do unset "$name"; done; unset name
export PATH={bin}:"$PATH"
export NO_PROXY="{host}${{NO_PROXY:+,$NO_PROXY}}" no_proxy="{host}${{no_proxy:+,$no_proxy}}"
export OS_CLIENT_CONFIG_FILE={clouds}
export OS_CLOUD=member
export CIMING_DATABASE_URL={database}
export CIMING_STAGING_DIR={staging}
export CIMING_LOG_DIR={log}
export CIMING_PIDFILE={pid}
export DEMO_CLOUDS={zones}
"""

USAGE = """\

It stays up. To use it:

  . {env}
  cd {folder}
  openstack multicloud cloud list
  openstack multicloud image create mine --file {image} --cloud zone-a --cloud zone-b --wait
  openstack --os-region-name zone-b image list
  openstack multicloud image create taken --from other:elsewhere --cloud zone-b --wait
  openstack multicloud image sync mine --cloud aws --cloud gcp --wait
  openstack --os-cloud reader multicloud image list    # also: admin, stranger, other

To stop it: tools/demo.sh --down
"""

HAVE_THE_LOGS = (ciming.CimingError, sandboxes.SandboxError, servers.ServerError)
"""Errors with the end of the logs in them."""


class DemoError(Exception):
    """The demonstration did not show what it should."""


class Demo:
    """The services of one demonstration, and what is done with them."""

    def __init__(self, folder: pathlib.Path, shape: str) -> None:
        self.folder = folder
        self.sandbox = sandboxes.Sandbox(folder / "openstack", second=True)
        self.service = ciming.Ciming(self.sandbox, folder / "ciming", OPTIONS)
        self.servers: tuple[servers.Server, ...] = ()
        if shape == DISTRIBUTED:
            broker = servers.RabbitMQ(folder / "rabbitmq")
            database = servers.PostgreSQL(folder / "postgresql")
            self.servers = (broker, database)
            self.service = distributed.Distributed(
                self.sandbox, folder / "ciming", OPTIONS, broker=broker, database=database
            )

    def start(self) -> None:
        """Start what does not run."""
        if not all(healthy for _, _, healthy in self.sandbox.status()):
            say("Starting Keystone, Barbican, a Glance in each of zone-a and zone-b, and another OpenStack")
        with futures.ThreadPoolExecutor() as pool:
            amazon = pool.submit(self._start_aws)
            self.sandbox.up()
            google = pool.submit(self._start_google)    # its port is the sandbox's to say
            amazon.result()
            google.result()
        if not self.service.running:
            beside = " in processes of its own, with RabbitMQ and PostgreSQL" if self.servers else ""
            say(f"Starting CIMinG{beside}")
        self.service.start()
        if isinstance(self.service, distributed.Distributed):
            self._list_processes(self.service)

    def _start_aws(self) -> None:
        if not aws.running(self.folder / AMAZON):
            aws.start(self.folder / AMAZON, stays=True)

    def _start_google(self) -> None:
        if not gcp.running(self.folder / GOOGLE):
            gcp.start(self.folder / GOOGLE, port=self.sandbox.port("google"), stays=True).make_bucket(BUCKET)

    def stop(self) -> None:
        """Stop what runs."""
        with futures.ThreadPoolExecutor() as pool:
            clouds = pool.submit(self.sandbox.down)
            self.service.stop()
            for server in self.servers:
                server.stop()
            aws.stop(self.folder / AMAZON)
            gcp.stop(self.folder / GOOGLE)
            clouds.result()

    def _list_processes(self, service: distributed.Distributed) -> None:
        for server in self.servers:
            print(f"{type(server).__name__:12} pid {server.pid:<8} port {server.port}")
        print(f"{'API':12} pid {service.api.pid:<8} {service.url} (gunicorn, two processes)")
        print(f"{'Engine':12} pid {service.engine.pid:<8}", flush=True)

    def show(self) -> None:
        """Do the main job as an ordinary member, and look at what it left in each Cloud."""
        self._register()
        say("Making a disk image: qcow2, with a partition table and a file system")
        image = disk.make(self.folder / IMAGE)
        clouds = " ".join(f"--cloud {name}" for name in (*services.ZONES, OTHER, AMAZON, GOOGLE))
        machine = "--property architecture=x86_64"
        self._run(f"openstack multicloud image create demo --file {IMAGE} {clouds} {machine} --wait")
        uuid = self._show("demo")
        with image.open("rb") as data:
            expected = hashlib.file_digest(data, "sha512").hexdigest()
        there = {zone: f"--os-region-name {zone}" for zone in services.ZONES} | {OTHER: f"--os-cloud {OTHER}"}
        self._compare(there, uuid, expected)
        raw = self.folder / "demo.raw"
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw], check=True)
        self._look_into_aws(uuid, raw)
        self._look_into_google(uuid, raw)
        self._take(expected)
        self._take_from_aws(raw)
        zones = ", ".join((*services.ZONES, OTHER))
        say(
            f"The same image, under the same UUID {uuid}, in {zones}; in {AMAZON} as an AMI with it as a "
            f"tag, in {GOOGLE} as an image with it as a label"
        )

    def _register(self) -> None:
        """Tell CIMinG of the second OpenStack."""
        say("Registering another OpenStack: its application credential goes into Barbican")
        where = f"--config auth_url={self.sandbox.url('keystone2')} --config region={services.SECOND_REGION}"
        stored = f"--credential {shlex.quote(str(self.sandbox.clouds_file))} --store"
        self._run(f"openstack multicloud cloud create {OTHER} {where} {stored}")

        say("Registering a region of AWS (a stand-in plays it): the access key goes into Barbican")
        keys = self.folder / "aws-credentials"
        files.write(keys, aws.StandIn(self.folder / AMAZON).profile("owner"))
        where = f"--config region={REGION} --config endpoint_url={aws.StandIn(self.folder / AMAZON).url}"
        stored = f"--credential {shlex.quote(str(keys))} --store"
        self._run(f"openstack multicloud cloud create {AMAZON} --provider aws {where} {stored}")
        keys.unlink()

        say("Registering a project of Google Cloud (a stand-in plays it): the key goes into Barbican")
        key = self.folder / "key.json"
        google = gcp.StandIn(self.folder / GOOGLE)
        files.write(key, json.dumps(google.accounts["owner"], indent=2))
        project = google.accounts["owner"]["project_id"]
        where = f"--config project_id={project} --config bucket={BUCKET} --config endpoint_url={google.url}"
        stored = f"--credential {shlex.quote(str(key))} --store"
        self._run(f"openstack multicloud cloud create {GOOGLE} --provider gcp {where} {stored}")
        key.unlink()

    def _look_into_aws(self, uuid: str, raw: pathlib.Path) -> None:
        """Ask AWS by plain boto3 for the image, and compare its disk with the file's."""
        standin = aws.StandIn(self.folder / AMAZON)
        filters = [{"Name": "tag:ciming:image", "Values": [uuid]}]
        print(f"\n$ boto3: ec2.describe_images(Owners=['self'], Filters={filters})", flush=True)
        ec2 = standin.client("ec2", region=REGION)
        (found,) = ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
        shown = ("ImageId", "State", "Name", "Architecture", "BootMode", "BlockDeviceMappings", "Tags")
        print(yaml.safe_dump({name: found[name] for name in shown}, sort_keys=False).rstrip(), flush=True)
        snapshot = found["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
        if not standin.holds(snapshot, raw):
            raise DemoError(f"{AMAZON} does not have the disk that was sent, in {snapshot}")

    def _look_into_google(self, uuid: str, raw: pathlib.Path) -> None:
        """Ask Google by its plain client for the image, and compare its disk with the file's."""
        standin = gcp.StandIn(self.folder / GOOGLE)
        project = standin.accounts["owner"]["project_id"]
        request = {"project": project, "filter": f"labels.ciming-image={uuid}"}
        print(f"\n$ google-cloud-compute: ImagesClient().list({request})", flush=True)
        (found,) = standin.images_client().list(request=request)
        shown = ("self_link", "status", "architecture", "disk_size_gb", "source_type")
        said = {name: getattr(found, name) for name in shown} | {"labels": dict(found.labels)}
        print(yaml.safe_dump(said, sort_keys=False).rstrip(), flush=True)
        if not standin.holds(found.name, raw):
            raise DemoError(f"{GOOGLE} does not have the disk that was sent, in {found.name}")
        if standin.objects(BUCKET):
            raise DemoError(f"{GOOGLE} has something in the bucket still")

    def _take(self, expected: str) -> None:
        """Bring what the second OpenStack has into a zone."""
        say("An image that the other OpenStack has comes into zone-a, and not by this machine's disk")
        made = f"image create elsewhere --file {IMAGE} --disk-format qcow2 -f value -c id"
        self._run(f"openstack --os-cloud {OTHER} {made}")
        self._run(f"openstack multicloud image create taken --from {OTHER}:elsewhere --cloud zone-a --wait")
        self._compare({"zone-a": "--os-region-name zone-a"}, self._show("taken"), expected)

    def _take_from_aws(self, raw: pathlib.Path) -> None:
        """Bring an AMI into a zone and to Google: there it is the disk that was sent first."""
        say("An AMI comes out of AWS, into zone-a and to Google Cloud")
        where = f"--cloud zone-a --cloud {GOOGLE}"
        self._run(f"openstack multicloud image create returned --from {AMAZON}:demo {where} --wait")
        uuid = self._show("returned")
        saved, back = self.folder / "returned.qcow2", self.folder / "returned.raw"
        self._run(f"openstack --os-region-name zone-a image save {uuid} --file {saved.name}")
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", saved, back], check=True)
        standin = gcp.StandIn(self.folder / GOOGLE)
        (made,) = (each for each in standin.images() if each["labels"]["ciming-image"] == uuid)
        if not (standin.holds(made["name"], raw) and standin.holds(made["name"], back)):
            raise DemoError(f"zone-a and {GOOGLE} do not have the disk that was sent to {AMAZON}")
        back.unlink()

    def write_env(self) -> pathlib.Path:
        """Write the file that points a shell at these services."""
        file = FOLDER / "env"
        values = {
            "file": file,
            "bin": BIN,
            "host": processes.HOST,
            "clouds": self.sandbox.clouds_file,
            "database": self.service.database_url,
            "staging": self.service.staging_dir,
            "log": self.service.log_dir,
            "pid": self.service.pid_file,
            "zones": " ".join((*services.ZONES, OTHER)),
        }
        quoted = {name: shlex.quote(str(value)) for name, value in values.items()}
        files.write(file, ENV.format(**quoted))
        return file

    def _show(self, name: str) -> str:
        """Show an Image; its UUID."""
        command = f"openstack multicloud image show {name}"
        print(f"\n$ {command}", flush=True)
        said = self._ask(command)
        print(said.rstrip(), flush=True)
        (found,) = re.findall(r"^\| id +\| (\S+) +\|$", said, re.MULTILINE)
        return str(found)

    def _compare(self, there: Mapping[str, str], uuid: str, expected: str) -> None:
        """Ask the Glance of each Cloud by plain openstackclient for the image.

        :param there: options of openstackclient, by the Cloud that they lead to
        """
        columns = "-c id -c status -c properties -f yaml"
        commands = [f"openstack {options} image show {uuid} {columns}" for options in there.values()]
        with futures.ThreadPoolExecutor() as pool:
            for name, command, said in zip(there, commands, pool.map(self._ask, commands), strict=True):
                print(f"\n$ {command}\n{said.rstrip()}", flush=True)
                answer = yaml.safe_load(said)
                found = answer["id"], answer["status"], answer["properties"]["os_hash_value"]
                if found != (uuid, "active", expected):
                    raise DemoError(f"{name} does not have the image that was sent (sha512 {expected})")

    def _run(self, command: str) -> None:
        print(f"\n$ {command}", flush=True)
        subprocess.run(shlex.split(command), cwd=self.folder, env=self._environment(), check=True)

    def _ask(self, command: str) -> str:
        return subprocess.run(
            shlex.split(command),
            cwd=self.folder,
            env=self._environment(),
            check=True,
            text=True,
            stdout=subprocess.PIPE,
        ).stdout

    def _environment(self) -> dict[str, str]:
        return processes.environment(
            PATH=f"{BIN}:{os.environ['PATH']}",
            OS_CLIENT_CONFIG_FILE=str(self.sandbox.clouds_file),
            OS_CLOUD="member",
        )


def say(text: str) -> None:
    """Tell what happens next."""
    print(f"\n# {text}", flush=True)


def once(shape: str) -> None:
    """Start all of it, show the main job, stop all of it."""
    began = time.monotonic()
    folder = FOLDER / f"once{shape}"
    Demo(folder, shape).stop()  # what a killed run left
    shutil.rmtree(folder, ignore_errors=True)
    demo = Demo(folder, shape)
    try:
        with explained(demo):
            demo.start()
            demo.show()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one Ctrl-C is enough: let this end
        say("Stopping everything")
        demo.stop()
    say(f"Done in {time.monotonic() - began:.0f} s")


def keep(shape: str) -> None:
    """Start what does not run and leave it up; show the main job unless that was done before."""
    other = DISTRIBUTED if shape == STANDALONE else STANDALONE
    Demo(FOLDER / f"keep{other}", other).stop()  # .demo/env is of one
    demo = Demo(FOLDER / f"keep{shape}", shape)
    shown = demo.folder / "shown"
    with explained(demo):
        demo.start()
        env = demo.write_env()
        if not shown.exists():
            demo.show()
            shown.touch()
    print(USAGE.format(env=env, folder=demo.folder, image=IMAGE), end="")


def down(_shape: str) -> None:
    """Stop all of it, in whatever shape it is."""
    say("Stopping everything")
    for name in ("keep", "once"):
        for shape in (STANDALONE, DISTRIBUTED):
            Demo(FOLDER / f"{name}{shape}", shape).stop()


@contextlib.contextmanager
def explained(demo: Demo) -> Iterator[None]:
    """Say what failed, with the end of the logs that tell why, and leave with status 1."""
    try:
        yield
    except HAVE_THE_LOGS as error:
        reason = str(error)
    except (DemoError, subprocess.CalledProcessError) as error:
        reason = f"{error}\n{demo.service.last_words()}"
    else:
        return
    print(f"\ndemo.sh: {reason}", file=sys.stderr, flush=True)
    sys.exit(1)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="tools/demo.sh", description=__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--keep", action="store_true", help="leave it up, to be used")
    choice.add_argument("--down", action="store_true", help="stop what --keep left up")
    parser.add_argument(
        "--distributed", action="store_true", help="API, engine, broker and database server apart"
    )
    arguments = parser.parse_args()
    shape = DISTRIBUTED if arguments.distributed else STANDALONE
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        (keep if arguments.keep else down if arguments.down else once)(shape)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
