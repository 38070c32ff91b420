/* SPDX-License-Identifier: MIT
 *
 * fused.cu - backend "fused": the whole LeNet-5 in one kernel, in exact float32.
 *
 * fused_kernel: a block takes a tile of 16 images through all layers; nothing but bytes comes
 * in and logits go out. The rule that shapes everything: lane = image. The 16 lanes of a
 * half-warp do the same work on 16 images, so that an activation is one line of 64 bytes in
 * shared memory, its 16 images side by side, and a weight is one address for all of them. The 8
 * half-warps ("workers") divide a layer's outputs among themselves. Two blocks live on a
 * multiprocessor and fill each other's waits at barriers.
 *
 * fused_one_kernel: with few images that would leave most of the card idle. A block takes one
 * image, and its threads divide the places of a map.
 *
 * What limits it is the rate of FFMA, and below that the register ports: an FFMA with three
 * fresh operands takes two cycles, one that reuses the operand of the FFMA before takes one.
 * Hence the loops go "for each weight, for each output it enters", in long runs.
 *
 * Activations. tanh(z) = 1 - 2 / (1 + 2^(2 log2(e) z)), as the chip has 2^x and 1/x; the factor
 * before z is folded into the weights (family.c). sigmoid(z) is 0.5 + 0.5 tanh(z / 2), folded
 * too.
 *
 * Networks outside the family of family.h are refused in open; floats as input are refused.
 */
#include "whole.cuh"

#include <cuda_pipeline.h>
#include <math.h>

