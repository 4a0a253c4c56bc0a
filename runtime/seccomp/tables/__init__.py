"""System call numbers by architecture, read from one string each (tools/gen_syscalls.py); it knows no policy."""

# What one socketcall(2) or ipc(2) of i386 multiplexes, by the value of its first argument.
SOCKETCALL = """\
1 socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown setsockopt
getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg
"""
IPC = "1 semop semget semctl semtimedop 11 msgsnd msgrcv msgget msgctl 21 shmat shmdt shmget shmctl"
MULTIPLEXERS = {102: SOCKETCALL, 117: IPC}


def numbers(arch: str) -> "dict[str, int]":
    """Numbers by name; those of x32 are without bit 30, with which the kernel sees them."""
    if arch == "x86_64":
        from .x86_64 import NAMES
    elif arch == "i386":
        from .i386 import NAMES
    elif arch == "x32":
        from .x32 import NAMES
    elif arch == "aarch64":
        from .aarch64 import NAMES
    elif arch == "arm":
        from .arm import NAMES
    else:
        raise KeyError(arch)
    return _counted(NAMES)


def multiplexed() -> "dict[str, tuple[int, int]]":
    """i386: the multiplexer's number and its first argument, by the name of the call it stands for."""
    return {name: (number, call) for number, names in MULTIPLEXERS.items() for name, call in _counted(names).items()}


def _counted(names: str) -> "dict[str, int]":
    """A word that is a number sets the counter that gives each following name its number."""
    table = {}
    number = 0
    for word in names.split():
        if word.isdigit():
            number = int(word)
        else:
            table[word] = number
            number += 1
    return table
