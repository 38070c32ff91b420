/* SPDX-License-Identifier: MIT
 *
 * simd_kernels.h - the arithmetic of backend "simd" for one instruction set. simd.c includes it
 * once for each, having defined
 *
 *     SET            suffix of every name here
 *     SET_NAME       its name to the user
 *     LANES          floats in a vector
 *     TARGET         attribute that allows the set
 *     TILES          list of tiles that fit its registers
 *     SPREAD(s)      a number in every lane
 *     WHOLE(b)       bytes from b on as integers
 *     FMA(a, b, c)   a * b + c
 *     FUSED(a, b, c) the same, rounded once
 *     LESSER(a, b)   minimum, and GREATER(a, b), maximum: b where one is NaN, as x86 has it
 *     EVENS, ODDS    numbers of every other lane of two vectors in a row
 *
 * All loops are plain multiply-adds on vectors: no shuffles, no edges. Where images are in
 * lanes, a cell is LANES floats. One image alone has either columns of a row in lanes, or
 * output channels; every number is summed in the same order in all three, so that the bits of
 * an image do not depend on its batch.
 *
 * GCC's vector extensions carry everything but what is listed above; vectors never pass through
 * a call that is not inlined.
 */
#ifdef SET

#define PASTE_(a, b) a##_##b
#define PASTE(a, b)  PASTE_(a, b)
#define NAME(name)   PASTE(name, SET)
#define INLINE       static inline __attribute__((always_inline)) TARGET
#define KERNEL       static TARGET

typedef float NAME(vec) __attribute__((vector_size(4 * LANES)));
typedef int32_t NAME(ivec) __attribute__((vector_size(4 * LANES)));
typedef uint8_t NAME(bytes) __attribute__((vector_size(16)));
#define vec  NAME(vec)
#define ivec NAME(ivec)

