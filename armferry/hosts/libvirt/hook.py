"""What libvirt's hook does: one question, answered from what was stored before.

libvirt starts it for every operation on a guest and waits, so it imports next to nothing and
looks up what `armferry host fingerprint` worked out (`hook_table`). Two operations are decided,
both on the destination and before QEMU is started: `migrate begin` and `restore begin`; every
other one ends at once with 0. libvirt hands over the domain's XML, and not where it comes from:

- A migration is stopped when none of the hosts whose fingerprints are known could send that
  kind of guest here.
- A restore is decided by the save image itself, which libvirtd has open: its register lists are
  compared with this host's, and only when they differ is the whole decision made. An image that
  cannot be read there (compressed, or read around the page cache) is left to QEMU.
- A managed save is never stopped. libvirt 11.3 takes the start of a domain whose restore its hook
  has stopped for done and deletes the image: the guest's state would be lost. When QEMU refuses
  it, the image stays.

On any doubt the move goes on: QEMU refuses for itself, this only does it sooner and by name.
Calling conventions: libvirt's documentation of hooks. Never calls libvirt.
"""

import json
import os
import shlex
import struct
import sys

from armferry.hosts.libvirt.domain import DomainFacts, UnreadableDomain, read_domain
from armferry.hosts.program_identity import identity
from armferry.printable import printable

TYPE_CHECKING = False  # importing it takes as long as all of this
if TYPE_CHECKING:
    from typing import Any, Literal

__all__ = ["STATE_FOLDER", "TABLE", "Decision", "decide", "main"]

STATE_FOLDER = "/var/lib/armferry"
TABLE = "hook.json"
_DECIDED = (("migrate", "begin"), ("restore", "begin"))
_UNDECIDED = "not decided: "
_REFRESH = "run armferry host fingerprint"
_FORMAT = {"format": "armferry-hook", "version": 2}
_WRAPPER = "armferry-qemu"
_JOURNAL = ".armferry-journal"  # beside a file that is half rewritten (`journal`)
_MAGIC = b"LibvirtQemudSave"
_HEADER = 92
_SEEKABLE = (0, 6)  # raw, sparse
_TAIL = 1 << 20
_MAX_XML = 4 << 20  # bytes; that of the largest domains has some hundred thousand
_CPU_SECTION = b"\x03cpu"
_SECTION_BEGIN = 0x04


class Decision:
    """Whether a move is stopped, and why it is or is not."""

    __slots__ = ("stopped", "why")

    def __init__(self, stopped: bool, why: str) -> None:
        self.stopped = stopped
        self.why = why


def main(
    words: "list[str]", carrier: "Literal['stock', 'ferried']", state: str = STATE_FOLDER
) -> int:
    """The exit status for libvirt: 1 stops the move, with a line on standard error.

    `carrier` says who carries them: `stock` (QEMU alone) or `ferried` (armferry is in the path).
    """
    if tuple(words[1:3]) not in _DECIDED:
        return 0
    try:
        xml = sys.stdin.read(_MAX_XML + 1)
        if len(xml) > _MAX_XML:
            raise ValueError(f"the XML of the domain is longer than {_MAX_XML} letters")
        decision = decide(words[1], xml, carrier, state)
    except Exception as fault:  # a hook that fails would stop every move of this host
        print(printable(f"armferry: hook: not decided: {fault!r}"), file=sys.stderr)
        return 0
    if decision.stopped:
        print(printable(f"armferry: {decision.why}"), file=sys.stderr)
        return 1
    if decision.why.startswith(_UNDECIDED):
        print(printable(f"armferry: hook: {decision.why}"), file=sys.stderr)
    return 0


def decide(operation: str, xml: str, carrier: str, state: str = STATE_FOLDER) -> Decision:
    """What becomes of `migrate begin` or `restore begin` for the domain `xml`."""
    try:
        domain = read_domain(xml)
    except UnreadableDomain as fault:
        return Decision(False, f"{_UNDECIDED}{fault}")
    if domain is None:
        return Decision(False, "not a domain of an Arm guest")
    if not os.path.exists(os.path.join(state, TABLE)):
        return Decision(
            False, f"nothing is known: no fingerprint of this host in {state}; {_REFRESH}"
        )
    table = _table(state)
    if table is None:
        return Decision(False, f"{_UNDECIDED}{_REFRESH}")
    if os.path.basename(domain.emulator) == _WRAPPER:
        carrier = "ferried"
    here = table["guests"].get(domain.kind, {}).get(domain.emulator)
    if here is None:
        return Decision(
            False,
            f"nothing is known of {domain.kind} under {domain.emulator} on this host; {_REFRESH}",
        )
    if here["kernel"] != os.uname().release or here["emulator"] != identity(domain.emulator):
        return Decision(
            False,
            f"{_UNDECIDED}kernel or QEMU are not those that were fingerprinted; {_REFRESH}",
        )
    if operation == "restore":
        return _restore(domain, here, carrier, state)
    # an answer about a host whose fingerprints were taken away is an answer about nothing
    known = {
        name: here["answers"][number][carrier]
        for name, number in here["hosts"].items()
        if os.path.isdir(os.path.join(state, "hosts", name))
    }
    if not known:
        return Decision(False, f"no other host with such a guest is known in {state}/hosts")
    able = [name for name, reason in known.items() if not reason]
    if able:
        return Decision(False, f"{', '.join(able)} could send it")
    reason = next(iter(known.values()))
    return Decision(True, f"{domain.name} cannot come here from {', '.join(known)}: {reason}")


