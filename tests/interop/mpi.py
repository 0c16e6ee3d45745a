#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Build our MPI program with one of Debian's MPIs, and run its ranks on via0.

    mpi.py [--transport T] [--ranks N] [--seconds N] openmpi|mpich [OPTIONS of mpirun]

With a transport of UCX (rc_v, ud_v) MPI speaks UCX, with one of libfabric (verbs+ofi_rxm)
libfabric. Either is left nothing else to use, not even memory shared by ranks of one host."""
import argparse
import os
import subprocess
import sys

from bed import Bed, Wrong, arguments_of
from judge import sound

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mpi_program.c")
OPENMPI = ["--oversubscribe", "--bind-to", "none"]
OPENMPI_UCX = ["--mca", "pml", "ucx", "--mca", "pml_ucx_tls", "any",
               "--mca", "pml_ucx_devices", "any"]
OPENMPI_FABRIC = ["--mca", "pml", "cm", "--mca", "mtl", "ofi", "--mca", "mtl_ofi_provider_include"]


def build(bed, compiler):
    program = f"{bed.scratch}/mpi_program"
    made = subprocess.run([compiler, "-O2", "-o", program, SOURCE], capture_output=True, text=True,
                          check=False)
    if made.returncode:
        raise Wrong(f"{compiler} failed:\n{made.stderr}")
    return program


def environment_of(bed, transport):
    # UCX asks for the ranks of one host to find each other; "self" is a rank's way to itself.
    home = bed.env["VIADUCT_RUNTIME_DIR"]
    env = {"HOME": home, "TMPDIR": home}
    if "verbs" in transport:
        return {**env, "FI_PROVIDER": "verbs"}
    return {**env, "UCX_TLS": f"{transport},self", "UCX_NET_DEVICES": "via0:1"}


def command(args, program):
    ranks = ["-n", str(args.ranks)]
    if args.program == "mpich":
        return ["mpirun.mpich", *ranks, "-env", "MPIR_CVAR_NOLOCAL", "1", *args.options, program]
    how = [*OPENMPI_FABRIC, args.transport.replace("+", ";")] if "verbs" in args.transport else OPENMPI_UCX
    return ["mpirun.openmpi", *ranks, *OPENMPI, *how, *args.options, program]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transport", default="rc_v")
    parser.add_argument("--ranks", type=int, default=2)
    args = arguments_of(parser)
    try:
        with Bed(args.seconds) as bed:
            program = build(bed, f"mpicc.{args.program}")
            ran = bed.start(command(args, program), env=environment_of(bed, args.transport))
            bed.wait_all()
            sound(ran)
            if f"all data was right on {args.ranks} ranks" not in ran.out:
                raise Wrong("not all data was right")
    except Wrong:
        return 1
    print(f"{args.program} over {args.transport}: passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
