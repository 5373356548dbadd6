# SPDX-License-Identifier: Apache-2.0
"""Images that point out of themselves, with the name of the other file in every way it can be said."""

import struct
import uuid
from collections.abc import Iterator

from tests.corpus.bad_qcow2 import u32, u64
from tests.corpus.bad_vhd import summed
from tests.corpus.bad_vmdk import EMBEDDED, embedded
from tests.corpus.cases import Bad, Patch, Workshop

BROKEN, UNSAFE = "image.broken", "image.unsafe"
CLUSTER = 65536
V2, V3 = 72, 112  # how long the headers of qcow2 are
DATA_FILE, BACKING_FORMAT = 0x44415441, 0xE2792ACA
NAMES = {
    "path": b"/etc/passwd",
    "relative": b"../../../../etc/passwd",
    "beside": b"other.qcow2",
    "file": b"file:/etc/passwd",
    "file-url": b"file:///etc/passwd",
    "device": b"/dev/sda",
    "host-device": b"host_device:/dev/sda",
    "descriptor": b"fd:3",
    "proc": b"/proc/self/environ",
    "json": b'json:{"driver":"file","filename":"/etc/shadow"}',
    "json-nested": b'json:{"driver":"qcow2","file":{"driver":"raw","file":{"driver":"file",'
    b'"filename":"/etc/shadow"}}}',
    "json-dotted": b'json:{"file.driver":"https","file.url":"https://127.0.0.1/x","file.sslverify":"off"}',
    "json-blank": b'json: { "driver" : "nbd" , "host" : "127.0.0.1" , "port" : "10809" }',
    "json-deep": b"json:" + b'{"file":' * 90 + b"{}" + b"}" * 90,
    "json-broken": b'json:{"driver":',
    "nbd": b"nbd://127.0.0.1:10809/export",
    "nbd-socket": b"nbd+unix:///export?socket=/run/nbd.sock",
    "nbd-old": b"nbd:127.0.0.1:10809",
    "http": b"http://169.254.169.254/latest/meta-data",
    "https": b"https://user:secret@127.0.0.1/disk.raw",
    "ftp": b"ftp://127.0.0.1/disk.raw",
    "ssh": b"ssh://root@127.0.0.1/etc/shadow",
    "rbd": b"rbd:images/secret:conf=/etc/ceph/ceph.conf",
    "iscsi": b"iscsi://127.0.0.1/iqn.2026-01.org:disk/0",
    "gluster": b"gluster://127.0.0.1/volume/disk",
    "blkdebug": b"blkdebug:/etc/passwd:/etc/shadow",
    "fat": b"fat:rw:/etc",
    "utf-8": "/srv/ärger/\u202egepj".encode(),
    "utf-16": "/etc/passwd".encode("utf-16-le"),
    "nul": b"/etc/passwd\0.qcow2",
    "newline": b"/etc/passwd\n#",
    "longest": b"/" * 1012 + b"etc/passwd",  # 1023 is what qemu takes
    "too-long": b"a" * 1024,
    "much-too-long": b"a" * 5000,
}


def cases(shop: Workshop) -> Iterator[Bad]:
    old = shop.convert("outward-qcow2-v2", "qcow2", "-o", "compat=0.10")
    new = shop.convert("outward-qcow2", "qcow2")
    vmdk = shop.convert("outward-vmdk", "vmdk")
    vhd = shop.convert("outward-vhd", "vpc")
    vhdx = shop.convert("outward-vhdx", "vhdx", "-o", "block_size=1M")
    vdi = shop.convert("outward-vdi", "vdi")
    for base, disk_format, family in (
        (old, "qcow2", _backing(V2)),
        (new, "qcow2", _backing(V3)),
        (new, "qcow2", _places()),
        (new, "qcow2", _data_files()),
        (vmdk, "vmdk", _vmdk_parents()),
        (vmdk, "vmdk", _vmdk_extents()),
        (vhd, "vhd", _vhd(vhd.read_bytes())),
        (vhdx, "vhdx", _vhdx()),
        (vdi, "vdi", _vdi()),
    ):
        for name, reason, *patches in family:
            path = shop.derive(f"{base.name}-{name}", base, *patches)
            yield Bad(path.name, path, disk_format, UNSAFE, reason)


Made = Iterator[tuple[str, str, *tuple[Patch, ...]]]


def _backing(header: int) -> Made:
    for kind, name in NAMES.items():
        yield f"backing-{kind}", f"backing file {name[:60]!r}", (8, u64(1024) + u32(len(name))), (1024, name)
    driver = u32(BACKING_FORMAT) + u32(3) + b"raw".ljust(8, b"\0") + bytes(8)
    name = NAMES["path"]
    place = header + len(driver)
    backing = (8, u64(place) + u32(len(name)))
    yield "backing-format", "backing file and its format", backing, (header, driver + name)


