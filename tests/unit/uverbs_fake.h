/* SPDX-License-Identifier: MIT */
/*
 * A core of cardboard for the tests of the command handlers: it keeps objects in small tables,
 * remembers what it was asked, and fails when told to. Included by one file of a test program: it
 * defines the functions of core/objects.h, core/qp.h and uapi/fastpath.h.
 */
#ifndef UVERBS_FAKE_H
#define UVERBS_FAKE_H

#include <fcntl.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/rdma_user_rxe.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/limits.h"
#include "core/objects.h"
#include "core/qp.h"
#include "core/xrcd.h"
#include "t.h"
#include "uapi/fastpath.h"
#include "uapi/uapi.h"

enum { FAKE_OBJECTS = 32, FAKE_SLOT = 5 };

/* One shape for all the objects that core keeps to itself. */
struct fake_object {
    uint32_t handle;
    struct context *context;
    uint64_t user_handle;
};
struct cq {
    struct fake_object o;
    uint32_t cqe;
};
struct srq {
    struct fake_object o;
};
struct qp {
    struct fake_object o;
};

static struct {
    int locked;
    int fail;    /* what the next call that can fail returns; then 0 again */
    int objects; /* created and not destroyed */
    int contexts, closed_contexts;
    void *table[FAKE_OBJECTS];
    /* what was asked last */
    struct mr mr;
    unsigned rereg_flags;
    struct channel *cq_channel;
    uint32_t cq_vector, cq_armed;
    bool cq_stamp;
    struct srq_attr srq_attr;
    unsigned srq_mask;
    struct cq *srq_cq;
    struct xrcd *xrcd;
    int xrcd_fd, xrcd_oflags;
    uint32_t opened;
    struct qp_init qp_init;
    struct ibv_qp_attr qp_attr;
    int qp_mask;
    struct ibv_ah_attr ah_attr;
    uint8_t mgid[16];
    struct ibv_send_wr sends[8];
    struct ibv_sge sges[8];
    uint32_t send_ah[8];
    unsigned posted;
    unsigned post_limit; /* posting fails with ENOMEM from this request on */
    /* hooks seen */
    int cq_hooks, srq_hooks, qp_hooks, modify_hooks, destroy_hooks;
    /* what a poll finds */
    struct ibv_wc wc[4];
    int wc_count;
} fake;

static inline int fake_result(void)
{
    int result = fake.fail;

    T_EQ(fake.locked, 1);
    fake.fail = 0;
    return result;
}

/* A handle serves all kinds: the real tables are separate, but a test wants to confuse them. */
static inline uint32_t fake_add(void *object)
{
    for (uint32_t i = 1; i < FAKE_OBJECTS; i++) {
        if (!fake.table[i]) {
            fake.table[i] = object;
            fake.objects++;
            return i;
        }
    }
    T_FAIL("the fake core is full");
}

static inline void *fake_get(uint32_t handle)
{
    T_EQ(fake.locked, 1);
    return handle < FAKE_OBJECTS ? fake.table[handle] : NULL;
}

static inline int fake_drop(uint32_t handle)
{
    int err = fake_result();

    if (err)
        return err;
    free(fake.table[handle]);
    fake.table[handle] = NULL;
    fake.objects--;
    return 0;
}

void core_lock(void)
{
    T_EQ(fake.locked++, 0);
}

void core_unlock(void)
{
    T_EQ(fake.locked--, 1);
}

void core_after_fork(void)
{
}

int context_open(const struct nic *nic, struct context **context_out)
{
    int err = fake_result();

    if (err)
        return err;
    *context_out = calloc(1, sizeof(**context_out));
    (*context_out)->nic = nic;
    (*context_out)->async_fd = 77;
    fake.contexts++;
    return 0;
}

void context_close(struct context *context)
{
    T_EQ(fake.locked, 1);
    fake.contexts--;
    fake.closed_contexts++;
    free(context);
}

void device_query(const struct nic *nic, struct ibv_device_attr *attr_out)
{
    /* each 32-bit word of it different, so that a mix-up shows */
    unsigned char *at = (unsigned char *)attr_out;

    T_EQ(nic->index, 3);
    for (size_t i = 0; i < sizeof(*attr_out); i++)
        at[i] = (unsigned char)(i * 7 / 4 + 1);
    strcpy(attr_out->fw_ver, "3.44.555");
}

