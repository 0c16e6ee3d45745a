#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run the verbs tests of rdma-core itself (Debian's python3-pyverbs brings them) over via0.

    suite.py

Each test must pass. One that does not apply to this device skips itself and says why: every such
reason must be one of those below, and each of the modules below must have passed some."""
import argparse
import glob
import gzip
import os
import re
import shutil
import subprocess
import sys

from bed import Bed, Wrong

PACKAGE = "python3-pyverbs"
FOLDER = "usr/share/doc/rdma-core/tests"

# Why a test may leave itself out, and what makes that right.
REASONS = (
    r"Can not run the test over non (MLX5|EFA) device",    # another vendor's own interface
    r"Could not open mlx5 context .*",
    r"PCI device must be passed by the user",              # mlx5 over VFIO
    r"cuda-python .*",
    r"Allocating dmabuf is not supported by /dev/dri/.*",  # no graphics card to share memory with
    r"There are no huge pages of size 2M allocated",       # root's to allocate
    # Raw packet queue pairs: an Ethernet NIC's, and root's.
    r"Create QP type 8 is not supported",
    r"Create Raw Packet QP .* is not supported",
    r"(Must be run|To Create RAW QP must be done) by root on Ethernet link layer",
    r"ODP is not supported - No ODP caps",
    r"Device memory is not supported",
    r"Importing a device is not supported",
    r"All gid indices populated, cannot check bad flow",
    r"Converting timestamp to nanoseconds is not supported",
    # Of two attempts, the second: tag matching, and IBV_WR_ATOMIC_WRITE, which this ABI has not.
    r"Extended CQ is not supported",
    r"Extended QP is not supported on this device",
)
MODULES = ("test_addr", "test_atomic", "test_cq", "test_cq_events", "test_cqex", "test_device",
           "test_fork", "test_mr", "test_pd", "test_qp", "test_qpex", "test_rdmacm",
           "test_relaxed_ordering")
RESULT = re.compile(r"(?P<verdict>ok|FAIL|ERROR|expected failure|unexpected success|"
                    r"skipped ['\"](?P<why>.*)['\"])$")
NAME = re.compile(r"^(?P<test>\w+) \(tests\.(?P<module>\w+)\.")


def find_tests(bed):
    """Where the package put them, or, where documentation is not installed, out of the package."""
    if os.path.exists(f"/{FOLDER}/run_tests.py"):
        return f"/{FOLDER}"
    place = os.path.join(bed.scratch, "package")
    os.mkdir(place)
    if subprocess.run(["apt-get", "download", PACKAGE], cwd=place, check=False,
                      stdout=subprocess.DEVNULL).returncode:
        raise Wrong(f"{PACKAGE} has no /{FOLDER} here and can't be downloaded")
    for package in glob.glob(f"{place}/*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, place], check=True)
    return os.path.join(place, FOLDER)


def unpack(folder, bed):
    """A copy to run: packages keep long documents, and so these programs, compressed."""
    tests = shutil.copytree(folder, os.path.join(bed.scratch, "tests"))
    for packed in glob.glob(f"{tests}/*.gz"):
        with gzip.open(packed) as source, open(packed[:-3], "wb") as plain:
            shutil.copyfileobj(source, plain)
    return tests


def results(text):
    """(module, test, verdict, why) of each test; its name may be a line or more above."""
    module = test = None
    for line in text.splitlines():
        begin = NAME.match(line)
        if begin:
            module, test = begin["module"], begin["test"]
        end = RESULT.search(line)
        if end and test:
            yield module, test, end["verdict"], end["why"]
            test = None


def judge(program):
    passed = dict.fromkeys(MODULES, 0)
    seen = 0
    for module, test, verdict, why in results(program.err):
        seen += 1
        if verdict == "ok":
            passed[module] = passed.get(module, 0) + 1
        elif why is None:
            raise Wrong(f"{module}.{test}: {verdict}")
        elif not any(re.fullmatch(reason, why) for reason in REASONS):
            raise Wrong(f"{module}.{test} left itself out: {why}")
    ran = re.search(r"^Ran (\d+) tests", program.err, re.M)
    if program.status != 0 or not ran or int(ran[1]) != seen:
        raise Wrong(f"status {program.status}, {seen} results for '{ran and ran[0]}'")
    for module, count in passed.items():
        if count == 0:
            raise Wrong(f"{module}: none passed")
    print(f"{sum(passed.values())} passed of {seen}")


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    try:
        with Bed(100) as bed:
            tests = unpack(find_tests(bed), bed)
            program = bed.start(["/usr/bin/python3", "-B", f"{tests}/run_tests.py", "-v",
                                 "--dev", "via0"], env={"PYTHONPATH": bed.scratch})
            bed.wait_all()
            judge(program)
    except Wrong:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
