"""Walls around a process that runs foreign code, as far as the kernel of this machine has them.

Linux only, in this order: a user namespace (no rights over this machine), mounts of its own with a fresh /proc and with
folders covered, process numbers of its own (no other process is seen, and all end with the first), a network with
nothing in it, and Landlock (only the named files can be opened). docs/reference/tracks.md says what each keeps out.
Elsewhere an audit hook refuses Python's own `open` of the hidden folders: it keeps honest code honest, no more.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from unlearnbench.records import Record

Wall = Literal["user", "mounts", "processes", "network", "landlock", "audit"]

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 1, 38, 24
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446

# Rights of Landlock (linux/landlock.h): files up to ABI 1, then REFER (2), TRUNCATE (3), IOCTL_DEV (5).
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read a file, list a folder
_LIST = 1 << 3
_FILE_RIGHTS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15  # what a rule on a single file may name
_ALL_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}


class Isolation(Record):
    """What a process may see. Everything is a path; what is not there is passed over."""

    writable: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    """Files and folders, beside Python's own and the system's."""
    listable: tuple[str, ...] = ()
    """Folders whose names alone may be read."""
    hidden: tuple[str, ...] = ()
    """Files and folders that are covered, wherever they lie."""
    alone: bool = True
    """Whether the process works by itself. One that computes together with others shares their network and numbers."""


def enter(isolation: Isolation) -> list[Wall]:
    """Enter namespaces, which take effect for children of this process. Returns those that are there."""
    if sys.platform != "linux":
        return []
    libc = _libc()
    user, group = os.getuid(), os.getgid()
    apart = (_NEWPID | _NEWIPC, _NEWNET) if isolation.alone else (0, 0)
    for flags in dict.fromkeys((apart[0] | apart[1], apart[0], 0)):
        if libc.unshare(_NEWUSER | _NEWNS | flags) == 0:
            break
    else:
        return []
    with suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
    try:
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError:
        return []
    walls: list[Wall] = ["user", "mounts"]
    walls += ["processes"] if flags & _NEWPID else []
    walls += ["network"] if flags & _NEWNET else []
    return walls


def close(isolation: Isolation, walls: Sequence[Wall]) -> list[Wall]:
    """The rest, in the process itself before it starts a thread: covers, Landlock, no rights. Returns all walls."""
    closed = list(walls)
    hidden = [path for path in isolation.hidden if Path(path).exists()]
    if "mounts" in closed and not _cover(hidden, fresh_proc="processes" in closed):
        closed.remove("mounts")
    if "network" in closed:
        with suppress(OSError):
            _raise_loopback()
    if sys.platform == "linux":
        if _landlock(isolation, network="network" not in closed and isolation.alone):
            closed.append("landlock")
        _drop_rights()
    _refuse_open(hidden)
    return [*closed, "audit"]


def available() -> list[Wall]:
    """The walls that this machine has, tried in a process of their own."""
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            walls = enter(Isolation())
            child = os.fork()
            if child == 0:
                os.write(write, ",".join(close(Isolation(readable=("/",)), walls)).encode())
                os._exit(0)
            os.waitpid(child, 0)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        found = told.read()
    with suppress(ChildProcessError):
        os.wait()
    return [wall for wall in found.split(",") if wall]  # type: ignore[misc]


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when the one that started it ends."""
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _cover(paths: Sequence[str], *, fresh_proc: bool) -> bool:
    """Mount an empty folder or file over each path, and the process's own /proc."""
    libc = _libc()
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        return False
    for path in paths:
        target = os.fsencode(path)
        if Path(path).is_dir():
            done = libc.mount(b"tmpfs", target, b"tmpfs", 0, b"size=4k,mode=755")
        else:
            done = libc.mount(b"/dev/null", target, None, _MS_BIND, None)
        if done != 0:
            return False
    return not fresh_proc or libc.mount(b"proc", b"/proc", b"proc", 0, None) == 0


def _raise_loopback() -> None:
    """Bring up the loopback device of an empty network, which engines talk to their own processes by."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14s", b"lo", 1 | 64, b""))  # SIOCSIFFLAGS: up, running


def _landlock(isolation: Isolation, *, network: bool) -> bool:
    """Allow the named files and nothing else; with `network` also forbid TCP, where the kernel can."""
    libc = _libc()
    abi = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if abi < 1:
        return False
    handled = _ALL_RIGHTS[max(level for level in _ALL_RIGHTS if level <= abi)]
    tcp = 3 if network and abi >= 4 else 0
    scoped = 3 if abi >= 6 else 0  # no abstract sockets of, and no signals to, processes outside
    rules = struct.pack("QQQ", handled, tcp, scoped)[: 24 if abi >= 6 else (16 if abi >= 4 else 8)]
    ruleset = libc.syscall(_LANDLOCK_CREATE, rules, len(rules), 0)
    if ruleset < 0:
        return False
    try:
        for rights, paths in (
            (handled & _READ, [*_SYSTEM, *isolation.readable]),
            (handled & _LIST, isolation.listable),
            (handled, ["/dev", "/proc", *isolation.writable]),
        ):
            for path in paths:
                _allow(libc, ruleset, path, rights)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return bool(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: Any, ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        kept = rights if Path(path).is_dir() else rights & _FILE_RIGHTS
        libc.syscall(_LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", kept, place), 0)
    finally:
        os.close(place)


def _system() -> tuple[str, ...]:
    """What any Python process reads: libraries, its own installation, what the packages keep."""
    own = {sys.prefix, sys.base_prefix, sys.exec_prefix, str(Path(sys.executable).resolve().parent.parent)}
    return (
        "/usr",
        "/lib",
        "/lib64",
        "/lib32",
        "/bin",
        "/sbin",
        "/opt",
        "/etc",
        "/sys",
        "/run/systemd/resolve",
        *sorted(own),
    )


_SYSTEM = _system()


def _drop_rights() -> None:
    """Give up every capability, so that nothing that was covered can be uncovered."""
    libc = _libc()
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = struct.pack("Ii", 0x20080522, 0)
    libc.capset(header, struct.pack("6I", *([0] * 6)))


def _refuse_open(hidden: Sequence[str]) -> None:
    names = tuple(os.path.realpath(path) for path in hidden)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir") and arguments and isinstance(arguments[0], str | os.PathLike):
            path = os.path.realpath(arguments[0])
            if any(path == name or path.startswith(name + os.sep) for name in names):
                raise PermissionError(f"{path} belongs to the judge, and no method may read it")

    if names:
        sys.addaudithook(hook)
