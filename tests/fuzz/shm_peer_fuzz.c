/* SPDX-License-Identifier: MIT */
/*
 * A hostile process at the other end of the same-host link: both as the target of our sends and as
 * an initiator that writes completions and messages to us.
 *
 *   input = step*      step = poke its arena | push a completion | send a message | we post, poll,
 * ...
 *
 * Its arena is valid to begin with, so that a few pokes lead deep. One thread plays everything: the
 * engine's is replaced, and time runs fast. What we must not do: crash, hang, or change a byte of
 * our memory that is not registered.
 */
#include <signal.h>
#include <stdio.h>
#include <fcntl.h>
#include <sys/prctl.h>

/* The link's two ends, whole: their handlers are static. */
#define on_hello guest_on_hello
#include "link/shm/guest.c"
#undef on_hello
#include "link/shm/peer.c"

#include "core/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    SLOT = 77, /* the hostile one's */
    QPS = 4,   /* RC, RC with an SRQ, UC, UD; its queue pair k + 1 belongs to ours k */
    STEPS_MAX = 100,
    AREA = 1 << 16,
    GUARD = 4096,
    CANARY = 0xc3,
    REMOTE_KEY = 0x101,
    /* in its heap */
    AT_RQ = 0,
    AT_SHARED_RQ = 256,
    AT_SGES = 4096,
    AT_SLOTS = 8192,
    AT_LANE = 12288,
    AT_HEADS = 32768,
    HEAP = 36864,
    RING = 16,
};

static const uint64_t remote_base = 0x300000000000ull;

/* ---- in place of core/thread.c ---- */

static uint64_t time_ns = 1;

uint64_t now_ns(void)
{
    return time_ns += 250000000;
}

/* Nobody else runs: do not wait for the machine's other work. */
int sched_yield(void)
{
    return 0;
}

int thread_prepare(void)
{
    return 0;
}

int thread_start(void)
{
    return 0;
}

int thread_watch(struct watch *watch)
{
    (void)watch;
    return 0;
}

void thread_unwatch(struct watch *watch)
{
    (void)watch;
}

void thread_wake(void)
{
}

void thread_wake_at(uint64_t when_ns)
{
    (void)when_ns;
}

void thread_collect_later(void)
{
}

bool thread_is_current(void)
{
    return true;
}

void thread_after_fork(void)
{
}

/* ---- the world: we, and the other ---- */

struct world {
    const uint8_t *at, *end; /* input */
    struct context *context;
    struct pd *pd;
    struct mr *mr;
    struct cq *cq;
    struct srq *srq;
    struct qp *qp[QPS];
    struct guest *guest; /* NULL: it hung up */
    struct peer *peer;
    int guest_fd, peer_fd; /* its ends of the sockets */
    uint32_t pushed;
};

static char *arena; /* the other's, as it sees it */
static int arena_file, mem_file;
static pid_t other;   /* a process for process_vm_writev() to work on */
static uint8_t *area; /* our memory: the middle is registered */
static const struct nic *nic;

static uint8_t next8(struct world *w)
{
    return w->at < w->end ? *w->at++ : 0;
}

static uint32_t next32(struct world *w)
{
    uint32_t value = 0;

    for (int i = 0; i < 4; i++)
        value = value << 8 | next8(w);
    return value;
}

/* Often a small number, sometimes any. */
static uint64_t next_number(struct world *w)
{
    uint8_t how = next8(w);

    if (how < 200)
        return how % 64;
    return how < 240 ? next32(w) : (uint64_t)next32(w) << 32 | next32(w);
}

static int make_file(const char *name, uint64_t size)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, (off_t)size) ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        abort();
    return fd;
}

static void *map_private(void *where, size_t size)
{
    void *at = mmap(where, size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | (where ? MAP_FIXED_NOREPLACE : 0), -1, 0);

    if (at == MAP_FAILED)
        abort();
    return at;
}

static void start_other(void)
{
    void *memory = map_private((void *)remote_base, AREA);
    pid_t parent = getpid();

    other = fork();
    if (other < 0)
        abort();
    if (other == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (getppid() == parent)
            pause();
        _exit(0);
    }
    munmap(memory, AREA);
}

