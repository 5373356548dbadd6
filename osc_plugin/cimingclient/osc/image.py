# SPDX-License-Identifier: Apache-2.0
import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from cliff import columns as cliff_columns
from keystoneauth1 import exceptions as ksa_exceptions
from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
from osc_lib.cli import format_columns, parseractions

from cimingclient.osc import cached, columns, common, credential, source, text, upload, watch
from cimingclient.sdk import exceptions as client_exceptions
from cimingclient.sdk import image as _image
from cimingclient.sdk import job as _job

FIELDS = (
    "id",
    "name",
    "project_id",
    "status",
    "disk_format",
    "size",
    "virtual_size",
    "digests",
    "links",
    "tags",
    "hidden",
    "deprecated",
    "created_at",
    "updated_at",
)
FORMATTERS: dict[str, type[cliff_columns.FormattableColumn[Any]]] = {
    "size": columns.Size,
    "virtual_size": columns.Size,
    "digests": columns.Digests,
    "links": columns.Links,
    "tags": format_columns.ListColumn,
}
LIST = ("id", "name", "status")
LIST_LONG = ("disk_format", "size", "virtual_size", "project_id", "tags", "created_at")


class ListImage(cached.Lister):
    """List images"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        common.add_paging(parser, "image")
        common.add_all_projects(parser)
        parser.add_argument("--name", metavar="<name>", help="Only images of this name")
        parser.add_argument(
            "--status",
            metavar="<status>",
            action="append",
            help="Only images in this status (repeat the option for several)",
        )
        parser.add_argument(
            "--disk-format", metavar="<disk-format>", help="Only images whose file has this format"
        )
        parser.add_argument("--cloud", metavar="<cloud>", help="Only images that this cloud has (name or ID)")
        parser.add_argument("--tag", metavar="<tag>", help="Only images with this tag")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        lists, marker = self.lists(parsed_args), None
        if parsed_args.marker:
            marker = common.found(lists.find_image, parsed_args.marker).id
        images = common.page(
            lists.images,
            parsed_args.limit,
            marker=marker,
            name=common.exactly(parsed_args.name),
            status=common.one_of(parsed_args.status),
            disk_format=common.exactly(parsed_args.disk_format),
            cloud=common.exactly(parsed_args.cloud and self._linked_in(lists, parsed_args.cloud)),
            tag=common.exactly(parsed_args.tag),
            sort=parsed_args.sort,
            all_projects=parsed_args.all_projects,
        )
        headers: tuple[str, ...] = ("ID", "Name", "Status", "Clouds")
        fields: tuple[str, ...] = ()
        if parsed_args.long:
            headers += ("Disk Format", "Size", "Virtual Size", "Project", "Tags", "Created At")
            fields = LIST_LONG
        elif parsed_args.all_projects:
            headers, fields = (*headers, "Project"), ("project_id",)
        return headers, (_listed(image, fields) for image in images)

    def _linked_in(self, lists: cached.Lists, cloud: str) -> str:
        """The name that Links have of a Cloud; what it was called will do, as it may be lost by now."""
        try:
            found = lists.find_cloud(cloud)
        except client_exceptions.NothingKept:   # of Clouds, for --cached
            return cloud
        if found is None:
            self.say(f"You may use no cloud {cloud} now: what is listed was linked in one of this name.")
            return cloud
        return str(found.name)


class ShowImage(common.ShowOne):
    """Show one image, and what it is in each cloud"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("image", metavar="<image>", help="Image to show (name or ID)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        image = common.found(self.client.find_image, parsed_args.image)
        return FIELDS, common.row(image, FIELDS, FORMATTERS)


