/* SPDX-License-Identifier: MIT */
/* viaduct doctor: check this machine, and a program, and say how to mend what is wrong. */
#include "cmd.h"
#include "host.h"
#include "options.h"
#include "probe.h"
#include "report.h"

struct doctor {
    uint64_t pid;
    bool json;
};

static const struct option_def defs[] = {
    {.name = "pid",
     .type = OPTION_COUNT,
     .offset = offsetof(struct doctor, pid),
     .max = INT32_MAX,
     .value = "PID",
     .help = "say why this running process does not see via0"},
    {.name = "json",
     .type = OPTION_FLAG,
     .offset = offsetof(struct doctor, json),
     .help = "one JSON document"},
    {0},
};

static const struct option_set set = {
    .usage = "[OPTIONS] [PROGRAM]",
    .intro = "Try everything that via0 needs on this machine, and say how to mend what fails.\n"
             "With a PROGRAM, also say whether 'viaduct run -- PROGRAM' can work; with a PID,\n"
             "whether it did, and if not, what was in the way.",
    .defs = defs,
    .more = "ok: fine. note: nothing to do. warn: works, but slower. FAIL: via0 can't be used.\n"
            "The result is 1 if anything failed.",
};

static const char *const level_names[] = {"ok", "note", "warn", "FAIL"};

static void print_finding(const char *name, const struct finding *finding)
{
    printf("%-5s %-12s %s\n", level_names[finding->level], name, finding->text);
    if (finding->mend[0] != '\0')
        printf("%18s -> %s\n", "", finding->mend);
    /* What a probe says on stderr stands behind the lines that came before it. */
    fflush(stdout);
}

static void add_finding(json_t *array, const char *name, const struct finding *finding)
{
    json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:s}", "check", name, "level",
                                           level_names[finding->level], "text", finding->text,
                                           "mend", finding->mend));
}

struct examination {
    bool json;
    json_t *array;
    enum probe_level worst;
};

static void conclude(struct examination *all, const char *name, const struct finding *finding)
{
    all->worst = finding->level > all->worst ? finding->level : all->worst;
    add_finding(all->array, name, finding);
    if (!all->json)
        print_finding(name, finding);
}

static void examine(struct examination *all, const char *program, uint64_t pid)
{
    for (const struct probe *probe = probes; probe->name != NULL; probe++) {
        struct finding finding = {0};

        probe->run(&finding);
        conclude(all, probe->name, &finding);
    }
    if (program != NULL) {
        struct finding finding = {0};

        probe_program(program, &finding);
        conclude(all, "program", &finding);
    }
    if (pid != 0) {
        struct finding finding = {0};

        probe_process(pid, &finding);
        conclude(all, "process", &finding);
    }
}

int doctor_main(int argc, char **argv)
{
    struct doctor opts = {0};
    struct examination all = {0};
    int first = 0;
    enum options_result parsed = options_parse(&set, argc, argv, &opts, &first);
    int code;

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? CMD_OK : CMD_USAGE;
    if (first + 1 < argc) {
        complain("'%s' is unexpected: one PROGRAM at most, without its arguments", argv[first + 1]);
        return CMD_USAGE;
    }
    all.json = opts.json;
    all.array = json_array();
    if (!opts.json)
        host_print(argc, argv);
    examine(&all, first < argc ? argv[first] : NULL, opts.pid);
    code = all.worst == PROBE_FAIL ? CMD_FAILED : CMD_OK;
    if (!opts.json)
        json_decref(all.array);
    else if (report_document(json_pack("{s:s, s:o, s:o}", "schema", "viaduct.doctor/1", "host",
                                       host_json(argc, argv), "checks", all.array)) != CMD_OK)
        code = CMD_FAILED;
    return code;
}
