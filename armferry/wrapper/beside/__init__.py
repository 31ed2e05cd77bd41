"""What runs beside a wrapped QEMU: probes before it starts, transfers while it runs."""
