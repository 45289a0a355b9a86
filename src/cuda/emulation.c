/* A GPU for tests: NVIDIA's driver API, as far as src/cuda/driver.rs uses it, in front of topk.cu run on the CPU.
 *
 * The lanes of a warp are coroutines. Each runs until it reaches a shuffle; a shuffle that some lane
 * does not reach, or reaches with other arguments, fails the launch as it would hang or corrupt on a GPU. Lanes run in
 * ascending and descending order alternately, to expose races.
 *
 * Compiled by src/cuda/tests.rs, which may define DEVICES, CAPABILITY_MAJOR and MODULE_STATUS. */

#define _GNU_SOURCE
#include <setjmp.h>
#include <stddef.h>
#include <string.h>
#include <ucontext.h>

#ifndef DEVICES
#define DEVICES 1
#endif
#ifndef CAPABILITY_MAJOR
#define CAPABILITY_MAJOR 8
#endif
#ifndef MODULE_STATUS
#define MODULE_STATUS 0
#endif

/* ---- the CUDA language ---- */

#define __device__
#define __global__
#define __launch_bounds__(threads)

static struct { unsigned x; } threadIdx, blockIdx;

static int __float_as_int(float value) {
    int bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static long long __shfl_xor_sync(unsigned mask, long long value, int distance, int width);

#include "topk.cu"

/* ---- a warp ---- */

enum { STACK = 64 * 1024 };

struct lane {
    jmp_buf at;
    int distance; /* of the shuffle that it waits in; 0: it has ended */
    long long offered;
};

static struct lane lanes[LANES];
static _Alignas(16) char stacks[LANES][STACK];
static long long exchanged[LANES];
static jmp_buf scheduler;
static unsigned running;
static int broken;

static struct { const float *input; float *values; long long *indices, rows; unsigned row_len, k; } arguments;

static long long __shfl_xor_sync(unsigned mask, long long value, int distance, int width) {
    const unsigned lane = running;
    if (mask != ALL_LANES || width != LANES || distance <= 0 || distance >= LANES) broken = 1;
    lanes[lane].offered = value;
    lanes[lane].distance = distance;
    if (_setjmp(lanes[lane].at) == 0) _longjmp(scheduler, 1);
    return exchanged[lane ^ (unsigned)distance];
}

static void lane_main(void) {
    lfm_top_k(arguments.input, arguments.values, arguments.indices, arguments.rows, arguments.row_len, arguments.k);
    lanes[running].distance = 0;
    _longjmp(scheduler, 1);
}

/* Runs the lane until it waits or ends. */
static void resume(unsigned lane, unsigned warp, int begin) {
    running = lane;
    threadIdx.x = warp * LANES + lane;
    if (_setjmp(scheduler) != 0) return;
    if (!begin) _longjmp(lanes[lane].at, 1);
    static ucontext_t fresh, unused;
    getcontext(&fresh);
    fresh.uc_stack.ss_sp = stacks[lane];
    fresh.uc_stack.ss_size = STACK;
    fresh.uc_link = NULL;
    makecontext(&fresh, lane_main, 0);
    swapcontext(&unused, &fresh);
}

static void run_warp(unsigned warp) {
    for (unsigned turn = 0; turn == 0 || (lanes[0].distance != 0 && !broken); turn++) {
        for (unsigned i = 0; i < LANES; i++) resume(turn % 2 ? LANES - 1 - i : i, warp, turn == 0);
        for (unsigned i = 0; i < LANES; i++) {
            if (lanes[i].distance != lanes[0].distance) broken = 1;
            exchanged[i] = lanes[i].offered;
        }
    }
}

/* ---- the driver ---- */

static int context, module;
static _Thread_local int pushed; /* contexts on the thread's stack */
static const char *image;

int cuInit(unsigned flags) { return flags != 0; }
int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuDeviceGetCount(int *count) { return *count = DEVICES, 0; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal >= DEVICES ? 101 : 0; }
int cuDeviceGetName(char *name, int length, int device) {
    return strncpy(name, "an emulated GPU", (size_t)length), device;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    return *value = attribute == 75 ? CAPABILITY_MAJOR : 0, device;
}
int cuGetErrorString(int status, const char **text) {
    *text = status == 222 ? "the provided PTX was compiled with an unsupported toolchain." : NULL;
    return *text ? 0 : 1;
}
/* Streams are numbers; stream 2 belongs to another device. */
int cuStreamGetCtx(void *stream, void **ctx) {
    return *ctx = stream == (void *)2 ? (void *)&module : (void *)&context, 0;
}
int cuCtxPushCurrent_v2(void *ctx) { return pushed++, ctx == NULL; }
int cuCtxPopCurrent_v2(void **ctx) { return *ctx = &context, pushed-- < 1; }
/* The GPU's memory is the CPU's; copies want the context of CUDA's runtime, retained. */
static _Atomic int retained;
int cuDevicePrimaryCtxRetain(void **ctx, int device) { return *ctx = &context, ++retained < 1 ? 201 : device; }
int cuDevicePrimaryCtxRelease_v2(int device) { return retained-- < 1 ? 201 : device; }
static int copy(void *to, const void *from, size_t bytes) {
    if (pushed != 1 || retained < 1) return 201;
    return memcpy(to, from, bytes), 0;
}
int cuMemcpyHtoD_v2(unsigned long long to, const void *from, size_t bytes) { return copy((void *)to, from, bytes); }
int cuMemcpyDtoH_v2(void *to, unsigned long long from, size_t bytes) { return copy(to, (const void *)from, bytes); }
int cuModuleLoadData(void **loaded, const void *data) {
    return *loaded = &module, image = data, pushed == 1 ? MODULE_STATUS : 201;
}
int cuModuleUnload(void *loaded) { return loaded != &module || pushed != 1; }
int cuModuleGetFunction(void **function, void *loaded, const char *name) {
    *function = &module;
    return loaded != &module || strstr(image, name) == NULL ? 500 : 0;
}
int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void *stream, void **parameters, void **extra) {
    if (function != &module || pushed != 1 || stream == NULL || extra != NULL) return 400;
    if (grid_x == 0 || grid_y != 1 || grid_z != 1 || block_y != 1 || block_z != 1 || shared != 0) return 1;
    if (block_x != LANES * WARPS_A_BLOCK) return 1;
    memcpy(&arguments.input, parameters[0], sizeof arguments.input);
    memcpy(&arguments.values, parameters[1], sizeof arguments.values);
    memcpy(&arguments.indices, parameters[2], sizeof arguments.indices);
    memcpy(&arguments.rows, parameters[3], sizeof arguments.rows);
    memcpy(&arguments.row_len, parameters[4], sizeof arguments.row_len);
    memcpy(&arguments.k, parameters[5], sizeof arguments.k);
    broken = 0;
    for (blockIdx.x = 0; blockIdx.x < grid_x; blockIdx.x++)
        for (unsigned warp = 0; warp < WARPS_A_BLOCK && !broken; warp++) run_warp(warp);
    return broken ? 719 : 0;
}
