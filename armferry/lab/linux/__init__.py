"""A real Linux guest that notices when a move changes anything under it.

Debian's kernel, and as its only program a workload of this project (`workload/`), built by
`initial_ramdisk()`; what it prints is read by `LinuxLog`; `LinuxMachine` runs it and asks it
things on its serial line.
"""

from armferry.lab.linux.build import initial_ramdisk
from armferry.lab.linux.log import LinuxLog
from armferry.lab.linux.machine import LinuxMachine, LinuxSpec

__all__ = ["LinuxLog", "LinuxMachine", "LinuxSpec", "initial_ramdisk"]
