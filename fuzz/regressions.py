"""One small input for each fault that was ever found, built here so that it can be read.

Each is run by every campaign before anything is changed in it.
"""

import json
import struct

from armferry.explain import known_lines
from fuzz.corpus import small_image
from tests.hosts.qcow2.conftest import Kind

__all__ = ["REGRESSIONS"]


def _be(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


_HEAD = b"QEVM" + _be(3) + b"\x07" + _be(4) + b"virt"
_RAM = (
    b"\x01" + _be(2) + b"\x03ram" + _be(0, 4) + struct.pack(">Q", 4096 | 4) + b"\x03mem"
    + struct.pack(">QQ", 4096, 0x10) + b"\x7e" + _be(2)
    + b"\x03" + _be(2) + struct.pack(">Q", 0x10) + b"\x7e" + _be(2)
)  # fmt: skip
_FOO = b"\x04" + _be(9) + b"\x03foo" + _be(0, 1)
_FOOTER = b"\x7e" + _be(9)
_EMPTY = b'{"devices":[]}'


def _end(text: bytes, claimed: int | None = None) -> bytes:
    return _FOOTER + b"\0\x06" + _be(len(text) if claimed is None else claimed) + text


_STATES = [
    # places that look like the end: small, behind much, claiming megabytes, claiming plain text
    _FOO + _end(_EMPTY) * 300,
    _FOO + b"A" * 20_000 + _end(_EMPTY) * 50,
    _FOO + _end(b'{"', (4 << 20) - 9) * 300,
    _FOO + _end(_EMPTY + b" " * 60, 20_000) * 40 + b"A" * 20_000,
    # footers that end nothing, sections without number, zeros that turn out to be none
    _FOO + (_FOOTER + b"\xff") * 800,
    (_FOO + _FOOTER) * 500,
    _FOO + (bytes(300) + b"A") * 20,
    _FOO + bytes(4000),
    # the end mark where a footer of zeros stands before it
    b"\x04" + _be(0) + b"\x03foo" + _be(0, 1) + b"x" + b"\x7e" + _be(0) + b"\0",
]
_LONG_NAME = "n" * 20_000
_ENTITIES = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(8))
_DOMAIN = (
    '<domain type="kvm"><name>{name}</name><uuid>1</uuid><os><type arch="aarch64" '
    'machine="virt-10.0">hvm</type></os><cpu mode="host-passthrough"/><devices>'
    "<emulator>/usr/bin/qemu-system-aarch64</emulator></devices></domain>"
)


def _refcounts_without_end() -> bytes:
    """Every entry of the refcount table leads to one block in which every cluster is in use."""
    image = bytearray(small_image(Kind(cluster_bits=12, refcount_order=0, disk_clusters=0)))
    (table,) = struct.unpack_from(">Q", image, 48)
    entries = (1 << 12) // 8
    full = len(image)
    image += b"\xff" * (1 << 12)
    struct.pack_into(f">{entries - 1}Q", image, table + 8, *[full] * (entries - 1))
    return bytes(image)


def _snapshots_of_one_table(count: int) -> bytes:
    """Snapshots whose L1 tables are one large one, which leads to one L2 table."""
    size = 1 << 18
    entries = size // 8
    state = (entries - 1) * size
    entry = struct.pack(">QIHHIIQIIQQ", 4 * size, entries, 1, 0, 0, 0, 0, 0, 16, state, size)
    entry += b"1" + bytes(7)
    parts = (b"", entry * count, b"", struct.pack(">Q", 5 * size) * entries, b"")
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 18, size, 0, 1, 3 * size, size, 1, count, 2 * size
    )
    header += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    return b"".join(part.ljust(size, b"\0") for part in (header, *parts))


_COMMAND_LINES = """\
-machine virt-10.0,accel=kvm,gic-version=3 -cpu host,pmu=off,x-mig-hidden-regs=0x1 -smp 4,cores=4
-M virt -accel tcg -monitor stdio -mon chardev=a,mode=control -add-fd set=2,fd=5 -nographic
-chardev socket,id=a,path=/y,server=on -serial mon:stdio -S -loadvm a -qmp unix:/x,server=on
-device {"driver":"virtio-blk-pci","drive":"d"} -global arm-cpu.x-mig-safe-missing-regs=0x2
-blockdev {"driver":"file","filename":"/z","node-name":"d"} -incoming file:/a,offset=0x10
-incoming {"channel-type":"main","addr":{"transport":"socket","type":"unix","path":"/s"}}
""".splitlines()

