# SPDX-License-Identifier: Apache-2.0
"""Values that read well in a table and parse well in JSON."""

from typing import Any

from cliff import columns
from osc_lib.cli import format_columns

from cimingclient.osc import text


class Words(columns.FormattableColumn[Any]):
    """What somebody else wrote, such as the name of an image: in a table it moves no cursor."""

    def human_readable(self) -> str:
        return text.plain(self._value)


def words(value: Any) -> Any:
    """A value of JSON; what is a text may be somebody else's."""
    return Words(value) if isinstance(value, str) else value


class Pairs(format_columns.DictColumn):
    """Names and values of somebody else's."""

    def human_readable(self) -> str:
        return text.plain(super().human_readable())


class List(format_columns.ListColumn):
    """Words of somebody else's."""

    def human_readable(self) -> str:
        return text.plain(super().human_readable())


class Size(columns.FormattableColumn[int]):
    """Bytes."""

    def human_readable(self) -> str:
        return f"{text.size(self._value)} ({self._value})"


class Digests(columns.FormattableColumn[dict[str, str | None]]):
    """What is known of the bytes and of the disk in them."""

    def human_readable(self) -> str:
        known = {name: digest for name, digest in self._value.items() if digest}
        return "\n".join(f"{name}: {digest}" for name, digest in known.items())


class Links(columns.FormattableColumn[list[dict[str, Any]]]):
    """An Image's identity in each cloud."""

    def human_readable(self) -> str:
        return "\n".join(
            text.plain(f"{link.get('cloud')}: {link.get('image_ref')} ({link.get('proof')})")
            for link in self._value
        )


class Candidates(columns.FormattableColumn[list[dict[str, Any]]]):
    """What is the same as an image of a cloud."""

    def human_readable(self) -> str:
        return "\n".join(
            text.plain(
                f"image {each.get('image_id')} ({each.get('name')})"
                if each.get("image_id")
                else f"{each.get('cloud')}: {each.get('image_ref')} ({each.get('name')})"
            )
            for each in self._value
        )


class Progress(columns.FormattableColumn[dict[str, Any]]):
    """Bytes done, of all."""

    def human_readable(self) -> str:
        return done(self._value.get("bytes_done"), self._value.get("bytes_total"))


class Targets(columns.FormattableColumn[list[dict[str, Any]]]):
    """How far a Job is in each cloud."""

    def human_readable(self) -> str:
        return "\n".join(_target(target) for target in self._value)


class Report(columns.FormattableColumn[dict[str, Any]]):
    """What became of the images of a sync of zones."""

    def human_readable(self) -> str:
        lines = [counts(self._value)]
        lines += [
            text.plain(f"{failed(failure)}: {failure['message']}")
            for failure in self._value.get("failures") or ()
        ]
        lines += [text.plain(self._value["not_pruned"])] if self._value.get("not_pruned") else []
        return "\n".join(filter(None, lines))


def failed(failure: dict[str, Any]) -> str:
    """Which image of a sync of zones that was, and where; or which zone, of all of its images."""
    if failure["image"] is None:
        return text.plain(failure["zone"])
    return text.plain(f"{failure['name']} ({failure['image']}) in {failure['zone']}")


COUNTS = ("created", "updated", "replaced", "pruned", "same", "left", "failed", "cannot", "cancelled")


def counts(report: dict[str, Any]) -> str:
    """`12 created, 40 same`: without what there is none of."""
    return ", ".join(f"{report[name]} {name}" for name in COUNTS if report.get(name))


class Error(columns.FormattableColumn[dict[str, Any]]):
    """A code, a text, and maybe the cloud's own request id."""

    def human_readable(self) -> str:
        return error(self._value)


def error(value: dict[str, Any]) -> str:
    """An error of a Job or a Target on one line."""
    request_id = value.get("cloud_request_id")
    suffix = f" (cloud request id: {request_id})" if request_id else ""
    return text.plain(f"{value.get('message')} [{value.get('code')}]{suffix}")


def done(count: int | None, total: int | None) -> str:
    """How much of it: `45 % (180.0 MiB of 400.0 MiB)`."""
    if not total:
        return text.size(count) if count else ""
    share = min(100, (count or 0) * 100 // total)
    return f"{share} % ({text.size(count or 0)} of {text.size(total)})"


def _target(target: dict[str, Any]) -> str:
    parts = [f"{target.get('cloud')}: {target.get('status')}"]
    if target.get("status") not in ("success", "error", "cancelled") and target.get("step"):
        parts.append(str(target["step"]))
    parts.append(done(target.get("bytes_done"), target.get("bytes_total")))
    parts.append(attempts(target.get("attempts")))
    lines = [text.plain(", ".join(filter(None, parts)))]
    lines += [f"  {text.plain(remark)}" for remark in target.get("remarks") or ()]
    lines += [f"  {error(target['error'])}"] if target.get("error") else []
    return "\n".join(lines)


def attempts(count: int | None) -> str:
    """How often a step was tried, where it was more than once."""
    return f"{count} attempts" if (count or 0) > 1 else ""