INLINE vec NAME(get)(const float *x) {
    vec v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE void NAME(put)(float *y, vec v) {
    memcpy(y, &v, sizeof v);
}

#define GET NAME(get)
#define PUT NAME(put)

/* a where mask is set, else b. */
INLINE vec NAME(pick)(ivec mask, vec a, vec b) {
    return (vec)(((ivec)a & mask) | ((ivec)b & ~mask));
}

#define PICK NAME(pick)

/* ---- the inner loop --------------------------------------------------------------------- */

/* struct product's sum; A and B, the tile's sizes, are constants wherever this is inlined, so
   that sum lives in registers. */
INLINE void NAME(multiply)(const struct product *p, const float *a, const float *b,
                           const float *bias, float *y, const int A, const int B,
                           const size_t a_step, const size_t b_step) {
    vec sum[MOST_A * MOST_B], held[MOST_A];

    EACH(i, A) {
        EACH(j, B) {
            sum[i * B + j] = p->bias_in_b ? GET(bias + j * LANES) : SPREAD(bias[i]);
        }
    }
    for (int c = 0; c < p->channels; c++)
        for (int u = 0; u < p->rows; u++) {
            const float *at = a + (size_t)c * p->a_channel + (size_t)u * p->a_row;
            const float *bt = b + (size_t)c * p->b_channel + (size_t)u * p->b_row;
            for (int v = 0; v < p->cols; v++, at += p->a_col, bt += p->b_col) {
                if (A < B) { /* the fewer are held, the others pass by one at a time */
                    EACH(i, A) held[i] = SPREAD(at[i * a_step]);
                    EACH(j, B) {
                        vec x = GET(bt + j * b_step);
                        if (A > 1) /* else the multiply-add itself reads it */
                            KEEP(x);
                        EACH(i, A) sum[i * B + j] = FMA(held[i], x, sum[i * B + j]);
                    }
                } else {
                    EACH(j, B) held[j] = GET(bt + j * b_step);
                    EACH(i, A) {
                        vec x = SPREAD(at[i * a_step]);
                        if (B > 1)
                            KEEP(x);
                        EACH(j, B) sum[i * B + j] = FMA(x, held[j], sum[i * B + j]);
                    }
                }
            }
        }
    EACH(i, A) {
        if (i < p->kept) {
            EACH(j, B) PUT(y + i * p->y_a + j * p->y_b, sum[i * B + j]);
        }
    }
}

#define TILE(A, B)                                                                             \
    KERNEL void NAME(tile_##A##x##B)(const struct product *p, const float *a, const float *b,  \
                                     const float *bias, float *y) {                            \
        NAME(multiply)(p, a, b, bias, y, A, B, 1, LANES);                                      \
    }
TILES(TILE)
#undef TILE
#define TILE(A, B)                                                                             \
    KERNEL void NAME(strided_##A##x##B)(const struct product *p, const float *a,               \
                                        const float *b, const float *bias, float *y) {         \
        NAME(multiply)(p, a, b, bias, y, A, B, p->a_step, p->b_step);                          \
    }
NARROW_TILES(TILE)
#undef TILE

#define TILE(A, B) [A][B] = NAME(tile_##A##x##B),
static product_tile *const NAME(tiles)[MOST_A + 1][MOST_B + 1] = {TILES(TILE)};
#undef TILE
#define TILE(A, B) [A][B] = NAME(strided_##A##x##B),
static product_tile *const NAME(strided)[MOST_A + 1][MOST_B + 1] = {NARROW_TILES(TILE)};
#undef TILE

/* ---- activations ------------------------------------------------------------------------ */

/* tanh(x) of n vectors at once, since one would wait for itself: with t = |x|,

     e / (e + 3)  with  e = 1.5 (e^2t - 1) = s q + 1.5 (s - 1),  by 2t = n ln 2 + 2r,
                  |2r| <= 0.35, s = 2^n and q = 3r + r^2 p(r), a polynomial for 1.5 (e^2r - 1).

   Without 1.5, e would begin just above a power of two where the result lies just below one,
   which makes the most of its rounding: 2.5 ulp instead of 1.99. For the same reason the sum q
   is rounded once. Odd, exact at 0 and infinity; NaN stays NaN (tests/test_simd.c goes over all
   floats). Beyond 9.02 the result rounds to 1. */
INLINE void NAME(tanh_vecs)(vec *v, const int n) {
    const vec magic = SPREAD(0x1.8p23f); /* adding it rounds to whole */
    const vec three = SPREAD(3.0f);
    const ivec sign = (ivec)SPREAD(-0.0f);
    vec t[TOGETHER], s[TOGETHER], r[TOGETHER], p[TOGETHER];
    EACH(i, n) {
        t[i] = LESSER(SPREAD(9.02f), (vec)((ivec)v[i] & ~sign));
        const vec shifted = FMA(t[i], SPREAD(0x1.715476p+1f), magic); /* 2 / ln 2 */
        r[i] = FMA(magic - shifted, SPREAD(0x1.62e43p-2f), t[i]);     /* ln 2 / 2 */
        s[i] = (vec)(((ivec)shifted << 23) + (ivec)SPREAD(1.0f));
    }
    EACH(i, n) p[i] = FMA(r[i], SPREAD(EXP_6), SPREAD(EXP_5));
    EACH(i, n) p[i] = FMA(r[i], p[i], SPREAD(EXP_4));
    EACH(i, n) p[i] = FMA(r[i], p[i], SPREAD(EXP_3));
    EACH(i, n) p[i] = FMA(r[i], p[i], SPREAD(EXP_2));
    EACH(i, n) {
        const vec q = FUSED(r[i], three, r[i] * r[i] * p[i]);
        const vec e = FMA(s[i], q, FMA(s[i], SPREAD(1.5f), SPREAD(-1.5f)));
        v[i] = (vec)((ivec)(e / (e + three)) | ((ivec)v[i] & sign));
    }
}

INLINE vec NAME(relu_vec)(vec x, vec slope, vec low, vec high) {
    const vec y = PICK(x >= low, x, slope * (x - low));
    return PICK(x >= high, high, y);
}

/* Activates n vectors, where l has one of the plain activations; all others go number by number
   through the reference's own formulas, in activate(). */
INLINE void NAME(activate_vecs)(const struct layer *l, vec *v, const int n) {
    if (l->activation == ACT_TANH)
        NAME(tanh_vecs)(v, n);
    if (l->activation == ACT_RELU) {
        const vec slope = SPREAD(l->param[0]), low = SPREAD(l->param[1]);
        const vec high = SPREAD(l->param[2]);
        EACH(i, n) v[i] = NAME(relu_vec)(v[i], slope, low, high);
    }
}

/* Activates count floats, rounded up to whole vectors; y may be x. */
KERNEL void NAME(activate)(const struct layer *l, const float *x, float *y, size_t count) {
    vec v[TOGETHER];
    size_t k = 0;
    if (!plain_activation(l)) {
        for (; k < count; k++)
            y[k] = activate(l->activation, l->param, x[k]);
        return;
    }
    if (x == y && l->activation == ACT_LINEAR)
        return;
    for (; k + TOGETHER * LANES <= count; k += TOGETHER * LANES) {
        EACH(i, TOGETHER) v[i] = GET(x + k + i * LANES);
        NAME(activate_vecs)(l, v, TOGETHER);
        EACH(i, TOGETHER) PUT(y + k + i * LANES, v[i]);
    }
    for (; k < count; k += LANES) {
        v[0] = GET(x + k);
        NAME(activate_vecs)(l, v, 1);
        PUT(y + k, v[0]);
    }
}

KERNEL void NAME(tanh)(const float *x, float *y, size_t count) {
    const struct layer l = {.activation = ACT_TANH};
    NAME(activate)(&l, x, y, count);
}

/* ---- images in lanes -------------------------------------------------------------------- */

INLINE void NAME(zero)(float *y, size_t cells) {
    for (size_t k = 0; k < cells; k++)
        PUT(y + k * LANES, SPREAD(0.0f));
}

/* The border of one row of y, whose first inner cell is at. */
INLINE void NAME(border)(const struct plane *p, float *at) {
    NAME(zero)(at - (size_t)p->left * LANES, (size_t)p->left);
    NAME(zero)(at + (size_t)p->w * LANES, (size_t)(p->pitch - p->left - p->w));
}

/* Where row r of channel c begins, behind its border. */
INLINE size_t NAME(row)(const struct plane *p, int c, int r) {
    return (((size_t)c * p->h + r) * p->pitch + p->left) * LANES;
}

/* One activated row, and its border, to its place in y, where it may be already if from is
   NULL. */
INLINE void NAME(emit)(const struct stage *s, const struct layer *l, const float *from, int c,
                       int r, float *y) {
    float *at = y + NAME(row)(&s->out, c, r);
    NAME(activate)(l, from ? from : at, at, (size_t)s->out.w * LANES);
    NAME(border)(&s->out, at);
}

/* Pools rows * cols cells, which are row and cell floats apart: column by column, since the
   columns of one image alone lie in lanes. */
INLINE vec NAME(cells)(const struct layer *l, const float *x, size_t row, size_t cell, int rows,
                       int cols) {
    vec all = SPREAD(0.0f);
    for (int v = 0; v < cols; v++, x += cell) {
        vec one = GET(x);
        for (int u = 1; u < rows; u++) {
            const vec next = GET(x + (size_t)u * row);
            one = l->op == OP_MAX_POOL ? GREATER(next, one) : one + next;
        }
        if (v == 0)
            all = one;
        else
            all = l->op == OP_MAX_POOL ? GREATER(one, all) : all + one;
    }
    return l->op == OP_MAX_POOL ? all : all / SPREAD((float)(rows * cols));
}

/* The mean of 2 x 2 cells, added as cells() does, of which a plain activation is due yet. */
INLINE vec NAME(mean)(const struct layer *due, const float *x, size_t row, size_t cell) {
    vec v[4] = {GET(x), GET(x + row), GET(x + cell), GET(x + row + cell)};
    NAME(activate_vecs)(due, v, 4);
    return ((v[0] + v[1]) + (v[2] + v[3])) * SPREAD(0.25f);
}

INLINE void NAME(mean_row)(const struct layer *due, const float *x, size_t row, int columns,
                           float *y) {
    for (int q = 0; q < columns; q++, x += 2 * LANES)
        PUT(y + q * LANES, NAME(mean)(due, x, row, LANES));
}

/* One row of a pooling over the `rows` rows of x that lie inside the map. Where the pooling is
   plain, x awaits the activation of `due`. */
INLINE void NAME(pool_row)(const struct layer *due, const struct layer *l, const float *x,
                           size_t row, int rows, float *y) {
    if (plain_2x2(l, rows) && due->activation == ACT_TANH) {
        NAME(mean_row)(&just_tanh, x, row, l->out.w, y); /* the usual one, without a branch */
        return;
    }
    if (plain_2x2(l, rows)) {
        NAME(mean_row)(due, x, row, l->out.w, y);
        return;
    }
    for (int q = 0; q < l->out.w; q++) {
        const int w = q * l->stride_w - l->pad_left;
        const struct span vs = window_inside(w, l->kernel_w, l->in.w);
        const float *at = x + (size_t)(w + vs.from) * LANES;
        PUT(y + q * LANES, NAME(cells)(l, at, row, LANES, rows, vs.to - vs.from));
    }
}

/* Row r of the convolution for the group of output channels g: columns are vectors of B, a cell
   or LANES cells wide. y has b columns (vectors) a channel, `channel` floats apart. */
INLINE void NAME(conv_row)(const struct stage *s, const struct pack *k, const float *x, int r,
                           int g, int vectors, size_t cell, size_t channel, float *y) {
    const struct layer *l = s->l;
    const int h = r * l->stride_h - l->pad_top;
    const struct span us = window_inside(h, l->kernel_h, l->in.h);
    const size_t window = (size_t)l->kernel_h * l->kernel_w * k->a;
    const int straight = l->stride_w == 1; /* always where a cell is one float */
    product_tile *const *tiles = (straight ? NAME(tiles) : NAME(strided))[k->a];
    struct product p = {.channels = l->in.c, .rows = us.to - us.from, .cols = l->kernel_w};
    p.a_channel = window;
    p.a_row = (size_t)l->kernel_w * k->a;
    p.a_col = (size_t)k->a;
    p.a_step = 1;
    p.b_channel = (size_t)s->in.h * s->in.pitch * cell;
    p.b_row = (size_t)s->in.pitch * cell;
    p.b_col = cell;
    p.b_step = straight ? LANES : (size_t)l->stride_w * cell;
    p.y_a = channel;
    p.y_b = LANES;
    p.kept = k->a; /* the strip has room for the group */
    const float *a = k->weight + (size_t)g * l->in.c * window + (size_t)us.from * p.a_row;
    const float *b =
        x + ((size_t)(h + us.from) * s->in.pitch + s->in.left - l->pad_left) * cell;
    for (int q = 0, size; q < vectors; q += size) {
        size = vectors - q < k->b ? vectors - q : k->b;
        while (!tiles[size])
            size--;
        tiles[size](&p, a, b + (size_t)q * p.b_step, k->bias + (size_t)g * k->a,
                    y + (size_t)q * LANES);
    }
}

INLINE void NAME(conv_block)(const struct stage *s, const float *x, float *y, float *strip) {
    const struct layer *l = s->l, *last = s->pool ? s->pool : l;
    const struct pack *k = s->block;
    const int rows = s->pool ? s->pool->kernel_h : 1; /* of the convolution for one of y */
    const struct layer *due = due_in_pool(s);
    const size_t row = (size_t)l->out.w * LANES, channel = row * rows;

    for (int r = 0; r < last->out.h; r++)
        for (int o = 0; o < l->out.c; o += k->a) {
            const int some = l->out.c - o < k->a ? l->out.c - o : k->a;
            for (int u = 0; u < rows; u++)
                NAME(conv_row)
            (s, k, x, r * rows + u, o / k->a, l->out.w, LANES, channel, strip + u * row);
            if (s->pool && due != l)
                NAME(activate)(l, strip, strip, some * channel);
            for (int m = 0; m < some; m++) {
                const float *from = strip + m * channel;
                float *at = y + NAME(row)(&s->out, o + m, r);
                if (s->pool)
                    NAME(pool_row)(due, s->pool, from, row, rows, at);
                NAME(emit)(s, last, s->pool ? NULL : from, o + m, r, y);
            }
        }
}

INLINE void NAME(pool_block)(const struct stage *s, const float *x, float *y, float *strip) {
    const struct layer *l = s->l;
    const size_t row = (size_t)s->in.pitch * LANES;
    for (int c = 0; c < l->out.c; c++)
        for (int r = 0; r < l->out.h; r++) {
            const int h = r * l->stride_h - l->pad_top;
            const struct span us = window_inside(h, l->kernel_h, l->in.h);
            const float *at = x + ((size_t)c * l->in.h + (size_t)(h + us.from)) * row;
            NAME(pool_row)(&as_is, l, at, row, us.to - us.from, strip);
            NAME(emit)(s, l, strip, c, r, y);
        }
}

/* Group after group behind each other in x, y and strip, but summed together. */
INLINE void NAME(dense_block)(const struct stage *s, const float *x, float *y, float *strip,
                              int groups) {
    const struct layer *l = s->l;
    const struct pack *k = s->block;
    const int C = (int)shape_size(l->in), O = l->out.c;
    product_tile *const tile = NAME(strided)[k->a][groups];
    struct product p = {.channels = 1, .rows = 1, .cols = C};
    p.a_col = (size_t)k->a;
    p.a_step = 1;
    p.b_col = LANES;
    p.b_step = (size_t)C * LANES;
    p.y_a = LANES;
    p.y_b = (size_t)O * LANES;
    for (int o = 0; o < O; o += k->a) {
        p.kept = O - o;
        tile(&p, k->weight + (size_t)o * C, x, k->bias + o, strip + (size_t)o * LANES);
    }
    for (int g = 0; g < groups; g++) {
        float *to = y + (size_t)g * plane_cells(&s->out) * LANES;
        const float *from = strip + (size_t)g * O * LANES;
        if (s->out.pitch == 1)
            NAME(activate)(l, from, to, (size_t)O * LANES);
        for (int o = 0; o < O && s->out.pitch > 1; o++)
            NAME(emit)(s, l, from + (size_t)o * LANES, o, 0, to);
    }
}

/* Softmax and the rows that change each number by itself; step is 1 or LANES floats, lanes as
   many images. x has no border. */
INLINE void NAME(softmax)(const float *x, size_t size, int lanes, float *y) {
    for (int i = 0; i < lanes; i++) {
        float most = x[i], sum = 0.0f;
        for (size_t k = 1; k < size; k++)
            most = x[k * lanes + i] > most ? x[k * lanes + i] : most;
        for (size_t k = 0; k < size; k++)
            sum += expf(x[k * lanes + i] - most);
        y[i] = most;
        y[lanes + i] = sum;
    }
}

INLINE void NAME(each_block)(const struct stage *s, const float *x, float *y, float *strip) {
    const struct layer *l = s->l;
    const size_t row = (size_t)l->in.w * LANES;
    float scales[2 * LANES]; /* softmax: each image's largest, and its sum */
    if (l->activation == ACT_SOFTMAX)
        NAME(softmax)(x, shape_size(l->in), LANES, scales);
    for (int c = 0; c < l->out.c; c++)
        for (int r = 0; r < l->out.h; r++, x += row) {
            const vec factor = SPREAD(l->op == OP_SCALE ? l->weight[c] : 1.0f);
            const vec shift = SPREAD(l->bias ? l->bias[c] : 0.0f);
            for (size_t k = 0; k < row; k += LANES)
                PUT(strip + k, l->op == OP_SCALE ? GET(x + k) * factor + shift : GET(x + k));
            for (size_t k = 0; l->activation == ACT_SOFTMAX && k < row; k++)
                strip[k] = expf(x[k] - scales[k % LANES]) / scales[LANES + k % LANES];
            NAME(emit)(s, l, strip, c, r, y);
        }
}

KERNEL void NAME(block)(const struct stage *s, const float *x, float *y, float *strip,
                        int groups) {
    const size_t in = plane_cells(&s->in) * LANES, out = plane_cells(&s->out) * LANES;
    if (s->l->op == OP_DENSE) {
        NAME(dense_block)(s, x, y, strip, groups);
        return;
    }
    for (int g = 0; g < groups; g++, x += in, y += out)
        if (s->l->op == OP_CONV)
            NAME(conv_block)(s, x, y, strip);
        else if (s->l->op == OP_AVERAGE_POOL || s->l->op == OP_MAX_POOL)
            NAME(pool_block)(s, x, y, strip);
        else
            NAME(each_block)(s, x, y, strip);
}

/* 16 pixels of LANES images, [image][pixel], to [pixel][image]: every round lets two halves of
   the block into each other like cards, which moves the highest bit of a byte's number to the
   lowest place; as many rounds as an image's number has bits bring all of them there. */
INLINE void NAME(turn)(uint8_t *block) {
    NAME(bytes) a[LANES], b[LANES];
    memcpy(a, block, sizeof a);
    UNROLL for (int round = 1; round < LANES; round *= 2) {
        EACH(i, LANES / 2) {
            b[2 * i] = __builtin_shufflevector(a[i], a[i + LANES / 2], LOW_HALVES);
            b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + LANES / 2], HIGH_HALVES);
        }
        EACH(i, LANES) a[i] = b[i];
    }
    memcpy(block, a, sizeof a);
}

