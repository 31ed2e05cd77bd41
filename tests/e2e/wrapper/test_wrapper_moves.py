"""Guests moved between wrapped QEMUs that refuse each other, as users type it."""

import dataclasses
import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from armferry.hosts.fingerprints.saved_subject import read_state
from armferry.hosts.qmp.process import MachineSpec, QemuProcess
from armferry.lab.guest import GuestLog
from armferry.lab.qemu_install import InstalledQemu

pytestmark = pytest.mark.qemu

Named = Callable[[str], InstalledQemu]
Wrapped = Callable[[str], Path]

OLD, NEW = "bookworm-backports", "trixie"
BOTH_WAYS = pytest.mark.parametrize(("here", "there"), [(OLD, NEW), (NEW, OLD)])
SPEC = MachineSpec(machine="virt-7.2", cpu="cortex-a57")


def _log_at(path: Path, tick: int, limit: float = 30.0) -> GuestLog:
    deadline = time.monotonic() + limit
    while True:
        log = GuestLog.read(path)
        if log.last >= tick or log.losses or log.odd or time.monotonic() > deadline:
            return log
        time.sleep(0.02)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_running(machine: QemuProcess, limit: float = 20.0) -> None:
    deadline = time.monotonic() + limit
    while machine.status() != "running":
        assert time.monotonic() < deadline, machine.stderr
        time.sleep(0.01)


@BOTH_WAYS
def test_incoming_tcp_on_the_command_line(
    here: str, there: str, wrapped: Wrapped, guest_kernel: Path, tmp_path: Path
) -> None:
    serial, port = tmp_path / "serial", _free_port()
    spec = MachineSpec(machine="virt-7.2", cpu="cortex-a57", kernel=guest_kernel)
    waiting = MachineSpec(
        machine="virt-7.2",
        cpu="cortex-a57",
        kernel=guest_kernel,
        extra=("-incoming", f"tcp:127.0.0.1:{port}"),
    )
    with (
        QemuProcess(wrapped(here), spec, serial=serial) as source,
        QemuProcess(wrapped(there), waiting, serial=serial) as destination,
    ):
        last = _log_at(serial, 3).last
        source.migrate(f"tcp:127.0.0.1:{port}")
        _wait_running(destination)
        log = _log_at(serial, last + 4)
        assert log.faults() == ()
        assert log.last >= last + 4


@BOTH_WAYS
def test_incoming_deferred(
    here: str, there: str, wrapped: Wrapped, guest_kernel: Path, tmp_path: Path
) -> None:
    serial, path = tmp_path / "serial", tmp_path / "socket"
    spec = MachineSpec(machine="virt-7.2", cpu="cortex-a57", kernel=guest_kernel)
    with (
        QemuProcess(wrapped(here), spec, serial=serial) as source,
        QemuProcess(wrapped(there), spec, serial=serial, incoming=True) as destination,
    ):
        last = _log_at(serial, 3).last
        for machine in (source, destination):
            machine.execute(
                "migrate-set-capabilities",
                {"capabilities": [{"capability": "return-path", "state": True}]},
            )
        destination.execute("migrate-incoming", {"uri": f"unix:{path}"})
        source.migrate(f"unix:{path}")
        _wait_running(destination)
        log = _log_at(serial, last + 4)
        assert log.faults() == ()
        assert log.last >= last + 4


