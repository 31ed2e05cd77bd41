"""armferry as a program uses it."""

import doctest
import json
import subprocess
import sys
from pathlib import Path

import pytest

import armferry
from armferry.api import decisions, ferrying, hosts, rules, states
from armferry.cli.main import main
from armferry.errors import ArmferryError
from armferry.hosts.fingerprints.atlas import read_atlas

PUBLIC = [
    *("Ferried", "Inspection", "Plan", "Report", "Rules"),
    *("check", "ferry", "fingerprint", "inspect", "plan"),
]
ENDS = ("atlas:6.12/neoverse-n1", "atlas:6.17/neoverse-n1")
STATE = Path(__file__).parents[1] / "stream" / "data" / "kvm_6.12_neoverse-n1_10.0.13.mig.xz"


@pytest.mark.parametrize("module", [decisions, ferrying, hosts, rules, states])
def test_examples(module: object, recorded_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recorded_state.parent)
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.failed == 0


def test_every_room_has_an_example() -> None:
    runs = [doctest.DocTestFinder().find(one) for one in (decisions, ferrying, rules, states)]
    assert all(any(test.examples for test in found) for found in runs)


def test_public_names_stay() -> None:
    assert sorted(armferry.api.__all__) == PUBLIC
    assert sorted(armferry.__all__) == sorted([*PUBLIC, "__version__"])
    assert all(getattr(armferry, name) is getattr(armferry.api, name) for name in PUBLIC)
    assert set(PUBLIC) <= set(dir(armferry))
    with pytest.raises(AttributeError, match="no attribute 'chek'"):
        _ = armferry.chek


@pytest.mark.parametrize("ends", [ENDS, ENDS[::-1]])
def test_check_says_what_the_command_says(
    ends: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    report = armferry.check(*ends, rules=armferry.Rules(machine="virt-10.0"))
    main(["check", ends[0], "--to", ends[1], "--machine", "virt-10.0", "--json"])
    assert report.document() == json.loads(capsys.readouterr().out)
    assert report.works is (report.answer != "fails")
    assert report.works is not bool(report.refused or report.verdict.obstacles)


def test_a_plan_is_a_policy_that_works(tmp_path: Path) -> None:
    found = armferry.plan(*ENDS[::-1], rules=armferry.Rules(machine="virt-10.0"))
    assert found.works
    assert found.risk == "guest-visible"
    file = tmp_path / "policy.toml"
    file.write_text(found.toml)
    with_it = armferry.Rules(machine="virt-10.0", files=[file])
    assert armferry.check(*ENDS[::-1], rules=with_it).works
    assert not armferry.check(*ENDS[::-1], rules=armferry.Rules(machine="virt-10.0")).works


def test_a_fingerprint_at_hand_is_an_end() -> None:
    here, there = (read_atlas().find(end).fingerprint for end in ENDS)
    by_name = armferry.check(*ENDS)
    assert armferry.check(here, there).verdict.decisions == by_name.verdict.decisions


def test_a_state_is_inspected(recorded_state: Path) -> None:
    found = armferry.inspect(recorded_state)
    assert found.machine == "virt-10.0"
    assert found.accelerator == "kvm"
    assert found.memory_bytes
    assert found.registers()["PSCI_VERSION"] == 0x10001


def test_a_state_is_ferried(recorded_state: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = armferry.ferry(recorded_state, out, ENDS[1])
    assert (done.written, done.changed, done.report.answer) == (out, True, "works-with-policy")
    assert armferry.check(out, ENDS[1]).answer == "works"
    before = recorded_state.read_bytes()
    none = armferry.Rules(builtin=False)
    refused = armferry.ferry(recorded_state, tmp_path / "no", ENDS[1], rules=none)
    assert (refused.written, refused.changed, refused.report.answer) == (None, False, "fails")
    assert not (tmp_path / "no").exists()
    assert recorded_state.read_bytes() == before
    in_place = armferry.ferry(recorded_state, None, ENDS[1])
    assert in_place.written == recorded_state
    assert recorded_state.read_bytes() == out.read_bytes()


@pytest.fixture
def recorded_state(tmp_path: Path) -> Path:
    import lzma

    state = tmp_path / "guest.state"
    state.write_bytes(lzma.decompress(STATE.read_bytes()))
    return state


@pytest.mark.parametrize(
    "call",
    [
        lambda: armferry.check("/nowhere", ENDS[0]),
        lambda: armferry.check(ENDS[0], "atlas:4.19/max"),
        lambda: armferry.check(*ENDS, rules=armferry.Rules(tolerate=["nonsense"])),
        lambda: armferry.fingerprint("virt-10.0", qemu="/nowhere"),
        lambda: armferry.inspect("/nowhere"),
        lambda: armferry.ferry("/nowhere", "out", ENDS[0]),
        lambda: armferry.ferry("/nowhere", "/nowhere", ENDS[0]),
    ],
)
def test_errors_are_one_tree(call: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArmferryError):
        call()  # type: ignore[operator]
    said = capsys.readouterr()
    assert said.out == said.err == ""


def test_importing_the_package_loads_next_to_nothing() -> None:
    code = "import sys, armferry; print(*(m for m in sys.modules if m.startswith('armferry')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["armferry"]
