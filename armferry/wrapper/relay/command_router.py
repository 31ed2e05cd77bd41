"""One client's QMP commands on their way to QEMU: which are led through a gateway, and how.

    migrate, migrate-incoming, migrate-recover   to a gateway's private address
    getfd, add-fd, remove-fd                     noted, for a later fd: or file: address
    migrate-set-capabilities                     noted: mapped-ram
    human-monitor-command                        its `migrate` lines as the commands above

Everything else, and every command that need not be led, passes as it came. A migration to a
descriptor stays `fd:NAME` for QEMU: a `getfd` slipped in before it gives QEMU another descriptor
of that name, and QEMU's answer to it is taken out again (`relay`). A command that cannot be led is
answered here, in QEMU's words for errors. Vocabulary: qapi/migration.json, qapi/misc.json.
"""

import contextlib
import itertools
import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from armferry.errors import ArmferryError
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
from armferry.wrapper.relay.messages import Piece, read_message

__all__ = ["Action", "CommandRouter"]

_WORTH_READING = (b"migrat", b"getfd", b"closefd", b"add-fd", b"remove-fd")
_INCOMING = ("migrate-incoming", "migrate-recover")
_HUMAN = {"migrate": "migrate", "migrate_incoming": "migrate-incoming",
          "migrate_recover": "migrate-recover"}  # fmt: skip
_MIGRATION = re.compile(
    rf'\s*({"|".join(_HUMAN)})((?:\s+-\w+)*)\s+(?:"((?:[^"\\]|\\.)*)"|(\S+))\s*'
)
"""The command, its flags, and the address in quotes or without."""
_SWITCH = re.compile(r"\s*migrate_set_capability\s+(\S+)\s+(\S+)\s*")
_identities = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Action:
    """What to do for one piece: send `data` with `descriptors` to QEMU, or `answer` the client.

    `awaited` is the id of a slipped-in command whose answer is not the client's, else empty.
    """

    data: bytes = b""
    descriptors: tuple[int, ...] = ()
    awaited: str = ""
    answer: bytes = b""


@dataclass(slots=True)
class CommandRouter:
    """Leads the commands of one client; `transfers` makes the gateways."""

    transfers: Transfers
    answer_awaited: bool = False
    """Whether QEMU has not yet said what it thinks of the outgoing migration."""
    _awaited_id: Any = None
    _named: dict[str, int] = field(default_factory=dict)
    _sets: set[int] = field(default_factory=set)

    def route(self, piece: Piece, descriptors: tuple[int, ...]) -> list[Action]:
        """What becomes of `piece`, with which the client sent `descriptors`."""
        as_it_came = [Action(piece.data, descriptors)]
        actions = self._actions(piece, descriptors, as_it_came)
        if actions is as_it_came:
            self._forget_used(piece.data)
        return actions

    def _actions(
        self, piece: Piece, descriptors: tuple[int, ...], as_it_came: list[Action]
    ) -> list[Action]:
        if not piece.whole or not any(word in piece.data for word in _WORTH_READING):
            return as_it_came
        message = read_message(piece.data)
        if message is None:
            return as_it_came
        command = message.get("execute", message.get("exec-oob"))
        arguments = message.get("arguments", {})
        if not isinstance(command, str) or not isinstance(arguments, dict):
            return as_it_came
        try:
            routed = self._routed(command, arguments, descriptors)
        except ArmferryError as error:
            return [Action(answer=_refusal(message, str(error)))]
        if routed is None:
            return as_it_came
        if command == "migrate" or command == "human-monitor-command":
            self.answer_awaited, self._awaited_id = True, message.get("id")
        actions, changed = routed
        if changed is None:
            return [*actions, *as_it_came]
        text = json.dumps({**message, "arguments": changed}).encode()
        return [*actions, Action(text, descriptors)]

    def answered(self, message: Mapping[str, Any]) -> None:
        """Notes what QEMU said when it is the answer to an outgoing migration."""
        if ("return" in message or "error" in message) and message.get("id") == self._awaited_id:
            self.answer_awaited = False
            if "error" in message:
                self.transfers.give_up()

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
        """Steps to take before the command, and its new arguments; None when it is not led."""
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
            case "migrate-incoming" | "migrate-recover":
                return self._incoming(arguments)
            case "migrate" if self.transfers.outgoing is not None:
                return self._outgoing(arguments)
            case "migrate":
                with contextlib.suppress(ArmferryError):  # whatever it is, it is QEMU's
                    self._used(_target(arguments))
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
            return None if path is None else ([_plain()], _with_path(arguments, path))
        if isinstance(target, NamedFd) and target.name in self._named:
            theirs = self.transfers.receive_from(self._named.pop(target.name))
            return [_slipped_in(target.name, theirs)], None
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
            return [_slipped_in(target.name, theirs)], None
        path = self.transfers.send_to(target)
        self._used(target)
        return [], _with_path(arguments, path)

    def _human(
        self, arguments: Mapping[str, Any]
    ) -> tuple[list[Action], dict[str, Any] | None] | None:
        line = str(arguments.get("command-line", ""))
        if switch := _SWITCH.fullmatch(line):
            self._note_one(switch[1], switch[2] in ("on", "true", "yes"))
            return None
        found = _MIGRATION.fullmatch(line)
        if found is None:
            return None
        command = _HUMAN[found[1]]
        if command == "migrate" and self.transfers.outgoing is None:
            return None
        uri = found[4] if found[3] is None else re.sub(r"\\(.)", r"\1", found[3])
        routed = (self._incoming if command in _INCOMING else self._outgoing)({"uri": uri})
        if routed is None:
            return None
        actions, changed = routed
        new = line if changed is None else f"{found[1]}{found[2]} {changed['uri']}"
        return actions, {**arguments, "command-line": new}

    def _name(self, name: str, descriptor: int) -> None:
        self._forget(name)
        self._named[name] = descriptor

    def _forget_used(self, data: bytes) -> None:
        """QEMU takes the descriptors that a command names: nobody else may hold them open."""
        for name in tuple(self._named):
            if name.encode() in data and b"getfd" not in data:
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


def _slipped_in(name: str, connection: socket.socket) -> Action:
    return _own_command("getfd", {"fdname": name}, (connection.detach(),))


def _plain() -> Action:
    """QEMU is to expect a plain stream."""
    off = [{"capability": one, "state": False} for one in (MAPPED_RAM, "multifd")]
    return _own_command("migrate-set-capabilities", {"capabilities": off})


def _own_command(
    command: str, arguments: Mapping[str, Any], descriptors: tuple[int, ...] = ()
) -> Action:
    """A command that no client gave; its answer is taken out again."""
    identity = f"armferry-{os.getpid()}-{next(_identities)}"
    message = {"execute": command, "arguments": arguments, "id": identity}
    return Action(json.dumps(message).encode(), descriptors, identity)


def _refusal(message: Mapping[str, Any], reason: str) -> bytes:
    answer: dict[str, Any] = {}
    if "id" in message:
        answer["id"] = message["id"]
    answer["error"] = {"class": "GenericError", "desc": f"armferry: {reason}"}
    return json.dumps(answer).encode() + b"\r\n"
