"""One client's QMP commands on their way to QEMU: which go through a gateway, and how.

    migrate, migrate-incoming, migrate-recover   to a gateway's private address
    getfd, add-fd, remove-fd                     noted, for a later fd: or file: address
    migrate-set-capabilities                     noted: mapped-ram
    human-monitor-command                        its `migrate` lines as the commands above
    snapshot-load                                passes, with a word on what to do if QEMU refuses

Every other command passes as it came. A migration to a descriptor stays `fd:NAME` for QEMU: a
`getfd` slipped in before it gives QEMU another descriptor of that name, and QEMU's answer to it is
taken out again. An outgoing migration has an id of armferry's own on its way, for a client may send
several commands at once without any id; the client's answer has the client's. A command that
cannot be honoured is answered here, in QEMU's words for errors. Vocabulary: qapi/migration.json,
qapi/misc.json.
"""

import contextlib
import itertools
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from armferry.errors import ArmferryError
from armferry.hosts.qmp.messages import Piece, read_message
from armferry.stream.mapped import MAPPED_RAM
from armferry.wrapper.beside.transfers import Transfers
from armferry.wrapper.commandline.fdsets import fdset_number
from armferry.wrapper.commandline.uri import (
    FileTarget,
    NamedFd,
    Target,
    channel_text,
    parse_channels,
    parse_uri,
)

__all__ = ["Action", "CommandRouter"]

_WORTH_READING = (
    b"migrat", b"getfd", b"closefd", b"add-fd", b"remove-fd", b"snapshot-load", b"loadvm",
)  # fmt: skip
_INCOMING = ("migrate-incoming", "migrate-recover")
_HUMAN = {"migrate": "migrate", "migrate_incoming": "migrate-incoming",
          "migrate_recover": "migrate-recover"}  # fmt: skip
_MIGRATION = re.compile(
    rf'\s*({"|".join(_HUMAN)})((?:\s+-\w+)*)\s+(?:"((?:[^"\\]|\\.)*)"|(\S+))\s*'
)
"""The command, its flags, and the address in quotes or without."""
_LOAD = re.compile(r"\s*loadvm\s+(\S+)\s*")
_SWITCH = re.compile(r"\s*migrate_set_capability\s+(\S+)\s+(\S+)\s*")
_NAMED_IN_LINE = re.compile(r"(?:^|[\s,])\w*fds?=([^,\s]+)")
_OWN = "armferry-"
_identities = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Action:
    """What to do for one piece: send `data` with `descriptors` to QEMU, or `answer` the client."""

    data: bytes = b""
    descriptors: tuple[int, ...] = ()
    answer: bytes = b""


@dataclass(frozen=True, slots=True)
class _Migration:
    """What the client called an outgoing migration: its own id, if it gave one."""

    identity: Mapping[str, Any]


