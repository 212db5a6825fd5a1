"""Which file systems can change without this kernel's doing: it tells nobody then, and stamps come from another clock.

Found out from the type of a file system, as statfs(2) has it.
A file system in user space counts, too: nobody can tell whether its server has files that others change.
"""

from __future__ import annotations

from typing import Final

from realize.fs.syscalls import file_system

_ELSEWHERE: Final = frozenset(
    {
        0x6969,  # NFS
        0x517B,  # SMB
        0xFF534D42,  # CIFS
        0xFE534D42,  # SMB 2 and 3
        0x65735546,  # FUSE, and virtiofs
        0x01021997,  # 9P
        0x00C36400,  # Ceph
        0x5346414F,  # AFS, of OpenAFS
        0x6B414653,  # AFS, of the kernel
        0x73757245,  # Coda
        0x0BD00BD0,  # Lustre
        0x47504653,  # GPFS
        0x20030528,  # OrangeFS
        0x19830326,  # BeeGFS
        0x01161970,  # GFS2
        0x7461636F,  # OCFS2
        0x786F4256,  # folders of VirtualBox
        0xBACBACBC,  # folders of VMware
        0x00C0FFEE,  # hostfs of User-Mode Linux
        0xAAD7AAEA,  # PanFS
    }
)


def may_change_elsewhere(fd: int) -> bool:
    """Return whether files on the file system of ``fd`` may change without this kernel's doing; raises `OSError`."""
    return file_system(fd) in _ELSEWHERE
