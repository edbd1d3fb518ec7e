"""What `opd claims` prints."""

from __future__ import annotations

from json import dumps


def claims(*, json: bool = False) -> None:
    """Hold the paper's claims against everything measured here.

    example: opd claims --json

    Of each: does its number come out, does it survive its control, and who else passes?

    Args:
        json: every claim as JSON, with statement, tolerance, interval and the reason why one is not tested
    """
    from opdlib.claims import listed, passing, records

    found = records()
    if json:
        print(dumps(found, indent=1))
        return
    print(listed(found).to_string(index=False))
    print()
    print(passing(found).to_string(index=False))
