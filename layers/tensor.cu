/* SPDX-License-Identifier: MIT
 *
 * tensor.cu - backend "tensor": the whole LeNet-5 in one kernel on tensor cores, with operands
 * of 16 bits (half) and sums of 32.
 *
 * Every layer is a product of matrices, A (images and positions) x B (weights) -> C, computed
 * in pieces of 16 x 16 x 8 by the instruction mma.sync. Its operands are spread over a warp's
 * registers: with t = lane % 4 and g = lane / 4, a lane has
 *     A rows g and g + 8, columns 2t, 2t + 1, 2t + 8, 2t + 9    (4 registers, 2 halves each)
 *     B rows 2t, 2t + 1, 2t + 8, 2t + 9, column g               (2 registers)
 *     C rows g and g + 8, columns 2t, 2t + 1                    (4 floats)
 * Row g is image g: a warp owns 8 images, and the rows from 8 on are the same images at another
 * position. So what a lane gets as C are activations of its own image, ready to be stored, and
 * weights stay in registers through a layer. Convolutions need no copies of their windows: A is
 * read straight from the map, and B holds zeros where a window does not reach.
 *
 * A block is 4 warps with 32 images; two blocks live on a multiprocessor. Only the dense layers
 * look over the fence of a warp. What limits it: tanh (16 a clock) in C1, mma.sync in C3.
 *
 * Results differ from float32 by the rounding of operands and activations to 11 bits: in a
 * logit by less than 1e-3 with fresh random weights, by up to 2e-2 with large, trained ones,
 * where the rounding of activations alone does 7e-3. What costs little is done against it:
 * windows of weights are rounded together (round_window), dense layers behind C5 have weights
 * of two halves, and their tanh is exact. Needs compute capability 8.0. Networks outside
 * family.h are refused in open, and so are weights that a half cannot hold. Left out: relu
 * activations, and sums of four, beyond 65504, which no half holds: they become infinite.
 */
#include "whole.cuh"

#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#include <math.h>
#include <string.h>

namespace {

enum {
    WARP_IMAGES = 8,
    WARPS = 4,
    IMAGES = WARP_IMAGES * WARPS, /* a tile */
    THREADS = 32 * WARPS,
    BLOCKS_PER_SM = 2,
    FEW = WARP_IMAGES * BLOCKS_PER_SM, /* images a multiprocessor: a narrow tile a block */
    PAD = 8 /* halves between rows of a matrix, against bank conflicts */
};

/* ---- Shapes and memory ---- */

/* Words per image so that those of 8 images begin 4 banks apart, in some order. */
constexpr int spread(int words) {
    while (words % 8 != 4)
        words++;
    return words;
}

template <int SIDE_, int BORDER_> struct Shape {
    static constexpr int SIDE = SIDE_, BORDER = BORDER_;
    static constexpr int IN = SIDE + 2 * BORDER; /* with its border */
    static constexpr int P = (IN - 4) / 2;
    static constexpr int C3_SIDE = P - 4;
    static constexpr int Q = C3_SIDE / 2;
    static constexpr int FLAT = C3_MAPS * Q * Q;
    static constexpr int PIXELS = SIDE * SIDE;
    static constexpr int LEAD = BORDER ? 64 : 0; /* bytes of zeros above and below an image */
    static constexpr int IMAGE_WORDS = spread((PIXELS + 2 * LEAD) / 4);
    static constexpr int S2_WORDS = spread(P * P * C1_MAPS / 2);
    static_assert(SIDE % 4 == 0 && BORDER % 2 == 0 && P % 2 == 0, "rows and columns in pairs");
    static_assert(LEAD >= BORDER * SIDE + BORDER, "all rows of the border");
    static_assert(2 * FLAT <= 4 * IMAGE_WORDS, "S4 takes the image's place");
    static_assert(IMAGE_WORDS % 4 == 0 && PIXELS % 16 == 0, "in pieces of 16 bytes");
};

/* Weights of 16 x 8 as a warp reads them: lane by lane, its two registers. */
struct Fragment {
    uint2 lane[32];
};

/* A dense layer over the tile: each warp computes TILES * 8 outputs for all 32 images. With
   two TERMS a weight is the sum of two halves, and each 16 inputs take two steps. */
template <int INPUTS, int TILES_, int TERMS_> struct Dense {
    static constexpr int TILES = TILES_, TERMS = TERMS_;
    static constexpr int STEPS = TERMS * ((INPUTS + 15) / 16);
    static constexpr int OUTPUTS = WARPS * TILES * 8; /* with what fills up: weights of zero */
    Fragment weight[STEPS][WARPS][TILES];
    float bias[OUTPUTS];
};

enum {
    C1_STEPS = 3,
    C1_TILES = 6,
    C3_STEPS = 2,
    C3_TILES = 2,
    OUT_STEPS = 2 * ((F6_SIZE + 15) / 16), /* two terms, as in Dense */
    OUT_TILES = 2
};

template <class S> struct Weights {
    Fragment c1[C1_STEPS][C1_TILES];
    Fragment c3[5][C3_STEPS][C3_TILES];
    float c1_bias[4][3]; /* of lane % 4, for its three pooling windows */
    float c3_bias[C3_MAPS];
    Dense<S::FLAT, 4, 1> c5;
    Dense<C5_SIZE, 3, 2> f6;
    Fragment out[OUT_STEPS][OUT_TILES];
    float out_bias[8 * OUT_TILES];
};

constexpr int C5_ROW = 128 + PAD, F6_ROW = 96 + PAD; /* halves */

template <class S> struct Shared {
    /* Bytes with their border: see stage. After C1, an image's place is taken by its S4. */
    uint32_t image[IMAGES][S::IMAGE_WORDS];
    union { /* S2 [row][column][6]; after C3: C5's output */
        uint32_t s2[IMAGES][S::S2_WORDS];
        __half c5[IMAGES][C5_ROW];
    };
    __half f6[IMAGES][F6_ROW];
};
static_assert(sizeof(Shared<Shape<32, 0>>) <= 113 * 1024, "fits cards of 228 KB, twice");

/* ---- Instructions by name ---- */

/* tanh of the special function unit: relative error below 2^-10.9. */
__device__ inline float tanh_approx(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

struct Sum {
    float v[4];
};

/* a x b + c for 16 x 16 halves times 16 x 8 halves. */
__device__ inline Sum mma(const uint32_t (&a)[4], uint2 b, const Sum &c) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    Sum d;
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=f"(d.v[0]), "=f"(d.v[1]), "=f"(d.v[2]), "=f"(d.v[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y), "f"(c.v[0]),
          "f"(c.v[1]), "f"(c.v[2]), "f"(c.v[3]));
    return d;
#else
    (void)a, (void)b; /* older cards are refused in whole_open */
    return c;
#endif
}