namespace {

enum {
    IMAGES = 16, /* a tile; a half-warp has one image a lane */
    THREADS = 128,
    WARPS = THREADS / 32,
    WORKERS = THREADS / IMAGES,
    BLOCKS_PER_SM = 2,
    BYTES_COPIED = 16 /* at a time, from device memory */
};
static_assert(IMAGES == 16 && WORKERS == 8, "the division of work below is for 8 half-warps");

/* ---- Shapes and memory ---- */

/* Sizes of one member of the family; the letters are those of family.h. */
template <int SIDE_, int BORDER_> struct Shape {
    static constexpr int SIDE = SIDE_, BORDER = BORDER_;
    static constexpr int PIXELS = SIDE * SIDE;
    /* An odd number of 16-byte pieces, so that lanes fall into different banks. */
    static constexpr int IMAGE_PITCH = PIXELS + (PIXELS / 16 % 2 ? 0 : 16);
    static constexpr int C1_SIDE = SIDE + 2 * BORDER - 4;
    static constexpr int P = C1_SIDE / 2;
    static constexpr int C3_SIDE = P - 4;
    static constexpr int Q = C3_SIDE / 2;
    static constexpr int FLAT = C3_MAPS * Q * Q;
    static_assert(PIXELS % BYTES_COPIED == 0 && SIDE % 4 == 0 && P % 2 == 0, "tile");
};

/* A dense layer's weights as its loop reads them: for each input k, groups of 8 lanes read
   8 x 4 floats at once; lane g of them owns outputs g * PER to g * PER + PER - 1. Inputs and
   outputs are filled up with zeros. */
template <int INPUTS_, int OUTPUTS_> struct Dense {
    static constexpr int INPUTS = INPUTS_, OUTPUTS = OUTPUTS_;
    static constexpr int GROUPS = 8;
    static constexpr int PER = (OUTPUTS + GROUPS - 1) / GROUPS; /* outputs of a lane */
    static constexpr int VECTORS = (PER + 3) / 4;
    static constexpr int STEPS = (INPUTS + 2 * WARPS - 1) / (2 * WARPS); /* two inputs each */
    static constexpr int ROWS = 2 * WARPS * STEPS; /* inputs with their filling */
    static constexpr int COLUMNS = GROUPS * PER;   /* outputs with theirs */
    float4 weight[ROWS][VECTORS][GROUPS];
};

/* What stays in shared memory: weights of the convolutions and all biases. C1 twice, as read
   from the left and from the right: see conv1. In C3 the 4 channels of a group lie side by
   side. */
struct Resident {
    float c1[2][C1_MAPS][28]; /* 25, the bias, 2 of filling for 16-byte reads */
    float4 c3[C1_MAPS][5][C3_MAPS / 4][5];
    float4 c3_bias[C3_MAPS / 4];
    float c5_bias[C5_SIZE], f6_bias[F6_SIZE + 4], out_bias[CLASSES + 6]; /* with filling */
};

template <class S> struct Weights {
    Resident resident;
    Dense<S::FLAT, C5_SIZE> c5;
    Dense<C5_SIZE, F6_SIZE> f6;
    Dense<F6_SIZE, CLASSES> out;
};

/* What the dense layers read and write. */
template <class S> struct DenseTile {
    float s4[S::FLAT][IMAGES];                                      /* [row][channel][column] */
    float partial[WARPS][Dense<S::FLAT, C5_SIZE>::COLUMNS][IMAGES]; /* sums of one warp each */
    float c5[Dense<C5_SIZE, F6_SIZE>::ROWS][IMAGES];
    float f6[Dense<F6_SIZE, CLASSES>::ROWS][IMAGES];
};

template <class S> struct Shared {
    Resident resident;
    union {
        float s2[S::P][C1_MAPS][S::P][IMAGES]; /* S2's output; dies row by row in conv2, */
        DenseTile<S> dense;                    /* whose output takes its place */
    };
    uint8_t image[IMAGES][S::IMAGE_PITCH];
};
static_assert(sizeof(Shared<Shape<28, 2>>) <= 99 * 1024, "fits cards of 100 KB, once");
static_assert(sizeof(Shared<Shape<32, 0>>) <= 113 * 1024, "fits cards of 228 KB, twice");

/* By all threads of a block. */
__device__ inline void load_resident(Resident &to, const Resident &from, int threads) {
    for (int k = threadIdx.x; k < (int)(sizeof to / sizeof(float4)); k += threads)
        ((float4 *)&to)[k] = ((const float4 *)&from)[k];
}

/* A window of C1, the bias behind it. */
__device__ inline void load_c1(float (&w)[28], const float (&c1)[28]) {
#pragma unroll
    for (int k = 0; k < 7; k++)
        *(float4 *)&w[4 * k] = *(const float4 *)&c1[4 * k];
}

/* ---- Activations ---- */

/* Element o of four; o is known at compile time. */
__device__ inline float part(const float4 &v, int o) {
    return o == 0 ? v.x : o == 1 ? v.y : o == 2 ? v.z : v.w;
}

/* y of the form in family.h: tanh of z / (2 log2(e)), or relu. */
template <bool SOFT> __device__ inline float activate_one(float z) {
    return SOFT ? tanh_of_scaled(z) : fmaxf(z, 0.0f);
}

/* The same pooled: of the largest of four, as all functions here grow steadily; the average of
   four tanh, or the sum of four relu. The average is 1 - (1/a + 1/b + 1/c + 1/d) / 2 with
   a = 1 + 2^z0 and so on, by one division in place of four:
       1/a + 1/b + 1/c + 1/d = ((a + b) cd + (c + d) ab) / abcd
   where a to d are scaled by 2^-31 and cut at 1, so that no product leaves the range of floats.
   The sum comes out 2^31 times as large; cutting loses what is below 2^-31. */
template <bool SOFT, bool MAX>
__device__ inline float activate_pooled(float z0, float z1, float z2, float z3) {
    constexpr float TINY = 1.0f / 2147483648.0f;
    if (MAX)
        return activate_one<SOFT>(fmaxf(fmaxf(z0, z1), fmaxf(z2, z3)));
    if (!SOFT)
        return (fmaxf(z0, 0.0f) + fmaxf(z1, 0.0f)) + (fmaxf(z2, 0.0f) + fmaxf(z3, 0.0f));
    const float a = __saturatef(fmaf(exp2_approx(z0), TINY, TINY));
    const float b = __saturatef(fmaf(exp2_approx(z1), TINY, TINY));
    const float c = __saturatef(fmaf(exp2_approx(z2), TINY, TINY));
    const float d = __saturatef(fmaf(exp2_approx(z3), TINY, TINY));
    const float ab = a * b, cd = c * d;
    const float sum = fmaf(a + b, cd, (c + d) * ab) * reciprocal_approx(ab * cd);
    return fmaf(sum, -0.5f * TINY, 1.0f);
}

form form_of(const family *f) {
    if (f->activation == ACT_RELU)
        return {1.0, 1.0, 0.0, f->max_pool ? 1.0 : 0.25, 0.0};
    if (f->activation == ACT_SIGMOID)
        return {M_LOG2E, 0.5, 0.5, 0.5, 0.5};
    return {2.0 * M_LOG2E, 1.0, 0.0, 1.0, 0.0};
}

/* ---- Layers ---- */

/* Starts the copy of a tile's images; past the end of the batch it leaves what is there, whose
   results nobody reads. */
template <class S>
__device__ inline void load_images(Shared<S> &s, const whole_arguments &a, int tile) {
    constexpr int PIECES = S::PIXELS / BYTES_COPIED;
    const int images = min(a.n - tile * IMAGES, (int)IMAGES);
    const uint8_t *from = a.bytes + (size_t)tile * IMAGES * S::PIXELS;
    for (int k = threadIdx.x; k < images * PIECES; k += THREADS)
        __pipeline_memcpy_async(&s.image[k / PIECES][k % PIECES * BYTES_COPIED],
                                from + k * BYTES_COPIED, BYTES_COPIED);
    __pipeline_commit();
}

/* Byte k of a word as a float, without the conversion unit: 0x4B0000bb is 2^23 + bb. pick is
   a selector for __byte_perm made by pick_byte. */
__device__ inline float byte_to_float(uint32_t word, uint32_t pick) {
    return __uint_as_float(__byte_perm(word, 0x4B000000u, pick)) - 8388608.0f;
}

__device__ inline uint32_t pick_byte(int k) {
    return 0x7540u + k;
}

/* C1 and S2: 5 x 5 window over bytes, 6 maps, activation, 2 x 2 pooling.
 *     image[16][SIDE][SIDE] -> s2[P][6][P][16]
 * An item is one row of S2, left or right half of it, three maps; a worker has P / 2 items.
 * The right half is computed as its mirror image (bytes and weights reversed), so that there is
 * one piece of code, and the border's zero columns are in both at the beginning, where they are
 * skipped. The window's 6 rows stay in registers for all three maps. */
template <class S, bool SOFT, bool MAX>
__device__ inline void conv1(Shared<S> &s, int lane, int worker) {
    constexpr int HALF = S::C1_SIDE / 2; /* outputs of a row */
    constexpr int COLUMNS = HALF + 4;    /* inputs of a row, border included */
    constexpr int WORDS = (COLUMNS - S::BORDER + 3) / 4;
    constexpr int MAPS = C1_MAPS / 2;
    const int mirror = worker & 1, first_map = (worker >> 1 & 1) * MAPS;
    const uint32_t *words = (const uint32_t *)s.image[lane] + (mirror ? S::SIDE / 4 - 1 : 0);
    const int step = mirror ? -1 : 1;
    const uint32_t flip = mirror ? 3 : 0;

#pragma unroll 1
    for (int p = worker >> 2; p < S::P; p += 2) {
        float x[6][COLUMNS];
#pragma unroll
        for (int u = 0; u < 6; u++) {
            const int row = 2 * p + u - S::BORDER;
            const bool inside = !S::BORDER || (row >= 0 && row < S::SIDE);
            uint32_t word[WORDS];
#pragma unroll
            for (int k = 0; k < WORDS; k++)
                word[k] = inside ? words[row * (S::SIDE / 4) + k * step] : 0;
#pragma unroll
            for (int v = 0; v < COLUMNS; v++) {
                const int k = v - S::BORDER;
                x[u][v] = k < 0 ? 0.0f : byte_to_float(word[k / 4], pick_byte(k % 4) ^ flip);
            }
        }
#pragma unroll 1
        for (int o = first_map; o < first_map + MAPS; o++) {
            float w[28], z[2][HALF];
            load_c1(w, s.resident.c1[mirror][o]);
#pragma unroll
            for (int q = 0; q < HALF; q++)
                z[0][q] = z[1][q] = w[25];
#pragma unroll
            for (int u = 0; u < 5; u++)
#pragma unroll
                for (int v = 0; v < 5; v++)
#pragma unroll
                    for (int r = 0; r < 2; r++)
#pragma unroll
                        for (int q = 0; q < HALF; q++)
                            if (q + v >= S::BORDER)
                                z[r][q] = fmaf(w[5 * u + v], x[r + u][q + v], z[r][q]);
            float *y = &s.s2[p][o][mirror ? S::P - 1 : 0][lane];
#pragma unroll
            for (int q = 0; q < HALF / 2; q++)
                y[q * step * IMAGES] = activate_pooled<SOFT, MAX>(z[0][2 * q], z[0][2 * q + 1],
                                                                  z[1][2 * q], z[1][2 * q + 1]);
        }
    }
}

/* Adds to an item of C3, 2 rows of 4 output maps, what input maps from to to-1 bring.
   z[map][row][column]. The loops are not unrolled, as code must fit the instruction cache. */
template <class S>
__device__ inline void conv2_add(const Shared<S> &s, float (&z)[4][2][S::C3_SIDE], int row,
                                 int group, int lane, int from, int to) {
#pragma unroll 1
    for (int c = from; c < to; c++)
#pragma unroll 1
        for (int u = 0; u < 5; u++) {
            float x[2][S::P];
            float4 w[5];
#pragma unroll
            for (int v = 0; v < 5; v++)
                w[v] = s.resident.c3[c][u][group][v];
#pragma unroll
            for (int r = 0; r < 2; r++)
#pragma unroll
                for (int v = 0; v < S::P; v++)
                    x[r][v] = s.s2[row + r + u][c][v][lane];
#pragma unroll
            for (int v = 0; v < 5; v++)
#pragma unroll
                for (int o = 0; o < 4; o++)
#pragma unroll
                    for (int r = 0; r < 2; r++)
#pragma unroll
                        for (int q = 0; q < S::C3_SIDE; q++)
                            z[o][r][q] = fmaf(part(w[v], o), x[r][q + v], z[o][r][q]);
        }
}

/* C3 and S4: 5 x 5 window over 6 maps, 16 maps, activation, 2 x 2 pooling.
 *     s2[P][6][P][16] -> s4[row][16][column][16]
 * An item is one row of S4 for 4 maps. Rows 0 and 1, then 2 and 3: 8 items, one a worker. Row
 * 4, where there is one, has 4 items: a warp has one, its two workers take 3 of the 6 input
 * maps each, and exchange sums so that each finishes 2 of the 4 maps. The output overlays rows
 * of s2 that are dead by then; hence the barriers. */
template <class S, bool SOFT, bool MAX>
__device__ inline void conv2(Shared<S> &s, int lane, int worker) {
    constexpr int SIDE = S::C3_SIDE;
    constexpr int ROUND = 2 * C3_MAPS * S::Q * IMAGES; /* floats written in a round */
    constexpr int DEAD = C1_MAPS * S::P * IMAGES;      /* floats of a row of s2 */
    static_assert(2 * ROUND <= 4 * DEAD && 5 * ROUND / 2 <= 8 * DEAD,
                  "rounds 0, 1 and the lone row write rows of s2 that are dead by then");
    const int half = worker & 1, warp = worker >> 1;
#pragma unroll 1
    for (int round = 0; round < (S::Q + 1) / 2; round++) {
        const bool last = 2 * round + 1 == S::Q; /* a lone row */
        const int row = last ? S::Q - 1 : 2 * round + (warp >> 1);
        const int group = last ? warp : worker & 3;
        float z[4][2][SIDE];
        const float4 b4 = s.resident.c3_bias[group];
        const float bias[4] = {b4.x, b4.y, b4.z, b4.w};
#pragma unroll
        for (int o = 0; o < 4; o++)
#pragma unroll
            for (int q = 0; q < SIDE; q++)
                z[o][0][q] = z[o][1][q] = last && half ? 0.0f : bias[o];
        conv2_add<S>(s, z, 2 * row, group, lane, last && half ? 3 : 0, last && !half ? 3 : 6);
        if (last) {
#pragma unroll
            for (int o = 0; o < 2; o++)
#pragma unroll
                for (int r = 0; r < 2; r++)
#pragma unroll
                    for (int q = 0; q < SIDE; q++) {
                        const float give = half ? z[o][r][q] : z[o + 2][r][q];
                        const float keep = half ? z[o + 2][r][q] : z[o][r][q];
                        z[o][r][q] = keep + __shfl_xor_sync(~0u, give, 16);
                    }
        }
        __syncthreads(); /* everybody has read the rows that are overwritten now */
        const int first = 4 * group + (last ? 2 * half : 0);
        float(*y)[IMAGES] = &s.dense.s4[(row * C3_MAPS + first) * S::Q];
#pragma unroll
        for (int o = 0; o < 4; o++)
            if (o < 2 || !last)
#pragma unroll
                for (int q = 0; q < S::Q; q++)
                    y[o * S::Q + q][lane] = activate_pooled<SOFT, MAX>(
                        z[o][0][2 * q], z[o][0][2 * q + 1], z[o][1][2 * q], z[o][1][2 * q + 1]);
    }
}

/* What a thread of a dense layer does. Each warp takes a quarter of the inputs, and of those
   the even lanes the even, the odd lanes the odd ones. A thread has 8 images x PER outputs in
   registers, so that of each input it reads 8 numbers from shared memory and PER weights from
   the L2 cache for 8 * PER FFMA. Weights are requested AHEAD steps early. */
template <class D> struct DenseThread {
    static constexpr int AHEAD = 5;
    float4 w[AHEAD][D::VECTORS];
    int odd, images, group, first;

    /* Requests the first weights; a barrier may lie between this and the rest. */
    __device__ explicit DenseThread(const D &d) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        odd = lane & 1;
        images = (lane >> 1 & 1) * 8;
        group = lane >> 2;
        first = warp * 2 * D::STEPS + odd;
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            request(d, a, first + 2 * a);
    }