int port_query(const struct nic *nic, unsigned port, struct ibv_port_attr *attr_out)
{
    unsigned char *at = (unsigned char *)attr_out;

    T_EQ(nic->index, 3);
    if (port != 1)
        return -EINVAL;
    for (size_t i = 0; i < sizeof(*attr_out); i++)
        at[i] = (unsigned char)(i + 1);
    attr_out->state = IBV_PORT_ACTIVE;
    attr_out->max_mtu = IBV_MTU_4096;
    attr_out->active_mtu = IBV_MTU_2048;
    return 0;
}

/* ---- channels ---- */

static struct channel *fake_channel;

int channel_create(struct context *context, struct channel **channel_out)
{
    int err = fake_result();

    if (err)
        return err;
    fake_channel = calloc(1, sizeof(*fake_channel));
    fake_channel->context = context;
    fake_channel->fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    *channel_out = fake_channel;
    return 0;
}

void channel_destroy(struct channel *channel)
{
    T_EQ(fake.locked, 1);
    T_ASSERT(channel == fake_channel);
    free(channel);
    fake_channel = NULL;
}

/* ---- domains, regions, windows, address handles ---- */

int pd_alloc(struct context *context, struct pd **pd_out)
{
    struct pd *pd;
    int err = fake_result();

    if (err)
        return err;
    pd = calloc(1, sizeof(*pd));
    pd->context = context;
    pd->handle = fake_add(pd);
    *pd_out = pd;
    return 0;
}

int pd_dealloc(struct pd *pd)
{
    return fake_drop(pd->handle);
}

struct pd *pd_get(uint32_t handle)
{
    return fake_get(handle);
}

int mr_reg(struct pd *pd, uint64_t addr, uint64_t length, uint64_t iova, unsigned access,
           struct mr **mr_out)
{
    struct mr *mr;
    int err = fake_result();

    if (err)
        return err;
    mr = calloc(1, sizeof(*mr));
    *mr = (struct mr){.context = pd->context,
                      .pd = pd,
                      .addr = addr,
                      .length = length,
                      .iova = iova,
                      .access = access};
    mr->handle = fake_add(mr);
    mr->key = mr->handle << 8 | 0x42;
    fake.mr = *mr;
    *mr_out = mr;
    return 0;
}

int mr_rereg(struct mr *mr, unsigned flags, struct pd *pd, uint64_t addr, uint64_t length,
             uint64_t iova, unsigned access)
{
    int err = fake_result();

    if (err)
        return err;
    fake.mr = (struct mr){.pd = pd, .addr = addr, .length = length, .iova = iova, .access = access};
    fake.rereg_flags = flags;
    mr->key++;
    return 0;
}

int mr_dereg(struct mr *mr)
{
    return fake_drop(mr->handle);
}

struct mr *mr_get(uint32_t handle)
{
    return fake_get(handle);
}

int mw_alloc(struct pd *pd, enum ibv_mw_type type, struct mw **mw_out)
{
    struct mw *mw;
    int err = fake_result();

    if (err)
        return err;
    mw = calloc(1, sizeof(*mw));
    *mw = (struct mw){.context = pd->context, .pd = pd, .type = type};
    mw->handle = fake_add(mw);
    mw->key = mw->handle << 8;
    *mw_out = mw;
    return 0;
}

int mw_dealloc(struct mw *mw)
{
    return fake_drop(mw->handle);
}

struct mw *mw_get(uint32_t handle)
{
    return fake_get(handle);
}

int ah_create(struct pd *pd, const struct ibv_ah_attr *attr, struct ah **ah_out)
{
    struct ah *ah;
    int err = fake_result();

    if (err)
        return err;
    ah = calloc(1, sizeof(*ah));
    ah->context = pd->context;
    ah->handle = fake_add(ah);
    fake.ah_attr = *attr;
    *ah_out = ah;
    return 0;
}

int ah_destroy(struct ah *ah)
{
    return fake_drop(ah->handle);
}

struct ah *ah_get(uint32_t handle)
{
    return fake_get(handle);
}

/* ---- completion queues ---- */

int cq_create(struct context *context, uint32_t cqe, struct channel *channel, uint32_t comp_vector,
              bool wallclock, uint64_t user_handle, struct cq **cq_out)
{
    struct cq *cq;
    int err = fake_result();

    if (err)
        return err;
    cq = calloc(1, sizeof(*cq));
    *cq = (struct cq){{fake_add(cq), context, user_handle}, cqe + 1};
    fake.cq_channel = channel;
    fake.cq_vector = comp_vector;
    fake.cq_stamp = wallclock;
    *cq_out = cq;
    return 0;
}

int cq_resize(struct cq *cq, uint32_t cqe)
{
    int err = fake_result();

    if (!err)
        cq->cqe = cqe + 1;
    return err;
}