/* A of 16 rows x 16 columns from shared memory; each lane gives the address of 8 halves. */
__device__ inline void load_matrix(uint32_t (&a)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

__device__ inline uint32_t pack(float low, float high) {
    const __half2 h = __floats2half2_rn(low, high);
    return *(const uint32_t *)&h;
}

/* ---- Activations: y of the form in family.h ---- */

template <bool SOFT> __device__ inline float activate_one(float z) {
    return SOFT ? tanh_approx(z) : fmaxf(z, 0.0f);
}

/* The same for the dense layers, whose activations are few: before it is rounded to a half. */
template <bool SOFT> __device__ inline float activate_exact(float z) {
    return SOFT ? tanh_of_scaled((float)TANH_GAIN * z) : fmaxf(z, 0.0f);
}

/* For a pooling window: of the largest, or the sum of four. */
template <bool SOFT, bool MAX>
__device__ inline float activate_pooled(float z0, float z1, float z2, float z3) {
    if (MAX)
        return activate_one<SOFT>(fmaxf(fmaxf(z0, z1), fmaxf(z2, z3)));
    return (activate_one<SOFT>(z0) + activate_one<SOFT>(z1)) +
           (activate_one<SOFT>(z2) + activate_one<SOFT>(z3));
}

/* sigmoid(z) = 0.5 + 0.5 tanh(z / 2) */
form form_of(const family *f) {
    const double sum = f->max_pool ? 1.0 : 0.25;
    if (f->activation == ACT_SIGMOID)
        return {0.5, 0.5, 0.5, 0.5 * sum, 0.5};
    return {1.0, 1.0, 0.0, sum, 0.0};
}

/* ---- Layers ---- */

/* What a warp does in a tile. Usually it has 8 images of its own. In a narrow tile, the four
   warps share 8 images: a quarter of the work for each, which a last round or a small batch
   finishes sooner. */
struct Share {
    int tile_images, first; /* of the tile; the first of them that this warp works on */
    int part, parts;        /* of those 8 images' work, this is a warp's */
    int lane, warp;

    __device__ void sync() const {
        if (parts > 1)
            __syncthreads();
        else
            __syncwarp();
    }
};

/* Starts the copy of images from device memory, with rows of zeros above and below if they have
 * a border; its columns are not stored, see two_bytes.
 *     image[8][LEAD + SIDE * SIDE + LEAD]
 * Past the end of the batch the last image is taken again. */
template <class S>
__device__ inline void stage(Shared<S> &s, const whole_arguments &a, int tile,
                             const Share &my) {
    constexpr int PIECES = S::PIXELS / 16, LEAD = S::LEAD / 16;
    for (int i = my.part; i < WARP_IMAGES; i += my.parts) {
        const int image = min(tile * my.tile_images + my.first + i, a.n - 1);
        const uint4 *from = (const uint4 *)a.bytes + (size_t)image * PIECES;
        uint4 *to = (uint4 *)s.image[my.first + i];
        if (my.lane < 2 * LEAD)
            to[my.lane + (my.lane < LEAD ? 0 : PIECES)] = make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int k = my.lane; k < PIECES; k += 32)
            __pipeline_memcpy_async(to + LEAD + k, from + k, sizeof *to);
    }
    __pipeline_commit();
}

