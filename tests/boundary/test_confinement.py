"""Rules for AppArmor and SELinux: what is shipped is parsed by their own tools."""

import subprocess
from pathlib import Path

PACKAGING = Path(__file__).parents[2] / "packaging"
PROFILE = """abi <abi/3.0>,
include <tunables/global>
profile libvirt-guest flags=(attach_disconnected) {{
  include <abstractions/base>
  include "{rules}"
}}
"""


def test_apparmor_rules_are_parsed(tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    profile.write_text(PROFILE.format(rules=PACKAGING / "apparmor" / "armferry-qemu"))
    command = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", "--debug", str(profile)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "libarmferry-boundary.so" in done.stdout


def test_apparmor_rules_with_a_mistake_are_not(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    text = (PACKAGING / "apparmor" / "armferry-qemu").read_text(encoding="utf-8")
    rules.write_text(text.replace(" rmix,", " rmqx,", 1))
    profile = tmp_path / "profile"
    profile.write_text(PROFILE.format(rules=rules))
    command = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", str(profile)]
    assert subprocess.run(command, capture_output=True, check=False, timeout=120).returncode != 0


def test_selinux_module_is_compiled(tmp_path: Path) -> None:
    module = tmp_path / "armferry.mod"
    source = PACKAGING / "selinux" / "armferry.te"
    subprocess.run(["checkmodule", "-M", "-m", "-o", str(module), str(source)], check=True)
    package = tmp_path / "armferry.pp"
    contexts = PACKAGING / "selinux" / "armferry.fc"
    command = ["semodule_package", "-o", str(package), "-m", str(module), "-f", str(contexts)]
    subprocess.run(command, check=True)
    assert package.stat().st_size > module.stat().st_size
