# SPDX-License-Identifier: Apache-2.0
"""The demonstration behind tools/demo.sh: one image, five Clouds of three kinds, one identity."""

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
from collections.abc import Iterable, Iterator
from concurrent import futures

import yaml

from tests.sandbox import aws, ciming, disk, distributed, files, gcp, processes, servers, services
from tests.sandbox import sandbox as sandboxes

FOLDER = pathlib.Path(os.environ.get("DEMO_FOLDER", sandboxes.ROOT / ".demo"))
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
            beside = [pool.submit(self._start_aws)]
            self.sandbox.up()
            beside.append(pool.submit(self._start_google))      # its port is the sandbox's to say
            if not self.service.running:
                how = " in processes of its own, with RabbitMQ and PostgreSQL" if self.servers else ""
                say(f"Starting CIMinG{how}")
            self.service.start()
            for each in beside:
                each.result()
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
        say("Making a disk image: qcow2, with a partition table and a file system")
        image, raw = disk.make(self.folder / IMAGE), self.folder / "demo.raw"
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw], check=True)
        with image.open("rb") as data:
            expected = hashlib.file_digest(data, "sha512").hexdigest()
        self._register()
        say("One image into five Clouds of three kinds")
        clouds = " ".join(f"--cloud {name}" for name in (*services.ZONES, OTHER, AMAZON, GOOGLE))
        machine = "--property architecture=x86_64"
        command = f"openstack multicloud image create demo --file {IMAGE} {clouds} {machine} --wait"
        print(f"\n$ {command}", flush=True)
        said = self._ask(command)
        print(said.rstrip(), flush=True)
        uuid = the_id(said)
        say("What each OpenStack says of it, by the plain command")
        there = {zone: f"--os-region-name {zone}" for zone in services.ZONES} | {OTHER: f"--os-cloud {OTHER}"}
        answers = self._together(plain_show(options, uuid) for options in there.values())
        for name, answer in zip(there, answers, strict=True):
            compare(name, answer, uuid, expected)
        self._look_into_aws(uuid, raw)
        self._look_into_google(uuid, raw)
        self._take(expected, raw)
        zones = ", ".join((*services.ZONES, OTHER))
        say(
            f"The same image, under the same UUID {uuid}, in {zones}; in {AMAZON} as an AMI with it as a "
            f"tag, in {GOOGLE} as an image with it as a label"
        )

    def _register(self) -> None:
        """Tell CIMinG of the second OpenStack, of a region of AWS and of a project of Google Cloud."""
        say(
            "Registering another OpenStack, a region of AWS and a project of Google Cloud (stand-ins play "
            "both): their credentials go into Barbican. And an image that only the other OpenStack has"
        )
        amazon, google = aws.StandIn(self.folder / AMAZON), gcp.StandIn(self.folder / GOOGLE)
        account = google.accounts["owner"]
        keys, key = self.folder / "aws-credentials", self.folder / "key.json"
        files.write(keys, amazon.profile("owner"))
        files.write(key, json.dumps(account, indent=2))
        there = {
            OTHER: (
                f"--config auth_url={self.sandbox.url('keystone2')} --config region={services.SECOND_REGION}",
                self.sandbox.clouds_file,
            ),
            AMAZON: (
                f"--provider aws --config region={REGION} --config endpoint_url={amazon.url}",
                keys,
            ),
            GOOGLE: (
                f"--provider gcp --config project_id={account['project_id']} --config bucket={BUCKET}"
                f" --config endpoint_url={google.url}",
                key,
            ),
        }
        create = "openstack multicloud cloud create"
        elsewhere = f"openstack --os-cloud {OTHER} image create elsewhere --file {IMAGE} --disk-format qcow2"
        self._together(
            [
                *(
                    f"{create} {name} {where} --credential {shlex.quote(str(file))} --store"
                    for name, (where, file) in there.items()
                ),
                f"{elsewhere} -c id",
            ]
        )
        keys.unlink()
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

    def _take(self, expected: str, raw: pathlib.Path) -> None:
        """Bring what Clouds have into others: from there it is the disk that was sent first."""
        say(
            "An image of the other OpenStack comes into zone-a, and not by this machine's disk; "
            "an AMI comes out of AWS, into zone-a and to Google Cloud"
        )
        create = "openstack multicloud image create"
        taken, returned = map(
            the_id,
            self._together(
                [
                    f"{create} taken --from {OTHER}:elsewhere --cloud zone-a --wait",
                    f"{create} returned --from {AMAZON}:demo --cloud zone-a --cloud {GOOGLE} --wait",
                ]
            ),
        )
        saved, back = self.folder / "returned.qcow2", self.folder / "returned.raw"
        zone = "--os-region-name zone-a"
        answer, _ = self._together(
            [plain_show(zone, taken), f"openstack {zone} image save {returned} --file {saved.name}"]
        )
        compare("zone-a", answer, taken, expected)
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", saved, back], check=True)
        standin = gcp.StandIn(self.folder / GOOGLE)
        (made,) = (each for each in standin.images() if each["labels"]["ciming-image"] == returned)
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

    def _together(self, commands: Iterable[str]) -> list[str]:
        """Run commands side by side, and show one after the other; what they say."""
        commands = list(commands)
        with futures.ThreadPoolExecutor() as pool:
            said = []
            for command, answer in zip(commands, pool.map(self._ask, commands), strict=True):
                print(f"\n$ {command}\n{answer.rstrip()}", flush=True)
                said.append(answer)
        return said

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


def plain_show(options: str, uuid: str) -> str:
    """The command that asks one Glance for an image."""
    return f"openstack {options} image show {uuid} -c id -c status -c properties -f yaml"


def compare(cloud: str, answer: str, uuid: str, expected: str) -> None:
    """Is it the image that was sent, as its Glance says?"""
    said = yaml.safe_load(answer)
    if (said["id"], said["status"], said["properties"]["os_hash_value"]) != (uuid, "active", expected):
        raise DemoError(f"{cloud} does not have the image that was sent (sha512 {expected})")


def the_id(table: str) -> str:
    """The id in what a command showed."""
    (found,) = re.findall(r"^\| id +\| (\S+) +\|$", table, re.MULTILINE)
    return str(found)


def say(text: str) -> None:
    """Tell what happens next."""
    print(f"\n# {text}", flush=True)


def begin_anew(folder: pathlib.Path, shape: str) -> None:
    """Stop and remove what a run left that was killed or interrupted."""
    Demo(folder, shape).stop()
    shutil.rmtree(folder, ignore_errors=True)


def once(shape: str) -> None:
    """Start all of it, show the main job, stop all of it."""
    began = time.monotonic()
    folder = FOLDER / f"once{shape}"
    begin_anew(folder, shape)
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
    folder = FOLDER / f"keep{shape}"
    shown = folder / "shown"
    if not shown.exists():
        begin_anew(folder, shape)
    demo = Demo(folder, shape)
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