/* Asks for the same images to be brought into the L2 cache. */
template <class S>
__device__ inline void prefetch(const whole_arguments &a, int tile, const Share &my) {
    constexpr int LINE = 128, PIXELS = S::PIXELS;
    const size_t first = ((size_t)tile * my.tile_images + my.first) * PIXELS;
    for (int k = my.lane * LINE; k < WARP_IMAGES * PIXELS; k += 32 * LINE)
        if (first + k < (size_t)a.n * PIXELS)
            asm volatile("prefetch.global.L2 [%0];" ::"l"(a.bytes + first + k));
}

/* Two neighbouring bytes as halves, by putting 0x64 before them: 1024 + byte. With PICK_ZEROS,
   for columns of the border, both are 1024 + 0. */
enum { PICK_BYTES = 0x5150, PICK_ZEROS = 0x5454 };
__device__ inline uint32_t two_bytes(const uint8_t *at, int pick) {
    return __byte_perm(*(const uint16_t *)at, 0x64006400, pick);
}

/* One pooling window of a block of C1: number i of the lane, in the images' upper (m = 0) or
   lower half. The third stores them all. */
template <class S, bool SOFT, bool MAX>
__device__ inline void finish(const Sum (&c)[C1_TILES], int m, int i, float (&y)[3],
                              uint32_t *to, int t) {
    const float *z = &c[2 * i].v[2 * m], *z1 = &c[2 * i + 1].v[2 * m];
    y[i] = activate_pooled<SOFT, MAX>(z[0], z[1], z1[0], z1[1]);
    if (i == 2) {
        uint32_t *place = to + m * (S::P / 2) * S::P * (C1_MAPS / 2);
        place[t] = pack(y[0], y[1]);
        ((__half *)place)[8 + t] = __float2half_rn(y[2]);
    }
}

static_assert(C1_STEPS * C1_TILES == 18, "six windows are finished, one after each 3 products");

/* C1 and S2 for 8 images: image -> s2[8][P][P][6], pooled and activated.
 * A block of C is 2 x 4 positions x 6 maps, that is 2 x 6 pooling windows, for 8 images at two
 * places P / 2 pooled rows apart. Its window in the image is 6 rows x 8 columns: three steps of
 * 2 rows x 8 columns. One row of blocks further down, two of the steps' A are known already.
 * Pixels are 1024 too large, see two_bytes; the bias takes that back.
 * B's columns are ordered so that a lane has three whole windows: numbers 2t, 2t + 1 and 8 + t
 * of column * 6 + map. */
