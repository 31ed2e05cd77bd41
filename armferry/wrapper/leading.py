"""One client's QMP commands on their way to QEMU: which are led through a gateway, and how.

    migrate, migrate-incoming, migrate-recover   to a gateway's private address
    getfd                                        noted, for a later fd: address
    migrate-set-capabilities                     noted, for what cannot be led
    human-monitor-command                        its `migrate` lines as the commands above

Everything else, and every command that need not be led, passes as it came. A migration to a
descriptor stays `fd:NAME` for QEMU: a `getfd` slipped in before it gives QEMU another descriptor
of that name, and QEMU's answer to it is taken out again (`AnswerFilter`). A command that cannot be
led is answered here, in QEMU's words for errors. Vocabulary: qapi/migration.json.
"""

import itertools
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from armferry.errors import ArmferryError
from armferry.wrapper.errors import UriFault
from armferry.wrapper.moves import Moves
from armferry.wrapper.qmp import Piece, read_message
from armferry.wrapper.uri import (
    FileTarget,
    NamedFd,
    Target,
    channel_text,
    parse_channels,
    parse_uri,
)

__all__ = ["Leader", "Step"]

_WORTH_READING = (b"migrat", b"getfd", b"closefd")
_INCOMING = ("migrate-incoming", "migrate-recover")
_HUMAN = {"migrate": "migrate", "migrate_incoming": "migrate-incoming",
          "migrate_recover": "migrate-recover"}  # fmt: skip
_identities = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Step:
    """What to do for one piece: send `data` with `descriptors` to QEMU, or `answer` the client.

    `awaited` is the id of a slipped-in command whose answer is not the client's, else empty.
    """

    data: bytes = b""
    descriptors: tuple[int, ...] = ()
    awaited: str = ""
    answer: bytes = b""


@dataclass(slots=True)
class Leader:
    """Leads the commands of one client; `moves` makes the gateways."""

    moves: Moves
    _named: dict[str, int] = field(default_factory=dict)
    _mapped_ram: bool = False

    def lead(self, piece: Piece, descriptors: tuple[int, ...]) -> list[Step]:
        """What becomes of `piece`, with which the client sent `descriptors`."""
        as_it_came = [Step(piece.data, descriptors)]
        steps = self._steps(piece, descriptors, as_it_came)
        if steps is as_it_came:
            self._forget_used(piece.data)
        return steps

    def _steps(
        self, piece: Piece, descriptors: tuple[int, ...], as_it_came: list[Step]
    ) -> list[Step]:
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
            led = self._led(command, arguments, descriptors)
        except ArmferryError as error:
            return [Step(answer=_refusal(message, str(error)))]
        if led is None:
            return as_it_came
        steps, changed = led
        if changed is None:
            return [*steps, *as_it_came]
        text = json.dumps({**message, "arguments": changed}).encode()
        return [*steps, Step(text, descriptors)]

    def close(self) -> None:
        """The client has gone, and so have the descriptors it named."""
        for descriptor in self._named.values():
            os.close(descriptor)
        self._named.clear()

    def _led(
        self, command: str, arguments: Mapping[str, Any], descriptors: tuple[int, ...]
    ) -> tuple[list[Step], dict[str, Any] | None] | None:
        """Steps to take before the command, and its new arguments; None when it is not led."""
        match command:
            case "getfd" if descriptors and self.moves.lead_anything:
                self._name(str(arguments.get("fdname")), os.dup(descriptors[-1]))
            case "closefd":
                self._forget(str(arguments.get("fdname")))
            case "migrate-set-capabilities":
                self._note(arguments)
            case "migrate-incoming" | "migrate-recover":
                return self._incoming(arguments)
            case "migrate" if self.moves.outgoing is not None:
                return self._outgoing(arguments)
            case "human-monitor-command":
                return self._human(arguments)
        return None

    def _incoming(
        self, arguments: Mapping[str, Any]
    ) -> tuple[list[Step], dict[str, Any] | None] | None:
        target = _target(arguments)
        if isinstance(target, FileTarget) and self._mapped_ram:
            return None  # guest memory lies at offsets of the file itself: QEMU must have the file
        if isinstance(target, NamedFd) and target.name in self._named:
            theirs = self.moves.receive_from(self._named.pop(target.name))
            return [_slipped_in(target.name, theirs)], None
        return [], _with_path(arguments, self.moves.listen(target))

    def _outgoing(self, arguments: Mapping[str, Any]) -> tuple[list[Step], dict[str, Any] | None]:
        target = _target(arguments)
        if isinstance(target, FileTarget) and self._mapped_ram:
            raise UriFault(
                "registers are hidden from this guest, and with mapped-ram they would be written "
                "to the file: turn mapped-ram off, or save without it"
            )
        if isinstance(target, NamedFd) and target.name in self._named:
            theirs = self.moves.send_through(self._named.pop(target.name))
            return [_slipped_in(target.name, theirs)], None
        return [], _with_path(arguments, self.moves.send_to(target))

    def _human(
        self, arguments: Mapping[str, Any]
    ) -> tuple[list[Step], dict[str, Any] | None] | None:
        line = str(arguments.get("command-line", ""))
        words = line.split()
        if len(words) < 2 or words[0] not in _HUMAN:
            return None
        command = _HUMAN[words[0]]
        if command == "migrate" and self.moves.outgoing is None:
            return None
        at = line.rindex(words[-1]) if ":" in words[-1] else line.index(words[1])
        led = (self._incoming if command in _INCOMING else self._outgoing)({"uri": line[at:]})
        if led is None:
            return None
        steps, changed = led
        new = line[:at] + changed["uri"] if changed is not None else line
        return steps, {**arguments, "command-line": new}

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

    def _note(self, arguments: Mapping[str, Any]) -> None:
        for one in arguments.get("capabilities", ()):
            if isinstance(one, dict) and one.get("capability") == "mapped-ram":
                self._mapped_ram = bool(one.get("state"))


def _target(arguments: Mapping[str, Any]) -> Target:
    if arguments.get("channels") is not None:
        return parse_channels(arguments["channels"])
    return parse_uri(str(arguments.get("uri", "")))


def _with_path(arguments: Mapping[str, Any], path: str) -> dict[str, Any]:
    if arguments.get("channels") is not None:
        return {**arguments, "channels": channel_text(path)}
    return {**arguments, "uri": f"unix:{path}"}


def _slipped_in(name: str, connection: socket.socket) -> Step:
    identity = f"armferry-{os.getpid()}-{next(_identities)}"
    command = {"execute": "getfd", "arguments": {"fdname": name}, "id": identity}
    return Step(json.dumps(command).encode(), (connection.detach(),), identity)


def _refusal(message: Mapping[str, Any], reason: str) -> bytes:
    answer: dict[str, Any] = {}
    if "id" in message:
        answer["id"] = message["id"]
    answer["error"] = {"class": "GenericError", "desc": f"armferry: {reason}"}
    return json.dumps(answer).encode() + b"\r\n"
