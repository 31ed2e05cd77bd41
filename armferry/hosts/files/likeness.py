"""A new file that as many people may read as an old one, or fewer: never more.

Owner, group, mode, access control list, extended attributes and label are those of the old file
where they can be given. Where one cannot, what it allowed to others is left out: a group that is
not the old one gets nothing, and without the list nobody but the owner's group and the world has
what the list gave those two. Source of the list's layout: acl(5) and xattr(7).
"""

import contextlib
import os
import stat
import struct

__all__ = ["make_alike"]

_ACL = "system.posix_acl_access"
_ENTRY = struct.Struct("<HHI")  # tag, permissions, who
_ACL_HEADER = 4
_GROUP_OBJ, _MASK = 0x04, 0x10
_KEPT = ("user.", "trusted.", "security.selinux", "security.SMACK64")
_MODE = 0o777  # no saved guest runs as anybody


def make_alike(descriptor: int, like: int) -> None:
    """Gives the new file `descriptor`, its owner's alone so far, what `like` has.

    Raises OSError when not even a narrower mode can be set.
    """
    about = os.fstat(like)
    # giving a file away is a privilege; a caller without it owns the copy, as with cp, but may be a
    # member of its group
    for owner in (about.st_uid, -1):
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, owner, about.st_gid)
            break
    new = os.fstat(descriptor)
    acl = _attribute(like, _ACL)
    mode = stat.S_IMODE(about.st_mode) & _MODE
    if acl is not None:
        # with a list the group's bits in the mode are the list's mask
        mode = mode & ~0o070 | _group_of(acl) << 3
    if new.st_gid != about.st_gid:
        mode &= ~0o070
    os.fchmod(descriptor, mode)
    for name in _names(like):
        if name.startswith(_KEPT):
            value = _attribute(like, name)
            if value is not None:
                _give(descriptor, name, value)
    if acl is not None and (new.st_uid, new.st_gid) == (about.st_uid, about.st_gid):
        _give(descriptor, _ACL, acl)


def _give(descriptor: int, name: str, value: bytes) -> None:
    with contextlib.suppress(OSError):  # not this file system, or not ours to give
        os.setxattr(descriptor, name, value)


def _names(descriptor: int) -> list[str]:
    if not hasattr(os, "listxattr"):  # Linux's own
        return []
    try:
        return os.listxattr(descriptor)
    except OSError:
        return []


def _attribute(descriptor: int, name: str) -> bytes | None:
    if not hasattr(os, "getxattr"):
        return None
    try:
        return os.getxattr(descriptor, name)
    except OSError:
        return None


def _group_of(acl: bytes) -> int:
    """What the owning group may do: its own entry, as far as the mask lets it."""
    entries = {
        tag: permissions
        for tag, permissions, _ in _ENTRY.iter_unpack(
            acl[_ACL_HEADER : len(acl) - (len(acl) - _ACL_HEADER) % _ENTRY.size]
        )
        if tag in (_GROUP_OBJ, _MASK)
    }
    allowed: int = entries.get(_GROUP_OBJ, 0) & entries.get(_MASK, 7) & 7
    return allowed
