/* SPDX-License-Identifier: MIT */
/* A program that has the plain runner only. */
#include "t_internal.h"

int main(int argc, char **argv)
{
    (void)argc;
    return t_plain_main(argv);
}