/* LANES bytes as they enter the network; not fused, as in the reference. */
INLINE vec NAME(scaled)(const uint8_t *bytes, float scale, float offset) {
    return __builtin_convertvector(WHOLE(bytes), vec) * SPREAD(scale) + SPREAD(offset);
}

/* n <= LANES images' bytes into lanes; what enters in the others' is of no account. */
KERNEL void NAME(load_bytes)(const struct plane *to, const uint8_t *bytes, float scale,
                             float offset, int n, float *y) {
    const size_t pixels = (size_t)to->c * to->h * to->w;
    uint8_t block[LANES * 16] = {0};
    float *at = y + (size_t)to->left * LANES;
    int q = 0; /* column of at */
    NAME(border)(to, at);
    for (size_t k = 0; k < pixels; k += 16) {
        const size_t some = pixels - k < 16 ? pixels - k : 16;
        for (int i = 0; i < n; i++)
            if (some == 16)
                memcpy(block + 16 * i, bytes + (size_t)i * pixels + k, 16);
            else
                memcpy(block + 16 * i, bytes + (size_t)i * pixels + k, some);
        NAME(turn)(block);
        for (size_t p = 0; p < some; p++, at += LANES) {
            if (q == to->w) {
                q = 0;
                at += (size_t)(to->pitch - to->w) * LANES;
                NAME(border)(to, at);
            }
            PUT(at, NAME(scaled)(block + p * LANES, scale, offset));
            q++;
        }
    }
}