@dataclass(slots=True)
class CommandRouter:
    """Routes the commands of one client; `transfers` makes the gateways.

    One thread calls `route`, another one `answered`.
    """

    transfers: Transfers
    _asked: dict[str, _Migration | None] = field(default_factory=dict)
    """By armferry's id: an outgoing migration, or None for a command that no client gave."""
    _named: dict[str, int] = field(default_factory=dict)
    _sets: set[int] = field(default_factory=set)

    @property
    def answer_awaited(self) -> bool:
        """Whether QEMU has not yet answered an outgoing migration."""
        return any(one is not None for one in tuple(self._asked.values()))

    def route(self, piece: Piece, descriptors: tuple[int, ...]) -> list[Action]:
        """What becomes of `piece`, with which the client sent `descriptors`."""
        unchanged = [Action(piece.data, descriptors)]
        worth_reading = self._named or any(word in piece.data for word in _WORTH_READING)
        message = read_message(piece.data) if piece.whole and worth_reading else None
        if message is None:
            return unchanged
        command = message.get("execute", message.get("exec-oob"))
        arguments = message.get("arguments", {})
        if not isinstance(command, str) or not isinstance(arguments, dict):
            return unchanged
        try:
            routed = self._routed(command, arguments, descriptors)
        except ArmferryError as error:
            return [Action(answer=_refusal(message, str(error)))]
        if routed is None:
            self._forget_taken(command, arguments)
            return unchanged
        actions, changed = routed
        if changed is not None:
            message = {**message, "arguments": changed}
        elif command in _INCOMING:
            return [*actions, *unchanged]
        if command not in _INCOMING:
            message = self._own(message)
        return [*actions, Action(json.dumps(message).encode(), descriptors)]

    def answered(self, data: bytes) -> bytes | None:
        """What the client gets in place of QEMU's answer `data`; None when it is not armferry's.

        Nothing at all for a command that no client gave.
        """
        if not self._asked or _OWN.encode() not in data:
            return None
        message = read_message(data) or {}
        identity = message.get("id")
        if not isinstance(identity, str) or identity not in self._asked:
            return None
        migration = self._asked.pop(identity)
        if migration is None:
            return b""
        if "error" in message:
            self.transfers.give_up()
        rest = {key: value for key, value in message.items() if key != "id"}
        return json.dumps({**rest, **migration.identity}).encode()

    def close(self) -> None:
        """The client has gone, and so have the descriptors it gave."""
        for descriptor in self._named.values():
            os.close(descriptor)
        self._named.clear()
        for number in self._sets:
            self.transfers.fdsets.forget(number)

    def _routed(
        self, command: str, arguments: Mapping[str, Any], descriptors: tuple[int, ...]
    ) -> tuple[list[Action], dict[str, Any] | None] | None:
        """Actions before the command, and its new arguments; None when it passes unchanged."""
        match command:
            case "getfd" if descriptors and self.transfers.routes_anything:
                self._name(str(arguments.get("fdname")), os.dup(descriptors[-1]))
            case "closefd":
                self._forget(str(arguments.get("fdname")))
            case "add-fd" if descriptors and self.transfers.routes_anything:
                self._add(arguments.get("fdset-id"), descriptors[-1])
            case "remove-fd":
                self._drop(arguments.get("fdset-id"))
            case "migrate-set-capabilities":
                self._note(arguments)
            case "migrate-incoming" | "migrate-recover" if self.transfers.judges_incoming:
                return self._incoming(arguments)
            case "migrate" if self.transfers.outgoing is not None:
                return self._outgoing(arguments)
            case "migrate" | "migrate-incoming" | "migrate-recover":
                with contextlib.suppress(ArmferryError):  # whatever it is, it is QEMU's
                    self._used(_target(arguments))
            case "snapshot-load":
                self._tell_of_load(str(arguments.get("tag")))
            case "human-monitor-command":
                return self._human(arguments)
        return None

    def _incoming(
        self, arguments: Mapping[str, Any]
    ) -> tuple[list[Action], dict[str, Any] | None] | None:
        target = _target(arguments)
        if isinstance(target, FileTarget) and self.transfers.mapped_ram:
            path = self.transfers.load_mapped(target)
            self._used(target)
            return None if path is None else ([self._expect_plain()], _with_path(arguments, path))
        if isinstance(target, NamedFd) and target.name in self._named:
            theirs = self.transfers.receive_from(self._named.pop(target.name))
            return [self._slipped_in(target.name, theirs)], None
        path = self.transfers.listen(target)
        self._used(target)
        return [], _with_path(arguments, path)

    def _outgoing(self, arguments: Mapping[str, Any]) -> tuple[list[Action], dict[str, Any] | None]:
        target = _target(arguments)
        if isinstance(target, FileTarget) and self.transfers.mapped_ram:
            self.transfers.save_mapped(target)
            self._used(target)
            return [], None
        if isinstance(target, NamedFd) and target.name in self._named:
            theirs = self.transfers.send_through(self._named.pop(target.name))
            return [self._slipped_in(target.name, theirs)], None
        path = self.transfers.send_to(target)
        self._used(target)
        return [], _with_path(arguments, path)

    def _slipped_in(self, name: str, connection: socket.socket) -> Action:
        message = self._own({"execute": "getfd", "arguments": {"fdname": name}}, slipped_in=True)
        return Action(json.dumps(message).encode(), (connection.detach(),))

    def _expect_plain(self) -> Action:
        """QEMU is to expect a plain stream."""
        off = [{"capability": one, "state": False} for one in (MAPPED_RAM, "multifd")]
        command = {"execute": "migrate-set-capabilities", "arguments": {"capabilities": off}}
        return Action(json.dumps(self._own(command, slipped_in=True)).encode())

    def _own(self, message: Mapping[str, Any], *, slipped_in: bool = False) -> Mapping[str, Any]:
        """`message` under an id of armferry's own, so that its answer is known."""
        identity = f"{_OWN}{os.getpid()}-{next(_identities)}"
        given = {key: value for key, value in message.items() if key == "id"}
        self._asked[identity] = None if slipped_in else _Migration(given)
        return {**message, "id": identity}

    def _human(
        self, arguments: Mapping[str, Any]
    ) -> tuple[list[Action], dict[str, Any] | None] | None:
        line = str(arguments.get("command-line", ""))
        if switch := _SWITCH.fullmatch(line):
            self._note_one(switch[1], switch[2] in ("on", "true", "yes"))
            return None
        if load := _LOAD.fullmatch(line):
            self._tell_of_load(load[1])
        found = _MIGRATION.fullmatch(line)
        if found is None:
            return None
        command = _HUMAN[found[1]]
        comes = command in _INCOMING
        if not (self.transfers.judges_incoming if comes else self.transfers.outgoing):
            return None
        uri = found[4] if found[3] is None else re.sub(r"\\(.)", r"\1", found[3])
        routed = (self._incoming if comes else self._outgoing)({"uri": uri})
        if routed is None:
            return None
        actions, changed = routed
        new = line if changed is None else f"{found[1]}{found[2]} {changed['uri']}"
        return actions, {**arguments, "command-line": new}

    def _tell_of_load(self, name: str) -> None:
        self.transfers.notify(
            f"the snapshot {name} is loaded by QEMU alone; should it refuse the state, end QEMU "
            f"and run: armferry ferry IMAGE#{name} --in-place --to DEST, or start it with -loadvm "
            f"{name}"
        )

    def _name(self, name: str, descriptor: int) -> None:
        self._forget(name)
        self._named[name] = descriptor

    def _forget_taken(self, command: str, arguments: Mapping[str, Any]) -> None:
        """QEMU takes the descriptors that a command names: nobody else may hold them open."""
        if command in ("getfd", "closefd"):
            return
        taken = set(_descriptor_names(arguments))
        for name in tuple(self._named):
            if name in taken:
                self._forget(name)

    def _forget(self, name: str) -> None:
        old = self._named.pop(name, None)
        if old is not None:
            os.close(old)

    def _add(self, number: object, descriptor: int) -> None:
        if isinstance(number, int):  # otherwise QEMU chooses one, and nobody here knows it
            self.transfers.fdsets.add(number, os.dup(descriptor))
            self._sets.add(number)

    def _drop(self, number: object) -> None:
        if isinstance(number, int):
            self.transfers.fdsets.forget(number)
            self._sets.discard(number)

    def _used(self, target: Target) -> None:
        """QEMU lets a set go when the migration it was given for has ended."""
        if isinstance(target, FileTarget):
            self._drop(fdset_number(target.path))

    def _note(self, arguments: Mapping[str, Any]) -> None:
        for one in arguments.get("capabilities", ()):
            if isinstance(one, dict):
                self._note_one(one.get("capability"), bool(one.get("state")))

    def _note_one(self, capability: object, state: bool) -> None:
        if capability == MAPPED_RAM:
            self.transfers.mapped_ram = state


