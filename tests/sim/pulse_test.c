/* SPDX-License-Identifier: MIT */
/* Peers that there is nothing to send to: what asking them does, and when they are taken for gone.
 */
#include "sim.h"
#include "t.h"
#include "wire/psn.h"

enum { MS = 1000000, SECOND = 1000 * MS };

static struct sim *begin(enum transport_type type)
{
    struct sim *sim = sim_new(t_rand(), type);

    sim_start(sim);
    transport_watch(sim->nodes[0].transport, true);
    return sim;
}

static struct transport_stats stats(const struct sim *sim, unsigned index)
{
    struct transport_stats stats;

    transport_get_stats(sim->nodes[index].transport, &stats);
    return stats;
}

static void cut(struct sim *sim)
{
    sim->faults.dark_from_ns = sim->now_ns;
    sim->faults.dark_until_ns = UINT64_MAX;
}

static void refuse(struct sim *sim)
{
    transport_refused(sim->nodes[0].transport, sim->now_ns);
}

static unsigned failures(const struct sim *sim)
{
    return sim_count(&sim->nodes[0], LOG_FAIL);
}

static void expect_gone(const struct sim *sim)
{
    T_EQ(failures(sim), 1);
    T_EQ(sim_nth(&sim->nodes[0], LOG_FAIL, 0)->failure, FAILED_PEER);
}

T_TEST(sim, pulse_is_answered)
{
    /* Shows that a question is answered, between messages that it does not disturb. */
    struct sim *sim = begin(TRANSPORT_RC);
    struct sim_node *a = &sim->nodes[0], *b = &sim->nodes[1];

    for (unsigned i = 0; i < 3; i++) {
        struct transport_wr wr = sim_wr(TRANSPORT_SEND, i, 0, 3000, 0);
        uint64_t heard = stats(sim, 0).received;

        T_ASSERT(transport_ask(a->transport));
        T_ASSERT(transport_has_next(a->transport, sim->now_ns));
        sim_run(sim, SECOND);
        T_EQ(stats(sim, 1).duplicates, i + 1);
        T_EQ(stats(sim, 0).received, heard + 1);
        sim_recv(b, i, 8192, 4096);
        sim_post(a, &wr);
        sim_run(sim, SECOND);
        T_EQ(sim_nth(b, LOG_RECV, i)->byte_len, 3000);
        T_EQ(sim_nth(a, LOG_SEND, i)->status, TRANSPORT_SUCCESS);
    }
    T_EQ(stats(sim, 0).resent + stats(sim, 0).timeouts, 0);
    T_EQ(failures(sim), 0);
    sim_free(sim);
}

T_TEST(sim, pulse_without_an_answer)
{
    /* Shows that silence alone means nothing, however often it is asked into. */
    struct sim *sim = begin(TRANSPORT_RC);

    cut(sim);
    for (unsigned i = 0; i < 100; i++) {
        T_ASSERT(transport_ask(sim->nodes[0].transport));
        sim_run(sim, SECOND);
    }
    T_EQ(failures(sim), 0);
    T_EQ(sim->frames, 100);
    T_EQ(transport_deadline(sim->nodes[0].transport), TRANSPORT_NEVER);
    sim_free(sim);
}

T_TEST(sim, pulse_refused)
{
    /* Shows that who is said to be gone, and is silent, is gone within a fifth of a second. */
    struct sim *sim = begin(TRANSPORT_RC);
    struct transport *t = sim->nodes[0].transport;
    uint32_t psn = psn_add(sim->nodes[0].psn, 0xffffff);

    T_ASSERT(!transport_is_in_flight(t, psn));
    cut(sim);
    transport_ask(t);
    sim_run(sim, MS);
    T_ASSERT(transport_is_in_flight(t, psn));
    T_ASSERT(!transport_is_in_flight(t, psn_add(psn, 1)));
    refuse(sim);
    sim_run(sim, 200 * MS);
    expect_gone(sim);
    T_ASSERT(sim->frames <= 6);
    T_ASSERT(!transport_ask(t));
    refuse(sim);
    sim_run(sim, SECOND);
    T_EQ(failures(sim), 1);
    sim_free(sim);
}

T_TEST(sim, pulse_refused_by_mistake)
{
    /* Shows that any sign of life outweighs what is said, however often. */
    struct sim *sim = begin(TRANSPORT_RC);

    for (unsigned i = 0; i < 100; i++) {
        refuse(sim);
        refuse(sim);
        sim_run(sim, SECOND);
    }
    T_EQ(failures(sim), 0);
    T_EQ(stats(sim, 1).duplicates, 100);
    cut(sim);
    refuse(sim);
    sim->faults.dark_until_ns = sim->now_ns + 70 * MS;
    sim_run(sim, SECOND);
    T_EQ(failures(sim), 0);
    sim_free(sim);
}

T_TEST(sim, pulse_of_who_is_not_watched)
{
    /* Shows that without the wish to know nothing is asked, and a refusal of nothing is nothing. */
    struct sim *sim = begin(TRANSPORT_RC);

    transport_watch(sim->nodes[0].transport, false);
    cut(sim);
    T_ASSERT(!transport_ask(sim->nodes[0].transport));
    refuse(sim);
    sim_run(sim, SECOND);
    T_EQ(failures(sim), 0);
    T_EQ(sim->frames, 0);
    sim_free(sim);
}

T_TEST(sim, pulse_gives_way_to_requests)
{
    /* Shows that with a request under way that is what finds out, and has the error. */
    struct sim *sim = begin(TRANSPORT_RC);
    struct sim_node *a = &sim->nodes[0];
    struct transport_wr wr = sim_wr(TRANSPORT_WRITE, 0, 0, 10, 0);

    cut(sim);
    refuse(sim);
    sim_run(sim, 10 * MS);
    sim_post(a, &wr);
    sim_run(sim, 100 * MS);
    T_EQ(failures(sim), 0);
    T_ASSERT(!transport_ask(a->transport));
    refuse(sim);
    T_ASSERT(transport_is_refused(a->transport));
    sim_run(sim, SECOND);
    T_EQ(sim_nth(a, LOG_SEND, 0)->status, TRANSPORT_RETRY_EXC_ERR);
    T_EQ(sim_nth(a, LOG_FAIL, 0)->failure, FAILED_SENDING);
    T_ASSERT(transport_is_refused(a->transport));
    sim_free(sim);
}

T_TEST(sim, pulse_of_an_unreliable_one)
{
    /* Shows that one that is never answered is told by two refusals, and sends on all the same. */
    struct sim *sim = begin(TRANSPORT_UC);
    struct sim_node *a = &sim->nodes[0], *b = &sim->nodes[1];
    struct transport_wr wr = sim_wr(TRANSPORT_SEND, 0, 0, 3000, 0);

    sim_recv(b, 0, 0, 4096);
    T_ASSERT(transport_ask(a->transport));
    sim_run(sim, SECOND);
    T_EQ(stats(sim, 1).dropped, 1);
    T_EQ(stats(sim, 0).received, 0);
    refuse(sim);
    sim_run(sim, SECOND);
    T_EQ(failures(sim), 0);
    T_ASSERT(transport_ask(a->transport));
    sim_run(sim, SECOND);
    refuse(sim);
    sim_run(sim, SECOND);
    expect_gone(sim);
    sim_post(a, &wr);
    sim_run(sim, SECOND);
    T_EQ(sim_nth(a, LOG_SEND, 0)->status, TRANSPORT_SUCCESS);
    T_EQ(sim_nth(b, LOG_RECV, 0)->byte_len, 3000);
    sim_free(sim);
}