static void set_up(void)
{
    const struct config *config = config_get();

    if (!config)
        exit(1);
    nic = &config->nics[0];
    start_other();
    arena_file = make_file("other-arena", PUB_ARENA_MIN);
    mem_file = make_file("other-mem", SHARE_WORDS_SIZE + 2 * SHARE_WINDOW_SIZE);
    arena = mmap(NULL, PUB_ARENA_MIN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                 arena_file, 0);
    if (arena == MAP_FAILED)
        abort();
    area = map_private(NULL, AREA + 2 * GUARD);
}

/* ---- its arena, as an honest process would have it ---- */

static struct pub_qp *its_qp(int k)
{
    return (struct pub_qp *)(void *)(arena + PUB_QPS_OFFSET) + k + 1;
}

static struct pub_rq *its_rq(bool shared)
{
    return (void *)(arena + PUB_HEAP_OFFSET + (shared ? AT_SHARED_RQ : AT_RQ));
}

static void write_rings(void)
{
    struct pub_sge *sges = (void *)(arena + PUB_HEAP_OFFSET + AT_SGES);

    for (int shared = 0; shared < 2; shared++) {
        struct pub_rq *rq = its_rq(shared);

        rq->tail = RING;
        rq->mask = RING - 1;
        rq->max_sge = 2;
        rq->claim = shared ? 1 : 0;
        rq->pd = 1;
        rq->sges = PUB_HEAP_OFFSET + AT_SGES;
        rq->slots = shared ? PUB_HEAP_OFFSET + AT_SLOTS : 0;
    }
    for (int i = 0; i < 2 * RING; i++)
        sges[i] = (struct pub_sge){remote_base + (uint64_t)i * 1024, 1024, REMOTE_KEY};
}

static void write_qps(const struct world *w)
{
    for (int k = 0; k < QPS; k++) {
        struct pub_qp *pub = its_qp(k);

        pub->type = (uint8_t)w->qp[k]->type;
        pub->dest_qpn = w->qp[k]->qpn;
        pub->qkey = 1;
        pub->pd = 1;
        pub->access = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
        pub->recv_cq = 1;
        pub->rd_atomic = 16;
        pub->rq_ring = PUB_HEAP_OFFSET + (k & 1 ? AT_SHARED_RQ : AT_RQ);
        pub->cookie = (uint32_t)k + 1;
        pub->gen = 1;
    }
}

static void write_memory(void)
{
    struct pub_mr *mr = (struct pub_mr *)(void *)(arena + PUB_MRS_OFFSET) + (REMOTE_KEY >> 8);
    struct share_map *map = (void *)(arena + PUB_SHARE_OFFSET);

    mr->pd = 1;
    mr->iova = mr->addr = remote_base;
    mr->length = AREA;
    mr->access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                 IBV_ACCESS_REMOTE_ATOMIC;
    mr->key = REMOTE_KEY;
    map->directory[remote_base >> SHARE_WINDOW_SHIFT] = 1;
    map->shared[0][0] = 0xff; /* half of its region; the kernel moves the rest */
    map->moving = 0;
}

static void write_arena(const struct world *w)
{
    struct pub_header *header = (void *)arena;
    struct pub_cq *cq = (struct pub_cq *)(void *)(arena + PUB_CQS_OFFSET);

    memset(arena, 0, sizeof(*header));
    memset(its_qp(-1), 0, sizeof(struct pub_qp) * 8);
    memset(cq, 0, sizeof(*cq) * 4);
    memset(arena + PUB_MRS_OFFSET, 0, sizeof(struct pub_mr) * 4);
    memset(arena + PUB_MCAST_OFFSET, 0, sizeof(struct pub_mcast) * 4);
    memset(arena + PUB_HEAP_OFFSET, 0, HEAP);
    header->magic = PUB_MAGIC;
    header->version = PUB_VERSION;
    header->slot = SLOT;
    header->qp_high = QPS + 1;
    header->nic_count = 1;
    header->nics[0].gid_count = 1;
    memcpy(header->nics[0].gids[0].raw, nic->gids[0].raw, 16);
    cq[1].gen = 1;
    cq[1].cqe = 64;
    write_qps(w);
    write_rings();
    write_memory();
}

/* ---- our side ---- */

static void must(int error)
{
    if (error) {
        fprintf(stderr, "set-up failed: %d\n", error);
        abort();
    }
}

