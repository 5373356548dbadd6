# SPDX-License-Identifier: Apache-2.0
import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from cimingclient.osc import cached, columns, common, credential, watch
from cimingclient.sdk import _proxy
from cimingclient.sdk import job as _job

FIELDS = (
    "id",
    "kind",
    "status",
    "wanted",
    "image_id",
    "parent",
    "progress",
    "targets",
    "report",
    "error",
    "request_id",
    "project_id",
    "created_at",
    "started_at",
    "finished_at",
)
FORMATTERS = {
    "progress": columns.Progress,
    "targets": columns.Targets,
    "report": columns.Report,
    "error": columns.Error,
}
LIST = {
    "ID": "id",
    "Kind": "kind",
    "Status": "status",
    "Image ID": "image_id",
    "Progress": "progress",
    "Created At": "created_at",
}
LIST_LONG = LIST | {
    "Started At": "started_at",
    "Finished At": "finished_at",
    "Targets": "targets",
}


class ListJob(cached.Lister):
    """List jobs"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        common.add_paging(parser, "job")
        common.add_all_projects(parser)
        parser.add_argument(
            "--status",
            metavar="<status>",
            action="append",
            help="Only jobs in this status (repeat the option for several)",
        )
        parser.add_argument("--kind", metavar="<kind>", help="Only jobs of this kind")
        parser.add_argument("--image", metavar="<image>", help="Only jobs of this image (name or ID)")
        parser.add_argument("--parent", metavar="<job>", help="Only the children of this job")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
        lists = self.lists(parsed_args)
        image_id = parsed_args.image  # Jobs outlive their Image: an id is taken as it is
        if image_id and not _proxy.is_uuid(image_id):
            image_id = common.found(lists.find_image, image_id).id
        jobs = common.page(
            lists.jobs,
            parsed_args.limit,
            marker=parsed_args.marker,
            status=common.one_of(parsed_args.status),
            kind=common.exactly(parsed_args.kind),
            image_id=image_id,
            parent=parsed_args.parent,
            sort=parsed_args.sort,
            all_projects=parsed_args.all_projects,
        )
        shown = LIST_LONG if parsed_args.long else LIST
        if parsed_args.all_projects:
            shown = shown | {"Project": "project_id"}
        fields = tuple(shown.values())
        return tuple(shown), (common.row(job, fields, FORMATTERS) for job in jobs)


class ShowJob(common.ShowOne):
    """Show one job"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("job", metavar="<job>", help="Job to show (ID)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        return described(self.client.get_job(parsed_args.job))


class WaitJob(watch.WatchingShowOne):
    """Watch a job until it ends.

    Exit status: 0 success, 1 error, 3 partial, 4 cancelled, 5 waiting for credentials.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("job", metavar="<job>", help="Job to watch (ID)")
        parser.add_argument(
            "--timeout",
            metavar="<seconds>",
            type=common.positive,
            help="Stop watching after this time; the job goes on (default: never)",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        job = self.client.get_job(parsed_args.job)
        return described(self.watch(job, parsed_args.timeout))


class CancelJob(watch.WatchingShowOne):
    """Cancel a job: what is not finished is undone, what is finished stays.

    Exit status with --wait: 4 when it was cancelled; 0 success, 1 error, 3 partial when it was over before.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("job", metavar="<job>", help="Job to cancel (ID)")
        parser.add_argument("--wait", action="store_true", help="Wait until the job has ended")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        job = self.client.cancel_job(parsed_args.job)
        return described(self.watch(job) if parsed_args.wait else job)


class RetryJob(watch.WatchingShowOne):
    """Try the clouds of a job again that failed, with the data that was kept.

    Exit status with --wait: as for job wait.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("job", metavar="<job>", help="Job that ended in error or partial (ID)")
        credential.add_option(parser)
        parser.add_argument("--wait", action="store_true", help="Wait until the job has ended")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        job = self.client.retry_job(parsed_args.job, credential.given(parsed_args))
        return described(self.watch(job) if parsed_args.wait else job)


class ResumeJob(watch.WatchingShowOne):
    """Have a job go on that waits for credentials, as you from now on.

    A credential that was given with a command is stored nowhere, so it has to be given again. Exit status
    with --wait: as for job wait.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("job", metavar="<job>", help="Job that waits for credentials (ID)")
        credential.add_option(parser)
        parser.add_argument("--wait", action="store_true", help="Wait until the job has ended")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Iterable[Any]]:
        job = self.client.resume_job(parsed_args.job, credential.given(parsed_args))
        return described(self.watch(job) if parsed_args.wait else job)


def described(job: _job.Job) -> tuple[Sequence[str], Iterable[Any]]:
    """A Job, for a table of two columns."""
    return FIELDS, common.row(job, FIELDS, FORMATTERS)
