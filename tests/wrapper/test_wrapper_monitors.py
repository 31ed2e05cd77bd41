"""Monitors found on a command line, and the words that move them aside."""

import pytest

from armferry.wrapper.commandline.monitors import (
    MeetingPoint,
    Role,
    human_monitors,
    monitors_of,
    moved_aside,
)

CASES = [
    (
        ["-qmp", "unix:/run/q,server=on,wait=off"],
        MeetingPoint(Role.LISTEN, path="/run/q"),
        ["-qmp", "unix:/p,server=on,wait=off"],
    ),
    (
        ["-qmp", "unix:/run/q,server,nowait"],
        MeetingPoint(Role.LISTEN, path="/run/q"),
        ["-qmp", "unix:/p,server,nowait"],
    ),
    (["-qmp", "unix:/run/q"], MeetingPoint(Role.CONNECT, path="/run/q"), ["-qmp", "unix:/p"]),
    (
        ["-qmp-pretty", "tcp:[::1]:4444,server=on,wait=on,nodelay"],
        MeetingPoint(Role.LISTEN, host="::1", port="4444"),
        ["-qmp-pretty", "unix:/p,server=on,wait=on"],
    ),
    (["-qmp", "stdio"], MeetingPoint(Role.STDIO), ["-qmp", "unix:/p"]),
    (
        ["-chardev", "socket,id=m,fd=7,server=on,wait=off", "-mon", "chardev=m,mode=control"],
        MeetingPoint(Role.LISTEN, number=7),
        ["-chardev", "socket,id=m,server=on,wait=off,path=/p", "-mon", "chardev=m,mode=control"],
    ),
    (
        ["-chardev", "socket,path=/run/a,,b,id=m,reconnect=1", "-mon", "m,mode=control,pretty=on"],
        MeetingPoint(Role.CONNECT, path="/run/a,b"),
        ["-chardev", "socket,id=m,reconnect=1,path=/p", "-mon", "m,mode=control,pretty=on"],
    ),
    (
        ["-chardev", "stdio,id=m,signal=off", "-qmp", "chardev:m"],
        MeetingPoint(Role.STDIO),
        ["-chardev", "socket,id=m,path=/p", "-qmp", "chardev:m"],
    ),
    (
        ["-chardev", "socket,id=m,path=x,abstract=on,server=on", "-mon", "m,mode=control"],
        MeetingPoint(Role.LISTEN, path="\0x"),
        ["-chardev", "socket,id=m,server=on,path=/p", "-mon", "m,mode=control"],
    ),
    (
        ["-object", "monitor-qmp,id=q,chardev=m", "-chardev", "socket,id=m,path=x,server=on"],
        MeetingPoint(Role.LISTEN, path="x"),
        ["-object", "monitor-qmp,id=q,chardev=m", "-chardev", "socket,id=m,server=on,path=/p"],
    ),
    (
        [
            *("-chardev", "socket,id=m,fd=3"),
            *("-object", '{"qom-type":"monitor-qmp","id":"q","chardev":"m"}'),
        ],
        MeetingPoint(Role.CONNECT, number=3),
        [
            *("-chardev", "socket,id=m,path=/p"),
            *("-object", '{"qom-type":"monitor-qmp","id":"q","chardev":"m"}'),
        ],
    ),
]


@pytest.mark.parametrize(("words", "meeting", "moved"), CASES)
def test_found_and_moved(words: list[str], meeting: MeetingPoint, moved: list[str]) -> None:
    (monitor,) = monitors_of(words)
    assert monitor.meeting == meeting
    words[monitor.at] = moved_aside(monitor, "/p")
    assert words == moved


@pytest.mark.parametrize(
    "words",
    [
        ["-qmp", "pty"],
        ["-qmp", "tcp:localhost:0,server=on,to=9"],
        ["-chardev", "stdio,id=m,mux=on", "-mon", "m,mode=control"],
        ["-chardev", "socket,id=m,port=1,host=h,server=on,tls-creds=t", "-mon", "m,mode=control"],
    ],
)
def test_those_that_stay(words: list[str]) -> None:
    (monitor,) = monitors_of(words)
    assert monitor.meeting is None


def test_other_character_devices_are_none_of_its_business() -> None:
    words = ["-chardev", "stdio,id=s", "-serial", "chardev:s", "-mon", "chardev=s,mode=readline"]
    words += ["-object", "{broken", "-object", "monitor-hmp,id=h,chardev=s", "-object", "[]"]
    words += ["-monitor", "stdio", "-qmp", "chardev:nobody"]
    assert monitors_of(words) == ()
    assert human_monitors(words) == (
        "-mon chardev=s,mode=readline",
        "-object monitor-hmp,id=h,chardev=s",
        "-monitor stdio",
    )
    assert human_monitors(["-monitor", "none", "-mon", "s,mode=control"]) == ()