    __device__ void request(const D &d, int a, int k) {
#pragma unroll
        for (int v = 0; v < D::VECTORS; v++)
            w[a][v] = __ldg(&d.weight[k][v][group]);
    }

    /* x[INPUTS][16] -> partial[warp][OUTPUTS][16], before bias and activation. */
    __device__ void sums(const D &d, const float (*x)[IMAGES], float (*partial)[IMAGES]) {
        float z[8][D::PER];
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int o = 0; o < D::PER; o++)
                z[i][o] = 0.0f;
#pragma unroll 1
        for (int step = 0; step < D::STEPS; step += AHEAD)
#pragma unroll
            for (int a = 0; a < AHEAD; a++) {
                if (D::STEPS % AHEAD && step + a >= D::STEPS)
                    break;
                const int k = first + 2 * (step + a);
                float xi[8];
                *(float4 *)&xi[0] = *(const float4 *)&x[k][images];
                *(float4 *)&xi[4] = *(const float4 *)&x[k][images + 4];
#pragma unroll
                for (int o = 0; o < D::PER; o++)
#pragma unroll
                    for (int i = 0; i < 8; i++)
                        z[i][o] = fmaf(part(w[a][o / 4], o % 4), xi[i], z[i][o]);
                if (step + a + AHEAD < D::STEPS)
                    request(d, a, k + 2 * AHEAD);
            }
        /* Even and odd lane exchange: each adds up 4 of the 8 images. */
        float(*y)[IMAGES] = partial + (first / (2 * D::STEPS)) * D::COLUMNS + group * D::PER;
#pragma unroll
        for (int o = 0; o < D::PER; o++) {
            float sum[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float give = odd ? z[i][o] : z[i + 4][o];
                const float keep = odd ? z[i + 4][o] : z[i][o];
                sum[i] = keep + __shfl_xor_sync(~0u, give, 1);
            }
            *(float4 *)&y[o][images + 4 * odd] = make_float4(sum[0], sum[1], sum[2], sum[3]);
        }
    }
};

