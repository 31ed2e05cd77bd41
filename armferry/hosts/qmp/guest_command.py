"""A guest's own QEMU command line, made fit for a question: nothing of the host is touched.

What is migrated hangs on the machine, its CPU, its memory and its devices; those stay. What the
guest has of its host goes: images become null devices (nothing is opened, let alone written or
locked), networks and character devices lead nowhere, no port or socket is taken, nothing is shown
and nothing listens. Devices that are pieces of the host (vfio, vhost-user, USB of the host) cannot
be had a second time: they are left out and named. Knows QEMU's options (qemu-options.hx) from 5.2
to 11.1; an option that it does not know stays.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from armferry.hosts.qmp.options import Option, options_of
from armferry.option_text import joined, keyed

__all__ = ["GuestCommand", "question_of"]

_FLASH_BYTES = 64 << 20
"""What each of the two flash chips of `virt` takes, to the byte."""
_DISK_BYTES = 1 << 30
_DROPPED = frozenset(
    (
        # how it is seen, watched and driven
        "display", "vnc", "spice", "nographic", "curses", "sdl", "full-screen", "qmp", "qmp-pretty",
        "mon", "monitor", "gdb", "s", "D", "d", "dfilter", "trace", "plugin", "msg", "qtest",
        "qtest-log", "seed", "debugcon", "add-fd", "semihosting", "semihosting-config", "audiodev",
        "audio", "audio-help", "ctrl-grab", "alt-grab", "k", "show-cursor", "portrait",
        # the process
        "daemonize", "pidfile", "runas", "run-with", "chroot", "user", "sandbox", "parallel-mon",
        "action", "no-reboot", "no-shutdown", "watchdog-action", "overcommit", "async-teardown",
        "name", "readconfig", "writeconfig", "enable-fips", "only-migratable", "mem-prealloc",
        "mem-path", "perfmap", "jitdump", "rtc",
        # how it starts, and what it boots from
        "incoming", "S", "preconfig", "loadvm", "snapshot", "kernel", "initrd", "append", "dtb",
        "bios", "fw_cfg", "shim", "boot", "option-rom", "L", "nodefaults-mon", "uuid-mon",
        # networks of old
        "net", "netdev-user",
    )
)  # fmt: skip
_BOOTED = frozenset(("kernel", "initrd", "append", "dtb", "dumpdtb", "firmware", "shim"))
"""Properties of the machine that name files the guest boots from."""
_IMAGES = frozenset(("hda", "hdb", "hdc", "hdd", "cdrom", "sd", "mtdblock", "fda", "fdb"))
_HOST_DEVICES = (
    "vfio-", "vhost-user", "vhost-vsock", "vhost-scsi", "usb-host", "usb-redir", "ivshmem",
    "u2f-passthru", "ccid-card-passthru", "virtio-9p", "x-", "pci-assign", "scsi-generic",
    "scsi-block", "tpm-",
)  # fmt: skip
_HOST_OBJECTS = (
    "secret", "tls-", "authz-", "filter-", "colo-", "cryptodev-vhost", "monitor-", "can-host",
    "iommufd", "x-", "input-linux", "input-barrier", "pr-manager", "rng-egd", "dbus-",
    "throttle-group", "replay", "vfio-user",
)  # fmt: skip
_FILE_MEMORY = ("memory-backend-file", "memory-backend-memfd", "memory-backend-epc")
_BACKEND_KEPT = ("id", "size", "share", "x-use-canonical-path-for-ramblock-id", "reserve")


@dataclass(frozen=True, slots=True)
class GuestCommand:
    """`words` are QEMU's, the program left out; `left_out` the devices that could not be kept."""

    words: tuple[str, ...]
    left_out: tuple[str, ...]

    def value_of(self, name: str) -> str:
        """The last value of an option, empty where it is not given."""
        found = [one.value for one in options_of(self.words) if one.name == name and one.value]
        return found[-1] if found else ""


def question_of(words: "list[str] | tuple[str, ...]") -> GuestCommand:
    """The command line `words` of a guest, without the program, for a paused QEMU to be asked."""
    return _Rewriting(options_of(tuple(words))).run()