REGRESSIONS: dict[str, list[bytes]] = {
    "stream": [
        *(_HEAD + _RAM + state for state in _STATES),
        # the same part of the configuration again and again; capabilities without end
        _HEAD + (b"\x05\x1econfiguration/target-page-bits" + _be(1, 12)) * 100,
        _HEAD + b"\x05\x1aconfiguration/capabilities" + _be(1, 64) + b"\xff" * 4000,
        # sections before memory that never end, end falsely, or never stop coming
        _HEAD + _FOO + b"A" * 8000,
        _HEAD + _FOO + (_FOOTER + b"\xff") * 800,
        _HEAD + (_FOO + _FOOTER) * 200,
        # an end of section with an address; a package that never comes
        (_HEAD + _RAM)[:-13] + struct.pack(">Q", 0x1010) + b"\x7e" + _be(2) + _FOO + _FOOTER,
        _HEAD + _RAM + b"\x08\0\x07\0\x04" + _be(200 << 20) + b"A" * 3000,
    ],
    "state": _STATES,
    "json": [
        # the same device twice, one of them without fields; values without number; depth
        b'{"devices": [{"name": "cpu", "instance_id": 0}, {"name": "cpu", "instance_id": 0}]}',
        b'{"a": [' + b"[]," * 20_000 + b"0]}",
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b'{"devices": [{"name": "a", "instance_id": 0, "fields": [{"name": "b", "size": 99999}]}]}',
    ],
    "image": [
        magic + struct.pack("<19I", version, 12, 1, form, 0, *[0] * 14) + b"<domain/>\0\0\0"
        for magic in (b"LibvirtQemudSave", b"LibvirtQemudPart")
        for version in (1, 2)
        for form in (0, 3, 6)
    ],
    "qcow2": [_refcounts_without_end(), _snapshots_of_one_table(3_000)],
    "answers": [
        b"\0\1\0\4" + _be(0),
        b"\0\2\0\4" + _be(1) + b"\0\1\0\4" + _be(0),
        b"\0\5\0\4\3ram" + struct.pack(">QQ", 8, 1) + struct.pack(">Q", 2) + b"\0\1\0\4" + _be(7),
    ],
    "journal": [
        b'{"sizes": [3, 4], "steps": [[[0, 3, 4]]]}\noldnew!',
        b'{"sizes": [3, 4], "steps": [[[0, 3]]]}\nold',
        b'{"sizes": [-3, 4], "steps": [[[-9, -3, 4]]]}\nold',
        b"[]\n",
    ],
    "document": [
        b"0x603000000013c103\n0x603000000013c102 0x1\nTCR2_EL1 = 5\n",
        b'{"kvm": {"ID_AA64PFR0_EL1": "0x11"}}',
    ],
    "command line": [line.encode().replace(b" ", b"\0") for line in _COMMAND_LINES],
    "log": [known.example.encode() for known in known_lines()],
    "policy": [
        b'[[entry]]\nregister="' + b"9" * 4301 + b'"\naction="hidden"\n',
        b"a = " + b"9" * 5000,
        b"a = " + b"[" * 3000,
        b'[[entry]]\nregister = "TCR2_EL1"\naction = "safe-missing"\nwhy = "x"\n',
        b'[machine."virt-10.0"]\nhidden = ["0x603000000013c103"]\n',
    ],
    "fingerprint": [
        b'{"format": "armferry-fingerprint", "version": ' + b"9" * 5000 + b"}",
        b'{"format": "armferry-fingerprint", "version": 1, "cpus": ' + b"[" * 3000,
    ],
    "words": [
        b"TCR2_EL1", b"0x603000000013c103", b"9" * 5000, b"0x603000000013c103,  0x1,,",
        b"ID_AA64MMFR0_EL1.PARange <= destination", b"host,x-mig-hidden-regs=0x1,,0x2",
        b"tcp:[::1]:1234", b"unix:/x", b"op0:3 op1:0 crn:2 crm:0 op2:3",
        b"TCR2_EL1=not-on-both-ends", b"TCR2_EL1=only-source-if-reset",
    ],
    "domain": [
        _DOMAIN.format(name="guest").encode(),
        _DOMAIN.format(name=_LONG_NAME).encode(),
        f'<!DOCTYPE d [<!ENTITY e0 "x">{_ENTITIES}]>{_DOMAIN.format(name="&e8;")}'.encode(),
        b"<domain>" + b"<a>" * 3000,
        b"<domain>" + b"<cpu><feature policy='require' name='sve'/></cpu>" * 500 + b"</domain>",
    ],
    "monitor": [
        json.dumps({"execute": "migrate", "arguments": {"uri": "tcp:a:1"}}).encode(),
        b"{" + b'"a":[' * 1500 + b"]" * 1500 + b"}",
        b"{'execute': 'qmp_capabilities'}\xff{\"a\": \"\\\"}\"}",
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
}  # fmt: skip
