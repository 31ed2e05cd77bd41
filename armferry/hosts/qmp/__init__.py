"""QEMU over QMP: a client of a running one, a process of our own."""
