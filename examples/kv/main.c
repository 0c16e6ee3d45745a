/* SPDX-License-Identifier: MIT */
/* Open, connect, tell where the table is, and be server or client. */
#include "kv.h"

int main(int argc, char **argv)
{
    struct rc rc;
    bool server;
    int peer = rc_sides(argc, argv, &server);
    struct kv_memory *memory = calloc(1, sizeof(*memory));
    struct ibv_mr *mr;

    rc_open(&rc, 16);
    mr =
        ibv_reg_mr(rc.pd, memory, sizeof(*memory), IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
    rc_need(mr != NULL, "ibv_reg_mr");
    rc_connect(&rc, peer);
    struct rc_memory mine = {(uintptr_t)memory, mr->rkey, sizeof(*memory)}, theirs;
    rc_swap(peer, &mine, &theirs, sizeof(mine));
    if (server)
        kv_serve(&rc, peer, mr);
    else
        kv_use(&rc, peer, mr, &theirs);
    rc_meet(peer);
    ibv_dereg_mr(mr);
    free(memory);
    return rc_close(&rc);
}
