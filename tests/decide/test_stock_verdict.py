"""What stock QEMU does, rule by rule; every text is what the real one prints (measured)."""

import pytest

from armferry.decide import MessageClass, StockVerdict, stock_verdict
from armferry.ends import Destination
from armferry.facts import UnknownQemuVersion, qemu_rules
from armferry.registers import Accelerator, parse_register
from armferry.stream.description import DeviceLayout, FieldLayout, StructLayout

from .moves import move_of

TPIDR = parse_register("TPIDR_EL0")
CTR = parse_register("CTR_EL0")
ACTLR = parse_register("ACTLR_EL1")
TCR2 = parse_register("TCR2_EL1")
PSCI = parse_register("PSCI_VERSION")
BMAP_2 = parse_register("VENDOR_HYP_BMAP_2")
MIDR = parse_register("MIDR_EL1")
TIMER = parse_register("CNTPCT_EL0")
UNKNOWN = parse_register("SCTLR2_EL1")
DBGDTRTX = 0x40200000200E0298
BEFORE_IT = 0x40200000200E0008
LAST = 0x603000000013FFFF
WIDE = 0x40300000200F0002

POST_LOAD = (
    "load of migration failed: Invalid argument: error while loading state for instance 0x0 of "
    "device 'cpu': post load hook failed for: cpu, version_id: 22, minimum_version: 22, ret: -1"
)
NOT_PERMITTED = (
    "error while loading state for instance 0x0 of device 'cpu'\n"
    "load of migration failed: Operation not permitted"
)


def stock(
    incoming: dict[int, int],
    own: dict[int, int],
    version: str,
    accelerator: Accelerator = Accelerator.TCG,
) -> StockVerdict:
    return stock_verdict(move_of([incoming], Destination(own, accelerator), qemu=version))


@pytest.mark.parametrize("version", ["5.2.0", "10.0.13", "11.0.0", "11.1.3"])
def test_equal_lists_load(version: str) -> None:
    verdict = stock({TPIDR: 1, CTR: 5}, {TPIDR: 0, CTR: 5}, version)
    assert (verdict.loads, verdict.message, verdict.culprits) == (True, "", ())


def test_longer_list_is_refused_before_anything_is_compared() -> None:
    verdict = stock({TPIDR: 1, CTR: 5, LAST: 0}, {TPIDR: 0, CTR: 4}, "10.0.13")
    assert verdict == StockVerdict(
        False,
        MessageClass.LIST_TOO_LONG,
        "Invalid value 3 expecting positive value <= 2\n"
        "Failed to load cpu:cpreg_vmstate_array_len\n"
        "error while loading state for instance 0x0 of device 'cpu'\n"
        "load of migration failed: Invalid argument",
        (LAST,),
        "up to 10.x",
    )


def test_unknown_register_is_refused_without_its_name() -> None:
    verdict = stock({ACTLR: 0, TPIDR: 1}, {CTR: 5, TPIDR: 0}, "7.2.22")
    assert verdict.message == NOT_PERMITTED
    assert verdict.culprits == (ACTLR,)


def test_what_sorts_after_the_last_own_register_is_let_in() -> None:
    verdict = stock({TPIDR: 1, LAST: 7}, {TPIDR: 0, ACTLR: 0}, "10.0.13")
    assert verdict.loads


def test_missing_register_is_taken_as_zero() -> None:
    assert stock({TPIDR: 1}, {TPIDR: 0, ACTLR: 0}, "5.2.0").loads
    verdict = stock({TPIDR: 1}, {TPIDR: 0, CTR: 5}, "5.2.0")
    assert (verdict.message, verdict.culprits) == (NOT_PERMITTED, (CTR,))


def test_missing_register_keeps_its_value_under_kvm() -> None:
    assert stock({TPIDR: 1}, {TPIDR: 0, CTR: 5}, "10.0.13", Accelerator.KVM).loads