class CreateImage(watch.WatchingShowOne):
    """Upload an image once, and bring it into several clouds.

    Exit status with --wait: 0 success, 1 error, 3 partial, 4 cancelled, 5 waiting for credentials.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="<name>", help="Name of the new image")
        _add_source(parser)
        _add_clouds(parser)
        _add_description(parser)
        _add_visibility(parser)
        _add_waiting(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        if parsed_args.source:
            cloud, image_ref = parsed_args.source
            attributes = _attributes(parsed_args, None)
            begun = self.client.create_image(source={"cloud": cloud, "image": image_ref}, **attributes)
            if parsed_args.progress and not parsed_args.wait:
                how = f"openstack multicloud job wait {begun.job.id}"
                self.say(f"Nothing passes this machine. To watch Job {begun.job.id}: {how}")
            return _brought(self, begun.image, begun.job, parsed_args)
        with source.opened(parsed_args.file) as file:
            image, job = self.client.create_image(**_attributes(parsed_args, file.size))
            _bring(self, image, job, file, parsed_args, fresh=True)
        return _brought(self, image, job, parsed_args)


class AdoptImage(watch.WatchingShowOne):
    """Make an image of what a cloud has; it stays where it is.

    Exit status with --wait: as for image create.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="<name>", help="Name of the new image")
        parser.add_argument(
            "--from",
            metavar="<cloud:image>",
            dest="source",
            type=_in_cloud,
            required=True,
            help="Cloud that has the image, and its name or ID there",
        )
        parser.add_argument(
            "--match-digest",
            action="store_true",
            help="Link what has the same digest in your other clouds, too",
        )
        parser.add_argument(
            "--tag",
            metavar="<tag>",
            dest="tags",
            action="append",
            help="Tag of the image (repeat the option for several; default: those that it has there)",
        )
        credential.add_option(parser)
        parser.add_argument("--wait", action="store_true", help="Wait until it is linked")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        begun = self.client.adopt_image(
            parsed_args.name,
            *parsed_args.source,
            match_digest=parsed_args.match_digest,
            tags=parsed_args.tags,
            credentials=credential.given(parsed_args),
        )
        for each in begun.unseen:
            self.say(f"Not seen whether {each['cloud']} has it: {columns.error(each['error'])}")
        return _brought(self, begun.image, begun.job, parsed_args)


class SyncImage(watch.WatchingShowOne):
    """Bring an image into more clouds, from one that has it.

    Exit status with --wait: as for image create.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("image", metavar="<image>", help="Image to bring (name or ID)")
        _add_clouds(parser)
        _add_wait(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        image = common.found(self.client.find_image, parsed_args.image)
        given = credential.given(parsed_args)
        begun = self.client.sync_image(image, parsed_args.clouds, given)
        return _brought(self, begun.image, begun.job, parsed_args)


class LinkImage(watch.WatchingShowOne):
    """Link what a cloud has to an image.

    It must be there, and be seen by you. Exit status with --wait: as for image create.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("image", metavar="<image>", help="Image to link it to (name or ID)")
        parser.add_argument(
            "source", metavar="<cloud:image>", type=_in_cloud, help="Cloud, and name or ID of what it has"
        )
        credential.add_option(parser)
        parser.add_argument("--wait", action="store_true", help="Wait until it is linked")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        image = common.found(self.client.find_image, parsed_args.image)
        cloud, image_ref = parsed_args.source
        begun = self.client.link_image(image, cloud, image_ref, credential.given(parsed_args))
        return _brought(self, begun.image, begun.job, parsed_args)


