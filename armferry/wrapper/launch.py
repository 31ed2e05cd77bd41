"""A wrapped QEMU made ready: its new command line, and the process beside it started.

Everything that can be wrong with the command line is said here, before anything runs. What is not
a machine that armferry has levels for is left alone, unless the properties ask for it.
"""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from armferry.gateway import Judge
from armferry.gateway.address import FdAddress, TcpAddress, UnixAddress
from armferry.gateway.listeners import listen_tcp, listen_unix, remove_socket
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.fingerprint import (
    Fingerprint,
    FingerprintError,
    dump,
    parse,
)
from armferry.hosts.qmp.options import number_in, options_of
from armferry.policy import (
    EMPTY,
    SITE_FOLDER,
    MachineError,
    Policy,
    PolicyError,
    aggregate,
    problems,
    read_site,
)
from armferry.printable import printable
from armferry.registers import Accelerator
from armferry.wrapper.beside.outgoing_judge import HidingJudge
from armferry.wrapper.beside.pristine import Pristine, pristine_lists, pristine_stream
from armferry.wrapper.beside.probe import ask_vcpus
from armferry.wrapper.beside.property_support import (
    binary_identity,
    cached,
    known_properties,
    remember,
)
from armferry.wrapper.beside.service import Service, in_background
from armferry.wrapper.beside.snapshot import carry_snapshot
from armferry.wrapper.boundary_setup import Boundary, boundary_of
from armferry.wrapper.commandline.command_line import (
    CommandLine,
    is_main_channel,
    read_command_line,
)
from armferry.wrapper.commandline.essential_registers import refuse_needed
from armferry.wrapper.commandline.fdsets import given_sets
from armferry.wrapper.commandline.host_properties import take_host_properties
from armferry.wrapper.commandline.monitors import (
    MonitorOption,
    Role,
    human_monitors,
    monitors_of,
    moved_aside,
)
from armferry.wrapper.commandline.properties import parse_properties, policy_of, strip_properties
from armferry.wrapper.commandline.uri import NamedFd, Target, parse_channels, parse_uri
from armferry.wrapper.errors import ArgumentFault, SetUpFault
from armferry.wrapper.relay.endpoints import Endpoint

__all__ = ["prepare"]


