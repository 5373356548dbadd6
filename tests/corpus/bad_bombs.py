# SPDX-License-Identifier: Apache-2.0
"""Small files that want much: that unfold into huge disks, or lead a reader through endless tables."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.corpus import disks
from tests.corpus.bad_qcow2 import COMPRESSED, u32, u64
from tests.corpus.bad_vhd import summed
from tests.corpus.cases import Bad, Workshop, qemu_img

BROKEN, COMPLEX, LARGE = "image.broken", "image.too_complex", "image.too_large"
CLUSTER = 65536
ENTRIES = CLUSTER // 8
BITS = 70 - 16  # of the offset in the entry of a compressed cluster
ZSTD = 1 << 3
LIMIT = 64 * 1024**4  # no disk is larger
SNAPSHOT = ">QIHHIIQII"


def cases(shop: Workshop) -> Iterator[Bad]:
    yield from _shared(shop)
    yield from _tables(shop)
    yield from _snapshots(shop)
    yield from _bitmaps(shop)
    yield from _grains(shop)
    yield from _large_grains(shop)
    yield from _too_large(shop)


def qcow2(
    l1: list[int], table: list[int], counts: dict[int, int], *, features: int = 0, header: bytes = b""
) -> bytes:
    """Cluster by cluster: header, refcount table, refcount block, L1 and L2 table, 64 KiB of data.

    :param counts: how often clusters are used that are not used once
    """
    size = len(l1) * ENTRIES * CLUSTER
    begin = b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQ", 3, 0, 0, 16, size, 0, len(l1), 3 * CLUSTER,
                                     CLUSTER, 1, 0, 0)  # fmt: skip
    begin += struct.pack(">QQQII", features, 0, 0, 6, 112) + bytes([features // ZSTD]) + bytes(7)
    counted = struct.pack(">6Q", *(counts.get(cluster, 1) for cluster in range(6)))
    data = zlib.compressobj(wbits=-12)
    body = data.compress(b"\x55" * CLUSTER) + data.flush()
    parts = (
        begin + header,
        u64(2 * CLUSTER),
        counted,
        struct.pack(f">{len(l1)}Q", *l1),
        struct.pack(f">{len(table)}Q", *table),
        body + disks.noise(CLUSTER - len(body)),
    )
    return b"".join(part.ljust(CLUSTER, b"\0") for part in parts)


def _shared(shop: Workshop) -> Iterator[Bad]:
    """With counts that are right: qemu-img check finds no fault in these."""
    table, data = 4 * CLUSTER, 5 * CLUSTER
    many = {5: ENTRIES}
    for name, reason, l1, entries, counts, features in (
        ("compressed", "one compressed cluster 8192 times", 1, [COMPRESSED | data] * ENTRIES, many, 0),
        ("zstd", "one zstd cluster 8192 times", 1, [COMPRESSED | data] * ENTRIES, many, ZSTD),
        ("lengths", "one compressed cluster, with lengths that differ", 1,
         [COMPRESSED | data | i % 64 << BITS for i in range(ENTRIES)], many, 0),
        ("offsets", "8192 compressed clusters in the place of one", 1,
         [COMPRESSED | data + i * 7 for i in range(ENTRIES)], many, 0),
        ("data", "one cluster 8192 times", 1, [data] * ENTRIES, many, 0),
        ("pair", "one cluster twice", 1, [data, data], {5: 2}, 0),
        ("zeros", "one cluster of zeros 8192 times", 1, [data | 1] * ENTRIES, many, 0),
        ("table", "one L2 table 8 times", 8, [data], {4: 8, 5: 8}, 0),
        ("both", "one L2 table 8192 times, one cluster 2^26 times", ENTRIES, [data] * ENTRIES,
         {4: ENTRIES, 5: ENTRIES**2}, 0),
    ):  # fmt: skip
        image = qcow2([table] * l1 if l1 > 1 else [table | 1 << 63], entries, counts, features=features)
        path = shop.write(f"bomb-{name}", image)
        yield Bad(path.name, path, "qcow2", BROKEN, reason)


def _tables(shop: Workshop) -> Iterator[Bad]:
    """Tables of qcow2 that are endless, or lead in circles."""
    table, data = 4 * CLUSTER | 1 << 63, 5 * CLUSTER | 1 << 63
    sound = qcow2([table], [data], {})
    base = shop.write("bomb-base", sound)
    for name, reason, *patches in (
        ("l1-itself", "the L1 table is its own L2 table", (3 * CLUSTER, u64(3 * CLUSTER | 1 << 63))),
        ("l1-refcounts", "the L2 table is the refcount table", (3 * CLUSTER, u64(CLUSTER | 1 << 63))),
        ("l1-header", "the L2 table is the header", (40, u64(0))),
        ("l2-itself", "the L2 table is a cluster of its own", (4 * CLUSTER, u64(4 * CLUSTER | 1 << 63))),
        ("refcounts-itself", "the refcount table is its own block", (CLUSTER, u64(CLUSTER))),
        ("refcounts-twice", "two refcount blocks are one", (CLUSTER, u64(2 * CLUSTER) * 2)),
        ("refcounts-all", "8192 refcount blocks are one", (CLUSTER, u64(2 * CLUSTER) * ENTRIES)),
        ("refcounts-l1", "the L1 table is a refcount block", (CLUSTER, u64(3 * CLUSTER))),
        ("refcounts-8-mib", "a refcount table of 8 MiB", (56, u32(128))),
        ("l1-32-mib", "an L1 table of 32 MiB", (36, u32(1 << 22))),
        ("l1-33-mib", "an L1 table of more than 32 MiB", (36, u32((1 << 22) + 1))),
        ("extensions", "8000 header extensions", (112, (u32(7) + u32(0)) * 8000)),
    ):
        path = shop.derive(f"bomb-{name}", base, *patches)
        yield Bad(path.name, path, "qcow2", BROKEN, reason)


def _snapshots(shop: Workshop) -> Iterator[Bad]:
    sound = qcow2([4 * CLUSTER | 1 << 63], [5 * CLUSTER | 1 << 63], {})
    for name, count, entries, code, reason in (
        ("endless", 1, 2**32 - 1, BROKEN, "a snapshot with an L1 table of 2^32-1 entries"),
        ("huge", 64, 1 << 22, COMPLEX, "64 snapshots with L1 tables of 32 MiB"),
        ("many", 65, 1, COMPLEX, "65 snapshots"),
        ("most", 2**32 - 1, 1, COMPLEX, "2^32-1 snapshots"),
    ):
        one = struct.pack(SNAPSHOT, 3 * CLUSTER, entries, 1, 1, 0, 0, 0, 0, 16)
        one += u64(0) + u64(ENTRIES * CLUSTER) + b"1a" + bytes(6)
        image = bytearray(sound + one * min(count, 100))
        image[60:72] = u32(count) + u64(len(sound))
        path = shop.write(f"bomb-snapshots-{name}", bytes(image))
        yield Bad(path.name, path, "qcow2", code, reason)


def _bitmaps(shop: Workshop) -> Iterator[Bad]:
    for name, count, length, entries, reason in (
        ("many", 65535, 65535 * 1024, 1, "a directory of 65535 bitmaps"),
        ("too-many", 2**32 - 1, 2**63, 1, "a directory of 2^32-1 bitmaps"),
        ("long", 1, 32, 2**32 - 1, "a bitmap with a table of 2^32-1 entries"),
        ("longest", 1, 32, 2**27, "a bitmap with a table of 1 GiB"),
    ):
        place = 6 * CLUSTER
        extension = u32(0x23852875) + u32(24) + u32(count) + u32(0) + u64(length) + u64(place) + bytes(8)
        image = bytearray(qcow2([4 * CLUSTER | 1 << 63], [5 * CLUSTER | 1 << 63], {}, header=extension))
        image[88:96] = u64(1)
        entry = struct.pack(">QIIBBHI", place, entries, 0, 1, 16, 4, 0) + b"name" + bytes(4)
        path = shop.write(f"bomb-bitmaps-{name}", bytes(image) + entry)
        yield Bad(path.name, path, "qcow2", BROKEN, reason)


def _grains(shop: Workshop) -> Iterator[Bad]:
    """VMDK with two grain tables, as a stream and not: what one says, the other may not say again."""
    disk = shop.write("two-tables.raw", disks.noise(4 * CLUSTER))
    with disk.open("r+b") as file:
        file.seek(36 * disks.MIB)
        file.write(disks.noise(2 * CLUSTER))
        file.truncate(40 * disks.MIB)
    for subformat in ("monolithicSparse", "streamOptimized"):
        base = shop.new(f"two-tables-{subformat}")
        qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", disk, base)
        image = base.read_bytes()
        (directory,) = struct.unpack_from("<Q", image, 56)
        tables = struct.unpack_from("<2I", image, directory * 512)
        first, second = (struct.unpack_from("<512I", image, table * 512) for table in tables)
        one, other = first[0], next(grain for grain in second if grain)
        place = tables[1] * 512 + 4 * second.index(other)
        for name, target, reason in (
            ("shared", one, "one grain in two tables"),
            ("overlap", one + 1, "a grain that begins within another"),
            ("on-table", tables[0], "a grain that is a grain table"),
            ("on-directory", directory, "a grain that is the grain directory"),
            ("on-descriptor", 2, "a grain that is the descriptor"),
        ):
            path = shop.derive(f"bomb-{subformat}-{name}", base, (place, struct.pack("<I", target)))
            yield Bad(path.name, path, "vmdk", BROKEN, reason)
        for name, target in (("directory", directory), ("descriptor", 1), ("overlap", tables[0] + 1)):
            patch = directory * 512 + 4, struct.pack("<I", target)
            path = shop.derive(f"bomb-{subformat}-table-{name}", base, patch)
            yield Bad(path.name, path, "vmdk", BROKEN, f"a grain table that is in the {name}")
        if subformat == "streamOptimized":
            for length in (2**31, 2**32 - 1):
                patch = one * 512 + 8, struct.pack("<I", length)
                path = shop.derive(f"bomb-{subformat}-{length}", base, patch)
                yield Bad(path.name, path, "vmdk", BROKEN, f"a grain of {length} compressed bytes")


def _large_grains(shop: Workshop) -> Iterator[Bad]:
    """A whole grain is unpacked for each small part of it that is read."""
    for mib in (4, 64):
        sectors, packed = mib << 11, zlib.compress(b"\x55" * (mib << 20), 1)
        text = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        text += f'createType="streamOptimized"\nRW {2 * sectors} SPARSE "x.vmdk"\n'
        room = -(-(12 + len(packed)) // 512)
        header = struct.pack("<4sIIQQQQIQQ", b"KDMV", 3, 0x30001, 2 * sectors, sectors, 1, 1, 512, 0, 2)
        header += struct.pack("<QB4sH", 7, 0, b"\n \r\n", 1)
        table = struct.pack("<512I", 7, 7 + room, *bytes(510))
        parts = header, text.encode(), struct.pack("<I", 3)
        image = b"".join(part.ljust(512, b"\0") for part in parts) + table
        for number in range(2):
            image += (struct.pack("<QI", number * sectors, len(packed)) + packed).ljust(room * 512, b"\0")
        path = shop.write(f"bomb-grains-{mib}", image)
        yield Bad(path.name, path, "vmdk", BROKEN, f"compressed grains of {mib} MiB")


def _too_large(shop: Workshop) -> Iterator[Bad]:
    """A sector more than anybody may have, in files of some KiB."""
    size = LIMIT + 512
    vhd = shop.convert("large-vhd", "vpc")
    fixed = shop.convert("large-vhd-fixed", "vpc", "-o", "subformat=fixed")
    footers: list[tuple[Path, bytes]] = [(vhd, vhd.read_bytes()[-512:]), (fixed, fixed.read_bytes()[-512:])]
    whole = [(path, summed(footer, 64, (48, struct.pack(">Q", size)))) for path, footer in footers]
    for base, disk_format, *patches in (
        (shop.convert("large-qcow2", "qcow2"), "qcow2", (24, struct.pack(">Q", size))),
        (shop.convert("large-vmdk", "vmdk"), "vmdk", (12, struct.pack("<Q", size // 512))),
        (shop.convert("large-vdi", "vdi"), "vdi", (0x170, struct.pack("<Q", size))),
        (shop.convert("large-vhdx", "vhdx"), "vhdx", ((3 << 20) + 0x10008, struct.pack("<Q", size))),
        (vhd, "vhd", (0, whole[0][1]), (-512, whole[0][1])),
        (fixed, "vhd", (-512, whole[1][1])),
    ):
        path = shop.derive(f"{base.name}-too", base, *patches)
        yield Bad(path.name, path, disk_format, LARGE, "64 TiB and a sector")
