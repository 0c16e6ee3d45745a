#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run one stock verbs program over via0, and look for lines in what it says.

    alone.py [--by-command] [--libraries DIR] [--stays] --says REGEX ... PROGRAM [OPTIONS]

Each REGEX must match a whole line of stdout. A program that --stays waits for events: it is
ended, once it has said everything, and must not have ended before."""
import argparse
import re
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--says", action="append", required=True, metavar="REGEX")
    parser.add_argument("--stays", action="store_true")
    args = arguments_of(parser)
    try:
        with Bed(args.seconds) as bed:
            program = bed.start([args.program, *args.options], by_command=args.by_command,
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
