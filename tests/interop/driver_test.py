#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Shows that the drivers find what is wrong: pretended programs do one thing badly each, and
pair.py must fail and say why. Without this, a pair that does nothing could pass."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent

# Both sides: -p PORT, a host for the client, and --do WHAT. Named ibv_... it talks like a
# ping-pong of 10 rounds of 8 bytes, otherwise like perftest.
PRETENDER = r'''
import os, socket, sys, time
args = sys.argv[1:]
do, port = args[args.index("--do") + 1], int(args[args.index("-p") + 1])
client = args[-1] == "127.0.0.1"
print("pid", os.getpid(), "user", os.getuid(), flush=True)
if do == "deaf":
    sys.exit(0)
end = socket.create_connection(("127.0.0.1", port)) if client else \
    socket.create_server(("127.0.0.1", port)).accept()[0]
if do == "hang" or do == "hang_after" and not client:
    time.sleep(1000)
if do == "complain" and not client:
    print("something is odd", file=sys.stderr)
if do == "die" and client:
    os.abort()
if "ibv_" in sys.argv[0]:
    print(f"{80 if do == 'short' else 160} bytes in 1.00 seconds = 0.00 Mbit/sec")
    print(f"{9 if do == 'few' else 10} iters in 1.00 seconds = 0.00 usec/iter")
    if do == "invalid" and not client:
        print("invalid data in page 0")
else:
    print(" #bytes #iterations peak average rate")
    if do != "empty":
        print(" 8 ", 9 if do == "short" else 10, " 0.00 0.00 ", 0 if do == "still" else 0.5)
sys.exit(do == "status" and not client)
'''

CASES = [  # what is done badly, by which program, and a part of the report: "" if it is to pass
    ("well", "ibv_pretend", ""),
    ("well", "ib_pretend", ""),
    ("status", "ibv_pretend", "the server's status is 1"),
    ("die", "ibv_pretend", "the client's status is -6"),
    ("short", "ibv_pretend", "the client moved 80 bytes in 10 rounds"),
    ("few", "ibv_pretend", "the client did not do 10 rounds"),
    ("invalid", "ibv_pretend", "the server found wrong data"),
    ("complain", "ib_pretend", "the server complains: something is odd"),
    ("short", "ib_pretend", "9 messages of 8 bytes, not 10"),
    ("empty", "ib_pretend", "the table's sizes are [], not [8]"),
    ("still", "ib_pretend", "no time was measured at 8 bytes"),
    ("deaf", "ib_pretend", "the server ended before it listened"),
    ("hang", "ibv_pretend", "the time is up"),
    ("hang_after", "ibv_pretend", "the time is up"),
    ("absent", "ibv_absent", "ibv_absent is not installed"),
]


def alive(pid):
    return os.path.exists(f"/proc/{pid}")


def check(folder, do, program, complaint):
    path = shutil.which(program, path=str(folder)) or program
    seconds = "2" if do.startswith("hang") else "30"
    ran = subprocess.run([sys.executable, "-B", HERE / "pair.py", "--seconds", seconds, path,
                          "-n", "10", "-s", "8", "--do", do], capture_output=True, text=True,
                         check=False)
    said = ran.stdout + ran.stderr
    wrong = []
    if (ran.returncode == 0) != (complaint == ""):
        wrong.append(f"status {ran.returncode}")
    if complaint and f"FAIL: {complaint}" not in said:
        wrong.append(f"no word of '{complaint}'")
    if any(alive(pid) for pid in re.findall(r"^pid (\d+)", said, re.M)):
        wrong.append("a process was left behind")
    if re.search(r"^pid \d+ user 0$", said, re.M):
        wrong.append("a program ran as root")
    if wrong:
        print(f"FAIL: {program} that does '{do}': {', '.join(wrong)}\n{said}")
    return not wrong


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="viaduct-driver-"))
    try:
        folder.chmod(0o755)
        for name in ("ibv_pretend", "ib_pretend"):
            (folder / name).write_text(f"#!/usr/bin/python3{PRETENDER}", encoding="ascii")
            (folder / name).chmod(0o755)
        failed = [case for case in CASES if not check(folder, *case)]
    finally:
        shutil.rmtree(folder)
    print(f"{len(CASES) - len(failed)} of {len(CASES)} were judged rightly")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
