/* SPDX-License-Identifier: MIT */
/*
 * The device file itself: headers, lengths and addresses of commands as ib_user_verbs.h and a
 * kernel's behaviour define them, and what opening and closing do. The core is a fake.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "uapi/cmd.h"
#include "uverbs_fake.h"

/* An address where nothing is. */
static void *nowhere(void)
{
    void *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    T_ASSERT(page != MAP_FAILED);
    return page;
}

T_TEST(uverbs_door, refuses_bad_headers)
{
    /* Shows that each way in which header and length can disagree has its errno. */
    u_reset();
    int fd = u_open();
    struct {
        struct ib_uverbs_cmd_hdr hdr;
        uint32_t pd_handle;
    } cmd = {{IB_USER_VERBS_CMD_DEALLOC_PD, 3, 0}, 1};

    T_EQ(u_write(fd, &cmd, 0), -EINVAL);
    T_EQ(u_write(fd, &cmd, 7), -EINVAL);
    T_EQ(u_write(fd, &cmd, 8), -EINVAL); /* in_words says 12 bytes */
    cmd.hdr.in_words = 2;
    T_EQ(u_write(fd, &cmd, 8), -ENOSPC); /* no request at all */
    cmd.hdr = (struct ib_uverbs_cmd_hdr){IB_USER_VERBS_CMD_DEALLOC_PD | 0x100, 3, 0};
    T_EQ(u_write(fd, &cmd, 12), -EINVAL);
    cmd.hdr.command = 99;
    T_EQ(u_write(fd, &cmd, 12), -EOPNOTSUPP);
    cmd.hdr.command = IB_USER_VERBS_CMD_QUERY_MR;
    T_EQ(u_write(fd, &cmd, 12), -EOPNOTSUPP);
    cmd.hdr.command = IB_USER_VERBS_EX_CMD_CREATE_FLOW | IB_USER_VERBS_CMD_FLAG_EXTENDED;
    T_EQ(u_write(fd, &cmd, 12), -EOPNOTSUPP);
    T_EQ(u_write(fd, nowhere(), 12), -EFAULT);
    T_EQ(u_write(fd, &cmd, 64u << 20), -EINVAL);
    u_close(fd);
}

T_TEST(uverbs_door, wants_room_for_the_response)
{
    /* Shows that a response too short for the core's part is ENOSPC, and nothing is made. */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_reg_mr_resp resp;

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_REG_MR, U_REQ(ib_uverbs_reg_mr, .pd_handle = u_pd(fd)), &resp,
                sizeof(resp) - 4),
         -ENOSPC);
    T_EQ(fake.objects, 1);
    u_close(fd);
}

T_TEST(uverbs_door, checks_the_response_address_first)
{
    /* Shows that a bad response address is EFAULT and leaves no object that nobody knows of. */
    u_reset();
    int fd = u_open();
    void *bad = nowhere();

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_ALLOC_PD, U_REQ(ib_uverbs_alloc_pd, 0), bad, 4), -EFAULT);
    mprotect(bad, 4096, PROT_READ);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_ALLOC_PD, U_REQ(ib_uverbs_alloc_pd, 0), bad, 4), -EFAULT);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_ALLOC_PD, U_REQ(ib_uverbs_alloc_pd, .response = UINT64_MAX),
                NULL, 4),
         -EFAULT);
    T_EQ(fake.objects, 0);
    u_close(fd);
}

T_TEST(uverbs_door, leaves_the_response_alone_on_errors)
{
    /* Shows that a command that fails writes nothing. */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_alloc_pd_resp resp = {0x12345678};

    fake.fail = -ENOMEM;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_ALLOC_PD, U_REQ(ib_uverbs_alloc_pd, 0), &resp, sizeof(resp)),
         -ENOMEM);
    T_EQ(resp.pd_handle, 0x12345678);
    u_close(fd);
}

T_TEST(uverbs_door, needs_a_context)
{
    /* Shows that GET_CONTEXT comes first, and once; a failed one may be tried again. */
    u_reset();
    struct ib_uverbs_get_context_resp context;
    struct ib_uverbs_alloc_pd_resp pd;
    int fd;

    T_EQ(uverbs_open(&fake_nic, O_RDWR, &fd), 0);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_ALLOC_PD, U_REQ(ib_uverbs_alloc_pd, 0), &pd, sizeof(pd)),
         -EINVAL);
    fake.fail = -EAGAIN;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_GET_CONTEXT, U_REQ(ib_uverbs_get_context, 0), &context,
                sizeof(context)),
         -EAGAIN);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_GET_CONTEXT, U_REQ(ib_uverbs_get_context, 0), &context,
                sizeof(context)),
         0);
    T_EQ(context.async_fd, 77);
    T_EQ(context.num_comp_vectors, LIMIT_COMP_VECTORS);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_GET_CONTEXT, U_REQ(ib_uverbs_get_context, 0), &context,
                sizeof(context)),
         -EINVAL);
    T_EQ(fake.contexts, 1);
    u_close(fd);
    T_EQ(fake.contexts, 0);
}

