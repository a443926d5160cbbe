/* A libnvidia-ml.so.1 without a GPU: what it tells stands in the file that FAKE_NVML names,
 * which is read anew by every call. One thing per line; sizes are bytes, `-` is the GPU itself:
 *
 *   driver VERSION
 *   gpu INDEX UUID TOTAL FREE UTILISATION NAME...
 *   mig INDEX SLOT UUID TOTAL FREE NAME...      a slice; it puts its GPU into MIG mode
 *   process INDEX SLOT|- PID BYTES
 *   fault FUNCTION CODE [INDEX [SLOT|-]]        the function fails, for all or for one device
 *
 * Only what gpu/nvml.py calls is here. Types and codes are declared by hand, from NVML's
 * published interface. With OLD_DRIVER defined, the functions that came later are left out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7 };
enum { GPUS = 16, SLOTS = 7, LINE = 512, ITSELF = -1 };

struct device { int index, slot; };
struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned int version; unsigned long long total, reserved, free, used; };
struct utilisation { unsigned int gpu, memory; };
struct process { unsigned int pid; unsigned long long memory; unsigned int instance, compute; };
struct facts {
    char uuid[96], name[96];
    unsigned long long total, free;
    unsigned int utilisation;
};

static struct device devices[GPUS][SLOTS + 1];

static FILE *opened(void)
{
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (file == NULL) {
        fprintf(stderr, "fake NVML: FAKE_NVML must name a file\n");
        abort();
    }
    return file;
}

static int slot_of(const char *word) { return strcmp(word, "-") == 0 ? ITSELF : atoi(word); }

/* The code that the file asks for; OK if it asks for none. */
static int fault(const char *function, const struct device *device)
{
    char line[LINE], name[96], slot[16];
    int code, index, found = OK;
    FILE *file = opened();
    while (fgets(line, sizeof line, file) != NULL) {
        int words = sscanf(line, "fault %95s %d %d %15s", name, &code, &index, slot);
        if (words < 2 || strcmp(name, function) != 0)
            continue;
        if (words >= 3 && (device == NULL || device->index != index))
            continue;
        if (words == 4 && device->slot != slot_of(slot))
            continue;
        found = code;
    }
    fclose(file);
    return found;
}

/* Whether the device stands in the file; if so, what it says. */
static int find(const struct device *device, struct facts *facts)
{
    char line[LINE];
    int index, slot, found = 0;
    FILE *file = opened();
    while (!found && fgets(line, sizeof line, file) != NULL) {
        facts->utilisation = 0;
        if (device->slot == ITSELF)
            found = sscanf(line, "gpu %d %95s %llu %llu %u %95[^\n]", &index, facts->uuid,
                           &facts->total, &facts->free, &facts->utilisation, facts->name) == 6 &&
                    index == device->index;
        else
            found = sscanf(line, "mig %d %d %95s %llu %llu %95[^\n]", &index, &slot, facts->uuid,
                           &facts->total, &facts->free, facts->name) == 6 &&
                    index == device->index && slot == device->slot;
    }
    fclose(file);
    return found;
}

static int in_mig_mode(int index)
{
    struct facts facts;
    for (int slot = 0; slot < SLOTS; slot++) {
        struct device device = {index, slot};
        if (find(&device, &facts))
            return 1;
    }
    return 0;
}

static struct device *handle(int index, int slot)
{
    struct device *made = &devices[index][slot + 1];
    made->index = index;
    made->slot = slot;
    return made;
}

#define FAIL_IF_TOLD(device)                     \
    do {                                         \
        int code = fault(__func__, device);      \
        if (code != OK)                          \
            return code;                         \
    } while (0)

#define FIND(device, facts)                      \
    do {                                         \
        FAIL_IF_TOLD(device);                    \
        if (!find(device, &facts))               \
            return INVALID;                      \
    } while (0)

int nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    FAIL_IF_TOLD(NULL);
    return OK;
}

int nvmlShutdown(void)
{
    FAIL_IF_TOLD(NULL);
    return OK;
}

const char *nvmlErrorString(int code)
{
    (void)code;
    return "told by the fake";
}

int nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    char line[LINE], told[80] = "";
    FILE *file = opened();
    while (fgets(line, sizeof line, file) != NULL)
        sscanf(line, "driver %79s", told);
    fclose(file);
    FAIL_IF_TOLD(NULL);
    snprintf(version, length, "%s", told);
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned int *count)
{
    struct facts facts;
    FAIL_IF_TOLD(NULL);
    for (*count = 0; *count < GPUS; ++*count) {
        struct device device = {(int)*count, ITSELF};
        if (!find(&device, &facts))
            break;
    }
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, struct device **device)
{
    struct facts facts;
    if (index >= GPUS)
        return INVALID;
    *device = handle((int)index, ITSELF);
    FIND(*device, facts);
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, struct device **device)
{
    struct facts facts;
    for (int index = 0; index < GPUS; index++)
        for (int slot = ITSELF; slot < SLOTS; slot++) {
            struct device one = {index, slot};
            if (!find(&one, &facts) || strcmp(facts.uuid, uuid) != 0)
                continue;
            *device = handle(index, slot);
            FAIL_IF_TOLD(*device);
            return OK;
        }
    FAIL_IF_TOLD(NULL);
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(const struct device *device, char *uuid, unsigned int length)
{
    struct facts facts;
    FIND(device, facts);
    snprintf(uuid, length, "%s", facts.uuid);
    return OK;
}

int nvmlDeviceGetName(const struct device *device, char *name, unsigned int length)
{
    struct facts facts;
    FIND(device, facts);
    snprintf(name, length, "%s", facts.name);
    return OK;
}

int nvmlDeviceGetMemoryInfo(const struct device *device, struct memory *memory)
{
    struct facts facts;
    FIND(device, facts);
    memory->total = facts.total;
    memory->free = facts.free;
    memory->used = facts.total - facts.free;
    return OK;
}

int nvmlDeviceGetUtilizationRates(const struct device *device, struct utilisation *rates)
{
    struct facts facts;
    FIND(device, facts);
    if (device->slot != ITSELF || in_mig_mode(device->index))
        return NOT_SUPPORTED; /* as the real one does */
    rates->gpu = facts.utilisation;
    rates->memory = 0;
    return OK;
}

static int processes(const struct device *device, unsigned int *count, struct process *found)
{
    char line[LINE], slot[16];
    unsigned int room = *count;
    int index;
    struct process one = {0, 0, 0, 0};
    FILE *file = opened();
    *count = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "process %d %15s %u %llu", &index, slot, &one.pid, &one.memory) != 4 ||
            index != device->index || slot_of(slot) != device->slot)
            continue;
        if (found != NULL && *count < room)
            found[*count] = one;
        ++*count;
    }
    fclose(file);
    return *count > room ? TOO_SMALL : OK;
}

int nvmlDeviceGetComputeRunningProcesses_v2(const struct device *device, unsigned int *count,
                                            struct process *found)
{
    FAIL_IF_TOLD(device);
    return processes(device, count, found);
}

int nvmlDeviceGetMigMode(const struct device *device, unsigned int *current, unsigned int *pending)
{
    FAIL_IF_TOLD(device);
    *current = *pending = (unsigned int)in_mig_mode(device->index);
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(const struct device *device, unsigned int *count)
{
    FAIL_IF_TOLD(device);
    *count = SLOTS;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(const struct device *device, unsigned int slot,
                                        struct device **found)
{
    struct facts facts;
    if (slot >= SLOTS)
        return INVALID;
    *found = handle(device->index, (int)slot);
    FAIL_IF_TOLD(*found);
    return find(*found, &facts) ? OK : NOT_FOUND;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetMemoryInfo_v2(const struct device *device, struct memory_v2 *memory)
{
    struct facts facts;
    FIND(device, facts);
    memory->total = facts.total;
    memory->reserved = 0;
    memory->free = facts.free;
    memory->used = facts.total - facts.free;
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(const struct device *device, unsigned int *count,
                                            struct process *found)
{
    FAIL_IF_TOLD(device);
    return processes(device, count, found);
}
#endif
