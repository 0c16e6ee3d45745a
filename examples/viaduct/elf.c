/* SPDX-License-Identifier: MIT */
/* What kind of program a file is. */
#include "elf.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PROGRAM_HEADERS_MAX 64

#if defined(__x86_64__)
#define OUR_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OUR_MACHINE EM_AARCH64
#elif defined(__riscv)
#define OUR_MACHINE EM_RISCV
#elif defined(__powerpc64__)
#define OUR_MACHINE EM_PPC64
#else
#define OUR_MACHINE EM_S390
#endif

/* The path in PT_INTERP, or none: then it is linked statically. */
static void read_interpreter(int fd, const Elf64_Ehdr *header, struct elf_info *info)
{
    info->kind = ELF_STATIC;
    for (unsigned i = 0; i < header->e_phnum && i < PROGRAM_HEADERS_MAX; i++) {
        off_t at = (off_t)(header->e_phoff + i * sizeof(Elf64_Phdr));
        Elf64_Phdr segment;
        size_t length;

        if (pread(fd, &segment, sizeof(segment), at) != (ssize_t)sizeof(segment))
            return;
        if (segment.p_type != PT_INTERP)
            continue;
        length = segment.p_filesz < PATH_MAX ? segment.p_filesz : PATH_MAX - 1;
        if (pread(fd, info->interpreter, length, (off_t)segment.p_offset) < 0)
            info->interpreter[0] = '\0';
        info->kind = strstr(info->interpreter, "ld-musl") != NULL ? ELF_OTHER_LIBC : ELF_DYNAMIC;
        return;
    }
}

/* The first word behind "#!"; for "env", the program that env will start. */
static void read_script(const char *text, struct elf_info *info)
{
    char first[256] = "", second[256] = "";

    info->kind = ELF_SCRIPT;
    if (sscanf(text + 2, "%255s %255s", first, second) == 2 && strlen(first) >= 4 &&
        strcmp(first + strlen(first) - 4, "/env") == 0)
        snprintf(info->interpreter, sizeof(info->interpreter), "%s", second);
    else
        snprintf(info->interpreter, sizeof(info->interpreter), "%s", first);
}

static void read_kind(int fd, struct elf_info *info)
{
    union {
        Elf64_Ehdr elf;
        char text[512];
    } head = {.text = ""};
    ssize_t n = pread(fd, &head, sizeof(head) - 1, 0);

    info->kind = ELF_UNKNOWN;
    if (n > 2 && memcmp(head.text, "#!", 2) == 0) {
        head.text[strcspn(head.text, "\n")] = '\0';
        read_script(head.text, info);
    } else if (n >= (ssize_t)sizeof(head.elf) && memcmp(head.text, ELFMAG, SELFMAG) == 0) {
        if (head.elf.e_ident[EI_CLASS] != ELFCLASS64 || head.elf.e_machine != OUR_MACHINE)
            info->kind = ELF_OTHER_MACHINE;
        else
            read_interpreter(fd, &head.elf, info);
    }
}

int elf_inspect(const char *path, struct elf_info *info_out)
{
    struct elf_info info = {0};
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) != 0) {
        int error = -errno;

        close(fd);
        return error;
    }
    read_kind(fd, &info);
    /* Setuid to oneself changes nothing, so LD_PRELOAD stays in force. */
    info.setuid = ((st.st_mode & S_ISUID) && st.st_uid != getuid()) ||
                  ((st.st_mode & S_ISGID) && st.st_gid != getgid());
    info.capabilities = fgetxattr(fd, "security.capability", NULL, 0) > 0;
    close(fd);
    *info_out = info;
    return 0;
}

const char *elf_obstacle(const struct elf_info *info)
{
    if (info->kind == ELF_OTHER_MACHINE)
        return "it is for another machine or has 32 bits, and libviaduct.so can't be loaded into "
               "it: build Viaduct for that machine";
    if (info->kind == ELF_STATIC)
        return "it is linked statically, so nothing can be preloaded: link it dynamically, or link "
               "it with libviaduct";
    if (info->kind == ELF_OTHER_LIBC)
        return "it uses another C library than glibc, and libviaduct.so can't be loaded into it: "
               "build both with the same one";
    if (info->setuid)
        return "it is setuid or setgid, and the loader ignores LD_PRELOAD for it: run it as that "
               "user, from a copy without the bit";
    if (info->capabilities && getuid() != 0)
        return "its file has capabilities, and the loader ignores LD_PRELOAD for it: run a copy "
               "(cp drops them), or remove them with setcap -r";
    return NULL;
}