template <class S, bool SOFT, bool MAX>
__device__ inline void conv1(Shared<S> &s, const Weights<S> &w, const Share &my) {
    constexpr int ROW = S::SIDE, HALF = S::P / 2, COLUMN = C1_MAPS / 2, LAST = S::P / 2 - 1;
    const int lane = my.lane, g = lane / 4, t = lane % 4;
    const uint8_t *image =
        (const uint8_t *)s.image[my.first + g] + S::LEAD + 2 * t - S::BORDER * (ROW + 1);
    uint32_t *s2 = s.s2[my.first + g];
    uint2 b[C1_STEPS][C1_TILES];
    Sum bias[3];
#pragma unroll
    for (int k = 0; k < C1_STEPS; k++)
#pragma unroll
        for (int j = 0; j < C1_TILES; j++)
            b[k][j] = __ldg(&w.c1[k][j].lane[lane]);
#pragma unroll
    for (int i = 0; i < 3; i++)
        for (float &v : bias[i].v)
            v = __ldg(&w.c1_bias[t][i]);

    __pipeline_wait_prior(0);
    my.sync(); /* the images are complete */
    /* While the tensor cores work on one block, tanh is computed for the one before it. */
    Sum before[C1_TILES] = {};
    uint32_t *to =
        s2 + 2 * my.part * COLUMN; /* its place; at first one that is written again */
#pragma unroll 1
    for (int q = my.part; q < S::P / 2; q += my.parts) { /* 4 columns of C1, 2 of S2 */
        const bool outside = S::BORDER && ((q == 0 && t == 0) || (q == LAST && t == 3));
        const int pick = outside ? PICK_ZEROS : PICK_BYTES;
        uint32_t a[HALF + 2][4];
#pragma unroll
        for (int p = 0; p < HALF + 2; p++) {
            const uint8_t *above = image + 2 * p * ROW + 4 * q, *below = above + 2 * HALF * ROW;
            a[p][0] = two_bytes(above, pick);
            a[p][1] = two_bytes(below, pick);
            a[p][2] = two_bytes(above + ROW, pick);
            a[p][3] = two_bytes(below + ROW, pick);
            if (p < 2)
                continue;
            Sum c[C1_TILES];
            float y[3];
#pragma unroll
            for (int k = 0; k < C1_STEPS; k++)
#pragma unroll
                for (int j = 0; j < C1_TILES; j++) {
                    c[j] = mma(a[p - 2 + k], b[k][j], k ? c[j] : bias[j / 2]);
                    const int done = k * C1_TILES + j; /* every third: a window of before */
                    if (done % 3 == 2)
                        finish<S, SOFT, MAX>(before, done / 9, done / 3 % 3, y, to, t);
                }
            to = s2 + ((p - 2) * S::P + 2 * q) * COLUMN;
#pragma unroll
            for (int j = 0; j < C1_TILES; j++)
                before[j] = c[j];
        }
    }
    float y[3];
#pragma unroll
    for (int k = 0; k < 6; k++)
        finish<S, SOFT, MAX>(before, k / 3, k % 3, y, to, t);
    my.sync(); /* s2 is complete, as far as this warp reads it */
}

/* C3 and S4 for 8 images: s2 -> s4[8][Q][Q][16], pooled and activated.
 * A row of the window is 5 columns x 6 maps, 30 halves that lie side by side in s2: two steps
 * with 2 weights of zero, for which a lane reads any number of its image. C is one position x
 * 16 maps, for 8 images at column 2q and 2q + 1. Going down a column, each row of s2 is read
 * once and enters five rows of C. */
