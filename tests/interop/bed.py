# SPDX-License-Identifier: MIT
"""Where the programs of others run: an ordinary user's processes, a private runtime directory,
the NIC preloaded, and an end to every process however the test ends."""
import argparse
import glob
import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

USER = "nobody"  # what root becomes
LISTEN = "0A"    # the state's number in /proc/net/tcp
PATIENCE = 5     # seconds for one side to end after the other has failed


class Wrong(Exception):
    """What the test found; its text is the report."""


class Program:
    """One process: its command line, and what it said so far."""

    def __init__(self, title, argv, out, err, **how):
        self.title, self.argv, self.out_path, self.err_path = title, argv, out, err
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout,
                                            stderr=stderr, **how)
        self.pidfd = os.pidfd_open(self.process.pid)
        self.fate = None

    @property
    def out(self):
        return open(self.out_path, encoding="utf-8", errors="replace").read()

    @property
    def err(self):
        return open(self.err_path, encoding="utf-8", errors="replace").read()

    @property
    def status(self):
        """The exit status, minus a signal's number, or None while it runs."""
        return self.process.poll()

    def doing(self):
        """Of a running process: its threads, whether they run, and what they wait for."""
        tasks = []
        for task in sorted(glob.glob(f"/proc/{self.process.pid}/task/*")):
            try:
                name, rest = open(f"{task}/stat", encoding="utf-8").read().rsplit(")", 1)
                wait = open(f"{task}/wchan", encoding="utf-8").read()
                tasks.append(f"{name.split('(', 1)[1]}: {rest.split()[0]} {wait}")
            except OSError:
                pass
        return "; ".join(tasks)

    def end(self):
        if self.status is None:
            self.fate = f"ended by the test, {self.doing()}"
            self.process.kill()
        self.process.wait()

    def report(self):
        return (f"--- {self.title}: {' '.join(self.argv)}\n"
                f"--- {self.fate or f'status {self.status}'}; stdout:\n{self.out}"
                f"--- stderr:\n{self.err}")


class Bed:
    """with Bed() as bed: ... Every process it started has ended afterwards."""

    def __init__(self, seconds=30):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
        self.deadline = time.monotonic() + seconds
        self.programs = []
        self.cores = sorted(os.sched_getaffinity(0))
        self.scratch = tempfile.mkdtemp(prefix="viaduct-interop-")
        self.who = {}
        if os.getuid() == 0:
            user = pwd.getpwnam(USER)
            self.who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._furnish()

    def _furnish(self):
        """A copy of what we test that the user may read, wherever the build lies."""
        os.chmod(self.scratch, 0o755)
        run = os.path.join(self.scratch, "run")
        os.mkdir(run, 0o700)
        if self.who:
            os.chown(run, self.who["user"], self.who["group"])
        for folder in ("lib", "bin"):
            os.mkdir(os.path.join(self.scratch, folder))
        self.library = shutil.copy(os.environ["VIADUCT_LIBRARY"],
                                   f"{self.scratch}/lib/libviaduct.so.0")
        os.symlink("libviaduct.so.0", f"{self.scratch}/lib/libviaduct.so")
        shutil.copy(f"{os.environ['VIADUCT_BIN']}/../lib/libvipl.so.1", f"{self.scratch}/lib")
        self.viaduct = shutil.copy(f"{os.environ['VIADUCT_BIN']}/viaduct", f"{self.scratch}/bin")
        self.env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C",
                    "VIADUCT_RUNTIME_DIR": run,
                    "VIADUCT_NICS": "via0=127.0.0.1"}  # its interface carries any path MTU
        # The same programs over another link, with faults, or with a capture.
        for name in ("VIADUCT_LINK", "VIADUCT_NICS", "VIADUCT_FAULTS", "VIADUCT_PCAP"):
            if name in os.environ:
                self.env[name] = os.environ[name]

    def __enter__(self):
        return self

    def __exit__(self, kind, what, trace):
        for program in self.programs:
            program.end()
        try:
            if kind is not None and issubclass(kind, Exception):
                print(f"FAIL: {what if kind is Wrong else repr(what)}")
                for program in self.programs:
                    print(program.report())
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)
        return False

    def start(self, argv, title="program", core=None, by_command=False, env=None):
        """Start it with the NIC preloaded, or by `viaduct run`, on one core or on any."""
        if shutil.which(argv[0], path=self.env["PATH"]) is None:
            raise Wrong(f"{argv[0]} is not installed")
        env = {**self.env, **(env or {})}
        if by_command:
            argv = [self.viaduct, "run", "--", *argv]
        else:
            env.setdefault("LD_PRELOAD", self.library)
        self._record(argv, env)
        base = os.path.join(self.scratch, str(len(self.programs)))
        cores = self.cores if core is None else [self.cores[core % len(self.cores)]]
        program = Program(title, argv, f"{base}.out", f"{base}.err", env=env, cwd="/",
                          preexec_fn=lambda: os.sched_setaffinity(0, cores), **self.who)
        self.programs.append(program)
        return program

    def _record(self, argv, env):
        """For table.py, if it asks: what is started."""
        path = os.environ.get("VIADUCT_INTEROP_RECORD")
        if path:
            with open(path, "a", encoding="utf-8") as record:
                print(json.dumps({"argv": argv, "env": env, "scratch": self.scratch}), file=record)

    def left(self):
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise Wrong("the time is up")
        return seconds

    def wait_until(self, done, program, what):
        """Look at done() again and again, as long as the program runs."""
        while not done():
            if select.select([program.pidfd], [], [], min(self.left(), 0.005))[0]:
                raise Wrong(f"the {program.title} ended before it {what}")

    def wait_all(self):
        """Until all have ended; after the first failure the others have a short time left."""
        running = list(self.programs)
        while running:
            ended = select.select([p.pidfd for p in running], [], [], self.left())[0]
            for program in [p for p in running if p.pidfd in ended]:
                running.remove(program)
                if program.process.wait() != 0:
                    self.deadline = min(self.deadline, time.monotonic() + PATIENCE)


def listens(port):
    """Does somebody listen on the TCP port, by any address of this host?"""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        for line in open(table, encoding="ascii"):
            fields = line.split()
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                return True
    return False


def free_ports(count):
    """TCP ports nobody uses; held together until all are found, so they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def arguments_of(parser):
    """Add what every driver takes, and parse: the rest of the line is the program's own."""
    parser.add_argument("--by-command", action="store_true", help="start with `viaduct run`")
    parser.add_argument("--seconds", type=int, default=60, help="for all of it")
    parser.add_argument("--libraries", metavar="DIR",
                        help="an rdma-core built in place, to be used")
    parser.add_argument("program")
    parser.add_argument("options", nargs=argparse.REMAINDER)
    return parser.parse_args()


def environment_of(folder):
    """Of programs that shall use the rdma-core built in place under `folder`, if any."""
    return {} if folder is None else {"LD_LIBRARY_PATH": os.path.join(folder, "lib")}


def uses(program, folder):
    """Has the running program loaded the verbs library and the provider from there?"""
    maps = open(f"/proc/{program.process.pid}/maps", encoding="utf-8").read()
    where = os.path.join(os.path.realpath(folder), "lib")
    return f"{where}/libibverbs.so" in maps and f"{where}/librxe-" in maps
