/* SPDX-License-Identifier: MIT */
/* The descriptor table: references, duplicates, children. */
#include "uapi/uapi.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t.h"

enum { A = 1000, B = 1001, C = 1002 };

static atomic_int released;

static void release(struct uapi_file *file)
{
    atomic_fetch_add(&released, 1);
    free(file);
}

static const struct uapi_file_ops ops = {.release = release};

/* The plain runner has one process for all tests. */
static void begin(void)
{
    fdtab_clear_range(A, C);
    atomic_store(&released, 0);
}

static struct uapi_file *make(void)
{
    struct uapi_file *file = calloc(1, sizeof *file);

    T_ASSERT(file);
    file->ops = &ops;
    return file;
}

T_TEST(fdtab, lifetime)
{
    /* Shows that the last name of a file releases it, not the first that goes. */
    begin();
    struct uapi_file *file = make();

    T_CHECK(!fdtab_has(A) && !fdtab_get(A));
    T_EQ(fdtab_set(A, file), 0);
    T_CHECK(fdtab_has(A) && fdtab_get(A) == file);
    fdtab_dup(A, B);
    fdtab_dup(B, B);
    fdtab_clear(A);
    T_CHECK(!fdtab_has(A) && fdtab_get(B) == file);
    T_EQ(released, 0);
    fdtab_clear(B);
    T_CHECK(!fdtab_has(B));
    T_EQ(released, 1);
    fdtab_clear(B); /* of nobody: nothing happens */
    T_EQ(released, 1);
    t_end();
}

T_TEST(fdtab, dup_over)
{
    /* Shows that a dup onto a descriptor of ours closes what was there. */
    begin();
    struct uapi_file *first = make();
    struct uapi_file *second = make();

    T_EQ(fdtab_set(A, first), 0);
    T_EQ(fdtab_set(B, second), 0);
    fdtab_dup(A, B);
    T_EQ(released, 1);
    T_CHECK(fdtab_get(B) == first);
    fdtab_dup(C, B); /* C is not ours, so B no longer is */
    T_CHECK(!fdtab_has(B));
    fdtab_clear(A);
    T_EQ(released, 2);
    t_end();
}

T_TEST(fdtab, range)
{
    /* Shows that a range releases what is in it and nothing else, however far it reaches. */
    begin();
    T_EQ(fdtab_set(A, make()), 0);
    T_EQ(fdtab_set(B, make()), 0);
    T_EQ(fdtab_set(C, make()), 0);
    fdtab_clear_range(B, B);
    T_EQ(released, 1);
    fdtab_clear_range(3, UINT32_MAX);
    T_EQ(released, 3);
    fdtab_clear_range(0, UINT32_MAX);
    T_EQ(released, 3);
    t_end();
}

T_TEST(fdtab, bounds)
{
    /* Shows that numbers outside the table are nobody's. */
    begin();
    struct uapi_file *file = make();

    T_EQ(fdtab_set(FDTAB_SIZE, file), -EMFILE);
    T_EQ(fdtab_set(-1, file), -EMFILE);
    T_CHECK(!fdtab_has(-1) && !fdtab_has(FDTAB_SIZE) && !fdtab_get(-1));
    T_EQ(fdtab_set(FDTAB_SIZE - 1, file), 0);
    fdtab_dup(FDTAB_SIZE - 1, FDTAB_SIZE);
    fdtab_clear(FDTAB_SIZE - 1);
    T_EQ(released, 1);
    t_end();
}

T_TEST(fdtab, hold)
{
    /* Shows that a call in progress keeps its file although the descriptor is closed. */
    begin();
    struct uapi_file *file = make();

    T_EQ(fdtab_set(A, file), 0);
    T_CHECK(fdtab_hold(A) == file);
    fdtab_clear(A);
    T_EQ(released, 0);
    T_CHECK(!fdtab_hold(A));
    fdtab_put(file);
    T_EQ(released, 1);
    t_end();
}

static int child_status(pid_t child)
{
    int status = -1;

    T_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

T_TEST(fdtab, fork)
{
    /* Shows that a child's files are dead and never released, and that it can have new ones. */
    begin();
    struct uapi_file *file = make();

    T_EQ(fdtab_set(A, file), 0);
    pid_t child = fork();
    if (child == 0) {
        fdtab_after_fork();
        bool good = fdtab_is_owner() && atomic_load(&file->dead);
        fdtab_clear(A);
        good = good && released == 0;
        good = good && fdtab_set(A, make()) == 0 && !atomic_load(&fdtab_get(A)->dead);
        fdtab_clear(A);
        _exit(good && released == 1 ? 0 : 1);
    }
    T_EQ(child_status(child), 0);
    T_CHECK(!atomic_load(&file->dead));
    fdtab_clear(A);
    T_EQ(released, 1);
    t_end();
}

T_TEST(fdtab, child_that_was_not_announced)
{
    /* Shows that a child made without the fork handlers knows that the table is not its own. */
    begin();
    T_EQ(fdtab_set(A, make()), 0);
    T_CHECK(fdtab_is_owner());
    pid_t child = fork(); /* nobody calls fdtab_after_fork(): as after vfork */
    if (child == 0)
        _exit(fdtab_is_owner() ? 1 : 0);
    T_EQ(child_status(child), 0);
    fdtab_clear(A);
    t_end();
}

/* ---- threads ---- */

enum { ROUNDS = 20000 };

static atomic_bool stop;

static void *hold_and_put(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop)) {
        struct uapi_file *file = fdtab_hold(A);

        if (file)
            fdtab_put(file);
    }
    return NULL;
}

T_TEST(fdtab, close_while_used)
{
    /* Shows that every file is released exactly once, whoever uses it when it is closed. */
    begin();
    pthread_t threads[2];

    for (int i = 0; i < 2; i++)
        T_EQ(pthread_create(&threads[i], NULL, hold_and_put, NULL), 0);
    for (int i = 0; i < ROUNDS; i++) {
        T_EQ(fdtab_set(A, make()), 0);
        fdtab_dup(A, B);
        fdtab_clear(A);
        fdtab_clear(B);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    T_EQ(released, ROUNDS);
    t_end();
}
