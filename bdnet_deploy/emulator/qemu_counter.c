/* A QEMU plugin that counts blocks: how often each ran, and how often control did not simply go on into it.
 *
 * The functions of QEMU's plugin interface are declared here, because distributions ship no header for them; those that
 * are used are the same in versions 1 to 4 (QEMU 7 to 10). Counts lie in a file that the other side maps too, so that it
 * can look at them whenever the processor is stopped. */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t at);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                           void (*action)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
                                          void (*action)(unsigned cpu, void *block), int flags, void *block);

#define BLOCKS (1u << 20)

typedef struct block {
    uint64_t start, last, end; /* addresses: of the first and last instruction, and behind it */
    uint64_t other_end;        /* where it ends if QEMU gave a wrong size */
    uint64_t executed;
    uint64_t taken; /* of these, after another block than the one that ends here */
} block;

typedef struct shared {
    uint64_t blocks;
    uint64_t end, other_end; /* of the block before; the other side may set both, to NOWHERE too */
    uint64_t full;           /* whether there were more blocks than room */
    block block[BLOCKS];
} shared;

#define NOWHERE UINT64_MAX

__attribute__((visibility("default"))) int qemu_plugin_version = PLUGIN_VERSION;

static shared *counts;
static pid_t owner;

static void on_block(unsigned cpu, void *data) {
    block *const b = data;
    (void)cpu;
    b->executed++;
    b->taken += counts->end != b->start && counts->other_end != b->start && counts->end != NOWHERE;
    counts->end = b->end;
    counts->other_end = b->other_end;
}

/* The record of a block, which QEMU may translate again and again. */
static block *record_of(const block *wanted) {
    static uint32_t places[2u * BLOCKS]; /* record + 1, or 0 */
    uint32_t at = (uint32_t)((wanted->start * 2654435761u) ^ (wanted->last * 40503u)) % (2u * BLOCKS);
    for (; places[at] != 0; at = (at + 1u) % (2u * BLOCKS)) {
        block *const b = &counts->block[places[at] - 1u];
        if (b->start == wanted->start && b->last == wanted->last && b->end == wanted->end) {
            return b;
        }
    }
    if (counts->blocks == BLOCKS) {
        counts->full = 1;
        return NULL;
    }
    block *const b = &counts->block[counts->blocks++];
    places[at] = (uint32_t)counts->blocks;
    *b = *wanted;
    return b;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    const size_t n = qemu_plugin_tb_n_insns(tb);
    block b = {0};
    (void)id;
    if (n == 0) {
        return;
    }
    const struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, n - 1);
    b.start = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0));
    b.last = qemu_plugin_insn_vaddr(last);
    /* Where the next instruction might cross a page, QEMU 7 looks at its first half and counts that as part of this one:
     * 6 bytes are 4 then, and 4 may be 2. */
    const size_t size = qemu_plugin_insn_size(last);
    b.end = b.last + (size > 4 ? 4 : size);
    b.other_end = size == 4 && b.end % 1024 == 0 ? b.last + 2 : b.end;
    block *const kept = record_of(&b);
    if (kept != NULL) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, 0, kept);
    }
}

/* QEMU goes on when the process that started it is killed: end with it. */
static void *watch(void *unused) {
    while (getppid() == owner) {
        usleep(200000);
    }
    _exit(1);
    return unused;
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info,
                                                               int argc, char **argv);
int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
    pthread_t thread;
    (void)info;
    if (argc != 2 || strncmp(argv[0], "counts=", 7) != 0 || strncmp(argv[1], "owner=", 6) != 0) {
        return 1;
    }
    const int file = open(argv[0] + 7, O_RDWR);
    if (file < 0 || ftruncate(file, (off_t)sizeof(shared)) != 0) {
        return 1;
    }
    counts = mmap(NULL, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    owner = (pid_t)atol(argv[1] + 6);
    if (counts == MAP_FAILED || pthread_create(&thread, NULL, watch, NULL) != 0) {
        return 1;
    }
    counts->end = counts->other_end = NOWHERE;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