@pytest.mark.parametrize("form", ["unix", "exec", "file", "fd", "channel"])
@BOTH_WAYS
def test_incoming_of_every_form_on_the_command_line(
    here: str, there: str, form: str, wrapped: Wrapped, guest_kernel: Path, tmp_path: Path
) -> None:
    serial, stream, path = tmp_path / "serial", tmp_path / "stream", tmp_path / "socket"
    spec = dataclasses.replace(SPEC, kernel=guest_kernel)
    with QemuProcess(wrapped(here), spec, serial=serial) as source:
        _log_at(serial, 3)
        source.save(stream)
    last = GuestLog.read(serial).last
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nexec {wrapped(there)} "$@" 9<{stream}\n')
    program.chmod(0o755)
    address = {"transport": "socket", "type": "unix", "path": str(path)}
    text = {
        "unix": f"unix:{path}",
        "exec": f"exec:cat {stream}",
        "file": f"file:{stream}",
        "fd": "fd:9",
        "channel": json.dumps({"channel-type": "main", "addr": address}),
    }[form]
    waiting = dataclasses.replace(spec, extra=("-incoming", text))
    with QemuProcess(program, waiting, serial=serial) as destination:
        if form in ("unix", "channel"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                connection.sendall(stream.read_bytes())
        _wait_running(destination)
        log = _log_at(serial, last + 4)
    assert log.faults() == ()
    assert log.last >= last + 4
    deadline = time.monotonic() + 10
    while path.exists():  # until the process beside QEMU has noticed its end
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stock_refuses_the_same_move(qemu_release: Named, tmp_path: Path) -> None:
    stream = tmp_path / "stream"
    with QemuProcess(qemu_release(OLD), SPEC, paused=True) as source:
        source.save(stream)
    with QemuProcess(qemu_release(NEW), SPEC, paused=True, incoming=True) as destination:
        assert not destination.load(stream).loaded


def test_saved_and_restored_by_file(wrapped: Wrapped, tmp_path: Path) -> None:
    stream = tmp_path / "stream"
    with QemuProcess(wrapped(OLD), SPEC, paused=True) as source:
        source.save(stream)
    with QemuProcess(wrapped(NEW), SPEC, paused=True, incoming=True) as destination:
        result = destination.load(stream)
        assert result.loaded, result.stderr
        assert destination.status() == "prelaunch"


DBGDTR_EL0 = 0x6030000000139820


@pytest.mark.parametrize("how", ["exec", "file", "channels"])
def test_hidden_registers_never_leave(how: str, wrapped: Wrapped, tmp_path: Path) -> None:
    stream = tmp_path / "stream"
    with QemuProcess(wrapped(NEW), SPEC, paused=True) as plain:
        plain.save(stream)
    listed = dict(read_state(stream).cpus[0].registers)
    stream.unlink()
    spec = MachineSpec(machine="virt-7.2", cpu=f"cortex-a57,x-mig-hidden-regs={DBGDTR_EL0:#x}")
    with QemuProcess(wrapped(NEW), spec, paused=True) as hiding:
        if how == "exec":
            hiding.save(stream)
        elif how == "file":
            hiding.migrate(f"file:{stream}")
        else:
            address = {"transport": "file", "filename": str(stream), "offset": 0}
            hiding.execute("migrate", {"channels": [{"channel-type": "main", "addr": address}]})
            while hiding.execute("query-migrate").get("status") != "completed":
                time.sleep(0.01)
    del listed[DBGDTR_EL0]
    assert dict(read_state(stream).cpus[0].registers) == listed


def test_lists_of_a_machine_level_and_of_the_command_line_apply_together(
    wrapped: Wrapped, tmp_path: Path
) -> None:
    """virt-7.2's levels let DBGDTRTX go, the command line hides one more."""
    stream = tmp_path / "stream"
    hidden = f"-global arm-cpu.x-mig-hidden-regs={DBGDTR_EL0:#x},{DBGDTR_EL0 + 1:#x}"
    spec = dataclasses.replace(SPEC, extra=tuple(hidden.split()))
    with QemuProcess(wrapped(OLD), SPEC, paused=True) as source:
        source.save(stream)
    with QemuProcess(wrapped(NEW), spec, paused=True, incoming=True) as destination:
        result = destination.load(stream)
        assert result.loaded, result.stderr


def test_refusal_names_the_registers_before_qemu_gives_up(wrapped: Wrapped, tmp_path: Path) -> None:
    stream = tmp_path / "stream"
    with QemuProcess(wrapped(OLD), SPEC, paused=True) as source:
        source.save(stream)
    with QemuProcess(wrapped("bookworm"), SPEC, paused=True, incoming=True) as destination:
        result = destination.load(stream)
    assert not result.loaded
    ours, theirs = result.stderr.splitlines()[0], result.stderr.splitlines()[1:]
    assert ours.startswith("armferry: the migration is refused: ")
    assert "ID_DFR0_EL1: the destination fixes it at 0x3010006: MMapTrc 0 -> 1 (vCPU 0)" in ours
    assert "MVBAR: the destination does not know it and no rule allows dropping it" in ours
    assert any("load of migration failed" in line for line in theirs)


FORMS = [
    ("-cpu", "cortex-a57,{name}={a:#x},,{b}"),
    ("-global", "arm-cpu.{name}={a:#x},{b:#x}"),
    ("-global", "arm-cpu.{name}={a},,{b:#x}"),
    ("-global", "cortex-a57-arm-cpu.{name}={a:#x}, {b:#x}"),
    ("-global", "driver=arm-cpu,property={name},value={a:#x},,{b:#x}"),
    ("-cpu", "cortex-a57,{name}={a:#x}", "-global", "arm-cpu.{name}={b:#x}"),
]


@pytest.mark.parametrize("suite", ["bullseye", "bookworm", "trixie", "trixie-backports"])
def test_every_form_of_the_property_hides(suite: str, wrapped: Wrapped, tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, machine="virt-5.2" if suite == "bullseye" else "virt-7.2")

    def saved(*words: str) -> set[int]:
        path = tmp_path / "stream"
        with QemuProcess(
            wrapped(suite), dataclasses.replace(spec, extra=words), paused=True
        ) as one:
            one.save(path)
        return set(read_state(path).cpus[0].registers)

    listed = saved()
    a, b = sorted(index for index in listed if index >> 60 == 6)[-2:]
    for form in FORMS:
        words = [word.format(name="x-mig-hidden-regs", a=a, b=b) for word in form]
        assert listed - saved(*words) == {a, b}, words


@pytest.mark.parametrize(
    ("device", "strip_properties"),
    [
        ("max-arm-cpu,x-mig-hidden-regs=TCR2_EL1,,PIR_EL1,id=x", "max-arm-cpu,id=x"),
        (
            '{"driver":"max-arm-cpu","x-mig-hidden-regs":"TCR2_EL1,PIR_EL1","id":"x"}',
            '{"driver": "max-arm-cpu", "id": "x"}',
        ),
    ],
)
def test_device_forms_leave_qemu_what_is_its_own(
    device: str, strip_properties: str, wrapped: Wrapped, qemu_release: Named
) -> None:
    """No release plugs an Arm CPU: QEMU refuses, in its words, and has not seen the property."""

    def said(program: Path, device: str) -> tuple[int, str]:
        words = ["-M", "virt-7.2", "-display", "none", "-S", "-device", device]
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr

    stock = said(qemu_release(NEW).launcher, strip_properties)
    assert stock[0] == 1
    assert said(wrapped(NEW), device) == stock


def _mapped(machine: QemuProcess) -> None:
    switches = [{"capability": one, "state": True} for one in ("mapped-ram", "multifd")]
    machine.execute("migrate-set-capabilities", {"capabilities": switches})


@BOTH_WAYS
def test_mapped_ram_file_goes_to_a_qemu_that_refuses_it(
    here: str,
    there: str,
    wrapped: Wrapped,
    qemu_release: Named,
    guest_kernel: Path,
    tmp_path: Path,
) -> None:
    stream, serial = tmp_path / "stream", tmp_path / "serial"
    spec = dataclasses.replace(SPEC, memory=512, kernel=guest_kernel)
    with QemuProcess(wrapped(here), spec, serial=serial) as source:
        _log_at(serial, 3)
        _mapped(source)
        source.migrate(f"file:{stream}")
    last, content = GuestLog.read(serial).last, stream.stat()

    with QemuProcess(qemu_release(there), spec, incoming=True) as stock:
        _mapped(stock)
        assert not stock.load_uri(f"file:{stream}").loaded

    with QemuProcess(wrapped(there), spec, serial=serial, incoming=True) as destination:
        _mapped(destination)
        result = destination.load_uri(f"file:{stream}")
        assert result.loaded, result.stderr
        log = _log_at(serial, last + 4)
    assert log.faults() == ()
    assert log.last >= last + 4
    assert (stream.stat().st_mtime_ns, stream.stat().st_size) == (
        content.st_mtime_ns,
        content.st_size,
    )


@pytest.mark.parametrize("suite", ["trixie", "trixie-backports"])
def test_hidden_registers_are_taken_out_of_a_mapped_ram_file(
    suite: str, wrapped: Wrapped, tmp_path: Path
) -> None:
    plain, hidden = tmp_path / "plain", tmp_path / "hidden"
    machine = "virt-7.2" if suite == "trixie" else "virt-10.2"
    spec = MachineSpec(machine=machine, cpu="max")
    with QemuProcess(wrapped(suite), spec, paused=True) as source:
        _mapped(source)
        source.migrate(f"file:{plain}")
    listed = dict(read_state(plain).cpus[0].registers)
    gone = max(index for index in listed if index >> 60 == 6)
    hiding = dataclasses.replace(spec, cpu=f"max,x-mig-hidden-regs={gone:#x}")
    with QemuProcess(wrapped(suite), hiding, paused=True) as source:
        _mapped(source)
        source.migrate(f"file:{hidden}")
    del listed[gone]
    assert dict(read_state(hidden).cpus[0].registers) == listed
    with QemuProcess(wrapped(suite), hiding, paused=True, incoming=True) as destination:
        _mapped(destination)
        result = destination.load_uri(f"file:{hidden}")
        assert result.loaded, result.stderr