class UnlinkImage(common.Command):
    """Forget what an image is in a cloud; what is there stays as it is"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("image", metavar="<image>", help="Image to unlink (name or ID)")
        parser.add_argument("cloud", metavar="<cloud>", help="Cloud to unlink it in (name or ID)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        image = common.found(self.client.find_image, parsed_args.image)
        self.client.unlink_image(image, parsed_args.cloud)


class DeleteImage(watch.WatchingCommand):
    """Delete image(s) in all their clouds, and then their records

    Exit status with --wait: 0 success, 1 error, 3 partial, 4 cancelled, 5 waiting for credentials; of
    several images, the first that is not 0. It goes on after one that is refused, and is 1 in the end.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("images", metavar="<image>", nargs="+", help="Image(s) to delete (name or ID)")
        parser.add_argument(
            "--cloud",
            metavar="<cloud>",
            dest="clouds",
            action="append",
            help="Delete it in this cloud only, and keep its record (repeat the option for several)",
        )
        parser.add_argument(
            "--keep-remote",
            action="store_true",
            help="Forget only, and leave what is in the clouds as it is",
        )
        parser.add_argument("--wait", action="store_true", help="Wait until the images are deleted")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        failed, jobs = 0, []
        for name in parsed_args.images:
            try:
                image = common.found(self.client.find_image, name)
                begun = self.client.delete_image(image, parsed_args.clouds, parsed_args.keep_remote)
            except (sdk_exceptions.SDKException, ksa_exceptions.ClientException) as exc:
                failed += 1
                self.say(f"Failed to delete {name}: {text.explain(exc)}")
                continue
            if begun:  # else nothing was to be done in a cloud
                job = begun.job
                how = "" if parsed_args.wait else f" To watch it: openstack multicloud job wait {job.id}"
                self.say(f"Job {job.id} deletes {name}.{how}")
                jobs.append(job)
        for job in jobs if parsed_args.wait else ():
            try:
                self.watch(job)
            except (exceptions.CommandError, sdk_exceptions.SDKException) as exc:  # others may be seen
                failed += 1
                self.say(str(exc))
        if failed:
            raise exceptions.CommandError(f"{failed} of {len(parsed_args.images)} images failed to delete.")


