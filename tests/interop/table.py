#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tables of programs in docs/programs.md and README.md, made by running the interop tests.

    table.py write BUILD    run every test of BUILD that has a stock program, and write the tables
    table.py check BUILD    say whether the tables are those of the tests BUILD has now"""
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DRIVERS = {"pair.py", "cm.py", "alone.py", "programs.py", "mpi.py"}
PAGES = (ROOT / "docs/programs.md", ROOT / "README.md")
BEGIN, END = "<!-- made by tests/interop/table.py: begin {} -->", "<!-- end -->"
# Wrappers, and what they are followed by, in front of the program that a row is about.
WRAPPERS = re.compile(r"^(stdbuf -\S+ |env (\S+=\S+ )+)+")


def tests_of(build):
    """(name, argv, environment) of each test that runs a stock program of this system."""
    listed = subprocess.run(["ctest", "--show-only=json-v1", "-L", "interop"], cwd=build,
                            check=True, capture_output=True, text=True)
    for test in json.loads(listed.stdout)["tests"]:
        argv = test.get("command", [])
        if len(argv) < 3 or pathlib.Path(argv[2]).name not in DRIVERS or "--libraries" in argv:
            continue
        env = [each["value"] for each in test["properties"] if each["name"] == "ENVIRONMENT"]
        yield test["name"], argv, dict(pair.split("=", 1) for pair in env[0])


def digest_of(tests):
    """Of which tests there are, and what each runs: of neither a machine nor a result."""
    lines = [" ".join([name, pathlib.Path(argv[2]).name, *argv[3:]]) for name, argv, _ in tests]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def run(argv, env, record):
    """Whether the test passed, and the command lines it recorded."""
    open(record, "w", encoding="utf-8").close()
    ran = subprocess.run(argv, env={**os.environ, **env, "VIADUCT_INTEROP_RECORD": record},
                         capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in open(record, encoding="utf-8")]
    return ran.returncode == 0, lines


def plain(record):
    """A command line as one types it: no paths and ports of one run."""
    line = " ".join(f"'{word}'" if re.search(r"[;\s]", word) else word
                    for word in record["argv"] if "\n" not in word)
    line = line.replace(record["scratch"], "$DIR").replace("$DIR/bin/viaduct run -- ", "")
    line = re.sub(r"LD_PRELOAD=\S+:(\S+)", r"LD_PRELOAD=\1", line)
    line = re.sub(r"^(env \S+ )?/usr/(local/)?bin/", r"\1", line)
    line = re.sub(r"(-p |-lp |-B |-P |--port=|(?:server|client) \S+ )[1-9]\d{4}\b", r"\1PORT", line)
    env = [f"{key}={value.split(':')[-1] if key == 'LD_PRELOAD' else value}"
           for key, value in sorted(record["env"].items())
           if key.startswith(("UCX_", "FI_")) or "librspreload" in value]
    return " ".join([*env, line])


def program_of(record):
    argv = WRAPPERS.sub("", " ".join(record["argv"]).split("run -- ")[-1]).split()
    name = pathlib.Path(argv[0]).name
    if name.startswith("python3"):
        name = "pyverbs" if "pyverbs" in argv[1] else "Python sockets over librspreload"
    return {"iperf": "iperf over librspreload"}.get(name, name)


PACKAGES = {"pyverbs": "python3-pyverbs", "Python sockets over librspreload": "librdmacm1"}


def package_of(program):
    package = PACKAGES.get(program)
    if package is None:
        path = os.path.realpath(shutil.which(program.split()[0]))
        found = subprocess.run(["dpkg-query", "-S", path], capture_output=True, text=True,
                               check=False).stdout or subprocess.run(
            ["dpkg-query", "-S", path.removeprefix("/usr")], capture_output=True, text=True,
            check=True).stdout
        package = found.split(":")[0].split(",")[0]
    version = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package],
                             capture_output=True, text=True, check=True).stdout
    return f"{package} {version}"


def measure(tests):
    """By program: its package, and for each test the result and the command lines."""
    programs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, argv, env in tests:
            passed, records = run(argv, env, f"{folder}/record")
            if not records:
                sys.exit(f"{name} started nothing")
            print("passed" if passed else "FAILED", name, flush=True)
            entry = programs.setdefault(program_of(records[-1]), [])
            entry.append((name, passed, list(dict.fromkeys(plain(each) for each in records))))
    return programs


def rows_of(programs):
    for program, runs in sorted(programs.items()):
        good = sum(passed for _, passed, _ in runs)
        result = f"{good} of {len(runs)} passed"
        yield package_of(program), program, result, runs


def long_table(programs):
    lines = ["| program | package | variants | one of them, server and client |",
             "|---|---|---|---|"]
    for package, program, result, runs in rows_of(programs):
        lines.append(f"| {program} | {package} | {result} | "
                     + "<br>".join(f"`{line}`" for line in runs[0][2]) + " |")
    lines += ["", "<details><summary>Every command</summary>", "", "```"]
    for _, _, _, runs in rows_of(programs):
        for name, passed, commands in runs:
            lines.append(f"{'passed' if passed else 'FAILED'}  {name}")
            lines += [f"        {command}" for command in commands]
    return lines + ["```", "", "</details>"]


def short_table(programs):
    packages = {}
    for package, program, _, runs in rows_of(programs):
        entry = packages.setdefault(package, ([], []))
        entry[0].append(program)
        entry[1].extend(passed for _, passed, _ in runs)
    lines = ["| package | programs | variants |", "|---|---|---|"]
    for package, (names, results) in sorted(packages.items()):
        shown = ", ".join(f"`{name}`" if " " not in name else name for name in names)
        lines.append(f"| {package} | {shown} | {sum(results)} of {len(results)} passed |")
    return lines


def replace(page, digest, lines):
    text = page.read_text(encoding="utf-8")
    pattern = BEGIN.format(r"\S+") + r"\n.*?" + END
    table = "\n".join([BEGIN.format(digest), "", *lines, "", END])
    changed, count = re.subn(pattern, lambda _: table, text, flags=re.S)
    if count != 1:
        sys.exit(f"{page} has {count} places for the table")
    page.write_text(changed, encoding="utf-8")


def check(digest):
    good = True
    for page in PAGES:
        if BEGIN.format(digest) not in page.read_text(encoding="utf-8"):
            print(f"{page.relative_to(ROOT)} is not of the tests that are here: "
                  "run tests/interop/table.py write BUILD")
            good = False
    return 0 if good else 1


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("write", "check"):
        sys.exit(__doc__)
    tests = list(tests_of(sys.argv[2]))
    digest = digest_of(tests)
    if sys.argv[1] == "check":
        return check(digest)
    programs = measure(tests)
    for page, table in zip(PAGES, (long_table, short_table)):
        replace(page, digest, table(programs))
    return 0 if all(passed for runs in programs.values() for _, passed, _ in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
