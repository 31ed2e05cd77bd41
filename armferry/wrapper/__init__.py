"""Stock QEMU with the properties of the register lists and the PSCI version: the wrapper.

`start` is the program. Nothing is imported here: what only asks QEMU for its version or its
machine types must not pay for what a migration needs.
"""