def test_missing_constant_holds_anything_in_newer_releases() -> None:
    verdict = stock({TPIDR: 1}, {TPIDR: 0, ACTLR: 0}, "11.1.3")
    assert verdict.message == (
        "warning: handle_cpreg_missing_in_incoming_stream: system register 0x1013c081 expected by "
        f"the destination but not in the incoming stream: skip it\n{POST_LOAD}"
    )
    assert verdict.culprits == (ACTLR,)


def test_newer_releases_name_what_they_do_not_know() -> None:
    verdict = stock({WIDE: 1, TPIDR: 1, LAST: 0}, {TPIDR: 0}, "11.0")
    unknown = "in the incoming stream but unknown on the destination: fail migration"
    assert verdict.message == (
        f"handle_cpreg_only_in_incoming_stream: system register 0x200f8002 {unknown}\n"
        f"handle_cpreg_only_in_incoming_stream: system register 0x1013ffff {unknown}\n{POST_LOAD}"
    )
    assert verdict.culprits == (WIDE, LAST)


def test_unknown_register_before_a_tolerated_one_is_let_in_by_11_1() -> None:
    incoming = {BEFORE_IT: 1, DBGDTRTX: 5, TPIDR: 1}
    assert not stock(incoming, {TPIDR: 0}, "11.0.2").loads
    verdict = stock(incoming, {TPIDR: 0}, "11.1.3")
    assert verdict.loads
    assert verdict.message == (
        "handle_cpreg_only_in_incoming_stream: system register 0x200e0008 in the incoming stream "
        "but unknown on the destination: fail migration"
    )


def test_tolerances_of_11_1_are_for_kvm() -> None:
    own = {TPIDR: 0}
    assert stock({TCR2: 1, TPIDR: 1}, own, "11.1", Accelerator.KVM).loads
    assert not stock({TCR2: 1, TPIDR: 1}, own, "11.1").loads
    assert not stock({TCR2: 1, TPIDR: 1}, own, "11.0", Accelerator.KVM).loads
    assert stock({BMAP_2: 0, TPIDR: 1}, own, "11.1", Accelerator.KVM).loads
    verdict = stock({BMAP_2: 1, TPIDR: 1}, own, "11.1", Accelerator.KVM)
    assert verdict.message == (
        "handle_cpreg_only_in_incoming_stream: fw feat reg 3 in the incoming stream but unknown "
        f"on the destination: fail migration\n{POST_LOAD}"
    )


def test_refused_value() -> None:
    incoming, own = {PSCI: 0x10003}, {PSCI: 0x10001}
    assert stock(incoming, own, "7.2.22", Accelerator.KVM).message == NOT_PERMITTED
    assert stock(incoming, own, "10.0.13", Accelerator.KVM).message == (
        "error while loading state for instance 0x0 of device 'cpu'\n"
        "Failed to put registers after init: Invalid argument"
    )
    verdict = stock(incoming, own, "11.1.3", Accelerator.KVM)
    assert verdict.message == (
        "Could not set register fw reg 0 to 10003 (is 10001)\n"
        "Could not set register fw reg 0 to 10003 (is 10001)\n"
        "Failed to put registers after init: Invalid argument"
    )
    assert stock(own, incoming, "11.1.3", Accelerator.KVM).loads