template <class S, bool SOFT, bool MAX>
__device__ inline void conv2(Shared<S> &s, const Weights<S> &w, const Share &my) {
    constexpr int COLUMN = C1_MAPS / 2, ROW = S::P * COLUMN; /* words */
    const int lane = my.lane, g = lane / 4, t = lane % 4;
    const uint32_t *s2 = s.s2[my.first + g] + t;
    const int end = t == 3 ? -1 : 0; /* halves 30 and 31 of the window may lie outside */
    uint32_t *s4 = s.image[my.first + g] + t;
    uint2 b[5][C3_STEPS][C3_TILES];
    Sum bias[C3_TILES];
#pragma unroll
    for (int u = 0; u < 5; u++)
#pragma unroll
        for (int k = 0; k < C3_STEPS; k++)
#pragma unroll
            for (int j = 0; j < C3_TILES; j++)
                b[u][k][j] = __ldg(&w.c3[u][k][j].lane[lane]);
#pragma unroll
    for (int j = 0; j < C3_TILES; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            bias[j].v[i] = __ldg(&w.c3_bias[8 * j + 2 * t + i % 2]);

#pragma unroll 1
    for (int q = my.part; q < S::Q; q += my.parts) {
        Sum c[S::C3_SIDE][C3_TILES];
#pragma unroll
        for (int y = 0; y < S::P; y++) {
            uint32_t a[C3_STEPS][4];
#pragma unroll
            for (int k = 0; k < C3_STEPS; k++) {
                const uint32_t *from = s2 + y * ROW + 2 * q * COLUMN + 8 * k;
                a[k][0] = from[0];
                a[k][1] = from[COLUMN];
                a[k][2] = from[4 + (k == C3_STEPS - 1 ? end : 0)];
                a[k][3] = from[COLUMN + 4 + (k == C3_STEPS - 1 ? end : 0)];
            }
#pragma unroll
            for (int k = 0; k < C3_STEPS; k++)
#pragma unroll
                for (int u = 0; u < 5; u++) {
                    const int r = y - u;
                    if (r < 0 || r >= S::C3_SIDE)
                        continue;
#pragma unroll
                    for (int j = 0; j < C3_TILES; j++)
                        c[r][j] = mma(a[k], b[u][k][j], u || k ? c[r][j] : bias[j]);
                }
            const int r = y - 4; /* complete now */
            if (r < 0 || r % 2 == 0)
                continue;
#pragma unroll
            for (int j = 0; j < C3_TILES; j++) {
                float out[2];
#pragma unroll
                for (int i = 0; i < 2; i++)
                    out[i] = activate_pooled<SOFT, MAX>(c[r - 1][j].v[i], c[r - 1][j].v[i + 2],
                                                        c[r][j].v[i], c[r][j].v[i + 2]);
                s4[((r / 2) * S::Q + q) * (C3_MAPS / 2) + 4 * j] = pack(out[0], out[1]);
            }
        }
    }
}

/* A dense layer for the tile's 32 images: x[32][PITCH] -> y[32][y_pitch], activated; both are
 * halves in shared memory. A warp computes TILES x 8 of the outputs. Weights come from the L2
 * cache, read some steps ahead. meanwhile() is called when x is complete and what the layer
 * before has read is free. */
template <int PITCH, bool SOFT, class D, class F>
__device__ inline void dense(const D &d, const void *x, __half *y, int y_pitch, const Share &my,
                             F meanwhile) {
    constexpr int AHEAD = 5;
    const int lane = my.lane, warp = my.warp;
    const int g = lane / 4, t = lane % 4;
    const __half *row = (const __half *)x + lane % 16 * PITCH + lane / 16 * 8;
    uint2 b[AHEAD][D::TILES];
    Sum c[2][D::TILES];
#pragma unroll
    for (int k = 0; k < AHEAD; k++)
#pragma unroll
        for (int j = 0; j < D::TILES; j++)
            b[k][j] = __ldg(&d.weight[k][warp][j].lane[lane]);
#pragma unroll
    for (int j = 0; j < D::TILES; j++) {
        const float2 two = __ldg((const float2 *)&d.bias[(warp * D::TILES + j) * 8 + 2 * t]);
        c[0][j] = c[1][j] = Sum{{two.x, two.y, two.x, two.y}};
    }
    __syncthreads(); /* x is complete */
    meanwhile();
    uint32_t a[2][4];
#pragma unroll
    for (int k = 0; k < D::STEPS; k++) {
        if (k % D::TERMS == 0) {
            load_matrix(a[0], row + 16 * (k / D::TERMS));
            load_matrix(a[1], row + 16 * PITCH + 16 * (k / D::TERMS));
        }
#pragma unroll
        for (int j = 0; j < D::TILES; j++) {
            c[0][j] = mma(a[0], b[k % AHEAD][j], c[0][j]);
            c[1][j] = mma(a[1], b[k % AHEAD][j], c[1][j]);
            if (k + AHEAD < D::STEPS)
                b[k % AHEAD][j] = __ldg(&d.weight[k + AHEAD][warp][j].lane[lane]);
        }
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int j = 0; j < D::TILES; j++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int image = 16 * m + 8 * half + g;
                *(uint32_t *)&y[image * y_pitch + (warp * D::TILES + j) * 8 + 2 * t] =
                    pack(activate_exact<SOFT>(c[m][j].v[2 * half]),
                         activate_exact<SOFT>(c[m][j].v[2 * half + 1]));
            }
}

/* OUT: f6[32][84] -> logits[n][10] in device memory. A warp has 16 images x 8 outputs, of which
 * the second 8 are two and filling. */
template <class S>
__device__ inline void output(const Shared<S> &s, const Weights<S> &w, const whole_arguments &a,
                              int tile, const Share &my) {
    const int lane = my.lane, warp = my.warp;
    const int m = warp % 2, j = warp / 2, column = 8 * j + lane % 4 * 2;
    const __half *row = &s.f6[16 * m + lane % 16][lane / 16 * 8];
    uint2 b[OUT_STEPS];
#pragma unroll
    for (int k = 0; k < OUT_STEPS; k++)
        b[k] = __ldg(&w.out[k][j].lane[lane]);
    const float2 two = __ldg((const float2 *)&w.out_bias[column]);
    Sum c = {{two.x, two.y, two.x, two.y}};
    __syncthreads(); /* f6 is complete */
    uint32_t x[4];
#pragma unroll
    for (int k = 0; k < OUT_STEPS; k++) {
        if (k % 2 == 0)
            load_matrix(x, row + 16 * (k / 2));
        c = mma(x, b[k], c);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int i = 16 * m + 8 * half + lane / 4, image = tile * my.tile_images + i;
        if (column < CLASSES && i < my.tile_images && image < a.n)
            *(float2 *)&a.logits[(size_t)image * CLASSES + column] =
                make_float2(c.v[2 * half], c.v[2 * half + 1]);
    }
}

/* ---- The network ---- */

template <class S, bool SOFT, bool MAX>
__global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM) tensor_kernel(whole_arguments a) {
    extern __shared__ __align__(16) unsigned char memory[];
    Shared<S> &s = *(Shared<S> *)memory;
    const Weights<S> &w = *(const Weights<S> *)a.weights;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Share my = a.narrow ? Share{WARP_IMAGES, 0, warp, WARPS, lane, warp}
                              : Share{IMAGES, warp * WARP_IMAGES, 0, 1, lane, warp};
    const int tiles = (a.n + my.tile_images - 1) / my.tile_images;
    long long since = a.clock ? clock64() : 0;

    stage<S>(s, a, blockIdx.x, my);
    tick(a, since, STAGE_INPUT);

    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int next = tile + gridDim.x;
        if (next < tiles)
            prefetch<S>(a, next, my);

        conv1<S, SOFT, MAX>(s, w, my); /* image -> s2 */
        tick(a, since, STAGE_C1);
        conv2<S, SOFT, MAX>(s, w, my); /* s2 -> s4, in place of the image */
        tick(a, since, STAGE_C3);

        /* Each of these begins with its barrier: what it reads is complete, and what the one
           before has read may be overwritten. */
        dense<2 * S::IMAGE_WORDS, SOFT>(w.c5, s.image, s.c5[0], C5_ROW, my, [] {});
        tick(a, since, STAGE_C5);
        dense<C5_ROW, SOFT>(w.f6, s.c5, s.f6[0], F6_ROW, my, [&] {
            if (next < tiles)
                stage<S>(s, a, next, my); /* in place of s4 */
        });
        tick(a, since, STAGE_F6);
        output<S>(s, w, a, tile, my); /* -> logits */
        tick(a, since, STAGE_OUT);
    }
}