def prepare(program: str, words: list[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments and the environment to run `program` with; the process beside it runs already.

    Raises ArmferryError for what cannot be honoured.
    """
    name = os.path.basename(program)
    given = words
    words, properties = take_host_properties(words, name)
    all_given = parse_properties(words, name)
    plain = strip_properties(words)
    subject = read_command_line(plain)
    accelerator = _accelerator(subject)
    stated = policy_of(all_given, subject.model)
    for one in all_given:
        refuse_needed(one.properties.hidden, name, one.where)
    try:
        policy = aggregate(
            subject.machine, accelerator, site=read_site(SITE_FOLDER), command_line=stated
        )
    except MachineError:
        if all_given or properties:
            raise
        return given, dict(os.environ)  # no level is known for it: QEMU as it is
    _tell_problems(stated)
    if all_given:
        known = known_properties(Path(program), subject.model, accelerator.value)
        plain = strip_properties(words, known)
        _refuse_psci(stated, known, accelerator, subject, name)
    else:
        known = frozenset()
    boundary = boundary_of(Path(program), subject, accelerator, policy, stated, properties, known)
    launch = _Launch(program, subject, accelerator, stated, policy, known, boundary)
    try:
        return launch.start(plain), boundary.environment
    except BaseException:
        launch.undo()
        raise


class _Launch:
    def __init__(
        self,
        program: str,
        subject: CommandLine,
        accelerator: Accelerator,
        stated: Policy,
        policy: Policy,
        known: frozenset[str],
        boundary: Boundary,
    ) -> None:
        self._boundary = boundary
        self._program = Path(program)
        self._subject = subject
        self._accelerator = accelerator
        self._stated = stated
        self._policy = policy
        self._known = known
        self._folder = Path(tempfile.mkdtemp(prefix="armferry-qemu-"))
        self._paths: list[str] = []
        self._endpoints: list[Endpoint] = []

    def start(self, words: list[str]) -> list[str]:
        """Starts the process beside QEMU; QEMU's new arguments."""
        words = list(words)
        subject = self._subject
        preload = self._boundary.preload
        judged = subject.incoming is not None and not self._boundary.carry
        if subject.snapshot and not self._boundary.carry:
            for done in carry_snapshot(words, self._judge):
                _note(done)
        taken_out = self._boundary.taken_out
        hides = bool(taken_out) or (bool(self._policy.hidden) and preload is None)
        self._meet(words, relayed=judged or hides)
        endpoints = self._endpoints
        incoming = self._incoming(words) if judged else None
        pristine = None
        version = self._stated.psci_version if preload is None else None
        comes = subject.incoming or subject.snapshot  # with the version that it has
        if version is not None and "kvm-psci-version" not in self._known and not comes:
            if subject.preconfig:
                raise ArgumentFault(
                    f"{self._program.name}: kvm-psci-version={version}: this QEMU lacks the "
                    "property, and with -preconfig the guest cannot be given its version before "
                    "it starts"
                )
            vcpus = ask_vcpus(self._program, subject.probe_words(self._accelerator.value))
            lists = pristine_lists(vcpus, version, self._program.name)
            stream = pristine_stream(vcpus, lists)
            pristine = Pristine(
                stream,
                self._folder,
                paused=subject.paused,
                shuts_down_on_reboot=subject.shuts_down_on_reboot,
            )
            words += pristine.arguments
        outgoing = HidingJudge(self._policy_for, taken_out) if hides else None
        kept = {number for endpoint in endpoints for number in endpoint.descriptors}
        match incoming:
            case (NamedFd(text), _) if (named := number_in(text)) is not None:
                kept.add(named)
            case (FdAddress(number), _):
                kept.add(number)
        if preload is not None:
            kept.add(preload.reports.fileno())
        for number in kept:
            os.set_inheritable(number, False)
        deferred = judged and subject.incoming == "defer"
        service = Service(
            folder=self._folder,
            endpoints=endpoints,
            judge=self._judge if judged else None,
            outgoing=outgoing,
            incoming=incoming,
            daemonize=subject.daemonize,
            paths=tuple(self._paths),
            prepare=None if pristine is None else pristine.load,
            fdsets=[one for one in given_sets(words) if deferred and _may_carry(one[1])],
            reports=None if preload is None else preload.reports,
        )
        in_background(
            service.run, lambda number: number in kept or (deferred and _may_carry(number))
        )
        return words

    def undo(self) -> None:
        """Removes what was made for a QEMU that will not start."""
        for endpoint in self._endpoints:
            endpoint.remove()
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- monitors

    def _meet(self, words: list[str], *, relayed: bool) -> None:
        if relayed:
            for text in human_monitors(words):
                _note(
                    f"{text} stays QEMU's own: a migration that is typed there goes past armferry"
                )
        done: set[int] = set()
        for number, monitor in enumerate(monitors_of(words)):
            if monitor.at in done:
                continue
            done.add(monitor.at)
            endpoint = self._endpoint(monitor, number)
            if endpoint is not None:
                words[monitor.at] = moved_aside(monitor, str(endpoint.path))
                self._endpoints.append(endpoint)

    def _endpoint(self, monitor: MonitorOption, number: int) -> Endpoint | None:
        if monitor.meeting is None:
            _note(f"the monitor {monitor.text} stays QEMU's own: migrations that are commanded "
                  "there go past armferry")  # fmt: skip
            return None
        if monitor.meeting.role is Role.STDIO and self._subject.daemonize:
            return None  # QEMU refuses this, in its own words
        try:
            return Endpoint(monitor.meeting, self._folder / f"monitor{number}")
        except OSError:
            return None  # QEMU fails in the same way, and says so in its own words

    # -- migrations

    def _incoming(self, words: list[str]) -> tuple[Target, str] | None:
        given = [
            option
            for option in options_of(words)
            if option.name == "incoming" and option.value and is_main_channel(option.value)
        ]
        if not given or given[-1].value == "defer":  # the last one counts, as for QEMU
            return None
        path = str(self._folder / "incoming")
        text = words[given[-1].at + 1]
        words[given[-1].at + 1] = f"unix:{path}"
        return self._opened(self._incoming_target(text), text), path

    def _opened(self, target: Target, text: str) -> Target:
        """The address, listening already where it can: QEMU would fail at once if it could not."""
        try:
            match target:
                case TcpAddress(host, port):
                    return FdAddress(listen_tcp(host, port).detach())
                case UnixAddress(path):
                    remove_socket(path)
                    listening = listen_unix(path)
                    self._paths.append(os.path.abspath(path))
                    return FdAddress(listening.detach())
        except OSError as error:
            raise SetUpFault(
                f"{self._program.name}: -incoming {text}: cannot listen: {error.strerror}"
            ) from error
        return target

    def _incoming_target(self, text: str) -> Target:
        if text.startswith("{"):
            try:
                return parse_channels([json.loads(text)])
            except ValueError as error:
                raise ArgumentFault(f"{self._program.name}: -incoming {text}: {error}") from error
        return parse_uri(text)

    @property
    def _policy_for(self) -> Callable[[str, Accelerator], Policy]:
        stated = self._stated

        @cache
        def policy_for(machine: str, accelerator: Accelerator) -> Policy:
            return aggregate(machine, accelerator, site=read_site(SITE_FOLDER), command_line=stated)

        return policy_for

    def _judge(self) -> Judge:
        return Judge(end_of(self._fingerprint()), self._policy_for)

    def _fingerprint(self) -> Fingerprint:
        """What this QEMU would accept: asked once for each binary, kernel and machine."""
        words = self._subject.probe_words(self._accelerator.value)
        table = self._boundary.packed
        rules = hashlib.sha256(table).hexdigest() if table else ""
        key = f"{binary_identity(self._program)} {os.uname().release} {words} {rules}"
        kept = cached("fingerprint", key)
        if kept is not None:
            # one that is damaged, or another armferry's, is made again
            with contextlib.suppress(FingerprintError):
                return parse(kept.encode(), "the cached fingerprint")
        vcpus = ask_vcpus(self._program, words, table)
        found = vcpus.fingerprint(self._subject.cpu, self._accelerator)
        remember("fingerprint", key, dump(found))
        return found


def _accelerator(subject: CommandLine) -> Accelerator:
    """The accelerator that QEMU will take: the first that works here."""
    for name in subject.accelerators:
        if name == "kvm" and (
            len(subject.accelerators) == 1 or os.access("/dev/kvm", os.R_OK | os.W_OK)
        ):
            return Accelerator.KVM
        if name == "tcg":
            return Accelerator.TCG
    return Accelerator.TCG


def _refuse_psci(
    stated: Policy, known: frozenset[str], accelerator: Accelerator, subject: CommandLine, name: str
) -> None:
    if stated.psci and "kvm-psci-version" not in known and accelerator is not Accelerator.KVM:
        kind = f"{subject.model or 'arm'}-arm-cpu"
        raise ArgumentFault(
            f"{name}: can't apply global {kind}.kvm-psci-version={stated.psci_version}: Property "
            f"'{kind}.kvm-psci-version' not found: it is KVM's, and this guest runs under "
            f"{accelerator.value}"
        )


def _tell_problems(stated: Policy) -> None:
    if stated == EMPTY:
        return
    try:
        for problem in problems(stated):
            _note(str(problem))
    except PolicyError as error:
        _note(str(error))


def _may_carry(number: int) -> bool:
    """Whether a migration may come through this descriptor: a file, a pipe, a connection."""
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _note(text: str) -> None:
    print(printable(f"armferry: {text}"), file=sys.stderr)
