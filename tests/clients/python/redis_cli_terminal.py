"""redis-cli at a terminal, where it asks for the documentation of the commands, shows a prompt and colours nothing:
`redis_cli_terminal.py PORT`."""

import os
import pty
import re
import select
import sys
import time

from conversation import order, record

PORT = sys.argv[1]
READ_SECONDS_MAX = 20
LINES = [
    "PING",
    "SET name Ada",
    "GET name",
    "GET name",
    "GET missing",
    "HSET hash f v g w",
    "HGETALL hash",
    "GET hash",
    "NOSUCH",
    "HELLO 3",
    "HGETALL hash",
    "GET missing",
    "CLIENT SETNAME me",
    "CLIENT GETNAME",
    "2 INCR number",
    "help @nosuch",
]
BEHIND_THE_RESTART = ["GET name", "SET name Grace", "GET name", "GET name"]


class Terminal:
    def __init__(self):
        pid, self.fd = pty.fork()
        if pid == 0:
            # A dumb terminal: no cursor movements in the output, no history of other days.
            os.environ.update(TERM="dumb", HOME="/nonexistent", REDISCLI_HISTFILE="/dev/null", REDISCLI_RCFILE="/dev/null")
            os.execvp("redis-cli", ["redis-cli", "-p", PORT])

    def until_prompt(self):
        """All that it writes until it asks for the next line; with the port written as PORT."""
        said = b""
        while not re.search(rb"(127\.0\.0\.1:\d+|not connected)(\(TX\))?(\[\d+\])?> $", said):
            ready, _, _ = select.select([self.fd], [], [], READ_SECONDS_MAX)
            if not ready:
                raise SystemExit(f"no prompt behind {said!r}")
            said += os.read(self.fd, 65536)
        return said.decode(errors="backslashreplace").replace(PORT, "PORT")

    def say(self, line):
        os.write(self.fd, line.encode() + b"\n")
        return self.until_prompt()


terminal = Terminal()
record("at first", terminal.until_prompt())
for line in LINES:
    said = terminal.say(line)
    # The greeting has numbers of its own.
    record(line, 'proto' in said if line.startswith("HELLO") else said)
# It connects again by itself, and says so or not as it likes: what counts is that it does.
order("restart")
for _ in range(200):
    if "PONG" in terminal.say("PING") and "(nil)" in terminal.say("GET name"):
        break
    time.sleep(0.05)
for line in BEHIND_THE_RESTART:
    record(f"{line}, behind a restart", terminal.say(line))
os.write(terminal.fd, b"quit\n")
record("the end", True)