KERNEL void NAME(load_floats)(const struct plane *to, const float *floats, int n, float *y) {
    const size_t pixels = (size_t)to->c * to->h * to->w;
    for (int c = 0; c < to->c; c++)
        for (int r = 0; r < to->h; r++) {
            float *at = y + NAME(row)(to, c, r);
            NAME(border)(to, at);
            for (int q = 0; q < to->w; q++, floats++)
                for (int i = 0; i < LANES; i++)
                    *at++ = i < n ? floats[(size_t)i * pixels] : 0.0f;
        }
}

/* ---- one image -------------------------------------------------------------------------- */

INLINE void NAME(border_one)(const struct plane *p, float *at) {
    for (int q = 0; q < p->left; q++)
        at[q] = 0.0f;
    for (int q = p->left + p->w; q < p->pitch; q++)
        at[q] = 0.0f;
}

/* n floats: in vectors, the last of which goes over some numbers twice. */
INLINE void NAME(copy)(float *to, const float *from, size_t n) {
    enum { SOME = LANES < 8 ? LANES : 8 };
    for (size_t k = 0; n >= SOME && k < n; k += SOME) {
        const size_t at = k + SOME <= n ? k : n - SOME;
        memcpy(to + at, from + at, SOME * sizeof *to);
    }
    for (size_t k = 0; n < SOME && k < n; k++)
        to[k] = from[k];
}