def _places() -> Made:
    """Where the name is: qemu wants it in the first cluster, other readers need not."""
    name = NAMES["path"]
    for kind, place in {
        "odd": 1025,
        "in-header": 8,
        "at-extensions": V3,
        "end-of-cluster": CLUSTER - len(name),
        "over-the-edge": CLUSTER - 4,
        "second-cluster": CLUSTER,
        "at-end": 1 << 22,
        "beyond": 1 << 40,
        "negative": 2**64 - 16,
    }.items():
        patches = [(8, u64(place) + u32(len(name)))] + ([(place, name)] if place < CLUSTER else [])
        yield f"backing-at-{kind}", f"backing file, named at {place:#x}", *patches
    yield "backing-endless", "backing file name of 2^32-1 bytes", (8, u64(1024) + u32(2**32 - 1))


def _data_files() -> Made:
    feature, raw = (72, u64(4)), (88, u64(2))
    for kind, name in NAMES.items():
        extension = _extension(name)
        shown = f"data file {name[:60]!r}"
        yield f"data-{kind}", shown, feature, (V3, extension)
        yield f"data-raw-{kind}", f"raw {shown}", feature, raw, (V3, extension)
        yield f"data-denied-{kind}", f"{shown}, but no feature bit for it", (V3, extension)
    name = NAMES["path"]
    yield "data-after-others", "data file, after other extensions", (
        V3, u32(0x12345678) + u32(3) + b"abc".ljust(8, b"\0") + _extension(name))  # fmt: skip
    yield "data-twice", "two data files", feature, (V3, _extension(b"a")[:16] + _extension(name))
    backing = (8, u64(1024) + u32(len(name))), (1024, name)
    yield "data-and-backing", "data file and backing file", feature, *backing, (V3, _extension(name))
    yield "data-raw-denied", "raw data file, but no feature bit for it", raw, (V3, _extension(name))


