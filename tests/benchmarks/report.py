# SPDX-License-Identifier: Apache-2.0
"""The table."""

import os
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

MIB = 1 << 20
BETWEEN = {
    "ours": "multicloud image create --from",
    "asked": "the same by the API",
    "floor": "floor: curl | curl",
    "glance_download": "Glance's import, glance-download",
    "by_hand": "image save, image create",
}
UPLOADS = {
    "floor": "floor: curl into a bare application",
    "synced": "the same, until it is on the disk",
    "put": "PUT",
    "tus": "tus, parts of 64 MiB",
}

CONVERSIONS = {
    "floor": "floor: qemu-img convert -W -m 8",
    "ours": "ours, inspected again",
    "proven": "proven: with both guest digests",
}

INTO_AWS = {
    "floor": "floor: raw, a bare loop of boto3",
    "ours": "ours: raw, blocks of EBS",
    "proven": "ours: qcow2, converted and proven",
    "imported": "qcow2: qemu-img, S3, import",
}
INTO_GCP = {
    "floor": "floor: an archive that is ready",
    "ours": "ours: raw, packed on its way",
    "proven": "ours: qcow2, converted and proven",
    "by hand": "qcow2: qemu-img, tar -Sz, upload",
}


class Round(NamedTuple):
    """Seconds of one round."""

    ours: float
    asked: float
    floor: float
    by_hand: float
    phases: Mapping[str, float]
    processor: Mapping[str, float]
    """Processor seconds of each contender, clients and services together."""


class Memory(NamedTuple):
    """Bytes before the main job, and at most while it ran."""

    before: int
    most: int


class Rate(NamedTuple):
    """Of one contender, in one round."""

    per_second: float
    median: float
    """Seconds, as `slowest`."""
    slowest: float
    """All but one in a hundred took no longer."""


class Again(NamedTuple):
    """Bytes of one transfer that was cut by a kill."""

    before: int
    """Sent until then."""
    again: int
    """Of those, sent again."""
    most: int
    """That had to be: what nobody had kept."""


def machine() -> str:
    """What else there was to do: figures of a busy machine tell little."""
    return f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"


def times(rounds: Sequence[Round]) -> None:
    """Print how long each way took, and where our time went."""
    _head("seconds in round", len(rounds))
    _line("ours: multicloud image create", [one.ours for one in rounds])
    _line("the same by the API and curl", [one.asked for one in rounds])
    _line("(a) floor: two curl at once", [one.floor for one in rounds])
    _line("(b) image create, one by one", [one.by_hand for one in rounds])
    _line("ours / a             wanted ≤ 1.3", [one.ours / one.floor for one in rounds])
    _line("by the API / a       wanted ≤ 1.3", [one.asked / one.floor for one in rounds])
    _line("ours / b               wanted < 1", [one.ours / one.by_hand for one in rounds])
    say("\nprocessor seconds of all, clients and services")
    for name in rounds[0].processor:
        _line(name.replace("_", " "), [one.processor[name] for one in rounds])
    for name in ("ours", "asked"):
        _line(f"{name} / floor", [one.processor[name] / one.processor["floor"] for one in rounds])
    say("\nours, by phase")
    for name in rounds[0].phases:
        _line(name, [one.phases[name] for one in rounds])


def between(rounds: Sequence[Mapping[str, float]]) -> None:
    """Print how long each way from zone to zone took, and ours against those."""
    _head("seconds in round", len(rounds))
    for name, what in BETWEEN.items():
        _line(what, [one[name] for one in rounds])
    for name, wanted in (("floor", "≤ 1.5"), ("glance_download", "< 1"), ("by_hand", "< 1")):
        for way in ("ours", "asked"):
            _line(f"{f'{way} / {name}':26}wanted {wanted}", [one[way] / one[name] for one in rounds])


def zone_sync(rounds: Sequence[tuple[Mapping[str, float], Mapping[str, float]]], sample: int) -> None:
    """Print how long a zone took to come in line, and ours against other ways.

    :param sample: images from which the time by hand is extrapolated
    """
    _head("seconds in round", len(rounds))
    names = {
        "ours": "ours: multicloud zone sync --wait",
        "script": "a parallel script of openstacksdk",
        "by_hand": f"by hand, out of {sample} images",
    }
    for name, what in names.items():
        _line(what, [seconds[name] for seconds, _ in rounds])
    _line("ours / script        wanted ≤ 1.2", [one["ours"] / one["script"] for one, _ in rounds])
    _line("by hand / ours       wanted ≥ 10", [one["by_hand"] / one["ours"] for one, _ in rounds])
    say("\nprocessor seconds of all, clients and services")
    for name in ("ours", "script"):
        _line(name, [processor[name] for _, processor in rounds])


