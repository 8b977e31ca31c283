#!/usr/bin/env python3
"""Writes src/command/builtin.rs from the COMMAND reply of a redis-server 7.0: generate_builtin.py PORT > builtin.rs"""
import socket
import sys

HEADER = '''//! The command table of Redis {version}: generated from that server's own COMMAND reply, not to be edited by hand.
//!
//! `redis-server --port 7001 &` and `python3 src/command/generate_builtin.py 7001 > src/command/builtin.rs` write it
//! anew; `tests/command_table.rs` compares it with a live server. It holds facts only: `policy.rs` judges them.
#![forbid(unsafe_code)]

use self::{{Begin as B, Command as C, Find as F, Keys as K}};
use super::keys;
use super::row::{{KeySpec, Row}};

/// Name, arity, flags, range (first key, last key, step), key specifications, subcommands.
pub(super) struct Command(
    &'static str,
    i64,
    &'static str,
    (i64, i64, i64),
    &'static [Keys],
    &'static [Command],
);

/// Where to begin, how to go on, flags.
struct Keys(Begin, Find, &'static str);

/// As [`keys::Begin`].
enum Begin {{
    At(i64),
    Word(&'static str, i64),
    Unknown,
}}

/// As [`keys::Find`]: last, step, limit; or where the number is, the first key, step.
enum Find {{
    Range(i64, i64, i64),
    Num(i64, i64, i64),
    Unknown,
}}

impl Command {{
    /// The same as plain data.
    pub(super) fn to_row(&self) -> Row {{
        let Command(name, arity, flags, range, keys, subcommands) = self;
        Row {{
            name: (*name).to_owned(),
            arity: *arity,
            flags: words(flags),
            range: *range,
            key_specs: Some(keys.iter().map(Keys::to_spec).collect()),
            subcommands: subcommands.iter().map(Command::to_row).collect(),
        }}
    }}
}}

impl Keys {{
    fn to_spec(&self) -> KeySpec {{
        let Keys(begin, find, flags) = self;
        KeySpec {{
            begin: match begin {{
                B::At(index) => keys::Begin::Index(*index),
                B::Word(word, from) => keys::Begin::Keyword((*word).to_owned(), *from),
                B::Unknown => keys::Begin::Unknown,
            }},
            find: match *find {{
                F::Range(last, step, limit) => keys::Find::Range {{ last, step, limit }},
                F::Num(at, first, step) => keys::Find::Keynum {{ at, first, step }},
                F::Unknown => keys::Find::Unknown,
            }},
            flags: words(flags),
        }}
    }}
}}

fn words(text: &str) -> Vec<String> {{
    text.split_ascii_whitespace().map(str::to_owned).collect()
}}
'''


class Server:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")

    def call(self, *args):
        words = [arg.encode() for arg in args]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        return self.value()

    def value(self):
        line = self.file.readline()[:-2].decode()
        kind, rest = line[0], line[1:]
        if kind == "+":
            return rest
        if kind == ":":
            return int(rest)
        if kind == "$":
            return self.file.read(int(rest) + 2)[:-2].decode()
        if kind == "*":
            return [self.value() for _ in range(int(rest))]
        raise SystemExit("the server answered: " + line)


def mapping(flat):
    return dict(zip(flat[::2], flat[1::2]))


def begin(spec):
    fields = mapping(spec["spec"])
    return {
        "index": lambda: "B::At(%d)" % fields["index"],
        "keyword": lambda: 'B::Word("%s", %d)' % (fields["keyword"], fields["startfrom"]),
        "unknown": lambda: "B::Unknown",
    }[spec["type"]]()


def find(spec):
    fields = mapping(spec["spec"])
    return {
        "range": lambda: "F::Range(%(lastkey)d, %(keystep)d, %(limit)d)" % fields,
        "keynum": lambda: "F::Num(%(keynumidx)d, %(firstkey)d, %(keystep)d)" % fields,
        "unknown": lambda: "F::Unknown",
    }[spec["type"]]()


def keys(flat):
    spec = mapping(flat)
    return 'K(%s, %s, "%s")' % (
        begin(mapping(spec["begin_search"])),
        find(mapping(spec["find_keys"])),
        " ".join(spec["flags"]),
    )


def command(row, indent):
    name, arity, flags, first, last, step, _, _, specs, subs = row
    head = '%sC("%s", %d, "%s", (%d, %d, %d), &[%s], ' % (
        indent, name, arity, " ".join(flags), first, last, step, ", ".join(keys(spec) for spec in specs))
    if not subs:
        return head + "&[]),"
    lines = [command(sub, indent + "    ") for sub in sorted(subs)]
    return "\n".join([head + "&[", *lines, indent + "]),"])


server = Server(int(sys.argv[1]))
version = next(line[14:] for line in server.call("INFO", "server").splitlines() if line.startswith("redis_version"))
rows = sorted(server.call("COMMAND"))
print(HEADER.format(version=version))
print("/// All of them, sorted by name.")
print("#[rustfmt::skip] // a line for each")
print("pub(super) static COMMANDS: [Command; %d] = [" % len(rows))
for row in rows:
    print(command(row, "    "))
print("];")