static void connect_qp(struct world *w, int k)
{
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 1, .qp_access_flags = 15};
    bool ud = w->qp[k]->type == IBV_QPT_UD, rc = w->qp[k]->type == IBV_QPT_RC;

    must(qp_modify(w->qp[k], &attr,
                   IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
                       (ud ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS)));
    attr = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTR,
        .path_mtu = IBV_MTU_1024,
        .dest_qp_num = (uint32_t)SLOT << LIMIT_QP_BITS | (uint32_t)(k + 1),
        .max_dest_rd_atomic = 4,
        .min_rnr_timer = 1,
        .ah_attr = {.is_global = 1, .port_num = 1},
    };
    memcpy(attr.ah_attr.grh.dgid.raw, nic->gids[0].raw, 16);
    must(qp_modify(w->qp[k], &attr,
                   IBV_QP_STATE |
                       (ud ? 0 : IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN) |
                       (rc ? IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER : 0)));
    attr = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 1, .rnr_retry = 1, .max_rd_atomic = 4};
    must(qp_modify(
        w->qp[k], &attr,
        IBV_QP_STATE | IBV_QP_SQ_PSN |
            (rc ? IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC
                : 0)));
}

static void open_ours(struct world *w)
{
    static const enum ibv_qp_type types[QPS] = {IBV_QPT_RC, IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD};
    struct srq_attr srq_attr = {.max_wr = 16, .max_sge = 2};
    struct ibv_qp_cap cap;

    memset(area, CANARY, AREA + 2 * GUARD);
    must(context_open(nic, &w->context));
    must(pd_alloc(w->context, &w->pd));
    must(mr_reg(w->pd, (uintptr_t)area + GUARD, AREA, (uintptr_t)area + GUARD,
                IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                    IBV_ACCESS_REMOTE_ATOMIC,
                &w->mr));
    must(cq_create(w->context, 64, NULL, 0, false, 0, &w->cq));
    must(srq_create(w->pd, &srq_attr, 0, &w->srq, &srq_attr));
    for (int k = 0; k < QPS; k++) {
        struct qp_init init = {
            .type = types[k],
            .pd = w->pd,
            .send_cq = w->cq,
            .recv_cq = w->cq,
            .srq = k == 1 ? w->srq : NULL,
            .cap = {.max_send_wr = 16,
                    .max_recv_wr = 16,
                    .max_send_sge = 2,
                    .max_recv_sge = 2,
                    .max_inline_data = 64},
        };
        must(qp_create(&init, &w->qp[k], &cap));
    }
}

static int socket_to_us(int *theirs_out)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair))
        abort();
    *theirs_out = pair[1];
    return pair[0];
}

/* Both connections, made and greeted as by an honest process. */
static void attach(struct world *w)
{
    int fds[2] = {arena_file, mem_file};

    w->guest = calloc(1, sizeof(*w->guest));
    w->peer = calloc(1, sizeof(*w->peer));
    if (!w->guest || !w->peer)
        abort();
    w->guest->watch.fd = socket_to_us(&w->guest_fd);
    w->guest->next = guests;
    guests = w->guest;
    must(guest_on_hello(w->guest, fds));
    w->peer->watch.fd = socket_to_us(&w->peer_fd);
    w->peer->slot = SLOT;
    connecting[SLOT] = w->peer;
    fds[1] = dup(mem_file);
    on_hello(w->peer, fds);
    if (peers[SLOT] != w->peer)
        abort();
    w->peer->pid = other;
}

static bool is_guest(const struct guest *guest)
{
    for (const struct guest *each = guests; each; each = each->next) {
        if (each == guest)
            return true;
    }
    return false;
}

/* What came of a message: either end may have been found to be gone. */
static void look_after(struct world *w)
{
    char record[sizeof(struct shm_msg) + SHM_PAYLOAD_MAX];

    if (w->guest && !is_guest(w->guest))
        w->guest = NULL;
    if (w->peer && peers[SLOT] != w->peer)
        w->peer = NULL;
    while (recv(w->guest_fd, record, sizeof(record), MSG_DONTWAIT) > 0)
        ;
    while (recv(w->peer_fd, record, sizeof(record), MSG_DONTWAIT) > 0)
        ;
}

/* ---- steps of the other ---- */