uint32_t cq_capacity(struct cq *cq)
{
    return cq->cqe;
}

uint32_t cq_handle(struct cq *cq)
{
    return cq->o.handle;
}

struct context *cq_context(struct cq *cq)
{
    return cq->o.context;
}

uint64_t cq_user_handle(struct cq *cq)
{
    (void)cq;
    return 0;
}

bool cq_is_in_doubt(struct cq *cq)
{
    (void)cq;
    return false;
}

int cq_destroy(struct cq *cq, uint32_t *comp_events_out, uint32_t *async_events_out)
{
    *comp_events_out = 11;
    *async_events_out = 22;
    return fake_drop(cq->o.handle);
}

struct cq *cq_get(uint32_t handle)
{
    return fake_get(handle);
}

int cq_arm(struct cq *cq, bool solicited_only)
{
    (void)cq;
    T_EQ(fake.locked, 0);
    fake.cq_armed = solicited_only ? 2 : 1;
    return 0;
}

int cq_poll(struct cq *cq, int n, struct ibv_wc *wc)
{
    int count = n < fake.wc_count ? n : fake.wc_count;

    (void)cq;
    T_EQ(fake.locked, 0);
    memcpy(wc, fake.wc, (size_t)count * sizeof(*wc));
    fake.wc_count -= count;
    memmove(fake.wc, fake.wc + count, (size_t)fake.wc_count * sizeof(*wc));
    return count;
}

/* ---- shared receive queues ---- */

int srq_create(struct pd *pd, const struct srq_attr *attr, uint64_t user_handle,
               struct srq **srq_out, struct srq_attr *granted_out)
{
    struct srq *srq;
    int err = fake_result();

    if (err)
        return err;
    srq = calloc(1, sizeof(*srq));
    *srq = (struct srq){{fake_add(srq), pd->context, user_handle}};
    fake.srq_attr = *attr;
    *granted_out = (struct srq_attr){attr->max_wr + 1, attr->max_sge + 1, 0};
    *srq_out = srq;
    return 0;
}

int srq_modify(struct srq *srq, unsigned mask, const struct srq_attr *attr)
{
    int err = fake_result();

    (void)srq;
    fake.srq_attr = *attr;
    fake.srq_mask = mask;
    return err;
}

void srq_query(struct srq *srq, struct srq_attr *attr_out)
{
    (void)srq;
    *attr_out = (struct srq_attr){100, 4, 7};
}

int srq_destroy(struct srq *srq, uint32_t *events_out)
{
    *events_out = 33;
    return fake_drop(srq->o.handle);
}

struct srq *srq_get(uint32_t handle)
{
    return fake_get(handle);
}

struct context *srq_context(struct srq *srq)
{
    return srq->o.context;
}

uint32_t srq_number(struct srq *srq)
{
    return FAKE_SLOT << LIMIT_QP_BITS | srq->o.handle;
}

uint32_t srq_handle(struct srq *srq)
{
    return srq->o.handle;
}

#include "uverbs_fake_xrc.h"

/* ---- queue pairs ---- */

uint32_t qp_handle(struct qp *qp)
{
    return qp->o.handle;
}

bool qp_is_for_programs(struct qp *qp)
{
    (void)qp;
    return true;
}

int qp_create(const struct qp_init *init, struct qp **qp_out, struct ibv_qp_cap *granted_out)
{
    struct qp *qp;
    int err = fake_result();

    if (err)
        return err;
    qp = calloc(1, sizeof(*qp));
    *qp = (struct qp){
        {fake_add(qp), init->pd ? init->pd->context : init->xrcd->context, init->user_handle}};
    fake.qp_init = *init;
    *granted_out = (struct ibv_qp_cap){init->cap.max_send_wr + 1, init->cap.max_recv_wr + 2,
                                       init->cap.max_send_sge + 3, init->cap.max_recv_sge + 4,
                                       init->cap.max_inline_data + 5};
    *qp_out = qp;
    return 0;
}

int qp_open(struct xrcd *xrcd, uint32_t qpn, uint64_t user_handle, struct qp **qp_out)
{
    struct ibv_qp_cap none;

    fake.opened = qpn;
    return qp_create(&(struct qp_init){.xrcd = xrcd, .user_handle = user_handle}, qp_out, &none);
}

int qp_destroy(struct qp *qp, uint32_t *events_out)
{
    *events_out = 44;
    return fake_drop(qp->o.handle);
}

struct qp *qp_get(uint32_t handle)
{
    return fake_get(handle);
}