class _Rewriting:
    def __init__(self, options: list[Option]) -> None:
        self._options = options
        self._words: list[str] = []
        self._left_out: list[str] = []
        self._flash = _flash_nodes(options)
        self._ports = _ports(options)
        self._steps: dict[str, Callable[[str], None]] = {
            "drive": self._drive,
            "blockdev": self._blockdev,
            "chardev": self._chardev,
            "serial": self._port("serial"),
            "parallel": self._port("parallel"),
            "virtioconsole": self._port("virtioconsole"),
            "netdev": self._netdev,
            "nic": self._nic,
            "device": self._device,
            "object": self._object,
            "fsdev": self._fsdev,
            "virtfs": self._unsupported("virtfs"),
            "tpmdev": self._unsupported("tpmdev"),
            "pflash": self._pflash,
            "machine": self._machine("machine"),
            "M": self._machine("M"),
        }

    def run(self) -> GuestCommand:
        for option in self._options:
            name, value = option.name, option.value
            if name in _DROPPED:
                continue
            if name in _IMAGES or name == "":
                self._drive("if=none" if name == "" else f"id=image-{name},if={_bus(name)}")
            elif value is None:
                self._words.append(f"-{name}")
            elif name in self._steps:
                self._steps[name](value)
            else:
                self._words += [f"-{name}", value]
        return GuestCommand(tuple(self._words), tuple(self._left_out))

    def _add(self, name: str, value: str) -> None:
        self._words += [f"-{name}", value]

    def _machine(self, name: str) -> Callable[[str], None]:
        def step(value: str) -> None:
            pairs = keyed(value, "type")
            kept = [(key, one) for key, one in pairs if key not in _BOOTED]
            self._add(name, joined(kept, "type"))

        return step

    def _drive(self, value: str) -> None:
        """The same place on the same bus, with nothing behind it."""
        pairs = dict(keyed(value))
        flash = pairs.get("if") == "pflash"
        kept = [
            (key, pairs[key])
            for key in ("if", "id", "index", "bus", "unit", "media", "readonly", "serial")
            if key in pairs
        ]
        size = _FLASH_BYTES if flash else _DISK_BYTES
        null = [("driver", "null-co"), ("read-zeroes", "on"), ("size", str(size))]
        self._add("drive", joined([*null, *kept]))

    def _pflash(self, value: str) -> None:
        self._drive("if=pflash")

    def _blockdev(self, value: str) -> None:
        """A node that other options name becomes a null one; those below it are not needed."""
        name = _named(value, "node-name", "driver")
        if not name:
            return
        size = _FLASH_BYTES if name in self._flash else _DISK_BYTES
        null = {"driver": "null-co", "node-name": name, "read-zeroes": True, "size": size}
        self._add("blockdev", json.dumps(null))

    def _chardev(self, value: str) -> None:
        name = _named(value, "id", "backend")
        if name in self._ports:  # a monitor's alone is not needed
            self._add("chardev", joined([("backend", "null"), ("id", name)], "backend"))

    def _port(self, name: str) -> Callable[[str], None]:
        def step(value: str) -> None:
            self._add(name, value if value.startswith("chardev:") or value == "none" else "null")

        return step

    def _netdev(self, value: str) -> None:
        name = _named(value, "id", "type")
        if name:
            pairs = [("type", "hubport"), ("hubid", "0"), ("id", name)]
            self._add("netdev", joined(pairs, "type"))

    def _nic(self, value: str) -> None:
        pairs = dict(keyed(value, "type"))
        if pairs.get("type") == "none":
            self._add("nic", "none")
            return
        kept = [(key, pairs[key]) for key in ("model", "mac", "macaddr", "addr") if key in pairs]
        self._add("nic", joined([("type", "hubport"), ("hubid", "0"), *kept], "type"))

    def _device(self, value: str) -> None:
        kind = _named(value, "driver", "driver")
        if kind.startswith(_HOST_DEVICES):
            self._left_out.append(value if len(value) < 80 else f"{value[:77]}...")
            return
        self._add("device", value)

    def _object(self, value: str) -> None:
        kind = _named(value, "qom-type", "qom-type")
        if kind.startswith(_HOST_OBJECTS):
            return
        if kind not in _FILE_MEMORY:
            self._add("object", value)
            return
        # the block's name and size are what a guest's memory is known by
        pairs = _pairs(value, "qom-type")
        kept = [(key, pairs[key]) for key in _BACKEND_KEPT if key in pairs]
        self._add("object", joined([("qom-type", "memory-backend-ram"), *kept], "qom-type"))

    def _fsdev(self, value: str) -> None:
        name = _named(value, "id", "fsdriver")
        self._add("fsdev", joined([("fsdriver", "synth"), ("id", name)], "fsdriver"))

    def _unsupported(self, name: str) -> Callable[[str], None]:
        def step(value: str) -> None:
            self._left_out.append(f"-{name}")

        return step


def _ports(options: list[Option]) -> frozenset[str]:
    """The character devices that serial ports and devices name."""
    found: list[str] = []
    for option in options:
        value = option.value or ""
        if value.startswith("chardev:") and option.name not in _DROPPED:
            found.append(value.removeprefix("chardev:"))
        elif option.name in ("device", "object"):
            found.append(_named(value, "chardev", ""))
    return frozenset(found)


def _flash_nodes(options: list[Option]) -> frozenset[str]:
    """The block nodes that -machine puts into the board's flash."""
    found: list[str] = []
    for option in options:
        if option.name in ("machine", "M") and option.value:
            pairs = dict(keyed(option.value, "type"))
            found += [pairs[key] for key in ("pflash0", "pflash1") if key in pairs]
    return frozenset(found)


def _pairs(value: str, implied: str) -> dict[str, str]:
    """The pairs of an option's value, which may be JSON."""
    if not value.startswith("{"):
        return dict(keyed(value, implied))
    try:
        document = json.loads(value)
    except ValueError:
        return {}
    if not isinstance(document, dict):
        return {}
    words = {True: "on", False: "off"}
    return {
        key: words[one] if isinstance(one, bool) else str(one)
        for key, one in document.items()
        if isinstance(one, str | int | bool)
    }


def _named(value: str, key: str, implied: str) -> str:
    return _pairs(value, implied).get(key, "")


def _bus(name: str) -> str:
    return {"sd": "sd", "mtdblock": "mtd"}.get(name, "none")