T_TEST(uverbs_door, refuses_unknown_data)
{
    /* Shows that data behind a known request must be zero: it may mean something one day. */
    u_reset();
    int fd = u_open();
    uint32_t pd = u_pd(fd);
    uint32_t longer[3] = {pd, 0, 1};

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_DEALLOC_PD, longer, sizeof(longer), U_NO_RESP), -EOPNOTSUPP);
    longer[2] = 0;
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_DEALLOC_PD, longer, sizeof(longer), U_NO_RESP), 0);
    u_close(fd);
}

T_TEST(uverbs_door, parses_extended_headers)
{
    /* Shows the rules of the second header, one after the other. */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_ex_query_device_resp resp;
    struct {
        struct ib_uverbs_cmd_hdr hdr;
        struct ib_uverbs_ex_cmd_hdr ex;
        struct ib_uverbs_ex_query_device req;
    } good = {{IB_USER_VERBS_EX_CMD_QUERY_DEVICE | IB_USER_VERBS_CMD_FLAG_EXTENDED, 1,
               sizeof(resp) / 8},
              {.response = (uintptr_t)&resp},
              {0, 0}},
      cmd = good;

    T_EQ(u_write(fd, &cmd, sizeof(cmd)), sizeof(cmd));
    T_EQ(u_write(fd, &cmd, 20), -EINVAL);
    T_EQ(u_write(fd, &cmd, 24), -EINVAL);
    cmd.ex.provider_in_words = 1;
    T_EQ(u_write(fd, &cmd, sizeof(cmd)), -EINVAL);
    cmd.hdr.in_words = 0;
    T_EQ(u_write(fd, &cmd, sizeof(cmd)), -ENOSPC);
    cmd = good;
    cmd.ex.cmd_hdr_reserved = 1;
    T_EQ(u_write(fd, &cmd, sizeof(cmd)), -EINVAL);
    cmd = good;
    cmd.ex.response = 0;
    T_EQ(u_write(fd, &cmd, sizeof(cmd)), -EINVAL); /* lengths of a response that is not there */
    cmd.hdr.out_words = 0;
    T_EQ(u_write(fd, &cmd, sizeof(cmd)), sizeof(cmd));
    cmd.ex.response = (uintptr_t)&resp;
    T_EQ(u_write(fd, &cmd, sizeof(cmd)), -EINVAL); /* and the other way round */
    cmd.hdr.out_words = 10;
    T_EQ(u_write(fd, &cmd, sizeof(cmd)), -ENOSPC);
    u_close(fd);
}

T_TEST(uverbs_door, fits_extended_responses)
{
    /* Shows that an older program gets the start of the response, a newer one zeros behind it. */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_ex_query_device_resp *resp;
    uint8_t buf[sizeof(*resp) + 64];
    size_t least = offsetof(struct ib_uverbs_ex_query_device_resp, odp_caps);

    resp = (void *)buf;
    memset(buf, 0xee, sizeof(buf));
    T_EQ(u_call_ex(fd, IB_USER_VERBS_EX_CMD_QUERY_DEVICE, U_REQ(ib_uverbs_ex_query_device, 0), buf,
                   least, 0),
         0);
    T_EQ(resp->response_length, least);
    T_EQ(buf[least], 0xee);
    T_EQ(u_call_ex(fd, IB_USER_VERBS_EX_CMD_QUERY_DEVICE, U_REQ(ib_uverbs_ex_query_device, 0), buf,
                   sizeof(buf), 0),
         0);
    T_EQ(resp->response_length, sizeof(*resp));
    T_EQ(buf[sizeof(*resp)], 0);
    T_EQ(buf[sizeof(buf) - 1], 0);
    u_close(fd);
}

T_TEST(uverbs_door, knows_the_short_destroy)
{
    /* Shows that DESTROY_CQ as rdma-core 18 and 19 send it, declared two words short, works. */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_destroy_cq_resp resp = {0};
    struct {
        struct ib_uverbs_cmd_hdr hdr;
        struct ib_uverbs_destroy_cq req;
    } cmd = {{IB_USER_VERBS_CMD_DESTROY_CQ, 4, 2}, {(uintptr_t)&resp, u_cq(fd), 0}};

    T_EQ(u_write(fd, &cmd, 16), 16);
    T_EQ(resp.comp_events_reported, 11);
    T_EQ(resp.async_events_reported, 22);
    T_EQ(fake.objects, 0);
    u_close(fd);
}