/* ---- Host: weights ---- */

/* Rounds the weights of a window to halves such that their errors cancel in what the window
 * sees: neighbouring pixels, which differ little. With errors e, the sum's expected error is
 * e' R e, where R is how two inputs correlate; CORRELATION to the power of their distance is a
 * good guess for pixels and for maps. From the nearest halves on, a weight moves to the half on
 * its other side as long as that makes e' R e less. With the shipped weights, the error that
 * rounding C1 and C3 brings into logits is a fifth of what the nearest halves bring.
 * The idea, with R from data: Nagel et al., "Up or Down? Adaptive Rounding", 2020. */
void round_window(double *w, int side) {
    constexpr double CORRELATION = 0.7;
    double r[5][5], error[WINDOW], step[WINDOW];
    for (int u = 0; u < 5; u++)
        for (int v = 0; v < 5; v++)
            r[u][v] = pow(CORRELATION, hypot(u, v));
    for (int k = 0; k < side * side; k++) {
        const double ulp = ldexp(1.0, max(ilogb(w[k]), -14) - 10); /* of a half, also small */
        const double nearest = ulp * rint(w[k] / ulp);
        error[k] = nearest - w[k];
        step[k] = error[k] > 0.0 ? -ulp : ulp;
        w[k] = nearest;
    }
    for (bool moved = true; moved;) {
        moved = false;
        for (int k = 0; k < side * side; k++) {
            double slope = 0.0;
            for (int j = 0; j < side * side; j++)
                slope += r[abs(k / side - j / side)][abs(k % side - j % side)] * error[j];
            const double gain = -step[k] * (2.0 * slope + step[k]);
            if (gain > 1e-9 * step[k] * step[k]) {
                w[k] += step[k];
                error[k] += step[k];
                step[k] = -step[k];
                moved = true;
            }
        }
    }
}

/* All weights of C1, C3 and C5, whose windows are the maps of S4. */
template <class S> void round_windows(folded *d) {
    for (int o = 0; o < C1_MAPS; o++)
        round_window(d->c1[o], 5);
    for (int o = 0; o < C3_MAPS; o++)
        for (int c = 0; c < C1_MAPS; c++)
            round_window(d->c3[o][c], 5);
    for (int o = 0; o < C5_SIZE; o++)
        for (int c = 0; c < C3_MAPS; c++)
            round_window(&d->c5[o][c * S::Q * S::Q], S::Q);
}

