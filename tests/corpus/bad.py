# SPDX-License-Identifier: Apache-2.0
"""Images that must be refused, each with its reason: broken, hostile, or something else than declared."""

from collections.abc import Iterator
from pathlib import Path

from tests.corpus import (
    bad_bombs,
    bad_disguises,
    bad_extremes,
    bad_outward,
    bad_places,
    bad_qcow2,
    bad_vhd,
    bad_vmdk,
    disks,
    good,
)
from tests.corpus.cases import Bad, Workshop

# What is cut short: the name, qemu's driver, its arguments, and the disk_format.
WHOLE: tuple[tuple[str, str, list[str], str], ...] = (
    ("qcow2", "qcow2", [], "qcow2"),
    ("qcow2-v2", "qcow2", ["-o", "compat=0.10"], "qcow2"),
    ("qcow2-compressed", "qcow2", ["-c"], "qcow2"),
    ("qcow2-zstd", "qcow2", ["-c", "-o", "compression_type=zstd"], "qcow2"),
    ("qcow2-extended-l2", "qcow2", ["-o", "extended_l2=on"], "qcow2"),
    ("qcow2-small-clusters", "qcow2", ["-o", "cluster_size=512"], "qcow2"),
    ("qcow2-large-clusters", "qcow2", ["-o", "cluster_size=2M"], "qcow2"),
    ("qcow2-full", "qcow2", ["-o", "preallocation=full"], "qcow2"),
    ("vmdk-sparse", "vmdk", [], "vmdk"),
    ("vmdk-6", "vmdk", ["-o", "compat6=on"], "vmdk"),
    ("vmdk-stream", "vmdk", ["-o", "subformat=streamOptimized"], "vmdk"),
    ("vhd-dynamic", "vpc", [], "vhd"),
    ("vhdx", "vhdx", ["-o", "block_size=1M"], "vhdx"),
    ("vhdx-fixed", "vhdx", ["-o", "subformat=fixed,block_size=1M"], "vhdx"),
    ("vdi", "vdi", [], "vdi"),
    ("vdi-static", "vdi", ["-o", "static=on"], "vdi"),
)


def bad(folder: Path) -> list[Bad]:
    """Fill `folder` with images that must go nowhere."""
    shop = Workshop(folder)
    families = (
        _empty,
        _truncated,
        bad_disguises.cases,
        bad_qcow2.cases,
        bad_vmdk.cases,
        bad_vhd.cases,
        bad_extremes.cases,
        bad_outward.cases,
        bad_places.cases,
        bad_bombs.cases,
    )
    return [case for family in families for case in family(shop)]


def _empty(shop: Workshop) -> Iterator[Bad]:
    for declared in (None, "raw", "qcow2"):
        path = shop.write(f"empty-{declared}", b"")
        yield Bad(path.name, path, declared, "image.empty", "not a single byte")


def _truncated(shop: Workshop) -> Iterator[Bad]:
    whole = [
        (shop.convert(f"whole-{name}", driver, *arguments), disk_format)
        for name, driver, arguments, disk_format in WHOLE
    ]
    whole.append((good.stream_with_footer(shop), "vmdk"))
    iso = shop.new("whole-iso")
    disks.iso(iso)
    whole.append((iso, "iso"))
    for path, disk_format in whole:
        size = path.stat().st_size
        for name, length in {
            "tables": 40_000,
            "quarter": size // 4,
            "half": size // 2,
            "most": size * 7 // 8,
            "sector-less": size - 512,
            "byte-less": size - 1,
        }.items():
            cut = shop.derive(f"{path.name}-{name}", path, length=length)
            yield Bad(cut.name, cut, disk_format, "image.broken", f"only {length} of {size} bytes")