/* One row of w numbers in strip, to be activated there, to its place in y. strip has room for
   whole vectors, y has not. */
INLINE void NAME(emit_one)(const struct stage *s, const struct layer *l, float *from, int c,
                           int r, float *y) {
    const struct plane *p = &s->out;
    float *at = y + ((size_t)c * p->h + r) * p->pitch;
    NAME(activate)(l, from, from, (size_t)p->w);
    NAME(border_one)(p, at);
    NAME(copy)(at + p->left, from, (size_t)p->w);
}

/* Bytes or floats of one image; see struct simd_set. */
KERNEL void NAME(load_one)(const struct plane *to, const uint8_t *bytes, const float *floats,
                           float scale, float offset, float *y) {
    const size_t w = (size_t)to->w;
    for (int r = 0; r < to->c * to->h; r++, y += to->pitch) {
        float *at = y + to->left;
        size_t q = 0;
        NAME(border_one)(to, y);
        if (floats)
            memcpy(at, floats + r * w, w * sizeof *at);
        for (; bytes && w >= LANES && q < w; q += LANES) {
            const size_t from = q + LANES <= w ? q : w - LANES; /* the last ones twice */
            PUT(at + from, NAME(scaled)(bytes + r * w + from, scale, offset));
        }
        for (; bytes && q < w; q++)
            at[q] = (float)bytes[r * w + q] * scale + offset;
    }
}

