#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""unpack_kernel.py VMLINUZ VMLINUX - the ELF file inside a compressed kernel."""
import lzma
import subprocess
import sys


def unzstd(data):
    return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=False).stdout


PACKERS = ((b"\xfd7zXZ\0", lambda data: lzma.LZMADecompressor().decompress(data)),
           (b"\x28\xb5\x2f\xfd", unzstd))


def main():
    with open(sys.argv[1], "rb") as file:
        image = file.read()
    for magic, unpack in PACKERS:
        at = image.find(magic)
        while at >= 0:
            try:
                kernel = unpack(image[at:])
            except lzma.LZMAError:
                kernel = b""
            if kernel[:4] == b"\x7fELF":
                with open(sys.argv[2], "wb") as file:
                    file.write(kernel)
                return
            at = image.find(magic, at + 1)
    sys.exit(f"no kernel found in {sys.argv[1]}")


main()