def _extension(name: bytes) -> bytes:
    return u32(DATA_FILE) + u32(len(name)) + name.ljust(-(-len(name) // 8) * 8, b"\0") + bytes(8)


def _vmdk_parents() -> Made:
    kind = 'createType="monolithicSparse"\n'
    for name, line in {
        "path": 'parentFileNameHint="/etc/passwd"',
        "beside": 'parentFileNameHint="base.vmdk"',
        "unquoted": "parentFileNameHint=/etc/passwd",
        "quotes": "parentFileNameHint='/etc/passwd'",
        "upper-case": 'PARENTFILENAMEHINT="/etc/passwd"',
        "blanks": '  parentFileNameHint = "/etc/passwd"',
        "tabs": '\tparentFileNameHint\t=\t"/etc/passwd"',
        "windows": 'parentFileNameHint="C:\\secret.vmdk"',
        "json": "parentFileNameHint=\"json:{'driver':'nbd'}\"",
        "nbd": 'parentFileNameHint="nbd://127.0.0.1/x"',
        "datastore": 'parentFileNameHint="[datastore1] vm/vm.vmdk"',
        "after-return": 'x="1"\rparentFileNameHint="/etc/passwd"',
        "in-ddb": 'ddb.comment = "parentFileNameHint=/etc/passwd"',
        "empty": 'parentFileNameHint=""',
    }.items():
        yield f"parent-{name}", f"parent by {line!r}", embedded(EMBEDDED.replace(kind, f"{kind}{line}\n"))
    for cid in ("0", "00000000", "fffffff", "fffffffe", "FFFFFFF0", " 12345678"):
        text = EMBEDDED.replace("parentCID=ffffffff", f"parentCID={cid}")
        yield f"parent-cid-{cid.strip()}", f"parent with CID {cid}", embedded(text)


def _vmdk_extents() -> Made:
    whole = 'RW 8192 SPARSE "disk.vmdk"\n'
    for name, line in {
        "flat": 'RW 8192 FLAT "flat.vmdk" 0',
        "flat-path": 'RW 8192 FLAT "/etc/passwd" 0',
        "flat-tabs": 'RW\t8192\tFLAT\t"flat.vmdk"\t0',
        "flat-lower-case": 'rw 8192 flat "flat.vmdk" 0',
        "flat-read-only": 'RDONLY 8192 FLAT "flat.vmdk" 0',
        "flat-no-access": 'NOACCESS 8192 FLAT "flat.vmdk" 0',
        "flat-zero": 'RW 0 FLAT "flat.vmdk" 0',
        "vmfs": 'RW 8192 VMFS "flat.vmdk"',
        "vmfs-sparse": 'RW 8192 VMFSSPARSE "delta.vmdk"',
        "vmfs-rdm": 'RW 8192 VMFSRDM "rdm.vmdk"',
        "vmfs-raw": 'RW 8192 VMFSRAW "/dev/sda"',
        "se-sparse": 'RW 8192 SESPARSE "sesparse.vmdk"',
        "zero": "RW 8192 ZERO",
        "sparse-path": 'RW 8192 SPARSE "/etc/passwd"',
        "sparse-up": 'RW 8192 SPARSE "../other.vmdk"',
        "sparse-windows": 'RW 8192 SPARSE "..\\other.vmdk"',
        "sparse-drive": 'RW 8192 SPARSE "C:other.vmdk"',
        "sparse-nbd": 'RW 8192 SPARSE "nbd:127.0.0.1:10809"',
        "sparse-json": "RW 8192 SPARSE \"json:{'driver':'nbd'}\"",
        "two": 'RW 4096 SPARSE "disk.vmdk"\nRW 4096 SPARSE "other.vmdk"',
        "two-kinds": 'RW 4096 SPARSE "disk.vmdk"\nRW 4096 FLAT "flat.vmdk" 0',
        "two-by-return": 'RW 4096 SPARSE "disk.vmdk"\rRW 4096 FLAT "flat.vmdk" 0',
    }.items():
        yield f"extent-{name}", f"extent {line!r}", embedded(EMBEDDED.replace(whole, f"{line}\n"))
    for kind in (
        "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "fullDevice", "partitionedDevice",
        "vmfs", "vmfsSparse", "vmfsPreallocated", "vmfsEagerZeroedThick", "vmfsThin", "vmfsRaw", "vmfsRDM",
        "vmfsPassthroughRawDeviceMap", "seSparse", "custom", "2GbMaxExtentSparse", "",
    ):  # fmt: skip
        text = EMBEDDED.replace("monolithicSparse", kind)
        yield f"type-{kind or 'empty'}", f"a disk of type {kind!r}", embedded(text)


def _vhd(image: bytes) -> Made:
    """A parent, named as differencing disks do: in each place, and with each kind of footer."""
    footer, header = image[:512], image[512:1536]
    differencing = summed(footer, 64, (60, u32(4)))
    name = "C:\\secret\\päßword.vhd"
    for kind, *patches in (
        ("uuid", (40, uuid.UUID(int=7).bytes)),
        ("name", (64, name.encode("utf-16-be"))),
        ("name-little", (64, name.encode("utf-16-le"))),
        ("W2ru", (576, b"W2ru" + struct.pack(">IIIQ", 1, len(name) * 2, 0, 2048))),
        ("W2ku", (576, b"W2ku" + struct.pack(">IIIQ", 1, len(name) * 2, 0, 2048))),
        ("Wi2r", (576, b"Wi2r" + struct.pack(">IIIQ", 1, len(name), 0, 2048))),
        ("MacX", (576, b"MacX" + struct.pack(">IIIQ", 1, 19, 0, 2048))),
        ("eighth", (576 + 7 * 24, b"W2ku" + struct.pack(">IIIQ", 1, 8, 0, 2048))),
    ):
        changed = 512, summed(header, 36, *patches)
        yield f"parent-{kind}", f"a parent by its {kind}, though it is no difference", changed
        footers = (0, differencing), (-512, differencing)
        yield f"difference-{kind}", f"a difference to a parent, by its {kind}", *footers, changed


def _vhdx() -> Made:
    """qemu-img puts the metadata table at 3 MiB, with five items and their contents from 64 KiB on."""
    table, contents = 3 << 20, 0x10000
    locator = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
    kind = uuid.UUID("b04aefb7-d19e-4a81-b789-25b8e9445913").bytes_le
    for key, value in {
        "relative_path": "..\\parent.vhdx",
        "volume_path": "\\\\?\\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\\parent.vhdx",
        "absolute_win32_path": "\\\\?\\C:\\parent.vhdx",
        "parent_linkage": str(uuid.UUID(int=7)),
    }.items():
        texts = key.encode("utf-16-le"), value.encode("utf-16-le")
        body = kind + struct.pack("<HHIIHH", 0, 1, 32, 32 + len(texts[0]), *map(len, texts)) + b"".join(texts)
        item = locator + struct.pack("<IIII", contents + 4096, len(body), 4, 0)
        count = table + 10, struct.pack("<H", 6)
        named = (table + 32 + 5 * 32, item), (table + contents + 4096, body)
        yield f"parent-{key}", f"a parent by its {key}", count, *named
        flag = table + contents + 4, b"\2"
        yield f"difference-{key}", f"a difference to a parent by its {key}", count, *named, flag


def _vdi() -> Made:
    parent = uuid.UUID(int=7).bytes
    for kind in (3, 4):
        named = (0x4C, struct.pack("<I", kind)), (0x1A8, parent), (0x1B8, parent)
        yield f"parent-kind-{kind}", f"kind {kind}, with a parent's UUIDs", *named