static void step_poke(struct world *w)
{
    static const struct {
        uint64_t at;
        uint32_t size;
    } regions[] = {
        {0, sizeof(struct pub_header)},
        {PUB_QPS_OFFSET, sizeof(struct pub_qp) * 8},
        {PUB_CQS_OFFSET, sizeof(struct pub_cq) * 4},
        {PUB_MCAST_OFFSET, sizeof(struct pub_mcast) * 4},
        {PUB_MRS_OFFSET, sizeof(struct pub_mr) * 4},
        {PUB_HEAP_OFFSET, 512},
        {PUB_HEAP_OFFSET + AT_SGES, 512},
        {PUB_HEAP_OFFSET + AT_SLOTS, 64},
        {PUB_HEAP_OFFSET + AT_LANE, RING * 64},
        {PUB_HEAP_OFFSET + AT_HEADS, 256},
        {PUB_SHARE_OFFSET + 2 * (0x300000000000ull >> SHARE_WINDOW_SHIFT), 8},
        {PUB_SHARE_OFFSET + offsetof(struct share_map, shared), 16},
        {PUB_SHARE_OFFSET + offsetof(struct share_map, moving), 4},
    };
    uint8_t which = next8(w) % (sizeof(regions) / sizeof(regions[0]));
    uint32_t at = (next32(w) & ~3u) % regions[which].size;
    int count = 1 + next8(w) % 8;

    for (int i = 0; i < count && at < regions[which].size; i++, at++)
        arena[regions[which].at + at] = (char)next8(w);
}

/* The words that peers may write, its own and ours: heads of shared rings, bells. */
static void step_claim(struct world *w)
{
    uint64_t value = next_number(w);
    uint8_t which = next8(w);

    if (which & 1)
        atomic_store(&w->cq->bell->armed, which & 2 ? w->cq->bell->armed & ~3ull : value);
    else if (w->peer && which & 4)
        atomic_store(&share_bells(w->peer->view.words)[1].armed, 1ull << 32 | (value & 15));
    else if (w->peer)
        *(volatile uint64_t *)(void *)w->peer->view.words = value;
}

static void step_push(struct world *w)
{
    struct cqe *lane = (void *)(arena + PUB_HEAP_OFFSET + AT_LANE);
    struct cqe *cqe = &lane[w->pushed % RING];
    struct qp *qp = w->qp[next8(w) % QPS];
    uint8_t *bytes = (uint8_t *)cqe;

    *cqe = (struct cqe){.seq = w->pushed + 1,
                        .kind = CQE_RECV,
                        .flags = next8(w),
                        .qp = qp->pub->cookie,
                        .wqe = (uint32_t)next_number(w),
                        .byte_len = next8(w),
                        .inline_len = next8(w) % 40,
                        .imm = next32(w)};
    for (int i = next8(w) % 4; i > 0; i--)
        bytes[4 + next8(w) % 60] = next8(w);
    w->pushed++;
}

static struct shm_msg message(struct world *w, uint32_t type)
{
    struct shm_msg msg = {.type = type};

    msg.index = (uint32_t)next_number(w);
    msg.gen = (uint32_t)next_number(w);
    msg.status = (int32_t)next_number(w);
    msg.id = next_number(w);
    msg.offset = next_number(w);
    msg.length = next_number(w);
    msg.value[0] = next_number(w);
    msg.key = (uint32_t)next_number(w);
    msg.op = next8(w) % 5;
    return msg;
}

/* Fields that name something of ours are mostly made right. */
static void aim_at_us(struct world *w, struct shm_msg *msg)
{
    uint8_t how = next8(w);
    struct qp *qp = w->qp[how % QPS];

    if (how < 30)
        return;
    switch (msg->type) {
    case SHM_QP_ERROR:
        msg->index = qp->index;
        msg->gen = qp->pub->cookie;
        break;
    case SHM_SHARE:
    case SHM_EXECUTE:
        msg->key = w->mr ? w->mr->key : 0;
        msg->offset += (uintptr_t)area + GUARD;
        break;
    case SHM_LANE_OPEN:
        msg->offset = PUB_HEAP_OFFSET + AT_LANE;
        msg->length = RING;
        msg->value[0] = PUB_HEAP_OFFSET + AT_HEADS + (how & 64);
        msg->gen = w->cq->pub->gen;
        msg->index = w->cq->handle;
        w->pushed = 0;
        break;
    default:
        msg->index = w->cq->handle;
        msg->gen = w->cq->pub->gen;
    }
}

