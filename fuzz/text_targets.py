"""Targets that read what people and programs write: documents, options, domains, lines of logs."""

import contextlib

from armferry.errors import ArmferryError
from armferry.explain import explain_log, explain_text
from armferry.fleet.importing import Reader
from armferry.gateway import parse_address
from armferry.gateway.errors import AddressError
from armferry.hosts.fingerprints.as_end import end_of
from armferry.hosts.fingerprints.documents import read_document
from armferry.hosts.fingerprints.fingerprint import FingerprintError, dump, parse
from armferry.hosts.libvirt.domain import UnreadableDomain, read_domain
from armferry.hosts.qmp.guest_command import question_of
from armferry.hosts.qmp.messages import Splitter, read_message
from armferry.hosts.report import dump_report
from armferry.policy.document import parse_document
from armferry.policy.properties import format_list, parse_cpu, parse_list
from armferry.policy.tolerance import format_tolerance, parse_tolerance
from armferry.registers.parse import parse_register
from armferry.wrapper.commandline.command_line import is_main_channel, read_command_line
from armferry.wrapper.commandline.fdsets import given_sets
from armferry.wrapper.commandline.host_properties import take_host_properties
from armferry.wrapper.commandline.monitors import human_monitors, monitors_of
from armferry.wrapper.commandline.properties import parse_properties, policy_of, strip_properties
from armferry.wrapper.commandline.uri import parse_uri
from fuzz.pieces import pieces

__all__ = [
    "command_line",
    "document",
    "domain",
    "explanation",
    "fingerprint",
    "monitor",
    "policy",
    "report",
    "words",
]


def policy(data: bytes) -> None:
    """A policy document is read, with every selector and number in it, or refused by name."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(ArmferryError):
        found = parse_document(text, "fuzz")
        found.general(None)
        found.single("virt-10.0", None)


def fingerprint(data: bytes) -> None:
    """A fingerprint that can be read is written and read as itself."""
    with contextlib.suppress(FingerprintError):
        one = parse(data, "fuzz")
        text = dump(one)
        assert dump(parse(text.encode(), "again")) == text


def document(data: bytes) -> None:
    """A fingerprint, a template or a plain list of registers becomes an end of a move."""
    with contextlib.suppress(ArmferryError):
        end_of(read_document(data, "fuzz"))


def report(data: bytes) -> None:
    """Reports of hosts: taken, or refused each by its name and no other with it."""
    reader = Reader()
    found = list(reader.stream(data, "fuzz"))
    for one in found:
        text = dump_report(one)
        again = Reader()
        assert [dump_report(two) for two in again.stream(text.encode(), "again")] == [text]


def words(data: bytes) -> None:
    """Registers, lists of them, tolerances, -cpu options and addresses as people write them."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(ArmferryError):
        assert 0 <= parse_register(text) < 1 << 64
    with contextlib.suppress(ArmferryError):
        found = parse_list(text, "fuzz")
        assert parse_list(format_list(found), "fuzz") == found
    with contextlib.suppress(ArmferryError):
        tolerance = parse_tolerance(text)
        assert parse_tolerance(format_tolerance(tolerance)) == tolerance
    with contextlib.suppress(ArmferryError):
        parse_cpu(text)
    with contextlib.suppress(AddressError):
        address = parse_address(text)
        assert parse_address(str(address)) == address


def command_line(data: bytes) -> None:
    """QEMU's words, zeros between them: what the wrapper and a fingerprint take out of them."""
    given = data.decode("utf-8", "surrogateescape").split("\0")
    with contextlib.suppress(ArmferryError):
        left, _ = take_host_properties(given, "qemu")
        properties = parse_properties(left, "qemu")
        plain = strip_properties(left)
        assert plain == left or any("x-mig-" in word for word in left)
        assert not parse_properties(plain, "qemu")
        policy_of(properties, read_command_line(plain).model)
    for read in (read_command_line, monitors_of, human_monitors, given_sets, question_of):
        with contextlib.suppress(ArmferryError):
            read(given)
    for word in given:
        is_main_channel(word)
        with contextlib.suppress(ArmferryError):
            parse_uri(word)


def explanation(data: bytes) -> None:
    """Lines of logs, whatever is in them."""
    text = data.decode("utf-8", "replace")
    for one in explain_log(text.splitlines(keepends=True)):
        assert one.means
        assert one.line.isprintable()
    explain_text(text)


def domain(data: bytes) -> None:
    """The XML that libvirt hands to its hook."""
    with contextlib.suppress(UnreadableDomain):
        facts = read_domain(data.decode("utf-8", "replace"))
        assert facts is None or len(facts.name) <= len(data)


def monitor(data: bytes) -> None:
    """QMP cut into messages: joined, the pieces are the bytes; cut otherwise, the same messages."""
    whole, cut = Splitter(), Splitter()
    found = whole.feed(data)
    assert b"".join(piece.data for piece in found) + whole.close() == data
    others = [piece for part in pieces(data) for piece in cut.feed(part)]
    assert b"".join(piece.data for piece in others) + cut.close() == data
    assert [p.data for p in found if p.whole] == [p.data for p in others if p.whole]
    for piece in found:
        if piece.whole:
            read_message(piece.data)