/* The cells of one image, in the order of cells() above. */
INLINE float NAME(cells_one)(const struct layer *l, const float *x, size_t row, int rows,
                             int cols) {
    float all = 0.0f;
    for (int v = 0; v < cols; v++) {
        float one = x[v];
        for (int u = 1; u < rows; u++) {
            const float next = x[(size_t)u * row + (size_t)v];
            one = l->op == OP_MAX_POOL ? (next > one ? next : one) : one + next;
        }
        if (v == 0)
            all = one;
        else
            all = l->op == OP_MAX_POOL ? (one > all ? one : all) : all + one;
    }
    return l->op == OP_MAX_POOL ? all : all / (float)(rows * cols);
}

INLINE void NAME(mean_row_one)(const struct layer *due, const float *x, size_t row, int columns,
                               float *y) {
    for (int q = 0; q < columns; q += LANES, x += 2 * LANES) {
        vec v[4] = {GET(x), GET(x + row), GET(x + LANES), GET(x + LANES + row)};
        NAME(activate_vecs)(due, v, 4);
        const vec a = v[0] + v[1], b = v[2] + v[3];
        const vec even = __builtin_shufflevector(a, b, EVENS);
        const vec odd = __builtin_shufflevector(a, b, ODDS);
        PUT(y + q, (even + odd) * SPREAD(0.25f));
    }
}

/* As pool_row. Reads and writes whole vectors, also behind the last column. */
INLINE void NAME(pool_row_one)(const struct layer *due, const struct layer *l, const float *x,
                               size_t row, int rows, float *y) {
    if (plain_2x2(l, rows) && due->activation == ACT_TANH) {
        NAME(mean_row_one)(&just_tanh, x, row, l->out.w, y);
        return;
    }
    if (plain_2x2(l, rows)) {
        NAME(mean_row_one)(due, x, row, l->out.w, y);
        return;
    }
    for (int q = 0; q < l->out.w; q++) {
        const int w = q * l->stride_w - l->pad_left;
        const struct span vs = window_inside(w, l->kernel_w, l->in.w);
        y[q] = NAME(cells_one)(l, x + w + vs.from, row, rows, vs.to - vs.from);
    }
}

