/* Top-K of the rows of a matrix, one warp a row: the order is that of src/topk/mod.rs, to the last bit.
 *
 * Each lane owns a column of its row, written in lines of 32, and knows the largest key in it that has not been taken
 * yet. The warp takes the largest of its lanes' keys, looks together for the next one in that column, and so on, k
 * times. Nothing is sorted or kept in shared memory, k and the length are arbitrary, and the cost does not depend on the
 * data. The lanes never diverge.
 *
 * NVRTC compiles this to topk.ptx (`make ptx`); it is C too, and tests run it on a CPU (src/cuda/emulation.c). */

#define LANES 32
#define WARPS_A_BLOCK 4
#define ALL_LANES 0xffffffffu

/* A value's rank in the upper half, the complement of its index in the lower half: no two are equal. */
typedef long long key;

/* Below every key. */
#define LOWEST ((key)-0x7fffffffffffffffLL - 1)

static __device__ key pack(float value, unsigned index) {
    /* Adding +0 turns -0 into +0 and nothing else; flipping the magnitude of the negative ones makes two's complement
     * order theirs. NaN ranks above all, and all NaN alike. */
    const int bits = __float_as_int(value + 0.0f);
    const int ordered = value != value ? 0x7fffffff : bits ^ ((bits >> 31) & 0x7fffffff);
    return (key)((unsigned long long)(unsigned)ordered << 32 | ~index);
}

static __device__ key largest_of_warp(key mine) {
    for (int distance = LANES / 2; distance > 0; distance /= 2) {
        const key other = __shfl_xor_sync(ALL_LANES, mine, distance, LANES);
        mine = other > mine ? other : mine;
    }
    return mine;
}

/* input: rows x row_len; values and indices: rows x k; 1 <= k <= row_len < 2^31. */
#ifdef __cplusplus
extern "C"
#endif
__global__ void __launch_bounds__(LANES * WARPS_A_BLOCK)
    lfm_top_k(const float *input, float *values, long long *indices, long long rows, unsigned row_len, unsigned k) {
    const unsigned lane = threadIdx.x % LANES;
    const long long row = (long long)blockIdx.x * WARPS_A_BLOCK + threadIdx.x / LANES;
    if (row >= rows) return;
    const float *const from = input + row * row_len;
    values += row * k;
    indices += row * k;

    key best = LOWEST;
    for (unsigned i = lane; i < row_len; i += LANES) {
        const key candidate = pack(from[i], i);
        best = candidate > best ? candidate : best;
    }
    unsigned mine = 0;
    for (unsigned rank = 0; rank < k; rank++) {
        const key taken = largest_of_warp(best);
        const unsigned index = ~(unsigned)taken;
        const unsigned column = index % LANES;
        key next = LOWEST;
        for (unsigned i = column + lane * LANES; i < row_len; i += LANES * LANES) {
            const key candidate = pack(from[i], i);
            next = candidate < taken && candidate > next ? candidate : next;
        }
        next = largest_of_warp(next);
        best = lane == column ? next : best;

        /* Each lane keeps one of 32 results, so that they are written side by side. */
        const unsigned kept = rank % LANES;
        mine = lane == kept ? index : mine;
        if ((kept == LANES - 1 || rank == k - 1) && lane <= kept) {
            values[rank - kept + lane] = from[mine];
            indices[rank - kept + lane] = mine;
        }
    }
}
