"""QEMU's own command line with the properties of the mission: the emulator wrapper.

`start` is the program. Nothing is imported here: what only asks QEMU for its version or its
machine types must not pay for what a migration needs.
"""