/* Columns in lanes, a channel's rows one after the other. */
INLINE void NAME(conv_pixels)(const struct stage *s, const float *x, float *y, float *strip) {
    const struct layer *l = s->l, *last = s->pool ? s->pool : l;
    const struct pack *k = s->one;
    const int rows = s->pool ? s->pool->kernel_h : 1;
    const struct layer *due = due_in_pool(s);
    const int vectors = (l->out.w + LANES - 1) / LANES;
    const size_t row = (size_t)vectors * LANES, channel = row * rows;

    for (int r = 0; r < last->out.h; r++)
        for (int o = 0; o < l->out.c; o += k->a) {
            const int some = l->out.c - o < k->a ? l->out.c - o : k->a;
            for (int u = 0; u < rows; u++)
                NAME(conv_row)
            (s, k, x, r * rows + u, o / k->a, vectors, 1, channel, strip + u * row);
            if (s->pool && due != l)
                NAME(activate)(l, strip, strip, some * channel);
            for (int m = 0; m < some; m++) {
                float *from = strip + m * channel;
                if (s->pool) /* a pooled row is never longer than the row it comes from */
                    NAME(pool_row_one)(due, s->pool, from, row, rows, from);
                NAME(emit_one)(s, last, from, o + m, r, y);
            }
        }
}

/* Output channels in lanes: one row of the convolution into y, wide floats a cell. */
INLINE void NAME(conv_row_one)(const struct stage *s, const float *x, int r, size_t wide,
                               float *y) {
    const struct layer *l = s->l;
    const struct pack *k = s->one;
    const int straight = l->stride_w == 1, group = k->b * LANES;
    const int h = r * l->stride_h - l->pad_top;
    const struct span us = window_inside(h, l->kernel_h, l->in.h);
    const size_t window = (size_t)l->kernel_h * l->kernel_w * group;
    product_tile *const(*tiles)[MOST_B + 1] = straight ? NAME(tiles) : NAME(strided);
    struct product p = {.channels = l->in.c, .rows = us.to - us.from, .cols = l->kernel_w};
    p.a_channel = (size_t)s->in.h * s->in.pitch;
    p.a_row = (size_t)s->in.pitch;
    p.a_col = 1;
    p.a_step = (size_t)l->stride_w;
    p.b_channel = window;
    p.b_row = (size_t)l->kernel_w * group;
    p.b_col = (size_t)group;
    p.b_step = LANES;
    p.y_a = wide;
    p.y_b = LANES;
    p.bias_in_b = 1;
    p.kept = MOST_A;
    const float *a = x + (size_t)(h + us.from) * s->in.pitch + s->in.left - l->pad_left;
    for (int o = 0; o < l->out.c; o += group) {
        const float *b = k->weight + (size_t)(o / group) * l->in.c * window;
        for (int q = 0, size; q < l->out.w; q += size) {
            size = l->out.w - q < k->a ? l->out.w - q : k->a;
            while (!tiles[size][k->b])
                size--;
            tiles[size][k->b](&p, a + (size_t)q * p.a_step, b + (size_t)us.from * p.b_row,
                              k->bias + o, y + q * wide + o);
        }
    }
}

/* Channels in lanes: rows are activated and pooled so, and turned around on their way to y. */
INLINE void NAME(conv_channels)(const struct stage *s, const float *x, float *y, float *strip) {
    const struct layer *l = s->l, *last = s->pool ? s->pool : l;
    const struct plane *out = &s->out;
    const int rows = s->pool ? s->pool->kernel_h : 1;
    const struct layer *due = due_in_pool(s);
    const size_t wide = (size_t)round_up(l->out.c, s->one->b * LANES);
    const size_t row = (size_t)l->out.w * wide;
    const size_t window = s->pool ? (size_t)s->pool->kernel_w * wide : 0;
    const int plain = s->pool && plain_2x2(s->pool, rows);

    memset(y, 0, (out->pitch > out->w) * plane_cells(out) * sizeof *y);
    for (int r = 0; r < last->out.h; r++) {
        for (int u = 0; u < rows; u++)
            NAME(conv_row_one)(s, x, r * rows + u, wide, strip + u * row);
        if (due != l)
            NAME(activate)(l, strip, strip, row * rows);
        for (int q = 0; s->pool && q < out->w; q++)
            for (size_t o = 0; o < wide; o += LANES) {
                const float *at = strip + q * window + o;
                PUT(strip + q * wide + o,
                    plain ? NAME(mean)(due, at, row, wide)
                          : NAME(cells)(s->pool, at, row, wide, rows, s->pool->kernel_w));
            }
        if (s->pool)
            NAME(activate)(last, strip, strip, out->w * wide);
        for (int o = 0; o < l->out.c; o++) {
            float *at = y + ((size_t)o * out->h + r) * out->pitch + out->left;
            for (int q = 0; q < out->w; q++)
                at[q] = strip[q * wide + o];
        }
    }
}

