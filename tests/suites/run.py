#!/usr/bin/env python3
"""Runs the suites that Redis and redis-py test themselves with, against Redis itself and through the proxy, and compares.

Called by deploy/suites.sh, which has fetched the sources. Each unit gets its own redis-server, and its own proxy in front
of another; so what one unit leaves behind fails no other. A test that passes directly and not through the proxy must be
listed in expected.txt with its reason, and what is listed there must still be so where the test is run at all.
"""
import argparse
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
# For one unit: the longest of them (unit/type/list with its large values, test_commands) takes about a minute by itself.
UNIT_SECONDS = 420

# The units of Redis's suite that run against a server that is there already. All tests of the others start servers with
# settings of their own (acl, auth, limits, maxmemory, replication, persistence, clusters): no port of a proxy is in them.
TCL_UNITS = """
unit/type/string unit/type/incr unit/type/list unit/type/list-2 unit/type/list-3 unit/type/set unit/type/zset
unit/type/hash unit/type/stream unit/type/stream-cgroups unit/dump unit/protocol unit/keyspace unit/scan
unit/info-command unit/sort unit/expire unit/other unit/multi unit/quit unit/latency-monitor unit/pubsub unit/slowlog
unit/scripting unit/functions unit/introspection unit/introspection-2 unit/bitops unit/bitfield unit/geo
unit/hyperloglog unit/lazyfree unit/pause unit/querybuf unit/tracking unit/violations unit/replybufsize
""".split()

# Of redis-py's the files that talk to the Redis of --redis-url; the rest are mocks, clusters, sentinels, modules.
PY_FILES = """
test_commands test_pipeline test_pubsub test_connection_pool test_connection test_lock test_monitor test_scripting
test_encoding test_cache test_client test_function test_hash test_multiprocessing test_keyspace_notifications
test_credentials test_connect test_retry test_himport_integration test_vsets test_max_connections_error
""".split()
PY_ASYNC_FILES = """
test_commands test_pipeline test_pubsub test_connection_pool test_connection test_lock test_monitor test_scripting
test_encoding test_client test_hash test_keyspace_notifications test_connect test_retry test_cwe_404
test_credentials test_himport_integration test_vsets test_usage_counter
""".split()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def free_range():
    """The first of many ports; those before it, of which the suite takes one for itself, are free now."""
    while True:
        base = random.randrange(11000, 31000)
        try:
            for port in range(base - 32, base):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue


