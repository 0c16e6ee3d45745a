/* SPDX-License-Identifier: MIT */
/* The part of uverbs_fake.h that stands in for XRC; only that file includes it. */
#ifndef UVERBS_FAKE_XRC_H
#define UVERBS_FAKE_XRC_H

int xrcd_open(struct context *context, int fd, int oflags, struct xrcd **xrcd_out)
{
    struct xrcd *xrcd;
    int err = fake_result();

    if (err)
        return err;
    xrcd = calloc(1, sizeof(*xrcd));
    fake.xrcd_fd = fd;
    fake.xrcd_oflags = oflags;
    *xrcd = (struct xrcd){.handle = fake_add(xrcd), .context = context};
    *xrcd_out = xrcd;
    return 0;
}

int xrcd_close(struct xrcd *xrcd)
{
    return fake_drop(xrcd->handle);
}

struct xrcd *xrcd_get(uint32_t handle)
{
    return fake_get(handle);
}

int srq_create_xrc(struct pd *pd, const struct srq_attr *attr, struct xrcd *xrcd, struct cq *cq,
                   uint64_t user_handle, struct srq **srq_out, struct srq_attr *granted_out)
{
    fake.xrcd = xrcd;
    fake.srq_cq = cq;
    return srq_create(pd, attr, user_handle, srq_out, granted_out);
}

#endif
