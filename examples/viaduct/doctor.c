/* SPDX-License-Identifier: MIT */
/* viaduct doctor: check this machine, and a program, and say how to mend what is wrong. */
#include "cmd.h"
#include "host.h"
#include "options.h"
#include "probe.h"
#include "report.h"

struct doctor {
    bool json;
};

static const struct option_def defs[] = {
    {.name = "json",
     .type = OPTION_FLAG,
     .offset = offsetof(struct doctor, json),
     .help = "one JSON document"},
    {0},
};

static const struct option_set set = {
    .usage = "[OPTIONS] [PROGRAM]",
    .intro = "Try everything that via0 needs on this machine, and say how to mend what fails.\n"
             "With a PROGRAM, also say whether 'viaduct run -- PROGRAM' can work.",
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

static enum probe_level examine(bool json, const char *program, json_t *array)
{
    enum probe_level worst = PROBE_OK;
    bool last = false;

    for (const struct probe *probe = probes; !last; probe++) {
        struct finding finding = {0};
        const char *name = probe->name != NULL ? probe->name : "program";

        last = probe->name == NULL;
        if (last && program == NULL)
            break;
        if (last)
            probe_program(program, &finding);
        else
            probe->run(&finding);
        worst = finding.level > worst ? finding.level : worst;
        add_finding(array, name, &finding);
        if (!json)
            print_finding(name, &finding);
    }
    return worst;
}

int doctor_main(int argc, char **argv)
{
    struct doctor opts = {0};
    json_t *array;
    int first = 0;
    enum options_result parsed = options_parse(&set, argc, argv, &opts, &first);
    enum probe_level worst;
    int code;

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? CMD_OK : CMD_USAGE;
    if (first + 1 < argc) {
        complain("'%s' is unexpected: one PROGRAM at most, without its arguments", argv[first + 1]);
        return CMD_USAGE;
    }
    array = json_array();
    if (!opts.json)
        host_print(argc, argv);
    worst = examine(opts.json, first < argc ? argv[first] : NULL, array);
    code = worst == PROBE_FAIL ? CMD_FAILED : CMD_OK;
    if (!opts.json)
        json_decref(array);
    else if (report_document(json_pack("{s:s, s:o, s:o}", "schema", "viaduct.doctor/1", "host",
                                       host_json(argc, argv), "checks", array)) != CMD_OK)
        code = CMD_FAILED;
    return code;
}