def await_port(port, process, what):
    """Until it accepts connections."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        if process.poll() is not None:
            sys.exit(f"error: {what} ended at its start, with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"error: {what} does not listen on {port}")


class Server:
    """A redis-server, and with `proxied` a proxy in front of it, in a folder of their own; `port` is the one to test."""

    def __init__(self, log, proxied, binary):
        self.processes = []
        self.folder = tempfile.mkdtemp(prefix="nearcache-suites-")
        redis_port = self.port = free_port()
        self.log = open(log, "ab")
        # The settings of Redis's own tests/assets/default.conf, as far as a test depends on them. The bulk length lets a
        # test with large values run.
        self.start("redis-server", redis_port, ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1",
                   "--enable-debug-command", "yes", "--enable-protected-configs", "yes", "--save", "",
                   "--latency-tracking", "yes", "--latency-monitor-threshold", "0", "--repl-diskless-sync-delay", "0",
                   "--rdb-key-save-delay", "0", "--notify-keyspace-events", "KEA", "--always-show-logo", "no",
                   "--hash-max-listpack-entries", "512", "--list-max-listpack-size", "-2"])
        if proxied:
            self.port = free_port()
            self.start("nearcache", self.port, [binary], {
                "RESP_PORT": str(self.port), "HTTP_PORT": "off", "ADMIN_PORT": "off",
                "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0"})

    def start(self, what, port, command, env=None):
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        process = subprocess.Popen(command, cwd=self.folder, env={**environment, **(env or {})},
                                   stdout=self.log, stderr=subprocess.STDOUT)
        self.processes.append((what, process))
        await_port(port, process, what)

    def ended(self):
        """What has ended though nobody stopped it. That a server has ended is no test's failure but the run's."""
        return [f"{what} ended with {process.returncode}" for what, process in self.processes if process.poll() is not None]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for _, process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for _, process in reversed(self.processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def run(command, cwd, log, env=None):
    """Runs it to its end or its time-out, in a group of its own, and returns what it said."""
    with open(log, "wb") as out:
        process = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                                   env={**os.environ, **(env or {})})
        try:
            process.wait(UNIT_SECONDS)
        except subprocess.TimeoutExpired:
            out.write(b"\n[exception]: the unit did not end in time\n")
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    with open(log, "rb") as said:
        return said.read().decode("utf-8", "replace")


def note(results, name, result):
    """One test can be run more than once (for each encoding, say): it passes if it passes each time."""
    if results.get(name) != "err":
        results[name] = result


class Tcl:
    """Redis's own suite, in its mode for a server that is there already."""

    def __init__(self, source, place):
        self.source, self.place = source, place

    def units(self):
        return [("redis", unit) for unit in TCL_UNITS]

    def prepare(self, side):
        """A folder with the suite for one side: it writes below tests/tmp, and calls redis-cli in src."""
        folder = os.path.join(self.place, "redis-" + side)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(os.path.join(folder, "src"))
        shutil.copytree(os.path.join(self.source, "tests"), os.path.join(folder, "tests"))
        os.makedirs(os.path.join(folder, "tests", "tmp"), exist_ok=True)
        for name in ("redis-server", "redis-cli", "redis-benchmark"):
            path = shutil.which(name)
            if path:
                os.symlink(path, os.path.join(folder, "src", name))
        return folder

    def run(self, unit, side, port, log, left_out):
        base = free_range()
        text = run(["tclsh", "tests/test_helper.tcl", "--host", "127.0.0.1", "--port", str(port), "--single", unit,
                    "--durable", "--baseport", str(base), "--portcount", "900", "--timeout", "240",
                    *(word for test in left_out for word in ("--skiptest", test))],
                   self.prepare(side), log)
        results = {}
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
        for kind, rest in re.findall(r"^\[(ok|err|exception)\]: (.*)$", text, re.MULTILINE):
            if kind == "ok":
                note(results, re.sub(r" \(\d+ ms\)$", "", rest), "ok")
            elif kind == "err":
                note(results, re.sub(r" in tests/unit/\S+\.tcl$", "", rest), "err")
            else:
                note(results, "(the unit ends early)", "err")
        if "\\o/" not in text and "following tests failed" not in text:
            note(results, "(the unit ends early)", "err")
        return results


class Py:
    """redis-py's own suite."""

    def __init__(self, source, python):
        self.source, self.python = source, python

    def units(self):
        names = ["tests/" + name for name in PY_FILES] + ["tests/test_asyncio/" + name for name in PY_ASYNC_FILES]
        return [(f"redis-py resp{protocol}", name) for protocol in (2, 3) for name in names
                if os.path.exists(os.path.join(self.source, name + ".py"))]

    def run(self, suite, unit, port, log, left_out):
        report = log + ".xml"
        if os.path.exists(report):
            os.remove(report)
        run([self.python, "-m", "pytest", unit + ".py", "--redis-url", f"redis://127.0.0.1:{port}/9",
             "--protocol", suite[-1], "-q", "--color=no", "--timeout", "60", "-p", "no:cacheprovider", "-W", "ignore",
             "-m", "not onlycluster and not redismod and not ssl and not replica and not cp_integration",
             *(f"--deselect={unit}.py::{test}" for test in left_out), f"--junitxml={report}"], self.source, log)
        results = {}
        if not os.path.exists(report):
            return {"(the unit ends early)": "err"}
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            if case.find("skipped") is not None:
                continue
            name = case.get("classname", "").split(".")[-1] + "::" + case.get("name", "")
            failed = case.find("failure") is not None or case.find("error") is not None
            note(results, name, "err" if failed else "ok")
        return results


def expectations():
    """(suite, unit, test) → reason. Lines are `suite | unit | test | reason`; the suite may end in *."""
    found = []
    path = os.path.join(HERE, "expected.txt")
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            line = line.rstrip("\n")
            if not line or line.startswith("#"):
                continue
            parts = line.split(" | ")
            if len(parts) != 4:
                sys.exit(f"error: {path}:{number}: suite | unit | test | reason")
            found.append(tuple(parts))
    return found


