"""What a smoke says to the test that runs it: lines on standard output.

    = label: value     the record; that of a run through the proxy must equal that of a run with Redis itself
    ! order            something only the test can do (kill Redis); it is done when a line comes on standard input
"""

import hashlib
import sys

SHOWN_MAX = 120


def record(label, value):
    print(f"= {label}: {show(value)}", flush=True)


def order(what):
    print(f"! {what}", flush=True)
    if not sys.stdin.readline():
        raise SystemExit("the test is gone")


def show(value):
    """A value on one line, the same in each run: sets sorted, what is long by its length and digest."""
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=repr)
    if isinstance(value, (bytes, str)) and len(value) > SHOWN_MAX:
        raw = value if isinstance(value, bytes) else value.encode()
        return f"{type(value).__name__} of {len(value)}, {hashlib.sha256(raw).hexdigest()[:16]}"
    if isinstance(value, list):
        return "[" + ", ".join(show(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{show(k)}: {show(v)}" for k, v in value.items())) + "}"
    if isinstance(value, Exception):
        return f"{type(value).__name__}({value})"
    return ascii(value)