struct context *qp_context(struct qp *qp)
{
    return qp->o.context;
}

bool qp_has_datagrams_to_send(struct qp *qp)
{
    (void)qp;
    return false;
}

uint32_t qp_number(struct qp *qp)
{
    return FAKE_SLOT << LIMIT_QP_BITS | qp->o.handle;
}

int qp_modify(struct qp *qp, const struct ibv_qp_attr *attr, int mask)
{
    int err = fake_result();

    (void)qp;
    fake.qp_attr = *attr;
    fake.qp_mask = mask;
    return err;
}

void qp_query(struct qp *qp, struct ibv_qp_attr *attr_out, struct ibv_qp_init_attr *init_out)
{
    (void)qp;
    T_EQ(fake.locked, 1);
    *attr_out = fake.qp_attr;
    *init_out = (struct ibv_qp_init_attr){.qp_type = fake.qp_init.type,
                                          .sq_sig_all = fake.qp_init.sq_sig_all};
}

int mcast_attach(struct qp *qp, const uint8_t mgid[16])
{
    (void)qp;
    memcpy(fake.mgid, mgid, 16);
    return fake_result();
}

int mcast_detach(struct qp *qp, const uint8_t mgid[16])
{
    (void)qp;
    memcpy(fake.mgid, mgid, 16);
    return fake_result();
}

/* ---- posting: copies what it gets ---- */

int qp_post_send(struct qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad_wr)
{
    unsigned sge = 0;

    (void)qp;
    T_EQ(fake.locked, 0);
    for (fake.posted = 0; wr; wr = wr->next) {
        if (fake.posted == fake.post_limit) {
            *bad_wr = wr;
            return ENOMEM;
        }
        for (int i = 0; i < wr->num_sge; i++)
            fake.sges[sge++] = wr->sg_list[i];
        fake.send_ah[fake.posted] = fake.qp_init.type == IBV_QPT_UD ? wr->wr.ud.ah->handle : 0;
        fake.sends[fake.posted++] = *wr;
    }
    return 0;
}

static inline int fake_post_recv(struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
    unsigned sge = 0;

    T_EQ(fake.locked, 0);
    for (fake.posted = 0; wr; wr = wr->next) {
        if (fake.posted == fake.post_limit) {
            *bad_wr = wr;
            return ENOMEM;
        }
        for (int i = 0; i < wr->num_sge; i++)
            fake.sges[sge++] = wr->sg_list[i];
        fake.sends[fake.posted++] =
            (struct ibv_send_wr){.wr_id = wr->wr_id, .num_sge = wr->num_sge};
    }
    return 0;
}

int qp_post_recv(struct qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
    (void)qp;
    return fake_post_recv(wr, bad_wr);
}

int srq_post_recv(struct srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr)
{
    (void)srq;
    return fake_post_recv(wr, bad_wr);
}

/* ---- hooks ---- */

void fastpath_cq_created(struct cq *cq)
{
    T_ASSERT(fake_get(cq->o.handle) == cq);
    fake.cq_hooks++;
}

void fastpath_srq_created(struct srq *srq, uint64_t user_handle)
{
    T_ASSERT(fake_get(srq->o.handle) == srq);
    T_EQ(srq->o.user_handle, user_handle);
    fake.srq_hooks++;
}

void fastpath_qp_created(struct qp *qp)
{
    T_ASSERT(fake_get(qp->o.handle) == qp);
    fake.qp_hooks++;
}

void fastpath_qp_modified(struct qp *qp, enum ibv_qp_state to)
{
    T_ASSERT(fake_get(qp->o.handle) == qp);
    T_EQ(to, fake.qp_attr.qp_state);
    fake.modify_hooks++;
}

void fastpath_qp_destroyed(uint32_t qpn)
{
    T_ASSERT(fake_get(qpn % LIMIT_QP) == NULL);
    fake.destroy_hooks++;
}

void fastpath_context_closed(struct context *context)
{
    T_ASSERT(context != NULL);
    T_EQ(fake.locked, 1);
}

/* ---- a program ---- */

static const struct nic fake_nic = {.name = "via3", .index = 3};

/* What write() on the descriptor returns: the length, or a negative errno. */
static inline ssize_t u_write(int fd, const void *buf, size_t len)
{
    struct uapi_file *file = fdtab_get(fd);
    ssize_t result;

    T_ASSERT(file != NULL);
    result = file->ops->write(file, buf, len);
    T_EQ(fake.locked, 0);
    return result;
}