static void send_record(int fd, const struct shm_msg *msg, size_t size, const int *fds,
                        unsigned count)
{
    static const char payload[4096];
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = {0};
    struct iovec parts[2] = {{(void *)msg, size < sizeof(*msg) ? size : sizeof(*msg)},
                             {(void *)payload, size < sizeof(*msg) ? 0 : size - sizeof(*msg)}};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = 2};

    if (count) {
        header.msg_control = control;
        header.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
    }
    (void)!sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* As it comes over the socket, with any descriptors, of any length. */
static void step_record(struct world *w)
{
    uint8_t how = next8(w);
    bool to_guest = how & 1;
    struct shm_msg msg = message(w, next8(w) % (SHM_LOOK + 1));
    int fds[4] = {arena_file, how & 2 ? mem_file : arena_file, STDERR_FILENO, mem_file};

    if (to_guest)
        aim_at_us(w, &msg);
    size_t size = sizeof(msg) + (how & 4 ? msg.length % 4096 : 0);
    if (how & 8)
        size = next8(w) % sizeof(msg);
    send_record(to_guest ? w->guest_fd : w->peer_fd, &msg, size, fds, how >> 4 & 3);
    if (to_guest && w->guest)
        on_guest(&w->guest->watch);
    else if (!to_guest && w->peer)
        on_peer(&w->peer->watch);
    look_after(w);
}

static void step_guest(struct world *w)
{
    struct shm_msg msg = message(w, next8(w) % (SHM_LOOK + 1));
    char payload[64] = {1};

    aim_at_us(w, &msg);
    if (w->guest)
        serve(w->guest, &msg, payload, msg.length < sizeof(payload) ? msg.length : 0);
    look_after(w);
}

/* Answers to what we asked: the lane is ready, the request is executed. */
static void step_answer(struct world *w)
{
    struct shm_msg msg = message(w, SHM_LANE_READY);
    uint8_t how = next8(w);
    char payload[64] = {2};

    if (!w->peer)
        return;
    if (how & 1) {
        struct qp *qp = w->qp[how / 2 % QPS];

        msg.index = qp->index;
        msg.id = how > 60 ? qp->remote_op : msg.id;
        on_executed(w->peer, &msg, payload, how > 200 ? 8 : msg.length % sizeof(payload));
        return;
    }
    if (how > 30) {
        msg.index = msg.gen = 1;
        msg.status = 0;
        msg.offset = PUB_HEAP_OFFSET + AT_HEADS;
    }
    lane_on_ready(w->peer, &msg);
}

/* ---- steps of ours ---- */

static void step_send(struct world *w)
{
    static const enum ibv_wr_opcode opcodes[] = {
        IBV_WR_SEND,          IBV_WR_SEND_WITH_IMM,       IBV_WR_RDMA_WRITE,
        IBV_WR_RDMA_READ,     IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_ATOMIC_CMP_AND_SWP,
        IBV_WR_SEND_WITH_INV, IBV_WR_ATOMIC_FETCH_AND_ADD};
    int k = next8(w) % QPS;
    struct ibv_sge sge[2] = {{(uintptr_t)area + GUARD, 0, w->mr ? w->mr->key : 0},
                             {(uintptr_t)area + GUARD + 30000, 0, w->mr ? w->mr->key : 0}};
    struct ibv_send_wr *bad, wr = {.sg_list = sge,
                                   .num_sge = 1 + next8(w) % 2,
                                   .opcode = opcodes[next8(w) % 8],
                                   .send_flags = next8(w) & (IBV_SEND_SIGNALED | IBV_SEND_FENCE)};

    sge[0].length = next8(w) % 4 ? next8(w) : next32(w) % 8192;
    sge[1].length = next8(w);
    wr.wr.rdma.remote_addr = remote_base + next_number(w) * 8;
    wr.wr.rdma.rkey = REMOTE_KEY;
    if (wr.opcode >= IBV_WR_ATOMIC_CMP_AND_SWP && wr.opcode <= IBV_WR_ATOMIC_FETCH_AND_ADD) {
        wr.num_sge = 1;
        sge[0].length = 8;
        wr.wr.atomic.remote_addr = remote_base + next_number(w) * 8;
        wr.wr.atomic.rkey = REMOTE_KEY;
    }
    if (k == QPS - 1) {
        struct ah ah = {.context = w->context, .pd = w->pd};
        struct ah *made;
        struct ibv_ah_attr attr = {.is_global = 1, .port_num = 1};

        memcpy(attr.grh.dgid.raw, nic->gids[0].raw, 16);
        if (ah_create(w->pd, &attr, &made))
            return;
        ah.handle = made->handle;
        struct ibv_ah shown = {.handle = ah.handle};
        wr.wr.ud.ah = &shown;
        wr.wr.ud.remote_qpn = (uint32_t)SLOT << LIMIT_QP_BITS | (uint32_t)(k + 1);
        wr.wr.ud.remote_qkey = 1;
        qp_post_send(w->qp[k], &wr, &bad);
        ah_destroy(made);
        return;
    }
    qp_post_send(w->qp[k], &wr, &bad);
}

