/* SPDX-License-Identifier: MIT */
/* The verbs calls of the stress programs, and what a process can count of itself. */
#include "rig.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void (*check_context)(void);
uint8_t rig_timeout = 20;

void check_failed(const char *file, int line, const char *what, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s:%d: %s:", file, line, what);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, " (errno %s)\n", strerror(errno));
    if (check_context)
        check_context();
    _exit(1);
}

void rig_open(struct rig *rig)
{
    const char *name = getenv("VIADUCT_TEST_DEVICE");
    struct ibv_device **list = ibv_get_device_list(NULL);

    memset(rig, 0, sizeof(*rig));
    CHECK(list != NULL);
    for (int i = 0; list[i] && !rig->ctx; i++) {
        if (!strcmp(ibv_get_device_name(list[i]), name ? name : "via0"))
            rig->ctx = ibv_open_device(list[i]);
    }
    ibv_free_device_list(list);
    CHECK(rig->ctx != NULL, "the device can't be opened");
    rig->pd = ibv_alloc_pd(rig->ctx);
    CHECK(rig->pd != NULL);
    CHECK(ibv_query_gid(rig->ctx, 1, 0, &rig->gid) == 0);
}

void rig_close(struct rig *rig)
{
    CHECK(ibv_dealloc_pd(rig->pd) == 0);
    CHECK(ibv_close_device(rig->ctx) == 0);
}

struct ibv_cq *rig_cq(struct rig *rig, int entries, struct ibv_comp_channel *channel)
{
    struct ibv_cq *cq = ibv_create_cq(rig->ctx, entries, NULL, channel, 0);

    CHECK(cq != NULL);
    return cq;
}

struct ibv_mr *rig_memory(struct rig *rig, size_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                      IBV_ACCESS_REMOTE_ATOMIC;

    CHECK(at != MAP_FAILED);
    struct ibv_mr *mr = ibv_reg_mr(rig->pd, at, size, access);
    CHECK(mr != NULL);
    return mr;
}

void rig_memory_free(struct ibv_mr *mr)
{
    void *at = mr->addr;
    size_t size = mr->length;

    CHECK(ibv_dereg_mr(mr) == 0);
    munmap(at, size);
}

struct ibv_qp *rig_qp(struct rig *rig, const struct rig_qp_options *options)
{
    struct ibv_qp_init_attr attr = {
        .send_cq = options->send_cq,
        .recv_cq = options->recv_cq,
        .srq = options->srq,
        .qp_type = options->type,
        .cap = {.max_send_wr = options->sends,
                .max_recv_wr = options->srq ? 0 : options->receives,
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = options->inline_size},
    };
    struct ibv_qp *qp = ibv_create_qp(rig->pd, &attr);

    CHECK(qp != NULL);
    return qp;
}

struct rig_address rig_address(const struct rig *rig, const struct ibv_qp *qp,
                               const struct ibv_mr *mr)
{
    struct rig_address address = {.qpn = qp->qp_num, .gid = rig->gid};

    if (mr) {
        address.addr = (uintptr_t)mr->addr;
        address.rkey = mr->rkey;
    }
    return address;
}

static struct ibv_ah_attr path_to(const union ibv_gid *gid)
{
    return (struct ibv_ah_attr){
        .is_global = 1, .port_num = 1, .grh = {.dgid = *gid, .hop_limit = 1}};
}

static void to_init(struct ibv_qp *qp)
{
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_INIT,
        .port_num = 1,
        .qkey = RIG_QKEY,
        .qp_access_flags =
            IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC,
    };
    int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT;

    mask |= qp->qp_type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS;
    CHECK(ibv_modify_qp(qp, &attr, mask) == 0);
}

static void to_receive(struct ibv_qp *qp, const struct rig_address *to)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR};
    int mask = IBV_QP_STATE;

    if (qp->qp_type != IBV_QPT_UD) {
        attr.path_mtu = IBV_MTU_4096;
        attr.dest_qp_num = to->qpn;
        attr.ah_attr = path_to(&to->gid);
        mask |= IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_AV | IBV_QP_RQ_PSN;
    }
    if (qp->qp_type == IBV_QPT_RC) {
        attr.max_dest_rd_atomic = 16;
        attr.min_rnr_timer = 1;
        mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
    }
    CHECK(ibv_modify_qp(qp, &attr, mask) == 0);
}

static bool to_send(struct ibv_qp *qp)
{
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_RTS, .timeout = rig_timeout, .retry_cnt = 3, .rnr_retry = 7};
    int mask = IBV_QP_STATE | IBV_QP_SQ_PSN;

    if (qp->qp_type == IBV_QPT_RC) {
        attr.max_rd_atomic = 16;
        mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
    }
    return ibv_modify_qp(qp, &attr, mask) == 0;
}

bool rig_connect(struct ibv_qp *qp, const struct rig_address *to)
{
    to_init(qp);
    to_receive(qp, to);
    return to_send(qp);
}

struct ibv_ah *rig_ah(struct rig *rig, const union ibv_gid *gid)
{
    struct ibv_ah_attr attr = path_to(gid);
    struct ibv_ah *ah = ibv_create_ah(rig->pd, &attr);

    CHECK(ah != NULL);
    return ah;
}

void rig_to_error(struct ibv_qp *qp)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

    CHECK(ibv_modify_qp(qp, &attr, IBV_QP_STATE) == 0);
}

/* ---- chance, time, and what a process takes ---- */

static uint64_t state = 88172645463325252ull;

void rig_seed(uint64_t seed)
{
    state = (seed + 1) * 0x9e3779b97f4a7c15ull | 1;
    for (int i = 0; i < 8; i++)
        rig_random(1);
}

uint64_t rig_random(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

uint64_t rig_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t rig_cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

uint64_t rig_slow(void)
{
    const char *factor = getenv("VIADUCT_TEST_SLOW");

    return factor && atoi(factor) > 1 ? (uint64_t)atoi(factor) : 1;
}

unsigned rig_open_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    CHECK(dir != NULL);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 3; /* ".", "..", and the one just used */
}

uint64_t rig_resident_bytes(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    unsigned long kib = 0;
    char line[128];

    CHECK(file != NULL);
    while (fgets(line, sizeof(line), file) && sscanf(line, "VmRSS: %lu", &kib) != 1)
        ;
    fclose(file);
#ifdef __SANITIZE_ADDRESS__
    kib = 0;
#endif
    return kib * 1024ull;
}

uint64_t rig_arena_bytes(void)
{
    char path[64], name[64];

    for (int fd = 0; fd < 256; fd++) {
        struct stat status;

        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t length = readlink(path, name, sizeof(name) - 1);
        name[length > 0 ? length : 0] = 0;
        if (strstr(name, "viaduct-arena") && fstat(fd, &status) == 0)
            return (uint64_t)status.st_blocks * 512;
    }
    return 0;
}

uint64_t rig_option(int argc, char **argv, const char *name, uint64_t otherwise)
{
    for (int i = 1; i + 1 < argc; i++) {
        if (!strncmp(argv[i], "--", 2) && !strcmp(argv[i] + 2, name))
            return strtoull(argv[i + 1], NULL, 0);
    }
    return otherwise;
}
