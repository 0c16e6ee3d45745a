/* SPDX-License-Identifier: MIT */
/* Events that a program sends itself: by the command, since not every librdmacm knows it yet. */
#include "t.h"

#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_user_cm.h>
#include <string.h>
#include <unistd.h>

enum { WRITE_CM_EVENT = 24, EVENT_USER = 18 };

struct write_event {
    uint32_t id, reserved, event, status;
    union {
        struct rdma_ucm_ud_param ud;
        uint32_t arg32[2];
    } param;
};

static int command(int fd, uint32_t cmd, const void *req, uint16_t in, uint16_t out)
{
    char buf[1024];
    struct rdma_ucm_cmd_hdr hdr = {.cmd = cmd, .in = in, .out = out};

    memcpy(buf, &hdr, sizeof(hdr));
    memcpy(buf + sizeof(hdr), req, in);
    return write(fd, buf, sizeof(hdr) + in) < 0 ? errno : 0;
}

static uint32_t create_id(int fd, uint64_t uid)
{
    struct rdma_ucm_create_id_resp resp = {0};
    struct rdma_ucm_create_id req = {
        .uid = uid, .response = (uintptr_t)&resp, .ps = RDMA_PS_TCP, .qp_type = IBV_QPT_RC};

    T_EQ(command(fd, RDMA_USER_CM_CMD_CREATE_ID, &req, sizeof(req), sizeof(resp)), 0);
    return resp.id;
}

T_TEST(cm_event, of_the_program)
{
    /* Shows that it comes out as it was sent, and that only events of a program's own may be sent.
     */
    int fd = open("/dev/infiniband/rdma_cm", O_RDWR | O_CLOEXEC);
    T_ASSERT(fd >= 0, "rdma_cm");
    struct write_event write_event = {.id = create_id(fd, 77), .event = EVENT_USER, .status = 5};
    struct rdma_ucm_event_resp resp = {0};
    struct rdma_ucm_get_event get = {.response = (uintptr_t)&resp};

    write_event.param.arg32[0] = 0x1234;
    write_event.param.arg32[1] = 0x5678;
    T_EQ(command(fd, WRITE_CM_EVENT, &write_event, sizeof(write_event), 0), 0);
    T_EQ(command(fd, RDMA_USER_CM_CMD_GET_EVENT, &get, sizeof(get), sizeof(resp)), 0);
    T_EQ(resp.uid, 77);
    T_EQ(resp.id, write_event.id);
    T_EQ(resp.event, EVENT_USER);
    T_EQ(resp.status, 5);
    T_MEMEQ(&resp.param, write_event.param.arg32, sizeof(write_event.param.arg32));
    write_event.event = 0;
    T_EQ(command(fd, WRITE_CM_EVENT, &write_event, sizeof(write_event), 0), EINVAL);
    write_event.event = EVENT_USER;
    write_event.id += 1000;
    T_EQ(command(fd, WRITE_CM_EVENT, &write_event, sizeof(write_event), 0), ENOENT);
    close(fd);
    t_end();
}