INLINE void NAME(dense_one)(const struct stage *s, const float *x, float *y, float *strip) {
    const struct layer *l = s->l;
    const struct pack *k = s->one;
    const int C = (int)shape_size(l->in), group = k->b * LANES;
    struct product p = {.channels = 1, .rows = 1, .cols = C, .bias_in_b = 1, .kept = 1};
    p.a_col = 1;
    p.b_col = (size_t)group;
    p.y_b = LANES;
    for (int o = 0; o < l->out.c; o += group)
        NAME(tiles)[1][k->b](&p, x, k->weight + (size_t)o * C, k->bias + o, strip + o);
    if (s->out.pitch == 1) {
        NAME(activate)(l, strip, strip, (size_t)l->out.c);
        memcpy(y, strip, (size_t)l->out.c * sizeof *y);
    }
    for (int o = 0; o < l->out.c && s->out.pitch > 1; o++) {
        float number[LANES] = {strip[o]};
        NAME(emit_one)(s, l, number, o, 0, y);
    }
}

INLINE void NAME(each_one)(const struct stage *s, const float *x, float *y, float *strip) {
    const struct layer *l = s->l;
    float scales[2] = {0, 1};
    if (l->activation == ACT_SOFTMAX)
        NAME(softmax)(x, shape_size(l->in), 1, scales);
    for (int c = 0; c < l->out.c; c++)
        for (int r = 0; r < l->out.h; r++, x += l->in.w) {
            const float factor = l->op == OP_SCALE ? l->weight[c] : 1.0f;
            const float shift = l->bias ? l->bias[c] : 0.0f;
            for (int q = 0; q < l->in.w; q++)
                strip[q] = l->op == OP_SCALE              ? x[q] * factor + shift
                           : l->activation == ACT_SOFTMAX ? expf(x[q] - scales[0]) / scales[1]
                                                          : x[q];
            NAME(emit_one)(s, l, strip, c, r, y);
        }
}

KERNEL void NAME(load)(const struct plane *to, const uint8_t *bytes, const float *floats,
                       float scale, float offset, int n, float *y) {
    const size_t pixels = (size_t)to->c * to->h * to->w, map = plane_cells(to) * LANES;
    for (; n > 0; n -= LANES, y += map) {
        const int some = n < LANES ? n : LANES;
        if (bytes) {
            NAME(load_bytes)(to, bytes, scale, offset, some, y);
            bytes += pixels * LANES;
        } else {
            NAME(load_floats)(to, floats, some, y);
            floats += pixels * LANES;
        }
    }
}

KERNEL void NAME(one)(const struct stage *s, const float *x, float *y, float *strip) {
    const struct layer *l = s->l;
    if (l->op == OP_DENSE)
        NAME(dense_one)(s, x, y, strip);
    else if (l->op == OP_CONV && s->one_pixels)
        NAME(conv_pixels)(s, x, y, strip);
    else if (l->op == OP_CONV)
        NAME(conv_channels)(s, x, y, strip);
    else if (l->op == OP_SCALE || l->op == OP_ACTIVATION)
        NAME(each_one)(s, x, y, strip);
    else
        for (int c = 0; c < l->out.c; c++)
            for (int r = 0; r < l->out.h; r++) {
                const int h = r * l->stride_h - l->pad_top;
                const struct span us = window_inside(h, l->kernel_h, l->in.h);
                const size_t row = (size_t)s->in.pitch;
                const float *at = x + ((size_t)c * l->in.h + (size_t)(h + us.from)) * row;
                NAME(pool_row_one)(&as_is, l, at, row, us.to - us.from, strip);
                NAME(emit_one)(s, l, strip, c, r, y);
            }
}

static const struct simd_set NAME(set) = {
    SET_NAME,   LANES,          REGISTERS,   NAME(supported), NAME(tiles), NAME(strided),
    NAME(load), NAME(load_one), NAME(block), NAME(one),       NAME(tanh)};

#undef SET
#undef SET_NAME
#undef LANES
#undef REGISTERS
#undef TARGET
#undef TILES
#undef SPREAD
#undef WHOLE
#undef FMA
#undef FUSED
#undef LESSER
#undef GREATER
#undef EVENS
#undef ODDS
#undef NAME
#undef INLINE
#undef KERNEL
#undef vec
#undef ivec
#undef GET
#undef PUT
#undef PICK
#undef PASTE
#undef PASTE_
#endif
