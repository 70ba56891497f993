/* The floor of the benchmark: what it costs to make an archive of each node's own files and to
 * do nothing else. For each node it puts the node's name into the texts, formats the newc
 * headers, deflates at level 1 and writes one file.
 *
 *     floor PROTOTYPE.cpio NAME N FOLDER
 *
 * PROTOTYPE.cpio is the archive of the node NAME as nodeforge made it, so that both pack the
 * same. Each name made is as long as NAME. Exits 1 with a word on what failed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { MAX_ENTRIES = 256, MAX_PLACES = 4096, MAX_BYTES = 1 << 22, HEADER = 110 };

struct entry { unsigned mode; char *name; size_t name_size; char *data; size_t size; };

static struct entry entries[MAX_ENTRIES];
static size_t n_entries;
static char *places[MAX_PLACES];
static size_t n_places;
static unsigned char archive[MAX_BYTES], packed[MAX_BYTES];

static void fail(const char *what)
{
    fprintf(stderr, "floor: %s\n", what);
    exit(1);
}

static unsigned field(const char *header, int at)
{
    char digits[9] = {0};
    memcpy(digits, header + 6 + at * 8, 8);
    return (unsigned)strtoul(digits, NULL, 16);
}

static size_t aligned(size_t n) { return (n + 3) & ~(size_t)3; }

static void read_prototype(const char *path, const char *name)
{
    static char bytes[MAX_BYTES];
    FILE *file = fopen(path, "rb");
    if (!file) fail("the prototype cannot be opened");
    size_t size = fread(bytes, 1, sizeof bytes - 1, file);
    fclose(file);
    size_t at = 0, name_length = strlen(name);
    while (at + HEADER < size) {
        const char *header = bytes + at;
        struct entry entry = { field(header, 1), bytes + at + HEADER, field(header, 11), NULL,
                               field(header, 6) };
        entry.data = bytes + at + aligned(HEADER + entry.name_size);
        if (!strcmp(entry.name, "TRAILER!!!")) break;
        if (n_entries == MAX_ENTRIES) fail("too many entries");
        for (char *p = entry.data; p + name_length <= entry.data + entry.size; p++)
            if (!memcmp(p, name, name_length)) {
                if (n_places == MAX_PLACES) fail("too many places");
                places[n_places++] = p;
            }
        entries[n_entries++] = entry;
        at = (size_t)(entry.data - bytes) + aligned(entry.size);
    }
    if (!n_entries || !n_places) fail("the prototype has no entries, or none names its node");
}

static size_t put(size_t at, unsigned ino, unsigned mode, const char *name, size_t name_size,
                  const char *data, size_t size)
{
    if (at + HEADER + name_size + size + 16 > MAX_BYTES) fail("the archive is too large");
    snprintf((char *)archive + at, HEADER + 1,
             "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", ino, mode, 0u, 0u, 1u,
             1700524800u, (unsigned)size, 0u, 0u, 0u, 0u, (unsigned)name_size, 0u);
    memcpy(archive + at + HEADER, name, name_size);
    size_t end = at + HEADER + name_size, body = at + aligned(HEADER + name_size);
    memset(archive + end, 0, body - end);
    memcpy(archive + body, data, size);
    memset(archive + body + size, 0, aligned(size) - size);
    return body + aligned(size);
}

int main(int argc, char **argv)
{
    if (argc != 5) fail("usage: floor PROTOTYPE.cpio NAME N FOLDER");
    const char *prototype_name = argv[2];
    size_t length = strlen(prototype_name);
    read_prototype(argv[1], prototype_name);
    z_stream stream = {0};
    if (deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        fail("deflateInit2");
    long n_nodes = atol(argv[3]);
    for (long node = 0; node < n_nodes; node++) {
        char name[64], path[4096];
        snprintf(name, sizeof name, "n%0*ld", (int)length - 1, node);
        for (size_t i = 0; i < n_places; i++) memcpy(places[i], name, length);
        size_t at = 0;
        for (size_t i = 0; i < n_entries; i++)
            at = put(at, (unsigned)i + 1, entries[i].mode, entries[i].name, entries[i].name_size,
                     entries[i].data, entries[i].size);
        at = put(at, 0, 0, "TRAILER!!!", 11, "", 0);
        stream.next_in = archive;
        stream.avail_in = (uInt)at;
        stream.next_out = packed;
        stream.avail_out = sizeof packed;
        if (deflate(&stream, Z_FINISH) != Z_STREAM_END) fail("deflate");
        snprintf(path, sizeof path, "%s/%s.cpio.gz", argv[4], name);
        FILE *file = fopen(path, "wb");
        if (!file || fwrite(packed, 1, stream.total_out, file) != stream.total_out || fclose(file))
            fail("a file cannot be written");
        deflateReset(&stream);
    }
    return 0;
}
