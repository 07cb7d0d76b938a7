"""Runs a program under the SystemCallFilter of a unit, without systemd. Forbidden calls kill it.

    python3 tests/confined.py UNIT PROGRAM [ARGUMENT...]

Requires libseccomp.so.2, a dependency of systemd, and systemd-analyze, which lists the calls of a
set. With the unit itself, a forbidden call returns an error; here it must be visible.
"""

import ctypes
import os
import re
import subprocess
import sys

ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000


def calls(name):
    """The system call of this name, or the system calls of a set (@...)."""
    if not name.startswith("@"):
        return {name}
    output = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name],
        capture_output=True, check=True, text=True, timeout=30,
    ).stdout
    names = [line.strip() for line in output.splitlines()[1:]]
    return set().union(*(calls(n) for n in names if n and not n.startswith("#")))


def allowed(unit):
    """The system calls that SystemCallFilter= allows, by systemd.exec(5); @default always."""
    lines = re.findall(r"^SystemCallFilter=(.+)$", open(unit, encoding="utf-8").read(), re.M)
    if not lines or lines[0].startswith("~"):
        sys.exit(f"{unit} has no SystemCallFilter that begins with a list of allowed calls")
    left = calls("@default")
    for line in lines:
        named = set().union(*(calls(name) for name in line.lstrip("~").split()))
        left = left - named if line.startswith("~") else left | named
    # As root, SQLite changes the owner of its files; the unit's user is not root.
    return left | calls("@chown") if os.geteuid() == 0 else left


def main():
    unit, *command = sys.argv[1:]
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    seccomp.seccomp_init.argtypes = [ctypes.c_uint32]
    seccomp.seccomp_load.argtypes = [ctypes.c_void_p]
    seccomp.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p,
    ]
    filtered = seccomp.seccomp_init(KILL_PROCESS)
    for name in allowed(unit):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        # Negative: a call of another architecture.
        if number >= 0 and seccomp.seccomp_rule_add_array(filtered, ALLOW, number, 0, None):
            sys.exit(f"no rule for {name}")
    if seccomp.seccomp_load(filtered):
        sys.exit("the filter cannot be loaded")
    os.execv(command[0], command)


main()
