"""The library as it is shipped: what it needs, what it offers, how it is made."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from armferry.boundary.build import CROSS, FLAGS, SOURCE, BuildFault, compile_library


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library for aarch64."""
    path = tmp_path_factory.mktemp("shipped") / "libarmferry-boundary.so"
    compile_library(path, CROSS)
    return path


def _readelf(path: Path, *words: str) -> str:
    command = ["aarch64-linux-gnu-readelf", "-W", *words, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_it_needs_glibc_2_17_and_nothing_else(shipped: Path) -> None:
    versions = set(re.findall(r"Name: (\S+)", _readelf(shipped, "-V")))
    assert versions == {"GLIBC_2.17"}
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", _readelf(shipped, "-d")))
    assert needed <= {"libc.so.6", "ld-linux-aarch64.so.1"}


def test_ioctl_is_all_it_offers(shipped: Path) -> None:
    symbols = [line.split() for line in _readelf(shipped, "--dyn-syms").splitlines()]
    offered = [one[7] for one in symbols if len(one) > 7 and one[4] == "GLOBAL" and one[6] != "UND"]
    assert offered == ["ioctl"]


def test_the_same_source_gives_the_same_bytes_anywhere(shipped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "another folder"
    folder.mkdir()
    for name in ("boundary.c", "build.py"):
        shutil.copy(SOURCE.with_name(name), folder)
    script = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); import pathlib, build;"
        f" build.compile_library(pathlib.Path({str(folder / 'x.so')!r}), {CROSS!r})"
    )
    subprocess.run(["python3", "-c", script], cwd=tmp_path, check=True)
    assert (folder / "x.so").read_bytes() == shipped.read_bytes()


@pytest.mark.parametrize("compiler", ["gcc", CROSS])
def test_gcc_finds_nothing_to_say(compiler: str, tmp_path: Path) -> None:
    aarch64 = compiler == CROSS
    compile_library(tmp_path / "x.so", compiler, aarch64=aarch64, extra=["-fanalyzer"])


def test_clang_finds_nothing_to_say(tmp_path: Path) -> None:
    warnings = [flag for flag in FLAGS if flag.startswith("-W") and not flag.startswith("-Wl")]
    command = ["clang", "--analyze", "--analyzer-output", "text", "-std=c11", *warnings]
    command += ["-Xclang", "-analyzer-werror", "-o", str(tmp_path / "x"), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    command = ["clang", "-fsyntax-only", "-std=c11", *warnings, str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_compiler_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildFault, match="no-such-cc: No such file"):
        compile_library(tmp_path / "x.so", "no-such-cc")


def test_kvm_run_is_not_looked_at() -> None:
    """The whole of ioctl() is one switch; what it does not name goes to the kernel."""
    text = SOURCE.read_text(encoding="utf-8")
    body = text[text.index("int ioctl(int fd, unsigned long request, ...)\n{") :]
    body = body[: body.index("\n}\n")]
    cases = re.findall(r"case (\w+):", body)
    assert cases == [
        "CREATE_VM",
        "CREATE_VCPU",
        "VCPU_INIT",
        "GET_REG_LIST",
        "GET_ONE_REG",
        "SET_ONE_REG",
    ]
