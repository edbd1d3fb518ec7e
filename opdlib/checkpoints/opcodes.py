"""A pickle walked before it is read: what it makes must not be larger than what it says.

A tuple of a tuple twice, of that twice and so on is short to write and takes for ever to hash, as a key is. torch reads
no such thing and writes none.
"""

import pickletools
from typing import BinaryIO

LARGEST = 1 << 20
"""Objects that one key may be made of, each counted as often as it is in it."""
NO_KEYS = (
    *("LIST", "EMPTY_LIST", "APPEND", "APPENDS", "DICT", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS"),
    *("BUILD", "POP_MARK"),
)
"""Opcodes that make or fill what is no key."""


def check_keys(stream: BinaryIO) -> None:
    """Walk through the pickle at the place of `stream`, to its end. Raises ValueError for one that is none, or that
    makes a tuple of more than `LARGEST` objects."""
    sizes: list[int | None] = []  # of what lies on the stack, None for a mark
    memo: dict[int, int] = {}
    for code, argument, _ in pickletools.genops(stream):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else int(argument)] = sizes[-1] or 1
        elif code.name in ("GET", "BINGET", "LONG_BINGET"):
            sizes.append(memo.get(int(str(argument)), 1))
        elif code.name == "DUP":
            sizes.append(sizes[-1])
        else:
            taken = 0
            for before in reversed(code.stack_before):
                if before is pickletools.stackslice:
                    while sizes and sizes[-1] is not None:
                        taken += sizes.pop() or 0
                elif sizes:
                    taken += sizes.pop() or 0
            size = 1 if code.name in NO_KEYS else 1 + taken
            if size > LARGEST:
                raise ValueError(f"makes one object of more than {LARGEST} others")
            sizes += [None if after is pickletools.markobject else size for after in code.stack_after]
