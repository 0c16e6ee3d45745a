/* SPDX-License-Identifier: MIT */
/*
 * viaduct.h - the public header of libviaduct, a software RDMA NIC in user space
 *
 * There is almost nothing to call here, and that is the point. A program that wants RDMA speaks
 * to libibverbs, as it would with any adapter; libviaduct stands below, where the kernel's driver
 * and the hardware would be, and answers. The device it shows is called via0.
 *
 * Three ways to get it under a program
 *
 *   viaduct run -- PROGRAM ARGS      loads the library before the program (LD_PRELOAD), after it
 *                                    has checked that the pieces it needs are installed
 *   LD_PRELOAD=.../libviaduct.so     the same without the checks, as a container image might do
 *   cc ... -lviaduct                 a program of your own. Name the library before -libverbs, so
 *                                    that its functions are found first, and call
 *                                    viaduct_version() once, or a linker that drops unused
 *                                    libraries (--as-needed) leaves it out
 *
 * The program itself needs libibverbs and the stock rxe provider (Debian: ibverbs-providers).
 * Real RDMA devices stay in the list beside via0.
 *
 * Environment, read once, when the library is first needed. A wrong value is one line on stderr
 * and no device, never a guess.
 *
 *   VIADUCT_NICS           the NICs and their addresses, IPv4 or IPv6:
 *                          via0=192.0.2.5,via1=127.0.0.2
 *                          unset: via0 on the host's primary address, or on loopback if it has none
 *   VIADUCT_LINK           auto or shm: how peers are reached. Both mean shared memory between the
 *                          processes of one user on one host.
 *   VIADUCT_RUNTIME_DIR    where processes find each other: an absolute path of a folder that
 *                          belongs to the user alone (mode 0700); it is made if it is missing.
 *                          Processes with different folders can't see each other.
 *                          unset: $XDG_RUNTIME_DIR/viaduct, else a private folder per user
 *
 * Threads, fork and exec: every function of libibverbs may be called from any thread, as its
 * manual says. The contexts of a process are dead in a child made by fork (its calls fail with
 * EIO); a program started by exec opens the device afresh.
 */
#ifndef VIADUCT_H
#define VIADUCT_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The library's version, such as "0.1.0": a constant string, never to be freed.
 *
 * Versions are MAJOR.MINOR.PATCH as in semantic versioning. While MAJOR is 0, a new MINOR may
 * change what this header says. May be called at any time, from any thread and signal handler.
 */
const char *viaduct_version(void);

/*
 * Looking at the processes that use the NIC, from outside
 *
 *      static int show(void *argument, const struct viaduct_process *process,
 *                      const struct viaduct_qp *qps) { ... }
 *      ...
 *      viaduct_look(show, NULL);
 *
 * This is what `viaduct top` does. The processes of this user that share the runtime folder are
 * asked for the memory they publish, which only they can write; nothing is asked of a program, and
 * no device is opened. Numbers are of one moment each, not all of the same moment.
 */

/* One queue pair. Counters begin at 0 when it is made. */
struct viaduct_qp {
    unsigned number;
    unsigned peer;     /* the number of the queue pair that it is connected to, 0: none */
    long peer_pid;     /* its process, 0: not known */
    const char *nic;   /* "via0" */
    const char *type;  /* "RC", "UC", "UD", "XRC_SEND", "XRC_RECV" */
    const char *state; /* "RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR" */
    /* What it has carried out, and the bytes that it sent or wrote, or read. */
    unsigned long long messages, bytes_out, bytes_in;
    unsigned long long peer_messages, peer_bytes; /* what its peer has, if that is seen */
    unsigned long long rnr_waits;                 /* times it had to wait for a receive */
    unsigned long long retries;
    unsigned sends_waiting;    /* requests that could not be finished yet */
    unsigned receives_waiting; /* posted to it, and not taken; 0 with an SRQ and for datagrams */
};

/* One process. */
struct viaduct_process {
    long pid;
    const char *command;  /* its name when it first opened a device, 15 characters at most */
    int answers;          /* 0: it lives and does not answer (stopped?), and the rest is 0 */
    unsigned connections; /* queue pairs that are connected and work */
    unsigned regions;     /* registered, and bytes in them */
    unsigned long long region_bytes;
    unsigned qp_count;
};

/*
 * Call `show` for each process, with its qp_count queue pairs; all pointers are good during the
 * call. Ends early if that returns anything but 0, and returns it. Negative errno: the runtime
 * folder can't be read (-ENOENT: nobody has used the NIC yet), or no memory. Blocks for half
 * a second at most, if a process does not answer. Any thread.
 */
int viaduct_look(int (*show)(void *argument, const struct viaduct_process *process,
                             const struct viaduct_qp *qps),
                 void *argument);

/*
 * Take a NIC away from all programs of this user that share the runtime folder, as if the adapter
 * had been unplugged, or give it back. This is what `viaduct remove` and `viaduct add` do.
 *
 *      viaduct_remove("via0");
 *
 * When it returns the programs have been told: queue pairs are in ERR, their requests flushed;
 * contexts have IBV_EVENT_DEVICE_FATAL and fail every command but those that destroy with EIO;
 * identifiers of rdma_cm that are bound to the NIC have RDMA_CM_EVENT_DEVICE_REMOVAL. What a
 * program had open stays dead after viaduct_add(): it closes it and opens the device anew.
 *
 * Returns how many processes have seen to it; one that is stopped does later. -ENODEV: there is no
 * such NIC (or it is away already); -EEXIST: it is not away; -EINVAL: the environment is wrong; or
 * another negative errno. Blocks for half a second at most. Any thread.
 */
int viaduct_remove(const char *nic);
int viaduct_add(const char *nic);

#ifdef __cplusplus
}
#endif

#endif