T_TEST(uverbs_door, is_an_empty_ring_of_fixed_size)
{
    /* Shows what the provider will find: ENOTTY for ioctl, and a ring of which nothing comes. */
    u_reset();
    struct rxe_queue_buf *ring;
    struct stat st;
    int fd;

    T_EQ(uverbs_open(&fake_nic, O_RDWR | O_CLOEXEC, &fd), 0);
    T_ASSERT(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    T_EQ(ioctl(fd, 0xc0181b01, NULL), -1);
    T_EQ(errno, ENOTTY);
    T_EQ(ftruncate(fd, 0), -1);
    T_EQ(fstat(fd, &st), 0);
    T_EQ(st.st_size, 4096);
    ring = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    T_ASSERT(ring != MAP_FAILED);
    T_ASSERT(1u << ring->log2_elem_size >= sizeof(struct ib_uverbs_wc));
    T_EQ(ring->index_mask, 0);
    T_EQ(ring->producer_index, ring->consumer_index);
    T_EQ(munmap(ring, 4096), 0);
    u_close(fd);
    T_EQ(uverbs_open(&fake_nic, O_RDWR, &fd), 0);
    T_EQ(fcntl(fd, F_GETFD), 0);
    u_close(fd);
}

T_TEST(uverbs_door, closes_with_the_last_descriptor)
{
    /* Shows that the context lives as long as any duplicate of its descriptor. */
    u_reset();
    int fd = u_open(), again = dup(fd);
    int before = t_fd_count();

    fdtab_dup(fd, again);
    u_close(fd);
    T_EQ(fake.closed_contexts, 0);
    T_EQ(u_pd(again), 1);
    u_close(again);
    T_EQ(fake.closed_contexts, 1);
    T_EQ(t_fd_count(), before - 2);
}

T_TEST(uverbs_door, is_dead_after_fork)
{
    /* Shows that in a child nothing of the parent's is touched: EIO, and no release. */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_alloc_pd_resp resp;
    struct uapi_file *file = fdtab_get(fd);

    atomic_store(&file->dead, true);
    uverbs_after_fork();
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_ALLOC_PD, U_REQ(ib_uverbs_alloc_pd, 0), &resp, sizeof(resp)),
         -EIO);
    atomic_store(&file->dead, false);
    u_close(fd);
}

T_TEST(uverbs_door, names_its_context)
{
    /* Shows uverbs_file_context(): the context of our files, and nothing of others. */
    u_reset();
    int fd = u_open();
    struct ib_uverbs_create_comp_channel_resp resp;

    T_ASSERT(uverbs_file_context(fdtab_get(fd)) != NULL);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_COMP_CHANNEL, U_REQ(ib_uverbs_create_comp_channel, 0),
                &resp, sizeof(resp)),
         0);
    T_ASSERT(uverbs_file_context(fdtab_get((int)resp.fd)) == NULL);
    u_close((int)resp.fd);
    u_close(fd);
}

/* ---- memory of the program ---- */

/* What is wrong with copies, as a number; 0: nothing. */
static int copies_fault(void)
{
    uint8_t here[512], there[512] = {0}, *page;

    memset(here, 7, sizeof(here));
    if (user_write((uintptr_t)there, here, sizeof(here)) || there[511] != 7)
        return 1;
    memset(here, 0, sizeof(here));
    if (user_read(here, (uintptr_t)there, sizeof(here)) || here[511] != 7)
        return 2;
    if (user_probe_write((uintptr_t)there, sizeof(there)) || there[0] != 7 || there[511] != 7)
        return 3;
    if (user_zero((uintptr_t)there, 300) || there[299] != 0 || there[300] != 7)
        return 4;
    if (user_read(here, 8, 1) != -EFAULT || user_write(8, here, 1) != -EFAULT ||
        user_read(here, UINT64_MAX - 3, 8) != -EFAULT)
        return 5;
    /* across the end of what is there */
    page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    if (user_read(here, (uintptr_t)page + 4000, 512) != -EFAULT ||
        user_write((uintptr_t)page + 4000, here, 512) != -EFAULT)
        return 6;
    return user_read(NULL, 8, 0) || user_write(8, NULL, 0) ? 7 : 0;
}

/* A filter as containers have it: the two calls are EPERM, everything else goes. */
static void forbid_vm_copies(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_writev, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        _exit(100);
}

T_TEST(uverbs_door, copies_safely)
{
    /* Shows that copies work and bad addresses are EFAULT, also where a filter forbids the calls.
     */
    int status;

    T_EQ(copies_fault(), 0);
    pid_t child = fork();
    if (child == 0) {
        forbid_vm_copies();
        _exit(copies_fault());
    }
    T_EQ(waitpid(child, &status, 0), child);
    T_ASSERT(WIFEXITED(status));
    T_EQ(WEXITSTATUS(status), 0);
}