static void step_receive(struct world *w)
{
    int k = next8(w) % QPS;
    struct ibv_sge sge = {(uintptr_t)area + GUARD + next8(w) * 64ull, next8(w),
                          w->mr ? w->mr->key : 0};
    struct ibv_recv_wr *bad, wr = {.sg_list = &sge, .num_sge = 1};

    if (k == 1)
        srq_post_recv(w->srq, &wr, &bad);
    else
        qp_post_recv(w->qp[k], &wr, &bad);
}

static void step_poll(struct world *w)
{
    struct completion completion;
    struct ibv_wc wc[8];
    uint8_t how = next8(w);

    if (how & 1) {
        cq_poll(w->cq, 1 + how % 8, wc);
    } else {
        cq_poll_lock(w->cq);
        cq_poll_one(w->cq, &completion);
        cq_poll_unlock(w->cq);
    }
    if (how > 200)
        cq_arm(w->cq, how & 2);
}

static void step_modify(struct world *w)
{
    uint8_t how = next8(w);
    int k = how % QPS;
    struct ibv_qp_attr attr = {.qp_state = how & 128 ? IBV_QPS_ERR : IBV_QPS_RESET};

    qp_modify(w->qp[k], &attr, IBV_QP_STATE);
    if (how & 64) {
        attr.qp_state = IBV_QPS_RESET;
        qp_modify(w->qp[k], &attr, IBV_QP_STATE);
        connect_qp(w, k);
    }
}

static void step_progress(struct world *w)
{
    uint8_t how = next8(w);

    if (w->peer && how % 8 == 0)
        w->peer->no_process_vm = how & 128;
    shm_progress();
    requester_progress_all();
    qp_finish_errors();
    srq_check_limits();
    cq_announce_all();
    look_after(w);
}

static void step_memory(struct world *w)
{
    if (w->mr && next8(w) > 200) {
        mr_dereg(w->mr);
        w->mr = NULL;
    }
}

static void (*const steps[])(struct world *w) = {
    step_poke,   step_poke,   step_poke,     step_claim,  step_push, step_push,
    step_record, step_guest,  step_answer,   step_send,   step_send, step_receive,
    step_poll,   step_modify, step_progress, step_memory,
};

/* ---- one input ---- */

static void hang_up(struct world *w)
{
    if (w->guest)
        guest_died(w->guest);
    if (w->peer)
        peer_died(w->peer);
    w->guest = NULL;
    w->peer = NULL;
    step_progress(w);
    close(w->guest_fd);
    close(w->peer_fd);
}

static void check_guards(void)
{
    for (int i = 0; i < GUARD; i++) {
        if (area[i] != CANARY || area[GUARD + AREA + i] != CANARY) {
            fprintf(stderr, "byte %d beside our region was changed\n", i);
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w = {.at = data, .end = data + size};

    if (!arena)
        set_up();
    core_lock();
    open_ours(&w);
    write_arena(&w);
    attach(&w);
    for (int k = 0; k < QPS; k++)
        connect_qp(&w, k);
    for (int i = 0; i < STEPS_MAX && w.at < w.end; i++)
        steps[next8(&w) % (sizeof(steps) / sizeof(steps[0]))](&w);
    hang_up(&w);
    close(w.context->async_fd);
    context_close(w.context);
    core_unlock();
    check_guards();
    return 0;
}
