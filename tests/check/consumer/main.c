/* SPDX-License-Identifier: MIT */
/* A program outside the tree that uses an installed copy; it compiles as C and as C++. */
#include <stdio.h>
#include <viaduct.h>

int main(void)
{
    return puts(viaduct_version()) < 0;
}