def _table(state: str) -> "dict[str, Any] | None":
    """The table; None when it is another armferry's."""
    with open(os.path.join(state, TABLE), "rb") as file:
        table: dict[str, Any] = json.load(file)
    return table if all(table.get(key) == value for key, value in _FORMAT.items()) else None


def _restore(domain: DomainFacts, here: "dict[str, Any]", carrier: str, state: str) -> Decision:
    path = _open_image(domain, f"/proc/{os.getppid()}/fd")
    if path is None:
        return Decision(False, "libvirt has no save image of it open")
    name = os.readlink(path)
    if name.endswith(f"/save/{domain.name}.save"):
        return Decision(False, "a managed save is never stopped")
    if os.path.exists(name + _JOURNAL) and _half_rewritten(name):
        return Decision(
            True,
            f"{domain.name} cannot be restored here: a rewrite of {name} was interrupted; "
            f"armferry ferry {shlex.quote(name)} --undo puts it back as it was, --finish "
            "completes it",
        )
    with open(path, "rb") as file:
        lists = _register_lists(file)
    if lists is None:
        return Decision(False, f"{name} cannot be read quickly: QEMU decides")
    indexes = bytes.fromhex(here["indexes"])
    fixed = [(position, bytes.fromhex(value)) for position, value in here["fixed"]]
    if all(
        own == indexes and all(values[at * 8 : at * 8 + 8] == value for at, value in fixed)
        for own, values in lists
    ):
        return Decision(False, f"{name} has this host's registers")
    # it differs: now the time is well spent
    from armferry.hosts.libvirt.hook_table import judge_image

    reason = judge_image(path, domain, carrier, state)
    return Decision(False, f"{name} can be restored") if reason is None else Decision(True, reason)


def _half_rewritten(name: str) -> bool:
    """Whether the journal beside an image is one that was acted upon."""
    from pathlib import Path

    from armferry.hosts.files.journal import ForeignJournal, JournalFault, read_journal

    try:
        return read_journal(Path(name)) is not None
    except ForeignJournal:
        return False  # anybody may have put it there: QEMU decides
    except JournalFault:
        return True  # it is there, and may be whole


def _open_image(domain: DomainFacts, folder: str) -> "str | None":
    """The save image of `domain` among the files that a process has open."""
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        if not os.path.isfile(path):
            continue
        try:
            with open(path, "rb") as file:
                head = file.read(_HEADER)
                if head[: len(_MAGIC)] != _MAGIC:
                    continue
                length = _words(head)[1]
                xml = file.read(min(length, _MAX_XML)).split(b"\0", 1)[0]
        except OSError:  # closed meanwhile, or nobody's to read: not the image
            continue
        found = read_domain(xml.decode("utf-8", "replace"))
        if found is not None and found.uuid == domain.uuid:
            return path
    return None


def _words(head: bytes) -> "tuple[int, ...]":
    words = struct.unpack_from("<5I", head, len(_MAGIC))
    return words if words[0] <= 2 else struct.unpack_from(">5I", head, len(_MAGIC))


def _register_lists(file: "Any") -> "list[tuple[bytes, bytes]] | None":
    """(indexes, values) of each vCPU, 8 bytes each; None where they are not to be found quickly.

    The description at the end of the stream says where in a cpu section the list begins.
    """
    file.seek(0)
    if _words(file.read(_HEADER))[3] not in _SEEKABLE:
        return None
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    mark = tail.rfind(b"\0\x06")
    while mark >= 0 and struct.unpack_from(">I", tail, mark + 2)[0] != len(tail) - mark - 6:
        mark = tail.rfind(b"\0\x06", 0, mark + 1)
    if mark < 0:
        return None
    devices = json.loads(tail[mark + 6 :])["devices"]
    lists = []
    for device in devices:
        if device["name"] == "cpu":
            begin = _section(tail, device["instance_id"], device["version"], mark)
            at = _list_offset(device["fields"])
            if begin is None or at is None:
                return None
            (count,) = struct.unpack_from(">I", tail, begin + at)
            first = begin + at + 4
            second = first + 8 * count
            lists.append((tail[first:second], tail[second : second + 8 * count]))
    return lists or None


def _section(tail: bytes, instance: int, version: int, end: int) -> "int | None":
    """Where the payload of a cpu section begins in `tail`."""
    header = _CPU_SECTION + struct.pack(">II", instance, version)
    at = tail.rfind(header, 0, end)
    if at < 5 or tail[at - 5] != _SECTION_BEGIN:
        return None
    return at + len(header)


def _list_offset(fields: "list[dict[str, Any]]") -> "int | None":
    """Bytes before the list's length in a cpu section."""
    offset = 0
    for field in fields:
        if field["name"] == "cpreg_vmstate_array_len":
            return offset
        offset += field["size"] * field.get("array_len", 1)
    return None
