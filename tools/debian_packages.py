"""The Debian packages: armferry for every machine, armferry-boundary with the library for arm64.

Made of the two wheels in a folder with dpkg-deb alone, so that the same files are in both kinds of
package: tools/debian_packages.py WHEELS OUT. Written for bookworm and trixie; Python's bytecode is
made on the host, for the Python that it has.
"""

import email.utils
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = "usr/lib/python3/dist-packages"
LIBRARY = "armferry/boundary/libarmferry-boundary.so"
MAINTAINER = "The armferry maintainers <maintainers@armferry.invalid>"
PROGRAMS = {"armferry": "armferry.cli.main", "armferry-qemu": "armferry.wrapper.start"}
UNITS = ("armferry-gateway@.service", "armferry-gateway@.socket", "systemd/*")
STRIP = "aarch64-linux-gnu-strip"
ABOUT = (
    "carry Arm virtual machines across hosts with different registers",
    """\
 A guest of QEMU carries a list of CPU registers that the kernel or the QEMU of
 its host decided. On a host with another list, after an upgrade of either, it
 does not load. armferry says before a move whether it will work and which
 register stands in the way, and makes it work on the QEMU that is installed:
 live or saved, under KVM or TCG, in both directions.
""",
)
BOUNDARY = (
    "registers of another host for KVM guests, the library",
    """\
 The library that armferry-qemu loads into QEMU on an arm64 host, so that a KVM
 guest is born with the registers of another host and moves there with no rule.
 armferry works without it.
""",
)


def main() -> None:
    """Writes both packages into the folder OUT."""
    wheels, out = Path(sys.argv[1]), Path(sys.argv[2])
    os.umask(0o022)
    out.mkdir(parents=True, exist_ok=True)
    pure = next(wheels.glob("armferry-*-py3-none-any.whl"))
    arm = next(wheels.glob("armferry-*aarch64.whl"))
    version = pure.name.split("-")[1]
    with tempfile.TemporaryDirectory() as folder:
        _build(Path(folder, "all"), out, version, _whole(Path(folder, "all"), pure))
        _build(Path(folder, "arm64"), out, version, _library(Path(folder, "arm64"), arm, version))


def _whole(root: Path, wheel: Path) -> dict[str, str]:
    """The files of the package for every machine; its control fields."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/RECORD")]
        archive.extractall(root / PLACE, names)
    for script, module in PROGRAMS.items():
        file = root / "usr/bin" / script
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f"#!/usr/bin/python3\nimport sys\n\nfrom {module} import main\n\nsys.exit(main())\n"
        )
        file.chmod(0o755)
    pages = root / "usr/share/man/man1"
    subprocess.run([sys.executable, ROOT / "tools" / "man_pages.py", pages], check=True)
    for page in list(pages.iterdir()):
        _packed(pages / f"{page.name}.gz", page.read_bytes())
        page.unlink()
    for shell, place in {
        "bash": "usr/share/bash-completion/completions/armferry",
        "fish": "usr/share/fish/vendor_completions.d/armferry.fish",
    }.items():
        words = [sys.executable, "-m", "armferry", "completion", shell]
        said = subprocess.run(words, check=True, capture_output=True).stdout
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(said)
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for pattern in UNITS:
        for unit in (ROOT / "packaging").glob(pattern):
            shutil.copy(unit, units)
    control = root / "DEBIAN"
    control.mkdir()
    for script in ("postinst", "prerm"):
        shutil.copy(ROOT / "packaging" / "deb" / script, control / script)
        (control / script).chmod(0o755)
    _documented(root, "armferry")
    return _fields("armferry", "all", ABOUT) | {
        "Depends": "python3 (>= 3.11)",
        "Recommends": "python3-rich, python3-zstandard, python3-argcomplete",
        "Suggests": "armferry-boundary, qemu-system-arm, python3-prometheus-client",
    }


def _library(root: Path, wheel: Path, version: str) -> dict[str, str]:
    """The file of the package for arm64; its control fields."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(LIBRARY, root / PLACE)
    library = root / PLACE / LIBRARY
    subprocess.run([STRIP, "--strip-unneeded", "--remove-section=.comment", library], check=True)
    library.chmod(0o644)
    (root / "DEBIAN").mkdir()
    _documented(root, "armferry-boundary")
    return _fields("armferry-boundary", "arm64", BOUNDARY) | {
        "Depends": f"libc6 (>= 2.17), python3 (>= 3.11), armferry (= {version})",
    }


def _fields(name: str, machine: str, about: tuple[str, str]) -> dict[str, str]:
    return {
        "Package": name,
        "Architecture": machine,
        "Maintainer": MAINTAINER,
        "Section": "admin",
        "Priority": "optional",
        "Description": f"{about[0]}\n{about[1].rstrip()}",
    }


def _documented(root: Path, name: str) -> None:
    folder = root / "usr/share/doc" / name
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "packaging" / "deb" / "copyright", folder / "copyright")


def _build(root: Path, out: Path, version: str, fields: Mapping[str, str]) -> None:
    name = fields["Package"]
    date = email.utils.formatdate(float(os.environ.get("SOURCE_DATE_EPOCH", "1764115200")))
    news = "  * What is new stands in CHANGELOG.md of the source.\n"
    text = f"{name} ({version}) unstable; urgency=medium\n\n{news}\n -- {MAINTAINER}  {date}\n"
    _packed(root / "usr/share/doc" / name / "changelog.gz", text.encode())
    size = sum(file.stat().st_size for file in (root / "usr").rglob("*") if file.is_file())
    lines = {**fields, "Version": version, "Installed-Size": str(-(-size // 1024))}
    order = ("Package", "Version", "Architecture", "Maintainer", "Installed-Size", "Depends")
    keys = [key for key in order if key in lines]
    keys += [key for key in lines if key not in keys and key != "Description"]
    control = "".join(f"{key}: {lines[key]}\n" for key in [*keys, "Description"])
    (root / "DEBIAN" / "control").write_text(control)
    for folder in [root, *(one for one in root.rglob("*") if one.is_dir())]:
        folder.chmod(0o755)
    built = out / f"{name}_{version}_{fields['Architecture']}.deb"
    subprocess.run(["dpkg-deb", "-Zxz", "--root-owner-group", "--build", root, built], check=True)


def _packed(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(data, 9, mtime=0))


if __name__ == "__main__":
    main()
