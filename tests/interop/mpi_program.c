/* SPDX-License-Identifier: MIT */
/* An MPI program for the interop tests: messages, a reduction and one-sided access, all compared.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST = 1 << 20, ROUNDS = 20, ELEMENTS = 4096, TAG = 7 };

static int rank, ranks;

static void fail(const char *what)
{
    fprintf(stderr, "rank %d: wrong data after %s\n", rank, what);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static unsigned char pattern(int from, int round, size_t i)
{
    return (unsigned char)(i * 31 + i / 251 + (size_t)(from * 17 + round));
}

/* Everybody sends to the right, and receives from the left. */
static void pass_round(size_t size, int round, unsigned char *out, unsigned char *in)
{
    int right = (rank + 1) % ranks, left = (rank + ranks - 1) % ranks;

    for (size_t i = 0; i < size; i++)
        out[i] = pattern(rank, round, i);
    memset(in, 0, size);
    MPI_Sendrecv(out, (int)size, MPI_BYTE, right, TAG, in, (int)size, MPI_BYTE, left, TAG,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    for (size_t i = 0; i < size; i++) {
        if (in[i] != pattern(left, round, i))
            fail("send and receive");
    }
}

static void try_messages(void)
{
    unsigned char *out = malloc(LARGEST), *in = malloc(LARGEST);

    if (!out || !in)
        fail("malloc");
    for (size_t size = 1; size <= LARGEST; size *= 16) {
        for (int round = 0; round < ROUNDS; round++)
            pass_round(size, round, out, in);
    }
    free(out);
    free(in);
}

static void try_reduction(void)
{
    static long mine[ELEMENTS], sums[ELEMENTS];

    for (int i = 0; i < ELEMENTS; i++)
        mine[i] = (long)rank * i + 1;
    MPI_Allreduce(mine, sums, ELEMENTS, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    for (int i = 0; i < ELEMENTS; i++) {
        if (sums[i] != (long)i * ranks * (ranks - 1) / 2 + ranks)
            fail("an all-reduce");
    }
}

static long *window_of(int count, MPI_Win *win_out)
{
    long *memory = calloc((size_t)count, sizeof(long));

    if (!memory)
        fail("malloc");
    MPI_Win_create(memory, (MPI_Aint)count * (MPI_Aint)sizeof(long), sizeof(long), MPI_INFO_NULL,
                   MPI_COMM_WORLD, win_out);
    return memory;
}

/* Each puts a block into its right neighbour's window, and gets it back. */
static void try_put_and_get(void)
{
    int right = (rank + 1) % ranks, left = (rank + ranks - 1) % ranks;
    static long back[ELEMENTS], mine[ELEMENTS];
    MPI_Win win;
    long *window = window_of(ELEMENTS, &win);

    for (int i = 0; i < ELEMENTS; i++)
        mine[i] = rank * 100000L + i;
    MPI_Win_fence(MPI_MODE_NOPRECEDE, win);
    MPI_Put(mine, ELEMENTS, MPI_LONG, right, 0, ELEMENTS, MPI_LONG, win);
    MPI_Win_fence(0, win);
    MPI_Get(back, ELEMENTS, MPI_LONG, right, 0, ELEMENTS, MPI_LONG, win);
    MPI_Win_fence(MPI_MODE_NOSUCCEED, win);
    for (int i = 0; i < ELEMENTS; i++) {
        if (window[i] != left * 100000L + i || back[i] != mine[i])
            fail("put and get");
    }
    MPI_Win_free(&win);
    free(window);
}

/* All add to one counter of rank 0: each value is seen by one of them. */
static void try_fetch_and_add(void)
{
    MPI_Win win;
    long *counter = window_of(1, &win), one = 1, before, last = -1;

    MPI_Win_lock_all(0, win);
    for (int round = 0; round < ROUNDS; round++, last = before) {
        MPI_Fetch_and_op(&one, &before, MPI_LONG, 0, 0, MPI_SUM, win);
        MPI_Win_flush(0, win);
        if (before <= last || before >= (long)ranks * ROUNDS)
            fail("fetch and add");
    }
    MPI_Win_unlock_all(win);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) {
        MPI_Win_lock(MPI_LOCK_EXCLUSIVE, 0, 0, win);
        if (*counter != (long)ranks * ROUNDS)
            fail("the last fetch and add");
        MPI_Win_unlock(0, win);
    }
    MPI_Win_free(&win);
    free(counter);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    try_messages();
    try_reduction();
    try_put_and_get();
    try_fetch_and_add();
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0)
        printf("all data was right on %d ranks\n", ranks);
    MPI_Finalize();
    return 0;
}