class UploadImage(watch.WatchingShowOne):
    """Send an image's data, or go on where an upload was interrupted.

    Exit status with --wait: as for image create.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("image", metavar="<image>", help="Image that waits for its data (name or ID)")
        parser.add_argument(
            "--file",
            metavar="<file>",
            required=True,
            help="The whole local file, from its beginning; - reads standard input",
        )
        _add_waiting(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        image = common.found(self.client.find_image, parsed_args.image)
        job = next(iter(self.client.jobs(image_id=image.id, kind="create")), None)
        if job is None and image.project_id != self.client.get_project_id():
            raise exceptions.CommandError(
                f"Image {image.id} is of project {image.project_id}: only a login there can send its data."
            )
        if job is None or _is_brought(image, job):
            raise exceptions.CommandError(f"Image {image.id} takes no data: it has its data already.")
        with source.opened(parsed_args.file) as file:
            if not _bring(self, image, job, file, parsed_args, fresh=False):
                self._has_all(image, job, file, parsed_args)
        return _brought(self, image, job, parsed_args)

    def _has_all(
        self, image: _image.Image, job: _job.Job, file: source.Source, parsed_args: argparse.Namespace
    ) -> None:
        """Nothing was sent: say why, and what became of the data that is there."""
        job = self.client.get_job(job.id)
        if job.status in ("error", "cancelled"):  # maybe before all had come
            self.say(f"Image {image.id} takes no data any more: nothing was sent.")
        else:
            upload.check_size(self.client, image, file, parsed_args.file)
            self.say(f"All data of image {image.id} was there already: nothing was sent.")
        if job.status in _job.ENDS and not parsed_args.wait:
            self.watch(job)


def _is_brought(image: _image.Image, job: _job.Job) -> bool:
    """Whether an engine is about to bring the bytes from a Cloud: what was uploaded has a size by then."""
    return image.size is None and job.status not in {"uploading", *_job.ENDS}


def _bring(
    command: watch.WatchingShowOne,
    image: _image.Image,
    job: _job.Job,
    file: source.Source,
    parsed_args: argparse.Namespace,
    *,
    fresh: bool,
) -> bool:
    """Whether anything was sent."""
    line = upload.Line(command.app.stderr, parsed_args)
    if not fresh and job.status == "uploading":
        upload.warn_of_change(command, image, job, file, parsed_args.file)
    with upload.reported(command, image, job, file, parsed_args.file):
        upload.send(command.client, image, file, line, fresh=fresh)
    if line.begun:
        upload.check_unchanged(image, job, file, parsed_args.file)
    return line.begun


def _brought(
    command: watch.WatchingShowOne, image: _image.Image, job: _job.Job, parsed_args: argparse.Namespace
) -> tuple[Sequence[str], Iterable[Any]]:
    if parsed_args.wait:
        command.watch(job)
    image = as_it_is(command, image)
    return (*FIELDS, "job_id"), (*common.row(image, FIELDS, FORMATTERS), job.id)


def as_it_is(command: common.ShowOne, image: _image.Image) -> _image.Image:
    """Now; as it was known before where that is not told, so that what was done is shown."""
    try:
        return command.client.get_image(image.id)
    except (sdk_exceptions.SDKException, ksa_exceptions.ClientException) as exc:
        command.say(f"Image {image.id} is shown as it was before: {text.explain(exc)}")
        return image


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="Wait until the image is in all its clouds")


def _add_waiting(parser: argparse.ArgumentParser) -> None:
    _add_wait(parser)
    parser.add_argument("--progress", action="store_true", help="Show how the upload goes")


def _in_cloud(value: str) -> tuple[str, str]:
    """An argument that is CLOUD:IMAGE."""
    cloud, _colon, image_ref = value.partition(":")
    if not cloud or not image_ref:
        raise argparse.ArgumentTypeError(f"{value} is not of the form CLOUD:IMAGE")
    return cloud, image_ref


def _add_source(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument(
        "--file",
        metavar="<file>",
        help="Local file with the image; - reads standard input",
    )
    sources.add_argument(
        "--from",
        metavar="<cloud:image>",
        dest="source",
        type=_in_cloud,
        help="Cloud that has the image, and its name or ID there",
    )
    parser.add_argument(
        "--checksum",
        metavar="sha256:<hex>",
        help="What the file must be: other bytes are refused",
    )
    parser.add_argument(
        "--disk-format",
        metavar="<disk-format>",
        help="Format of the file; another one is refused (default: what is found)",
    )
    parser.add_argument(
        "--container-format", metavar="<container-format>", help="Container format of the image"
    )


def _add_clouds(parser: argparse.ArgumentParser) -> None:
    clouds = parser.add_mutually_exclusive_group(required=True)
    clouds.add_argument(
        "--cloud",
        metavar="<cloud>",
        dest="clouds",
        action="append",
        help="Cloud to bring the image into (repeat the option for several)",
    )
    clouds.add_argument(
        "--all-clouds",
        dest="clouds",
        action="store_const",
        const="all",
        help="Bring the image into all clouds that you may use",
    )
    credential.add_option(parser)


def _add_description(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--property",
        metavar="<key=value>",
        dest="properties",
        action=parseractions.KeyValueAction,
        help="Property of the image in its clouds (repeat the option for several)",
    )
    parser.add_argument(
        "--min-disk",
        metavar="<disk-gb>",
        type=int,
        action=parseractions.NonNegativeAction,
        help="Disk that an instance needs at least, in GiB",
    )
    parser.add_argument(
        "--min-ram",
        metavar="<ram-mb>",
        type=int,
        action=parseractions.NonNegativeAction,
        help="Memory that an instance needs at least, in MiB",
    )
    parser.add_argument(
        "--tag",
        metavar="<tag>",
        dest="tags",
        action="append",
        help="Tag of the image (repeat the option for several)",
    )


def _add_visibility(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    for value, who in (
        ("private", "your project"),
        ("shared", "your project and those it is shared with"),
        ("community", "everyone, but only your project's lists show it"),
        ("public", "everyone"),
    ):
        group.add_argument(
            f"--{value}",
            dest="visibility",
            action="store_const",
            const=value,
            help=f"The image can be used by {who}",
        )


def _attributes(parsed_args: argparse.Namespace, size: int | None) -> dict[str, Any]:
    names = (
        "name",
        "clouds",
        "disk_format",
        "container_format",
        "checksum",
        "properties",
        "min_disk",
        "min_ram",
        "visibility",
        "tags",
    )
    attributes = {name: getattr(parsed_args, name) for name in names}
    attributes |= {"size": size, "credentials": credential.given(parsed_args)}
    return {name: value for name, value in attributes.items() if value is not None}


def _listed(image: _image.Image, more: Sequence[str]) -> list[Any]:
    clouds = [link["cloud"] for link in image.links or []]
    values = common.row(image, LIST, FORMATTERS)
    return [*values, format_columns.ListColumn(clouds), *common.row(image, more, FORMATTERS)]