def _target(arguments: Mapping[str, Any]) -> Target:
    if arguments.get("channels") is not None:
        return parse_channels(arguments["channels"])
    return parse_uri(str(arguments.get("uri", "")))


def _with_path(arguments: Mapping[str, Any], path: str) -> dict[str, Any]:
    if arguments.get("channels") is not None:
        return {**arguments, "channels": channel_text(path)}
    return {**arguments, "uri": f"unix:{path}"}


def _descriptor_names(value: object) -> Iterator[str]:
    """The descriptors that the arguments of a command name, as the schema calls them.

    In qapi/ these are members such as fd, fds (several with colons), vhostfd, fdname, and `str` of
    a socket address; in a line for people, `fd=NAME`.
    """
    if isinstance(value, list):
        for one in value:
            yield from _descriptor_names(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            if isinstance(one, str) and (key in ("fdname", "str") or key.endswith(("fd", "fds"))):
                yield from (one, *one.split(":"))
            elif isinstance(one, str) and key == "command-line":
                for found in _NAMED_IN_LINE.findall(one):
                    yield from (found, *found.split(":"))
            elif isinstance(one, dict | list):
                yield from _descriptor_names(one)


def _refusal(message: Mapping[str, Any], reason: str) -> bytes:
    answer: dict[str, Any] = {}
    if "id" in message:
        answer["id"] = message["id"]
    answer["error"] = {"class": "GenericError", "desc": f"armferry: {reason}"}
    return json.dumps(answer).encode() + b"\r\n"