/* The four warps' sums and the bias; o is an output and i an image. */
template <class D>
__device__ inline float dense_sum(const float *bias, const float (*partial)[IMAGES], int o,
                                  int i) {
    float sum = bias[o];
#pragma unroll
    for (int warp = 0; warp < WARPS; warp++)
        sum += partial[warp * D::COLUMNS + o][i];
    return sum;
}

/* C5 and F6: y[OUTPUTS][16] = activation(sums + bias). The outputs that fill up have zero
   weights, and so has whoever reads them. */
template <class D, bool SOFT>
__device__ inline void dense_activate(const float *bias, const float (*partial)[IMAGES],
                                      float (*y)[IMAGES]) {
    for (int k = threadIdx.x; k < D::COLUMNS * IMAGES; k += THREADS)
        y[k / IMAGES][k % IMAGES] =
            activate_one<SOFT>(dense_sum<D>(bias, partial, k / IMAGES, k % IMAGES));
}

/* C5, F6 and OUT for a tile: s4[FLAT][16] -> c5[120][16] -> f6[84][16] -> logits[n][10] in
 * device memory. Each layer's sums, a barrier, bias and activation, a barrier; the next layer's
 * first weights are requested while that goes on. */
template <class S, bool SOFT>
__device__ inline void dense(DenseTile<S> &s, const Resident &resident, const Weights<S> &w,
                             const whole_arguments &a, int tile, long long &since) {
    using C5 = decltype(w.c5);
    using F6 = decltype(w.f6);
    using Out = decltype(w.out);
    float(*partial)[IMAGES] = s.partial[0];
    DenseThread<C5> c5(w.c5);
    __syncthreads(); /* s4 is complete */
    c5.sums(w.c5, s.s4, partial);
    __syncthreads(); /* the sums are complete */

    DenseThread<F6> f6(w.f6);
    dense_activate<C5, SOFT>(resident.c5_bias, partial, s.c5);
    __syncthreads(); /* c5 is complete, the sums are free */
    tick(a, since, STAGE_C5);
    f6.sums(w.f6, s.c5, partial);
    __syncthreads();

    DenseThread<Out> out(w.out);
    dense_activate<F6, SOFT>(resident.f6_bias, partial, s.f6);
    __syncthreads();
    tick(a, since, STAGE_F6);
    out.sums(w.out, s.f6, partial);
    __syncthreads();

    for (int k = threadIdx.x; k < CLASSES * IMAGES; k += THREADS)
        if (tile * IMAGES + k / CLASSES < a.n)
            a.logits[(size_t)tile * IMAGES * CLASSES + k] =
                dense_sum<Out>(resident.out_bias, partial, k % CLASSES, k / CLASSES);
    tick(a, since, STAGE_OUT);
}

