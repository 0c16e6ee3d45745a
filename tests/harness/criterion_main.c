/* SPDX-License-Identifier: MIT */
/*
 * A program that has both runners: Criterion's, and with --plain ours, which starts no program for
 * each test and writes nowhere but to stdout. An emulated machine is glad of both.
 */
#include "t_internal.h"

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--plain") == 0) {
        return t_plain_main(argv);
    }
    struct criterion_test_set *tests = criterion_initialize();
    bool passed = true;

    if (criterion_handle_args(argc, argv, true)) {
        passed = criterion_run_all_tests(tests);
    }
    criterion_finalize(tests);
    return passed ? 0 : 1;
}
