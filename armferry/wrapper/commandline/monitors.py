"""The QMP monitors of a command line: where clients meet them, and the words that move them aside.

Knows `-qmp`, `-qmp-pretty`, `-mon ...,mode=control`, `-object monitor-qmp` (QEMU 11.1) and the
character devices behind them (QEMU's manual, "Character device options"). A monitor that is moved
aside gets a private UNIX socket instead; its client is served by the relay. Monitors for people are
only counted. Refuses to know how sockets are opened (`endpoints`).
"""

import enum
import json
from dataclasses import dataclass

from armferry.hosts.qmp.options import Option, number_in, options_of
from armferry.option_text import joined, keyed, segments

__all__ = ["MeetingPoint", "MonitorOption", "Role", "human_monitors", "monitors_of", "moved_aside"]


class Role(enum.Enum):
    """What QEMU's side of a monitor does."""

    LISTEN = "listen"
    CONNECT = "connect"
    STDIO = "standard input and output"


@dataclass(frozen=True, slots=True)
class MeetingPoint:
    """Where QEMU and the client meet: a path (abstract ones begin with NUL), a port or a number."""

    role: Role
    path: str = ""
    host: str = ""
    port: str = ""
    number: int = -1


@dataclass(frozen=True, slots=True)
class MonitorOption:
    """One QMP monitor. `at` is the index of the word to change; `meeting` None if it must stay."""

    at: int
    text: str
    legacy: bool
    meeting: MeetingPoint | None


def monitors_of(words: list[str]) -> tuple[MonitorOption, ...]:
    """Every QMP monitor of the command line."""
    options = options_of(words)
    chardevs = {
        dict(keyed(option.value, "backend")).get("id", ""): option
        for option in options
        if option.name == "chardev" and option.value is not None
    }
    found: list[MonitorOption] = []
    for option in options:
        if option.value is None:
            continue
        if option.name in ("qmp", "qmp-pretty"):
            name = option.value.removeprefix("chardev:")
            if name == option.value:
                found.append(_legacy(option))
            elif name in chardevs:
                found.append(_chardev(chardevs[name]))
        elif option.name == "mon":
            pairs = dict(keyed(option.value, "chardev"))
            chardev = chardevs.get(pairs.get("chardev", ""))
            if pairs.get("mode") == "control" and chardev is not None:
                found.append(_chardev(chardev))
        elif option.name == "object":
            pairs = _object(option.value)
            chardev = chardevs.get(pairs.get("chardev", ""))
            if pairs.get("qom-type") == "monitor-qmp" and chardev is not None:
                found.append(_chardev(chardev))
    return tuple(found)


def human_monitors(words: list[str]) -> tuple[str, ...]:
    """The options that give a monitor for people (HMP), as they were typed."""
    found: list[str] = []
    for option in options_of(words):
        value = option.value or ""
        if (
            (option.name == "monitor" and value != "none")
            or (
                option.name == "mon"
                and dict(keyed(value, "chardev")).get("mode", "readline") == "readline"
            )
            or (option.name == "object" and _object(value).get("qom-type") == "monitor-hmp")
        ):
            found.append(f"-{option.name} {value}")
    return tuple(found)


def moved_aside(monitor: MonitorOption, path: str) -> str:
    """The word for `monitor` with the private socket `path` in place of where it was."""
    assert monitor.meeting is not None
    listening = monitor.meeting.role is Role.LISTEN
    if monitor.legacy:
        kept = [part for part in segments(monitor.text)[1:] if _kind(part) not in _TCP_ONLY]
        return ",".join([f"unix:{path.replace(',', ',,')}", *(kept if listening else [])])
    gone = ("path", "host", "port", "fd", "abstract", "tight", *_TCP_ONLY)
    pairs = [(key, value) for key, value in keyed(monitor.text, "backend") if key not in gone]
    if monitor.meeting.role is Role.STDIO:
        pairs = [(key, value) for key, value in pairs if key != "signal"]
    pairs[0] = ("backend", "socket")
    return joined([*pairs, ("path", path)], "backend")


_TCP_ONLY = ("to", "ipv4", "ipv6", "nodelay", "delay")
_UNSERVED = ("tls-creds", "tls-authz", "telnet", "tn3270", "websocket", "mux")


def _object(value: str) -> dict[str, str]:
    """The properties of an object, in text or JSON; none where QEMU will say what is wrong."""
    if not value.startswith("{"):
        return dict(keyed(value, "qom-type"))
    try:
        document = json.loads(value)
    except ValueError:
        return {}
    return (
        {str(key): str(one) for key, one in document.items()} if isinstance(document, dict) else {}
    )


def _legacy(option: Option) -> MonitorOption:
    text = option.value or ""
    meeting = None
    kind, _, rest = segments(text)[0].partition(":")
    pairs = dict(keyed(",".join(["", *segments(text)[1:]])))
    if text == "stdio":
        meeting = MeetingPoint(Role.STDIO)
    elif not _unserved(pairs):
        plain = rest.replace(",,", ",")
        host, _, port = plain.rpartition(":")
        if kind == "unix":
            meeting = MeetingPoint(_role(pairs), path=plain)
        elif kind == "tcp" and "to" not in pairs:
            meeting = MeetingPoint(_role(pairs), host=host.strip("[]"), port=port)
    return MonitorOption(option.at + 1, text, True, meeting)


def _chardev(option: Option) -> MonitorOption:
    text = option.value or ""
    pairs = dict(keyed(text, "backend"))
    meeting = None
    if not _unserved(pairs):
        role = _role(pairs)
        match pairs.get("backend"):
            case "stdio":
                meeting = MeetingPoint(Role.STDIO)
            case "socket" if (fd := number_in(pairs.get("fd", ""))) is not None:
                meeting = MeetingPoint(role, number=fd)
            case "socket" if "path" in pairs and pairs.get("tight") != "off":
                nul = "\0" if pairs.get("abstract") == "on" else ""
                meeting = MeetingPoint(role, path=nul + pairs["path"])
            case "socket" if "port" in pairs and "to" not in pairs:
                meeting = MeetingPoint(role, host=pairs.get("host", ""), port=pairs["port"])
    return MonitorOption(option.at + 1, text, False, meeting)


def _role(pairs: dict[str, str]) -> Role:
    return Role.LISTEN if pairs.get("server") in ("on", "yes", "true") else Role.CONNECT


def _unserved(pairs: dict[str, str]) -> bool:
    return any(pairs.get(key, "off") not in ("off", "no", "false") for key in _UNSERVED)


def _kind(part: str) -> str:
    return part.partition("=")[0].removeprefix("no") if "=" not in part else part.partition("=")[0]