/* ---- The same for one image ---- */

/* Every sum adds up in the order of the layers above, so that the bits of a result do not
   depend on the size of its batch. */
enum {
    ONE_THREADS = 256,
    ONE_BLOCKS = 2, /* on a multiprocessor */
    FEW = 6         /* images a multiprocessor, up to which it is sooner done; on an H200 */
};

template <class S> struct One {
    Resident resident;
    float image[S::SIDE + 2 * S::BORDER][S::SIDE + 2 * S::BORDER]; /* with its border */
    float s2[C1_MAPS][S::P][S::P];
    float s4[S::FLAT]; /* as in DenseTile, and so on */
    float partial[WARPS][C5_SIZE];
    float c5[Dense<C5_SIZE, F6_SIZE>::ROWS];
    float f6[Dense<F6_SIZE, CLASSES>::ROWS];
};

/* bytes[SIDE][SIDE] -> image with its border. */
template <class S>
__device__ inline void load_one(One<S> &s, const whole_arguments &a, int image) {
    constexpr int SPAN = S::SIDE + 2 * S::BORDER;
    const uint8_t *bytes = a.bytes + (size_t)image * S::PIXELS;
    for (int k = threadIdx.x; k < SPAN * SPAN; k += ONE_THREADS) {
        const int r = k / SPAN - S::BORDER, q = k % SPAN - S::BORDER;
        const bool inside = r >= 0 && r < S::SIDE && q >= 0 && q < S::SIDE;
        s.image[k / SPAN][k % SPAN] = inside ? (float)bytes[r * S::SIDE + q] : 0.0f;
    }
}

/* The 6 x 6 inputs of 2 x 2 neighbouring windows; right to left if mirror. */
template <int SIDE>
__device__ inline void load_windows(float (&x)[6][6], const float (*map)[SIDE], int r, int q,
                                    bool mirror) {
#pragma unroll
    for (int u = 0; u < 6; u++)
#pragma unroll
        for (int v = 0; v < 6; v++)
            x[u][v] = map[r + u][q + (mirror ? 5 - v : v)];
}

/* C1 and S2: image -> s2[6][P][P]. A thread has one place of S2 in all maps; right of the
   middle it goes from right to left, as in conv1. */
