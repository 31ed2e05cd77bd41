"""Internal snapshots of qcow2 images: the saved state in one, read and given a new end.

`format` is what the bytes mean, `image` an image that is read, `state` a snapshot's state as
bytes at offsets, `refcounts` who uses which cluster, `new_end` the writes that give a state
another end, `locks` QEMU's own locks.
"""