def memory(found: Mapping[int, Memory]) -> None:
    """Print what the service took for each size of image in MiB."""
    say("\nmemory of the service, MiB            before     peak")
    for size, (before, most) in found.items():
        say(f"{f'{size} MiB image':34}{before / MIB:10.1f}{most / MIB:9.1f}")
    peaks = [most for _, most in found.values()]
    say(f"{'difference            wanted ≤ 32':34}{(peaks[-1] - peaks[0]) / MIB:19.1f}")


def uploads(found: Mapping[str, Sequence[float]]) -> None:
    """Print how long each way into the staging area took, and its speed against the floor's."""
    _head("seconds in round", len(found["floor"]))
    for name, what in UPLOADS.items():
        _line(what, found[name])
    for floor, wanted in (("floor", "wanted ≥ 0.8"), ("synced", "")):
        for name in ("put", "tus"):
            ratios = [least / ours for least, ours in zip(found[floor], found[name], strict=True)]
            _line(f"speed of {name} / {floor}".ljust(26) + wanted, ratios)


def conversions(found: Mapping[str, Sequence[float]]) -> None:
    """Print how long each conversion took, and how often that of qemu-img alone."""
    _head("seconds in round", len(found["floor"]))
    for name, what in CONVERSIONS.items():
        _line(what, found[name])
    for name, wanted in (("ours", "1.5"), ("proven", "2.5")):
        ratios = [ours / floor for floor, ours in zip(found["floor"], found[name], strict=True)]
        _line(f"{name} / floor".ljust(20) + f"wanted ≤ {wanted}", ratios)


def into_aws(found: Mapping[str, Sequence[float]], sent: float, held: Mapping[int, int]) -> None:
    """Print how long each way into a snapshot took, what was sent, and what memory it needed.

    :param sent: bytes, as a part of those in blocks that are not zero
    :param held: bytes of memory at most, by MiB of data
    """
    _head("seconds in round", len(found["floor"]))
    for name, what in INTO_AWS.items():
        _line(what, found[name])
    pairs = zip(found["floor"], found["ours"], strict=True)
    _line("speed of ours / floor  wanted ≥ 0.8", [floor / ours for floor, ours in pairs])
    pairs = zip(found["proven"], found["imported"], strict=True)
    _line("proven / import          wanted < 1", [ours / theirs for ours, theirs in pairs])
    say(f"\n{'bytes sent / not zero  wanted ≤ 1.05':44}{sent:9.2f}")
    for size, memory in sorted(held.items()):
        say(f"{f'memory, MiB, for {size} MiB of data':44}{memory / MIB:9.1f}")


def into_gcp(found: Mapping[str, Sequence[float]], held: Mapping[int, int]) -> None:
    """Print how long each way into a bucket took, and what memory it needed.

    :param held: bytes of memory at most, by MiB of data
    """
    _head("seconds in round", len(found["floor"]))
    for name, what in INTO_GCP.items():
        _line(what, found[name])
    pairs = zip(found["ours"], found["floor"], strict=True)
    _line("ours / floor           wanted ≤ 1.3", [ours / floor for ours, floor in pairs])
    pairs = zip(found["by hand"], found["proven"], strict=True)
    _line("by hand / proven         wanted ≥ 5", [theirs / ours for theirs, ours in pairs])
    for size, memory in sorted(held.items()):
        say(f"{f'memory, MiB, for {size} MiB of data':44}{memory / MIB:9.1f}")


def into_all(found: Mapping[str, Sequence[float]]) -> None:
    """Print how long each Cloud alone and, the last, all of them took."""
    *alone, (name, together) = found.items()
    _head("seconds in round", len(together))
    for each, seconds in found.items():
        _line(each, seconds)
    slowest = [max(seconds) for seconds in zip(*(seconds for _, seconds in alone), strict=True)]
    pairs = zip(together, slowest, strict=True)
    _line(f"{name} / slowest  wanted ≤ 1.4", [one / other for one, other in pairs])