def left_out(expected, suite, unit):
    """The tests that are not run through the proxy, since what they leave behind would fail others."""
    return [test for their_suite, their_unit, test, reason in expected
            if reason.startswith("not run: ") and their_unit == unit and suite.startswith(their_suite.rstrip("*"))]


def reason_of(expected, suite, unit, test):
    for their_suite, their_unit, their_test, reason in expected:
        suites = suite.startswith(their_suite[:-1]) if their_suite.endswith("*") else suite == their_suite
        tests = test.startswith(their_test[:-1]) if their_test.endswith("*") else test == their_test
        if suites and their_unit == unit and tests:
            return reason
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", required=True, help="where logs and working copies go")
    parser.add_argument("--nearcache", required=True, help="the binary")
    parser.add_argument("--redis", help="the sources of Redis")
    parser.add_argument("--redis-py", help="the sources of redis-py")
    parser.add_argument("--python", help="a Python with redis-py's needs")
    parser.add_argument("--direct-once", action="store_true", help="take what an earlier run saw directly, where it did")
    parser.add_argument("only", nargs="*", help="names of units, or parts of them")
    options = parser.parse_args()
    # So that the servers are stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: stopped"))

    jobs = []
    if options.redis:
        tcl = Tcl(options.redis, options.place)
        jobs += [(suite, unit, lambda unit, side, port, log, out, suite=suite: tcl.run(unit, side, port, log, out))
                 for suite, unit in tcl.units()]
    if options.redis_py:
        py = Py(options.redis_py, options.python)
        jobs += [(suite, unit, lambda unit, side, port, log, out, suite=suite: py.run(suite, unit, port, log, out))
                 for suite, unit in py.units()]
    if options.only:
        exact = {job[1] for job in jobs}.intersection(options.only)
        jobs = [job for job in jobs if job[1] in exact
                or any(part in job[0] + " " + job[1] for part in set(options.only) - exact)]

    expected = expectations()
    logs = os.path.join(options.place, "logs")
    os.makedirs(logs, exist_ok=True)
    new, table, met = [], [], set()
    for suite, unit, job in jobs:
        outcome = {}
        seen = os.path.join(logs, f"{suite} {unit}".replace("/", "_").replace(" ", "-") + ".json")
        if options.direct_once and os.path.exists(seen):
            with open(seen, encoding="utf-8") as file:
                outcome["direct"] = json.load(file)
        for side in ("direct", "proxied"):
            if side in outcome:
                continue
            log = os.path.join(logs, f"{suite} {unit} {side}".replace("/", "_").replace(" ", "-") + ".log")
            with Server(log + ".server", side == "proxied", options.nearcache) as server:
                out = left_out(expected, suite, unit) if side == "proxied" else []
                outcome[side] = job(unit, side, server.port, log, out)
                ended = server.ended()
            if ended and not (side == "direct"):
                new.append((suite, unit, "(" + ", ".join(ended) + ")"))
        direct, proxied = outcome["direct"], outcome["proxied"]
        with open(seen, "w", encoding="utf-8") as file:
            json.dump(direct, file)
        for test in direct:
            if test.startswith("("):
                new.append((suite, unit, "nothing is known of it, directly " + test))
        passed = [sum(result == "ok" for result in side.values()) for side in (direct, proxied)]
        differ = [test for test, result in direct.items() if result == "ok" and proxied.get(test) != "ok"]
        reasons = {test: reason_of(expected, suite, unit, test) for test in differ}
        for test, reason in reasons.items():
            met.add((unit, reason))
            if reason is None:
                new.append((suite, unit, test))
        line = (suite, unit, passed[0], passed[1], len(differ), sum(reason is None for reason in reasons.values()))
        table.append(line)
        print("%-14s %-38s direct %4d  proxied %4d  differ %3d  not expected %3d" % line, flush=True)
        for test, reason in reasons.items():
            print(f"    {'-' if reason else '!!'} {test}: {reason or 'NOT EXPECTED'}", flush=True)

    totals = [sum(line[column] for line in table) for column in (2, 3, 4, 5)]
    print("%-53s direct %4d  proxied %4d  differ %3d  not expected %3d" % ("in all", *totals))
    if new:
        print("These pass with Redis itself and not through the proxy, and are not in tests/suites/expected.txt:")
        for suite, unit, test in new:
            print(f"{suite} | {unit} | {test}")
        sys.exit(1)


main()