template <class S, bool SOFT, bool MAX> __device__ inline void conv1_one(One<S> &s) {
    static_assert(S::P * S::P <= ONE_THREADS, "each thread has at most one place");
    const int p = threadIdx.x / S::P, q = threadIdx.x % S::P;
    const bool mirror = q >= S::P / 2;
    float x[6][6];
    if (p >= S::P)
        return;
    load_windows(x, s.image, 2 * p, 2 * q, mirror);
#pragma unroll 1
    for (int o = 0; o < C1_MAPS; o++) {
        float w[28], z[4]; /* z[2 * row + column] of the four windows */
        load_c1(w, s.resident.c1[mirror][o]);
        z[0] = z[1] = z[2] = z[3] = w[WINDOW];
#pragma unroll
        for (int u = 0; u < 5; u++)
#pragma unroll
            for (int v = 0; v < 5; v++)
#pragma unroll
                for (int k = 0; k < 4; k++)
                    z[k] = fmaf(w[5 * u + v], x[u + k / 2][v + k % 2], z[k]);
        s.s2[o][p][q] = activate_pooled<SOFT, MAX>(z[0], z[1], z[2], z[3]);
    }
}

/* C3 and S4: s2[6][P][P] -> s4[row][16][column]. A thread has one place of S4 in two maps. In a
   lone last row the input maps are summed up in two halves, as in conv2. */
template <class S, bool SOFT, bool MAX> __device__ inline void conv2_one(One<S> &s) {
    constexpr int PAIRS = C3_MAPS / 2;
    static_assert(PAIRS * S::Q * S::Q <= ONE_THREADS, "each thread has at most one place");
    const int pair = threadIdx.x % PAIRS, place = threadIdx.x / PAIRS;
    const int row = place / S::Q, q = place % S::Q;
    const bool lone = S::Q % 2 && row == S::Q - 1;
    const float2 bias = ((const float2 *)s.resident.c3_bias)[pair];
    float z[2][4], first[2][4]; /* [map][window] */
    if (row >= S::Q)
        return;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        z[0][k] = bias.x;
        z[1][k] = bias.y;
        first[0][k] = first[1][k] = 0.0f;
    }
#pragma unroll 1
    for (int c = 0; c < C1_MAPS; c++) {
        float x[6][6];
        load_windows(x, s.s2[c], 2 * row, 2 * q, false);
        if (lone && c == C1_MAPS / 2)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                first[0][k] = z[0][k];
                first[1][k] = z[1][k];
                z[0][k] = z[1][k] = 0.0f;
            }
#pragma unroll
        for (int u = 0; u < 5; u++)
#pragma unroll
            for (int v = 0; v < 5; v++) {
                const float4 *four = &s.resident.c3[c][u][pair / 2][v];
                const float2 w = ((const float2 *)four)[pair % 2];
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    z[0][k] = fmaf(w.x, x[u + k / 2][v + k % 2], z[0][k]);
                    z[1][k] = fmaf(w.y, x[u + k / 2][v + k % 2], z[1][k]);
                }
            }
    }
#pragma unroll
    for (int o = 0; o < 2; o++) {
#pragma unroll
        for (int k = 0; k < 4; k++)
            z[o][k] = lone ? first[o][k] + z[o][k] : z[o][k];
        s.s4[(row * C3_MAPS + 2 * pair + o) * S::Q + q] =
            activate_pooled<SOFT, MAX>(z[o][0], z[o][1], z[o][2], z[o][3]);
    }
}

/* x[INPUTS] -> partial[quarter][OUTPUTS], before bias and activation, in the order of
   DenseThread: two neighbours, one for even and one for odd inputs, have four outputs for a
   quarter of the inputs. AHEAD of their weights are on the way at once. */