@pytest.mark.parametrize(
    ("version", "named"),
    [
        # up to 10.x stops at the unknown register: PSCI_VERSION, behind it, is never put
        ("10.0.13", "error while loading state for instance 0x0 of device 'cpu'\n"),
        (
            "11.1.3",
            (
                "handle_cpreg_only_in_incoming_stream: system register op0:3 op1:0 crn:1 crm:0 "
                "op2:3 in the incoming stream but unknown on the destination: fail migration\n"
                "Could not set register system register op0:3 op1:0 crn:0 crm:0 op2:0 to 2 (is 1)\n"
                "Could not set register fw reg 0 to 10003 (is 10001)\n"
            ),
        ),
    ],
)
def test_what_was_taken_before_an_unknown_register_is_put_all_the_same(
    version: str, named: str
) -> None:
    last = {TIMER: 0}
    incoming = {MIDR: 2, UNKNOWN: 0, PSCI: 0x10003, **last}
    own = {MIDR: 1, PSCI: 0x10001, **last}
    verdict = stock(incoming, {**own, BMAP_2: 0, TCR2: 0}, version, Accelerator.KVM)
    failure = "Failed to put registers after init: Invalid argument"
    lines = [line for line in verdict.message.splitlines() if not line.startswith("warning")]
    assert "\n".join(lines) == named + failure
    values = (MIDR,) if version == "10.0.13" else (MIDR, PSCI)
    assert verdict.culprits == tuple(sorted((*values, UNKNOWN)))
    # 7.2 does not put them once more, and with values that are taken nobody has to
    assert stock(incoming, {**own, BMAP_2: 0, TCR2: 0}, "7.2.22", Accelerator.KVM).message == (
        NOT_PERMITTED
    )
    taken = stock({**own, UNKNOWN: 0}, {**own, TCR2: 0}, "10.0.13", Accelerator.KVM)
    assert taken.message == NOT_PERMITTED


def test_a_kernel_that_lists_every_cache_takes_any_geometry() -> None:
    caches = {0x6020000000110000 + number: 0x2 for number in range(14)}
    big = {0x6020000000110000: 0x701FE01A}
    assert stock({**caches, **big}, caches, "10.0.13", Accelerator.KVM).loads
    verdict = stock(big, {0x6020000000110000: 0x2}, "10.0.13", Accelerator.KVM)
    assert verdict.culprits == (0x6020000000110000,)


def cpu(*subsections: str, features: str = "unused", version: int = 22) -> DeviceLayout:
    state = StructLayout(
        "cpu",
        version,
        (FieldLayout(features, "uint64", 8, 1),),
        tuple(StructLayout(name, 1, (), ()) for name in subsections),
    )
    return DeviceLayout("cpu", 0, version, state)


def device(name: str, version: int = 1) -> DeviceLayout:
    return DeviceLayout(name, 0, version, StructLayout(name, version, (), ()))


def sections(
    source: tuple[DeviceLayout, ...], destination: tuple[DeviceLayout, ...], version: str
) -> StockVerdict:
    there = Destination({TPIDR: 0}, Accelerator.TCG)
    return stock_verdict(
        move_of([{TPIDR: 1}], there, source=source, destination=destination, qemu=version)
    )


def test_unknown_subsection() -> None:
    verdict = sections((cpu("cpu/fpmr"),), (cpu(),), "10.0.13")
    assert (verdict.message_class, verdict.message) == (
        MessageClass.UNKNOWN_SUBSECTION,
        (
            "error while loading state for instance 0x0 of device 'cpu'\n"
            "load of migration failed: No such file or directory"
        ),
    )
    verdict = sections((cpu("cpu/nonsense"),), (cpu(),), "11.1.3")
    assert verdict.message == (
        "load of migration failed: Invalid argument: error while loading state for instance 0x0 "
        "of device 'cpu': VM subsection 'cpu/nonsense' in 'cpu' does not exist"
    )


def test_known_subsections_load_though_the_destination_did_not_write_them() -> None:
    assert sections((cpu("cpu/serror", "cpu/vfp"),), (cpu(),), "5.2.0").loads
    assert sections((cpu("cpu/fpmr"),), (cpu(),), "11.1.3").loads


def test_deadly_subsection() -> None:
    verdict = sections((cpu("cpu/wfxt-timer"),), (cpu(),), "10.0.2")
    assert (verdict.message_class, verdict.message) == (
        MessageClass.CRASH,
        (
            "migration/vmstate.c:172: vmstate_load_state: Assertion `first_elem || "
            "!n_elems || !size' "
            "failed."
        ),
    )
    assert sections((cpu("cpu/wfxt-timer"),), (cpu("cpu/wfxt-timer"),), "10.0.2").loads


