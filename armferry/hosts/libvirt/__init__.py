"""What libvirt says of its guests, and the hook that it asks before it starts or moves one."""
