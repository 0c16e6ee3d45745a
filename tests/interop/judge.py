# SPDX-License-Identifier: MIT
"""What a client and a server of the stock programs must have said.

An exit status is not enough: ibv_*_pingpong ends with 0 after wrong data, and perftest prints
its table line by line."""
import re

from bed import Wrong

# What programs may say on stderr though all is well.
NOTES = re.compile(r"Device not recognized to implement inline feature\. Disabling it"
                   r"|Max msg size in UD is MTU \d+|Changing to this MTU"
                   # perftest could not calibrate the cycle counter well: the machine was busy
                   r"|Correlation coefficient r\^2: [\d.]+ < 0\.9")


def option(argv, name, default):
    """The value of an option among arguments; `default` if it isn't there."""
    return argv[argv.index(name) + 1] if name in argv else default


def number(argv, name, default):
    return int(option(argv, name, default))


def sound(program):
    """It ended well, and complained of nothing."""
    if program.status != 0:
        raise Wrong(f"the {program.title}'s status is {program.status}")
    for line in program.err.splitlines():
        if line.strip() and not NOTES.search(line):
            raise Wrong(f"the {program.title} complains: {line}")


def pingpong(client, server):
    """Both counted every message, and the data was right."""
    for side in (client, server):
        sound(side)
        rounds, size = number(side.argv, "-n", 1000), number(side.argv, "-s", 0)
        moved = re.search(r"^(\d+) bytes in ", side.out, re.M)
        moved = int(moved[1]) if moved else 0
        # Without -s the size is the program's own choice, which differs between versions.
        if moved == 0 or moved % (2 * rounds) or size not in (0, moved / (2 * rounds)):
            raise Wrong(f"the {side.title} moved {moved} bytes in {rounds} rounds")
        if not re.search(rf"^{rounds} iters in ", side.out, re.M):
            raise Wrong(f"the {side.title} did not do {rounds} rounds")
        if "invalid" in side.out:
            raise Wrong(f"the {side.title} found wrong data")


def xsrq_pingpong(client, server):
    """Both say that they have ended as they should; the program counts nothing."""
    for side in (client, server):
        sound(side)
        if not re.search(r"^success$", side.out, re.M):
            raise Wrong(f"the {side.title} had no success")


def rows(program):
    """The lines of a perftest table, as lists of numbers."""
    table, found = False, []
    for line in program.out.splitlines():
        if line.lstrip().startswith("#bytes"):
            table = True
        elif table and re.match(r"\s*\d", line):
            found.append([float(field) for field in line.split()])
    return found


def sizes_of(argv):
    """The message sizes perftest must report; None for one of its own choice."""
    if "-a" not in argv:
        size = option(argv, "-s", None)
        return None if size is None else [int(size)]
    top = 12 if option(argv, "-c", "RC") == "UD" else 23
    return [2 ** power for power in range(1, top + 1)]


def perftest(client, server):
    """The client's table has a line for every size, with every message and times above 0."""
    for side in (client, server):
        sound(side)
    found, argv = rows(client), client.argv
    wanted = sizes_of(argv)
    if wanted is None and len(found) != 1 or wanted not in (None, [row[0] for row in found]):
        raise Wrong(f"the table's sizes are {[int(row[0]) for row in found]}, not {wanted}")
    rounds = number(argv, "-n", 0) * number(argv, "-q", 1)
    for row in found:
        if row[1] <= 0 or rounds and row[1] != rounds:
            raise Wrong(f"{int(row[1])} messages of {int(row[0])} bytes, not {rounds or 'some'}")
        # Rates of few bytes are rounded to 0; the last column is never.
        if row[-1] <= 0:
            raise Wrong(f"no time was measured at {int(row[0])} bytes")