/* A plain command as the libraries send it: 0 or negative errno. resp may be NULL. */
static inline int u_call(int fd, uint32_t command, const void *req, size_t req_len, void *resp,
                         size_t resp_len)
{
    uint64_t buf[256] = {0};
    struct ib_uverbs_cmd_hdr *hdr = (void *)buf;
    uint64_t address = (uintptr_t)resp;
    ssize_t result;

    T_ASSERT(req_len + 8 <= sizeof(buf));
    hdr->command = command;
    hdr->in_words = (uint16_t)((req_len + 8) / 4);
    hdr->out_words = (uint16_t)(resp_len / 4);
    memcpy(buf + 1, req, req_len);
    if (resp)
        memcpy(buf + 1, &address, sizeof(address));
    result = u_write(fd, buf, req_len + 8);
    T_ASSERT(result < 0 || (size_t)result == req_len + 8);
    return result < 0 ? (int)result : 0;
}

/* An extended one. The last driver_len bytes of the response are the driver's. */
static inline int u_call_ex(int fd, uint32_t command, const void *req, size_t req_len, void *resp,
                            size_t resp_len, size_t driver_len)
{
    uint64_t buf[256] = {0};
    struct ib_uverbs_cmd_hdr *hdr = (void *)buf;
    struct ib_uverbs_ex_cmd_hdr *ex = (void *)(buf + 1);
    ssize_t result;

    T_ASSERT(req_len + 24 <= sizeof(buf));
    hdr->command = command | IB_USER_VERBS_CMD_FLAG_EXTENDED;
    hdr->in_words = (uint16_t)(req_len / 8);
    hdr->out_words = (uint16_t)((resp_len - driver_len) / 8);
    ex->response = (uintptr_t)resp;
    ex->provider_out_words = (uint16_t)(driver_len / 8);
    memcpy(buf + 3, req, req_len);
    result = u_write(fd, buf, req_len + 24);
    T_ASSERT(result < 0 || (size_t)result == req_len + 24);
    return result < 0 ? (int)result : 0;
}

/* CREATE_SRQ's response and the driver's behind it (the header's own ends in an open array). */
struct u_srq_resp {
    uint32_t handle, max_wr, max_sge, srqn;
    struct rxe_create_srq_resp driver;
};

#define U_REQ(type, ...) &(struct type){__VA_ARGS__}, sizeof(struct type)
#define U_NO_RESP NULL, 0

/* A descriptor with a context behind it. */
static inline int u_open(void)
{
    struct ib_uverbs_get_context_resp resp;
    int fd = -1;

    T_EQ(uverbs_open(&fake_nic, O_RDWR | O_CLOEXEC, &fd), 0);
    T_EQ(u_call(fd, IB_USER_VERBS_CMD_GET_CONTEXT, U_REQ(ib_uverbs_get_context, 0), &resp,
                sizeof(resp)),
         0);
    T_EQ(resp.async_fd, 77);
    return fd;
}

static inline void u_close(int fd)
{
    fdtab_clear(fd);
    close(fd);
}

/* What the last test of one process left (with the plain runner they share it). */
static inline void u_reset(void)
{
    for (int i = 0; i < FAKE_OBJECTS; i++)
        free(fake.table[i]);
    memset(&fake, 0, sizeof(fake));
    fake.post_limit = UINT32_MAX;
}

static inline uint32_t u_pd(int fd)
{
    struct ib_uverbs_alloc_pd_resp resp;

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_ALLOC_PD, U_REQ(ib_uverbs_alloc_pd, 0), &resp, sizeof(resp)),
         0);
    return resp.pd_handle;
}

static inline uint32_t u_cq(int fd)
{
    struct {
        struct ib_uverbs_create_cq_resp core;
        struct rxe_create_cq_resp driver;
    } resp;

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_CQ,
                U_REQ(ib_uverbs_create_cq, .cqe = 16, .comp_channel = -1), &resp, sizeof(resp)),
         0);
    return resp.core.cq_handle;
}

static inline uint32_t u_qp(int fd, uint8_t type)
{
    struct {
        struct ib_uverbs_create_qp_resp core;
        struct rxe_create_qp_resp driver;
    } resp;
    uint32_t cq = u_cq(fd);

    T_EQ(u_call(fd, IB_USER_VERBS_CMD_CREATE_QP,
                U_REQ(ib_uverbs_create_qp, .pd_handle = u_pd(fd), .send_cq_handle = cq,
                      .recv_cq_handle = cq, .qp_type = type),
                &resp, sizeof(resp)),
         0);
    return resp.core.qp_handle;
}

#endif