def test_destination_that_believes_the_features_word() -> None:
    verdict = sections((cpu(),), (cpu(features="env.features"),), "5.2.0")
    assert (verdict.loads, verdict.message) == (False, NOT_PERMITTED)
    assert sections((cpu(features="env.features"),), (cpu(),), "7.2.22").loads


@pytest.mark.parametrize(("word", "loads"), [(0, False), (0x73F0EF179, True)])
def test_the_word_itself_counts_whatever_the_description_calls_it(word: int, loads: bool) -> None:
    """A state that was ferried there has the right word in a field that is called unused."""
    believing = (cpu(features="env.features"),)
    move = move_of(
        [{TPIDR: 1}],
        Destination({TPIDR: 0}, Accelerator.TCG),
        source=(cpu(),),
        destination=believing,
        words=(word,),
        features=0x73F0EF179,
        qemu="5.2.0",
    )
    assert stock_verdict(move).loads is loads


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (
            "7.2.22",
            (
                "Unknown savevm section or instance 'pl031' 0. Make sure that your "
                "current VM setup "
                "matches your saved VM setup, including any hotplugged devices\n"
                "load of migration failed: Invalid argument"
            ),
        ),
        (
            "11.1.3",
            (
                "load of migration failed: Invalid argument: Unknown section or "
                "instance 'pl031' 0. "
                "Make sure that your current VM setup matches your saved VM setup, including any "
                "hotplugged devices"
            ),
        ),
    ],
)
def test_unknown_device(version: str, text: str) -> None:
    verdict = sections((device("pl031"), cpu()), (device("pl011"), cpu()), version)
    assert (verdict.message_class, verdict.message) == (MessageClass.UNKNOWN_DEVICE, text)


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (
            "5.2.0",
            (
                "savevm: unsupported version 5 for 'pl061' v4\n"
                "load of migration failed: Invalid argument"
            ),
        ),
        (
            "11.1.3",
            "load of migration failed: Invalid argument: unsupported version 5 for 'pl061' v4",
        ),
    ],
)
def test_newer_device(version: str, text: str) -> None:
    verdict = sections((device("pl061", 5), cpu()), (device("pl061", 4), cpu()), version)
    assert (verdict.message_class, verdict.message) == (MessageClass.DEVICE_VERSION, text)


def test_missing_device_and_missing_subsection_load() -> None:
    assert sections((cpu(),), (device("pl031"), cpu("cpu/wfxt-timer")), "10.0.13").loads


def test_the_first_section_that_is_refused_ends_the_load() -> None:
    verdict = sections((cpu("cpu/nonsense"), device("pl031")), (cpu(),), "7.2.22")
    assert verdict.message_class is MessageClass.UNKNOWN_SUBSECTION


@pytest.mark.parametrize(
    ("version", "name"),
    [("0.9", "up to 10.x"), ("10.2.1", "up to 10.x"), ("11.0.1", "11.0"), ("12.0", "11.1")],
)
def test_release_finds_its_rules(version: str, name: str) -> None:
    assert qemu_rules(version).name == name


def test_no_version() -> None:
    with pytest.raises(UnknownQemuVersion) as caught:
        qemu_rules("trixie")
    assert str(caught.value) == (
        "'trixie' is no version of QEMU; write it as qemu-system-aarch64 --version does, such as "
        "10.0.13"
    )


def test_a_vector_register_is_called_by_its_index() -> None:
    z0 = parse_register("Z0")
    verdict = stock({TPIDR: 1, z0: 2}, {TPIDR: 0}, "11.1.3", Accelerator.KVM)
    assert verdict.culprits == (z0,)
    assert f"SVE register {z0:x} in the incoming stream but unknown" in verdict.message
