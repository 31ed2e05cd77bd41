"""Options that several commands share: the policy, the destination, the form of the output."""

import argparse
from pathlib import Path

from armferry.policy import (
    SITE_FOLDER,
    Policy,
    aggregate,
    from_options,
    problems,
    read_file,
    read_site,
)
from armferry.registers import Accelerator

__all__ = [
    "add_json",
    "add_loudness",
    "add_policy",
    "policy_of",
    "policy_warnings",
    "policy_words",
    "stated_policy",
]


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument(
        "--json", action="store_true", help="print a JSON document instead of text for people"
    )


def add_loudness(parser: argparse.ArgumentParser) -> None:
    """`-q` and `-v`."""
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument(
        "-q", "--quiet", action="store_true", help="print the verdict's line and nothing else"
    )
    loudness.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="list every register, those too that one cause explains",
    )


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Every option that says what may differ."""
    group = parser.add_argument_group("policy", "what may differ between the two ends")
    group.add_argument(
        "--policy",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="a policy file (TOML); may be given again",
    )
    group.add_argument(
        "--hidden-regs",
        metavar="LIST",
        action="append",
        default=[],
        help="registers the VM must not be given, as x-mig-hidden-regs",
    )
    group.add_argument(
        "--safe-missing-regs",
        metavar="LIST",
        action="append",
        default=[],
        help="registers that may come and be missing here, as x-mig-safe-missing-regs",
    )
    group.add_argument(
        "--tolerate",
        metavar="RULE",
        action="append",
        default=[],
        help="a rule such as 'TCR2_EL1: only-source-if-reset'",
    )
    group.add_argument(
        "--kvm-psci-version",
        metavar="MAJ.MIN",
        action="append",
        default=[],
        help="the PSCI version that the guest is to see",
    )
    group.add_argument(
        "--accept-risk",
        metavar="RISK",
        action="append",
        default=[],
        help="a register, guest-visible, lossy or breaks",
    )
    group.add_argument(
        "--machine",
        metavar="TYPE",
        default="",
        help="the machine type whose levels apply, where neither end names one: virt-10.0",
    )
    group.add_argument(
        "--no-builtin", action="store_true", help="leave out the compat levels of armferry"
    )


def stated_policy(arguments: argparse.Namespace) -> Policy:
    """What the options alone state, without files and levels. Raises PolicyError."""
    return from_options(
        hidden=arguments.hidden_regs,
        safe_missing=arguments.safe_missing_regs,
        tolerate=arguments.tolerate,
        psci_versions=arguments.kvm_psci_version,
        accept_risk=arguments.accept_risk,
    )


def policy_of(
    arguments: argparse.Namespace, machine: str, accelerator: Accelerator | None
) -> Policy:
    """The policy that applies to `machine`: levels, site, files and options united.

    A `machine` that is unknown is the one that the options name. Raises PolicyError for what
    cannot be read or placed and for rules that cannot be meant.
    """
    return aggregate(
        machine or arguments.machine,
        accelerator,
        builtin=not arguments.no_builtin,
        site=read_site(SITE_FOLDER),
        files=[read_file(path) for path in arguments.policy],
        command_line=stated_policy(arguments),
    )


def policy_words(arguments: argparse.Namespace) -> list[str]:
    """The policy options as they were given, to be typed again."""
    given = {
        "--policy": map(str, arguments.policy),
        "--hidden-regs": arguments.hidden_regs,
        "--safe-missing-regs": arguments.safe_missing_regs,
        "--tolerate": arguments.tolerate,
        "--kvm-psci-version": arguments.kvm_psci_version,
        "--accept-risk": arguments.accept_risk,
        "--machine": [arguments.machine] if arguments.machine else [],
    }
    words = [
        word for option, values in given.items() for value in values for word in (option, value)
    ]
    return [*words, "--no-builtin"] if arguments.no_builtin else words


def policy_warnings(policy: Policy) -> list[str]:
    """What in the policy can never have an effect or contradicts itself, in words."""
    return [str(problem) for problem in problems(policy)]