template <class D>
__device__ inline void sums_one(const D &d, const float *x, float (*partial)[C5_SIZE]) {
    constexpr int COLUMNS = D::VECTORS * D::GROUPS, THREADS_USED = 2 * WARPS * COLUMNS;
    constexpr int ROUNDS = (D::STEPS + 16) / 17, AHEAD = (D::STEPS + ROUNDS - 1) / ROUNDS;
    static_assert(THREADS_USED <= ONE_THREADS && THREADS_USED % 32 == 0, "whole warps leave");
    const int odd = threadIdx.x % 2, column = threadIdx.x / 2 % COLUMNS;
    const int quarter = threadIdx.x / 2 / COLUMNS;
    const int vector = column / D::GROUPS, group = column % D::GROUPS;
    const int first = 2 * D::STEPS * quarter + odd;
    float z[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (threadIdx.x >= THREADS_USED)
        return;
#pragma unroll 1
    for (int from = 0; from < D::STEPS; from += AHEAD) {
        float4 w[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++)
            if (from + k < D::STEPS)
                w[k] = __ldg(&d.weight[first + 2 * (from + k)][vector][group]);
#pragma unroll
        for (int k = 0; k < AHEAD; k++)
            if (from + k < D::STEPS)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    z[j] = fmaf(part(w[k], j), x[first + 2 * (from + k)], z[j]);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        z[j] += __shfl_xor_sync(~0u, z[j], 1);
        if (!odd && 4 * vector + j < D::PER)
            partial[quarter][group * D::PER + 4 * vector + j] = z[j];
    }
}

/* Output threadIdx.x of a dense layer before activation; above its outputs something else. */
template <class D>
__device__ inline float dense_one(const D &d, const float *bias, const float *x,
                                  float (*partial)[C5_SIZE]) {
    const int o = min((int)threadIdx.x, D::COLUMNS - 1);
    sums_one(d, x, partial);
    __syncthreads(); /* the sums are complete */
    float sum = bias[o];
#pragma unroll
    for (int quarter = 0; quarter < WARPS; quarter++)
        sum += partial[quarter][o];
    return sum;
}

/* ---- The network ---- */

template <class S, bool SOFT, bool MAX>
__global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) fused_kernel(whole_arguments a) {
    extern __shared__ __align__(16) unsigned char memory[];
    Shared<S> &s = *(Shared<S> *)memory;
    const Weights<S> &w = *(const Weights<S> *)a.weights;
    const int lane = threadIdx.x % IMAGES, worker = threadIdx.x / IMAGES;
    const int tiles = (a.n + IMAGES - 1) / IMAGES;
    long long since = a.clock ? clock64() : 0;

    load_images<S>(s, a, (int)blockIdx.x);
    load_resident(s.resident, w.resident, THREADS);

    for (int tile = (int)blockIdx.x; tile < tiles; tile += gridDim.x) {
        __pipeline_wait_prior(0);
        __syncthreads(); /* images are here; the logits of the tile before are out */
        tick(a, since, STAGE_INPUT);

        conv1<S, SOFT, MAX>(s, lane, worker); /* image -> s2 */
        __syncthreads();                      /* s2 is complete, image is free */
        if (tile + (int)gridDim.x < tiles)
            load_images<S>(s, a, tile + gridDim.x);
        tick(a, since, STAGE_C1);

        conv2<S, SOFT, MAX>(s, lane,
                            worker); /* s2 -> s4, in place; dense waits for all of it */
        tick(a, since, STAGE_C3);

        dense<S, SOFT>(s.dense, s.resident, w, a, tile, since); /* s4 -> logits */
    }
}

/* The same with one image a block. */
template <class S, bool SOFT, bool MAX>
__global__ void __launch_bounds__(ONE_THREADS, ONE_BLOCKS) fused_one_kernel(whole_arguments a) {
    extern __shared__ __align__(16) unsigned char memory[];
    One<S> &s = *(One<S> *)memory;
    const Weights<S> &w = *(const Weights<S> *)a.weights;
    const int o = threadIdx.x; /* the output of dense layers that this thread finishes */

    load_resident(s.resident, w.resident, ONE_THREADS);

    for (int image = (int)blockIdx.x; image < a.n; image += gridDim.x) {
        load_one<S>(s, a, image);
        __syncthreads();
        conv1_one<S, SOFT, MAX>(s);
        __syncthreads();
        conv2_one<S, SOFT, MAX>(s);
        __syncthreads();
        const float c5 = dense_one(w.c5, s.resident.c5_bias, s.s4, s.partial);
        if (o < w.c5.COLUMNS)
            s.c5[o] = activate_one<SOFT>(c5);
        __syncthreads();
        const float f6 = dense_one(w.f6, s.resident.f6_bias, s.c5, s.partial);
        if (o < w.f6.COLUMNS)
            s.f6[o] = activate_one<SOFT>(f6);
        __syncthreads();
        const float out = dense_one(w.out, s.resident.out_bias, s.f6, s.partial);
        if (o < CLASSES)
            a.logits[(size_t)image * CLASSES + o] = out;
    }
}

/* ---- Host: weights ---- */

/* weight(o, k) into the layout of Dense. */
template <class D, class F> void pack_dense(D *d, F weight) {
    for (int k = 0; k < D::INPUTS; k++)
        for (int o = 0; o < D::OUTPUTS; o++) {
            const int group = o / D::PER, j = o % D::PER;
            ((float *)&d->weight[k][j / 4][group])[j % 4] = (float)weight(o, k);
        }
}

void pack_resident(Resident *w, const folded *d) {
    for (int o = 0; o < C1_MAPS; o++)
        for (int mirror = 0; mirror < 2; mirror++) {
            for (int u = 0; u < 5; u++)
                for (int v = 0; v < 5; v++)
                    w->c1[mirror][o][5 * u + v] = (float)d->c1[o][5 * u + (mirror ? 4 - v : v)];
            w->c1[mirror][o][WINDOW] = (float)d->c1_bias[o];
        }
    for (int o = 0; o < C3_MAPS; o++) {
        for (int c = 0; c < C1_MAPS; c++)
            for (int u = 0; u < 5; u++)
                for (int v = 0; v < 5; v++)
                    ((float *)&w->c3[c][u][o / 4][v])[o % 4] = (float)d->c3[o][c][5 * u + v];
        ((float *)&w->c3_bias[o / 4])[o % 4] = (float)d->c3_bias[o];
    }
    for (int o = 0; o < C5_SIZE; o++)
        w->c5_bias[o] = (float)d->c5_bias[o];
    for (int o = 0; o < F6_SIZE; o++)
        w->f6_bias[o] = (float)d->f6_bias[o];
    for (int o = 0; o < CLASSES; o++)
        w->out_bias[o] = (float)d->out_bias[o];
}

