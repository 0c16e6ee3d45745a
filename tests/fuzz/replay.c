/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzzer's corpus once, with any compiler: so what a fuzzer has found stays a test in
 * builds without libFuzzer. Usage: PROGRAM FILE-OR-FOLDER...
 */
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned inputs;

static int replay(const char *path, const struct stat *stat, int kind, struct FTW *where)
{
    (void)where;
    if (kind != FTW_F) {
        return 0;
    }
    size_t size = (size_t)stat->st_size;
    /* Exactly as long as the input, so that a sanitizer sees the first byte read past it. */
    uint8_t *data = malloc(size ? size : 1);
    FILE *file = fopen(path, "rb");
    int bad = !data || !file || fread(data, 1, size, file) != size;
    if (bad) {
        perror(path);
    } else {
        LLVMFuzzerTestOneInput(data, size);
        inputs++;
    }
    if (file) {
        fclose(file);
    }
    free(data);
    return bad;
}

int main(int argc, char **argv)
{
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        if (nftw(argv[i], replay, 16, FTW_PHYS) != 0) {
            return 1;
        }
    }
    printf("%u inputs replayed\n", inputs);
    return 0;
}