/* The second largest half, as round_window may choose the next one. */
constexpr double MOST_WEIGHT = 65472.0;

/* 0 if all weights are in the range of halves. */
int check_range(const folded *d, lenet5_error *err) {
    const struct {
        const double *w;
        size_t count;
    } all[] = {{d->c1[0], sizeof d->c1 / sizeof(double)},
               {d->c3[0][0], sizeof d->c3 / sizeof(double)},
               {d->c5[0], sizeof d->c5 / sizeof(double)},
               {d->f6[0], sizeof d->f6 / sizeof(double)},
               {d->out[0], sizeof d->out / sizeof(double)}};
    for (const auto &part : all)
        for (size_t k = 0; k < part.count; k++)
            if (!(fabs(part.w[k]) <= MOST_WEIGHT))
                return fail(err,
                            "backend tensor has weights of 16 bits, at most %g, but this "
                            "network needs one of %g; backend fused or cuda runs it",
                            MOST_WEIGHT, part.w[k]);
    return 0;
}

/* One of the two halves that make a weight. */
double term(double w, int second) {
    const double first = (double)__half2float(__double2half(w));
    return second ? w - first : first;
}

uint32_t pack_host(double low, double high) {
    const __half2 h = __halves2half2(__double2half(low), __double2half(high));
    uint32_t word;
    memcpy(&word, &h, sizeof word);
    return word;
}

/* weight(k, n) of 16 x 8 into the lanes' registers. */
template <class F> void pack_fragment(Fragment *f, F weight) {
    for (int lane = 0; lane < 32; lane++) {
        const int k = lane % 4 * 2, n = lane / 4;
        f->lane[lane].x = pack_host(weight(k, n), weight(k + 1, n));
        f->lane[lane].y = pack_host(weight(k + 8, n), weight(k + 9, n));
    }
}

/* weight(k, o) for inputs k and outputs o; zero outside. */
template <int INPUTS, int TILES, int TERMS, class F>
void pack_dense(Dense<INPUTS, TILES, TERMS> *d, int outputs, F weight, const double *bias) {
    for (int step = 0; step < d->STEPS; step++)
        for (int tile = 0; tile < WARPS * TILES; tile++)
            pack_fragment(&d->weight[step][tile / TILES][tile % TILES], [&](int k, int n) {
                k += 16 * (step / TERMS);
                n += 8 * tile;
                return k < INPUTS && n < outputs ? term(weight(k, n), step % TERMS) : 0.0;
            });
    for (int o = 0; o < outputs; o++)
        d->bias[o] = (float)bias[o];
}

/* Which map and column of S2 is window i of lane % 4 = t in conv1? */
int window_of(int t, int i) {
    return i < 2 ? 2 * t + i : 8 + t;
}

template <class S> void pack_c1(Weights<S> *w, const folded *d) {
    for (int step = 0; step < C1_STEPS; step++)
        for (int tile = 0; tile < C1_TILES; tile++)
            pack_fragment(&w->c1[step][tile], [&](int k, int n) {
                const int window = window_of(n / 2, tile / 2);
                const int u = 2 * step + k / 8 - tile % 2; /* row of the 5 x 5 window */
                const int v = k % 8 - (window / C1_MAPS * 2 + n % 2);
                return u >= 0 && u < 5 && v >= 0 && v < 5 ? d->c1[window % C1_MAPS][5 * u + v]
                                                          : 0.0;
            });
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < 3; i++) {
            const int map = window_of(t, i) % C1_MAPS;
            double sum = 0.0; /* bytes come with 1024 added */
            for (double c : d->c1[map])
                sum += c;
            w->c1_bias[t][i] = (float)(d->c1_bias[map] - 1024.0 * sum);
        }
}