template <class S> int pack_weights(void *memory, folded *d, lenet5_error *) {
    Weights<S> *w = (Weights<S> *)memory;
    pack_resident(&w->resident, d);
    pack_dense(&w->c5, [d](int o, int k) { /* S4 is [row][channel][column] here */
                                           const int r = k / (C3_MAPS * S::Q),
                                                     c = k / S::Q % C3_MAPS, q = k % S::Q;
                                           return d->c5[o][(c * S::Q + r) * S::Q + q];
    });
    pack_dense(&w->f6, [d](int o, int k) { return d->f6[o][k]; });
    pack_dense(&w->out, [d](int o, int k) { return d->out[o][k]; });
    return 0;
}

/* ---- Host: what it takes ---- */

/* Bytes through shared memory by a dense layer, for a tile: 128 for each of its threads' reads,
   as neighbours read the same, and 512 for a warp's sums, which differ; then four sums, a bias
   and an output for each output. */
template <class D> constexpr double dense_traffic() {
    return WARPS * (2 * 128 * D::STEPS + 512 * D::PER) + 4 * (WARPS + 2) * D::COLUMNS * IMAGES;
}

/* As cost in backend.h, a half-warp's access to shared memory counting as 64 bytes. */
template <class S, bool SOFT, bool MAX> void count(kernel_stage stages[STAGES]) {
    constexpr int SPECIAL = !SOFT ? 0 : 2, POOLED = MAX || !SOFT ? SPECIAL : 5;
    constexpr int HALF = S::C1_SIDE / 2, WORDS = (HALF + 4 - S::BORDER + 3) / 4;
    using W = Weights<S>;
    double *input = stages[STAGE_INPUT].cost, *out = stages[STAGE_OUT].cost;
    double *c1 = stages[STAGE_C1].cost, *c3 = stages[STAGE_C3].cost;
    double *c5 = stages[STAGE_C5].cost, *f6 = stages[STAGE_F6].cost;
    input[RESOURCE_MEMORY] = input[RESOURCE_SHARED] = S::PIXELS;
    c1[RESOURCE_FMA] = C1_MAPS * WINDOW * S::C1_SIDE * S::C1_SIDE;
    c1[RESOURCE_SPECIAL] = POOLED * C1_MAPS * S::P * S::P;
    c1[RESOURCE_SHARED] = 4.0 * S::P * 64 * (6 * WORDS + 3 * (7 + HALF / 2)) / IMAGES;
    c3[RESOURCE_FMA] = C3_MAPS * C1_MAPS * WINDOW * S::C3_SIDE * S::C3_SIDE;
    c3[RESOURCE_SPECIAL] = POOLED * C3_MAPS * S::Q * S::Q;
    c3[RESOURCE_SHARED] = 4.0 * S::Q * 64 * (5 * C1_MAPS * (2 * S::P + 5) + 4 * S::Q) / IMAGES;
    c5[RESOURCE_FMA] = decltype(W::c5)::ROWS * decltype(W::c5)::COLUMNS;
    c5[RESOURCE_SPECIAL] = SPECIAL * C5_SIZE;
    c5[RESOURCE_SHARED] = dense_traffic<decltype(W::c5)>() / IMAGES;
    f6[RESOURCE_FMA] = decltype(W::f6)::ROWS * decltype(W::f6)::COLUMNS;
    f6[RESOURCE_SPECIAL] = SPECIAL * decltype(W::f6)::COLUMNS;
    f6[RESOURCE_SHARED] = dense_traffic<decltype(W::f6)>() / IMAGES;
    out[RESOURCE_FMA] = decltype(W::out)::ROWS * decltype(W::out)::COLUMNS;
    out[RESOURCE_SHARED] = dense_traffic<decltype(W::out)>() / IMAGES;
    out[RESOURCE_MEMORY] = sizeof(float) * CLASSES;
}

/* ---- Host: the backend ---- */

const whole_variant variants[] = WHOLE_VARIANTS(fused_kernel, Shared, fused_one_kernel, One);
const whole_kind kind = {"fused", 70,       {{IMAGES, THREADS}, {1, ONE_THREADS}},    FEW,
                         form_of, variants, (int)(sizeof variants / sizeof *variants)};

int fused_open(void **state, const model *m, int, int *max_batch, lenet5_error *err) {
    return whole_open(state, &kind, m, max_batch, err);
}

} // namespace

extern const struct backend backend_fused = {"fused",
                                             "the whole network in one kernel, exact float32",
                                             1,
                                             whole_device,
                                             fused_open,
                                             whole_run,
                                             NULL,
                                             whole_close,
                                             whole_run_device,
                                             1,
                                             EXACT,
                                             NULL,
                                             whole_stages};
