#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run one stock verbs program over via0, and look for lines in what it says.

    alone.py [--by-command] [--libraries DIR] [--stays] [--script FILE] --says REGEX ...
        PROGRAM [OPTIONS]

Each REGEX must match a whole line of stdout. A program that --stays waits for events: it is
ended, once it has said everything, and must not have ended before. A script is one of this folder, PROGRAM's first
argument."""
import argparse
import os
import re
import shutil
import signal
import sys

from bed import Bed, Wrong, arguments_of, environment_of
from judge import sound


def says(program, regex):
    return re.search(f"^{regex}$", program.out, re.M) is not None


def end_waiting(bed, program, lines):
    bed.wait_until(lambda: all(says(program, line) for line in lines), program, "said all")
    program.process.send_signal(signal.SIGTERM)
    if program.process.wait(bed.left()) != -signal.SIGTERM:
        raise Wrong(f"the {program.title} was not waiting: status {program.status}")


def copy_of(bed, name):
    """The user of the bed may not be able to read this folder."""
    here = os.path.dirname(os.path.abspath(__file__))
    return shutil.copy(os.path.join(here, name), bed.scratch)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--says", action="append", required=True, metavar="REGEX")
    parser.add_argument("--stays", action="store_true")
    parser.add_argument("--script", metavar="FILE")
    args = arguments_of(parser)
    try:
        with Bed(args.seconds) as bed:
            script = [copy_of(bed, args.script)] if args.script else []
            program = bed.start([args.program, *script, *args.options], by_command=args.by_command,
                                env=environment_of(args.libraries))
            if args.stays:
                end_waiting(bed, program, args.says)
                return 0
            bed.wait_all()
            sound(program)
            for line in args.says:
                if not says(program, line):
                    raise Wrong(f"no line is like '{line}'")
    except Wrong:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
