"""QEMU's command line: its options, addresses, monitors, and armferry's properties on it."""
