/* SPDX-License-Identifier: MIT */
/* The links there are, as one: who carries what, and what every link is told. */
#include "link/link.h"

#include <string.h>

#include "core/config_host.h"
#include "core/process.h"
#include "link/roce/roce.h"
#include "link/shm/shm.h"

int link_open(void)
{
    int error = shm_open_link();

    return error ? error : roce_open();
}

void link_progress(void)
{
    shm_progress();
    roce_progress();
}

void link_rest(void)
{
    roce_rest();
}

void link_after_fork(void)
{
    shm_after_fork();
    roce_after_fork();
}

/* ---- which way ---- */

static bool is_own(const struct nic *nic, const uint8_t gid[16])
{
    for (unsigned i = 0; i < nic->gid_count; i++)
        if (memcmp(nic->gids[i].raw, gid, 16) == 0)
            return true;
    return address_is_loopback(gid);
}

static bool is_of_host(const uint8_t gid[16])
{
    struct host_addresses host;

    host_addresses_read(&host);
    return host_interface_of(&host, gid) != NULL;
}

bool link_is_elsewhere(const struct nic *nic, const uint8_t gid[16])
{
    enum config_link link = config_get()->link;

    if (link != CONFIG_LINK_AUTO)
        return link == CONFIG_LINK_ROCE;
    return !is_own(nic, gid) && !address_is_made(gid) && !is_of_host(gid);
}

bool link_leads_out(const struct nic *nic, const uint8_t dgid[16], uint32_t qpn)
{
    return link_is_elsewhere(nic, dgid) ||
           (config_get()->link == CONFIG_LINK_AUTO && !process_slot_is_taken(qpn >> LIMIT_QP_BITS));
}

bool link_source_for(const uint8_t dgid[16], uint8_t source_out[16])
{
    return roce_source_for(dgid, source_out);
}

/* Where the wire can't be used there may be somebody here all the same. */
static int attach(struct qp *qp, const struct ibv_qp_attr *attr)
{
    if (!link_leads_out(qp->context->nic, attr->ah_attr.grh.dgid.raw, attr->dest_qp_num & 0xffffff))
        return 0;
    int error = link_roce.attach(qp, attr);
    return config_get()->link == CONFIG_LINK_AUTO ? 0 : error;
}

int link_choose(struct qp *qp, const struct ibv_qp_attr *attr)
{
    return qp_is_connected_type(qp) ? attach(qp, attr) : roce_receive_datagrams(qp);
}

/* ---- what all are told ---- */

void link_settle(void)
{
    roce_settle();
}

void link_release_held(struct qp *qp)
{
    roce_release_held(qp);
}

void link_join(const struct nic *nic, const uint8_t mgid[16])
{
    peer_announce_member();
    roce_join(nic, mgid);
}

void link_leave(const struct nic *nic, const uint8_t mgid[16])
{
    roce_leave(nic, mgid);
}

void link_poll(void)
{
    roce_poll();
}

unsigned link_path_mtu(const struct nic *nic)
{
    return roce_path_mtu(nic);
}

int link_open_nic(const struct nic *nic)
{
    return roce_open_nic(nic);
}

void link_watch(uint32_t qpn, uint32_t peer_qpn, bool on)
{
    struct qp *qp = qpn >> LIMIT_QP_BITS == process_slot() ? qp_get(qpn & (LIMIT_QP - 1)) : NULL;

    if (qp && qp->link == &link_roce)
        roce_watch(qp, peer_qpn, on);
}

bool link_leads_away(uint64_t via)
{
    return roce_is_via(via);
}

uint64_t link_via(const uint8_t gid[16])
{
    return roce_via(gid);
}

void link_send_mad(uint64_t via, const uint8_t sgid[16], const uint8_t dgid[16],
                   const uint8_t mad[256])
{
    if (roce_is_via(via))
        roce_send_mad(sgid, dgid, mad);
    else
        mad_send(via, mad);
}
