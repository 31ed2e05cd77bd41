"""Register lists and layouts of hosts: probed, read from a stream or a kernel, recorded."""