def availability(found: Mapping[str, Sequence[tuple[float, int]]]) -> None:
    """Seconds and requests of each way, round by round."""
    for name, rounds in found.items():
        _line(name, [seconds for seconds, _requests in rounds])
        say(f"  requests: {', '.join(str(requests) for _seconds, requests in rounds)}")
    fastest = {name: min(rounds) for name, rounds in found.items()}
    ratios = [ours / theirs for ours, theirs in zip(fastest["ours"], fastest["bare"], strict=True)]
    say("fastest against fastest: {:.2f} of the time, {:.2f} of the requests".format(*ratios))


def rates(clients: int, rounds: Sequence[tuple[Rate, Rate]]) -> None:
    """Print how ours and another list did, round by round."""
    _head(f"{clients} clients at a time; round", len(rounds))
    for name, field, unit in (
        ("requests per second", "per_second", 1.0),
        ("p50, ms", "median", 1e3),
        ("p99, ms", "slowest", 1e3),
    ):
        ours, others = ([getattr(rate, field) * unit for rate in each] for each in zip(*rounds, strict=True))
        _line(f"ours: {name}", ours)
        _line(f"Glance: {name}", others)
        _line("ours / Glance", [one / other for one, other in zip(ours, others, strict=True)])


def processes(found: Mapping[str, Sequence[tuple[float, int]]]) -> None:
    """Print how long each took to start, what it holds, and how often that of the first."""
    rounds = len(next(iter(found.values())))
    _head("round", rounds)
    floor = next(iter(found.values()))
    for name, figures in found.items():
        _line(f"{name}: seconds", [seconds for seconds, _ in figures])
        _line("    MiB", [held / MIB for _, held in figures])
        _line("    MiB / bare", [held / base for (_, held), (_, base) in zip(figures, floor, strict=True)])


def takeovers(found: Mapping[str, Sequence[float]], at_once: Collection[str], ttl: int) -> None:
    """Print how long a Job waited for each kind of liveness; and where a lock has to expire, how often that.

    :param at_once: kinds whose service frees a lock with its process or connection
    """
    rounds = len(next(iter(found.values())))
    _head("seconds in round", rounds)
    for name, seconds in found.items():
        _line(f"{name:12}{'            wanted ≤ 3' if name in at_once else ''}", seconds)
        if name not in at_once:
            _line(f"    / TTL of {ttl} s       wanted ≤ 2", [each / ttl for each in seconds])


def jobs(found: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Print Jobs in a second on each database, ours and bare TaskFlow's, and ours against those."""
    rounds = len(next(iter(found.values()))["ours"])
    _head("Jobs per second; round", rounds)
    for name, figures in found.items():
        _line(f"{name}: ours", figures["ours"])
        for other, what in (("bare", "bare TaskFlow"), ("kept", "bare, tables kept")):
            _line(f"    {what}", figures[other])
            pairs = zip(figures["ours"], figures[other], strict=True)
            _line("    ours / that", [one / two for one, two in pairs])


def idle(found: Mapping[str, float]) -> None:
    """Print what each process takes of a processor while there is nothing to do."""
    say(f"\n{'idle, % of a processor   wanted < 1':44}")
    for name, percent in found.items():
        say(f"{name:44}{percent:9.2f}")


def in_flight(count: int, found: Memory) -> None:
    """Print what the service holds without a Job and with so many."""
    say(f"\n{f'memory with {count} Jobs in flight, MiB':44}")
    say(f"{'before':44}{found.before / MIB:9.1f}")
    say(f"{'at most':44}{found.most / MIB:9.1f}")
    say(f"{'for each Job':44}{(found.most - found.before) / MIB / count:9.2f}")


def again(size: int, glance: Sequence[Again], us: Sequence[Again]) -> None:
    """Print what was sent again of images of some size, to a Glance and to us."""
    _head("share of the image; round", len(us))
    for name, found in (("to a Glance", glance), ("to CIMinG", us)):
        _line(f"{name}: sent until the kill", [each.before / size for each in found])
        _line("    sent again             wanted ≤ 1", [each.again / size for each in found])
    _line("    / not committed        wanted ≤ 1", [each.again / max(each.most, 1) for each in us])


def say(text: str) -> None:
    """Print at once: a benchmark takes minutes."""
    print(text, flush=True)


def _head(name: str, rounds: int) -> None:
    say(f"\n{name:36}{''.join(f'{number:8}' for number in range(1, rounds + 1))}{'median':>9}")


def _line(name: str, values: Sequence[float]) -> None:
    columns = "".join(f"{value:8.2f}" for value in values)
    say(f"{name:36}{columns}{statistics.median(values):9.2f}")