template <class S> int pack_weights(void *memory, folded *d, lenet5_error *err) {
    if (check_range(d, err))
        return -1;
    round_windows<S>(d);
    Weights<S> *w = (Weights<S> *)memory;
    pack_c1(w, d);
    for (int u = 0; u < 5; u++)
        for (int step = 0; step < C3_STEPS; step++)
            for (int tile = 0; tile < C3_TILES; tile++)
                pack_fragment(&w->c3[u][step][tile], [&](int k, int n) {
                    k += 16 * step; /* column * 6 + map */
                    return k < 30 ? d->c3[8 * tile + n][k % C1_MAPS][5 * u + k / C1_MAPS] : 0.0;
                });
    for (int o = 0; o < C3_MAPS; o++)
        w->c3_bias[o] = (float)d->c3_bias[o];
    pack_dense(
        &w->c5, C5_SIZE,
        [d](int k, int o) { /* S4 is [row][column][map] here */
                            return d->c5[o][k % C3_MAPS * S::Q * S::Q + k / C3_MAPS];
        },
        d->c5_bias);
    pack_dense(
        &w->f6, F6_SIZE, [d](int k, int o) { return d->f6[o][k]; }, d->f6_bias);
    for (int step = 0; step < OUT_STEPS; step++)
        for (int tile = 0; tile < OUT_TILES; tile++)
            pack_fragment(&w->out[step][tile], [&](int k, int n) {
                k += 16 * (step / 2);
                n += 8 * tile;
                return k < F6_SIZE && n < CLASSES ? term(d->out[n][k], step % 2) : 0.0;
            });
    for (int o = 0; o < CLASSES; o++)
        w->out_bias[o] = (float)d->out_bias[o];
    return 0;
}

/* ---- Host: what it takes ---- */

enum { MMA = 16 * 8 * 16 }; /* multiply-adds of an instruction */

/* A dense layer, for an image: products, and reads by ldmatrix and stores of its outputs. */
template <class D> void count_dense(double *cost, int special) {
    cost[RESOURCE_TENSOR] = 2.0 * MMA * D::STEPS * WARPS * D::TILES / IMAGES;
    cost[RESOURCE_SPECIAL] = special * D::OUTPUTS;
    cost[RESOURCE_SHARED] =
        (2.0 * 512 * D::STEPS / D::TERMS + 4 * 128 * D::TILES) * WARPS / IMAGES;
}

/* As cost in backend.h. */
template <class S, bool SOFT, bool MAX> void count(kernel_stage stages[STAGES]) {
    constexpr int TANHS = !SOFT ? 0 : MAX ? 1 : 4; /* of a pooling window */
    constexpr int HALF = S::P / 2;
    double *input = stages[STAGE_INPUT].cost, *out = stages[STAGE_OUT].cost;
    double *c1 = stages[STAGE_C1].cost, *c3 = stages[STAGE_C3].cost;
    input[RESOURCE_MEMORY] = input[RESOURCE_SHARED] = S::PIXELS;
    c1[RESOURCE_TENSOR] = (double)MMA * HALF * HALF * C1_STEPS * C1_TILES / WARP_IMAGES;
    c1[RESOURCE_SPECIAL] = TANHS * C1_MAPS * S::P * S::P;
    c1[RESOURCE_SHARED] = 128.0 * HALF * (4 * (HALF + 2) + 4 * HALF) / WARP_IMAGES;
    c3[RESOURCE_TENSOR] =
        (double)MMA * S::Q * S::C3_SIDE * 5 * C3_STEPS * C3_TILES / WARP_IMAGES;
    c3[RESOURCE_SPECIAL] = TANHS * C3_MAPS * S::Q * S::Q;
    c3[RESOURCE_SHARED] = 128.0 * S::Q * (4 * C3_STEPS * S::P + C3_TILES * S::Q) / WARP_IMAGES;
    count_dense<decltype(Weights<S>::c5)>(stages[STAGE_C5].cost, SOFT ? 2 : 0);
    count_dense<decltype(Weights<S>::f6)>(stages[STAGE_F6].cost, SOFT ? 2 : 0);
    out[RESOURCE_TENSOR] = (double)MMA * OUT_STEPS * WARPS / IMAGES;
    out[RESOURCE_SHARED] = 512.0 * OUT_STEPS / 2 * WARPS / IMAGES;
    out[RESOURCE_MEMORY] = sizeof(float) * CLASSES;
}

/* ---- Host: the backend ---- */

const whole_variant variants[] = WHOLE_VARIANTS(tensor_kernel, Shared, tensor_kernel, Shared);
const whole_kind kind = {"tensor", 80,       {{IMAGES, THREADS}, {WARP_IMAGES, THREADS}}, FEW,
                         form_of,  variants, (int)(sizeof variants / sizeof *variants)};

int tensor_open(void **state, const model *m, int, int *max_batch, lenet5_error *err) {
    return whole_open(state, &kind, m, max_batch, err);
}

} // namespace

extern const struct backend backend_tensor = {
    "tensor",
    "the whole network in one kernel on tensor cores, 16-bit operands",
    1,
    whole_device,
    tensor_open,
    whole_run,
    NULL,
    whole_close,
    whole_run_device,
    1,
    5e-2, /* see above: 2.3e-2 is the most that was measured, with trained weights */
    NULL,
    whole_stages};
