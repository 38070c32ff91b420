/* SPDX-License-Identifier: MIT
 *
 * test_device.cu - lenet5_run_device, used as an embedder would: device pointers, an own
 * stream, a CUDA graph, several networks in several threads. Its results must be the bits of
 * lenet5_run, whatever the batch, with nothing written outside the logits and nothing
 * allocated. Built where there is nvcc; without a GPU every test says so and skips. Uses
 * weights/lenet5_mnist.bin.
 */
#include "backend.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime.h>

extern "C" {
#include <cmocka.h>
}

#define WEIGHTS "weights/lenet5_mnist.bin"

/* MAX_BATCH takes all kinds of tiles, on an H200 in two launches. */
enum { PIXELS = 28 * 28, CLASSES = 10, MAX_BATCH = 4300, GUARD = 64 };

#define CHECK(call) assert_int_equal((call), cudaSuccess)

static int quick;
static uint8_t host_images[MAX_BATCH * PIXELS];

static void fill_images(void) {
    uint32_t state = 12345; /* xorshift32: the same images on every machine */
    for (size_t k = 0; k < sizeof host_images; k++) {
        state ^= state << 13, state ^= state >> 17, state ^= state << 5;
        host_images[k] = (uint8_t)state;
    }
}

/* Opens the weights on a backend; skips the test where the backend cannot open here. */
static struct lenet5 *open_or_skip(const char *backend) {
    struct lenet5_options options = {backend, MAX_BATCH, 0};
    struct lenet5_error err;
    struct lenet5 *net;
    if (lenet5_open(&net, WEIGHTS, &options, &err)) {
        print_message("# skip: %s\n", err.message);
        skip();
    }
    return net;
}

/* Device memory for images and logits, with a guard of NaN-like bytes on both sides. */
struct device_batch {
    uint8_t *images;
    float *block, *logits; /* logits lies GUARD floats into block */
    size_t floats;
};

static struct device_batch device_batch_new(int n) {
    struct device_batch b;
    b.floats = (size_t)n * CLASSES + 2 * GUARD;
    CHECK(cudaMalloc((void **)&b.images, (size_t)n * PIXELS));
    CHECK(cudaMalloc((void **)&b.block, b.floats * sizeof(float)));
    CHECK(cudaMemset(b.block, 0xff, b.floats * sizeof(float)));
    CHECK(cudaMemcpy(b.images, host_images, (size_t)n * PIXELS, cudaMemcpyHostToDevice));
    CHECK(cudaDeviceSynchronize());
    b.logits = b.block + GUARD;
    return b;
}

static void device_batch_free(struct device_batch *b) {
    cudaFree(b->images);
    cudaFree(b->block);
}

/* The logits are want's bits, and the guards are still what they were. */
static void assert_logits(const struct device_batch *b, const float *want, int n) {
    float *got = (float *)malloc(b->floats * sizeof *got);
    const uint8_t *bytes = (const uint8_t *)got;
    CHECK(cudaMemcpy(got, b->block, b->floats * sizeof *got, cudaMemcpyDeviceToHost));
    assert_memory_equal(got + GUARD, want, (size_t)n * CLASSES * sizeof *got);
    for (size_t k = 0; k < GUARD * sizeof *got; k++) {
        assert_int_equal(bytes[k], 0xff);
        assert_int_equal(bytes[(b->floats - GUARD) * sizeof *got + k], 0xff);
    }
    free(got);
}

static void same_bits_as_run(void **state) {
    static const int sizes[] = {1,  2,   15,  16,  17,   31,   32,   33,
                                97, 128, 792, 793, 2112, 2113, 4225, MAX_BATCH};
    static float want[MAX_BATCH * CLASSES];
    struct lenet5 *net = open_or_skip((const char *)*state);
    const size_t count = quick ? 8 : sizeof sizes / sizeof *sizes;
    assert_int_equal(lenet5_run(net, host_images, quick ? 33 : MAX_BATCH, want, NULL), 0);
    for (size_t k = 0; k < count; k++) {
        struct device_batch b = device_batch_new(sizes[k]);
        assert_int_equal(lenet5_run_device(net, b.images, sizes[k], b.logits, NULL, NULL), 0);
        CHECK(cudaDeviceSynchronize());
        assert_logits(&b, want, sizes[k]);
        device_batch_free(&b);
    }
    lenet5_close(net);
}

/* Captured once, replayed on other images; n of them may take several launches. */
static void graph_of(const char *backend, int n) {
    static float want[MAX_BATCH * CLASSES];
    struct lenet5 *net = open_or_skip(backend);
    struct device_batch b = device_batch_new(n);
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    assert_int_equal(lenet5_run_device(net, b.images, n, b.logits, stream, NULL), 0);
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&ready, graph, 0));
    for (int shift = 0; shift < 3; shift++) {
        const uint8_t *images = host_images + shift * 25 * PIXELS;
        /* on the same stream: a plain cudaMemcpy may return before its last bytes arrive */
        CHECK(cudaMemcpyAsync(b.images, images, n * PIXELS, cudaMemcpyHostToDevice, stream));
        CHECK(cudaGraphLaunch(ready, stream));
        CHECK(cudaStreamSynchronize(stream));
        assert_int_equal(lenet5_run(net, images, n, want, NULL), 0);
        assert_logits(&b, want, n);
    }
    cudaGraphExecDestroy(ready);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
    device_batch_free(&b);
    lenet5_close(net);
}

static void in_a_graph(void **state) {
    graph_of((const char *)*state, 97);
    if (!quick)
        graph_of((const char *)*state, 4225);
}

static void allocates_nothing(void **state) {
    if (quick) /* other programs take memory meanwhile */
        skip();
    struct lenet5 *net = open_or_skip((const char *)*state);
    struct device_batch b = device_batch_new(MAX_BATCH);
    size_t before, after, total;
    assert_int_equal(lenet5_run_device(net, b.images, 1, b.logits, NULL, NULL), 0);
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemGetInfo(&before, &total));
    for (int k = 0; k < 100; k++)
        assert_int_equal(lenet5_run_device(net, b.images, MAX_BATCH, b.logits, NULL, NULL), 0);
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemGetInfo(&after, &total));
    assert_int_equal(before, after);
    device_batch_free(&b);
    lenet5_close(net);
}

/* Takes device memory until only left bytes and crumbs are free; returns how many blocks. */
static int take_memory(void *block[64], size_t left) {
    enum { CRUMB = 1 << 20 };
    size_t available, total;
    int count = 0;
    CHECK(cudaMemGetInfo(&available, &total));
    for (size_t piece = available; piece > CRUMB && count < 64;) {
        CHECK(cudaMemGetInfo(&available, &total));
        if (available < left + piece || cudaMalloc(&block[count], piece))
            piece /= 2;
        else
            count++;
    }
    cudaGetLastError();
    CHECK(cudaMemGetInfo(&available, &total));
    assert_in_range(available, 0, left + 16 * CRUMB);
    return count;
}

static void give_memory(void *block[64], int count) {
    while (count)
        CHECK(cudaFree(block[--count]));
}

/* What is opened needs no more memory, not even in a process that has loaded no kernel yet.
   Floats may want a second backend, which is granted or refused in one sentence. */
static void memory_gone(const char *backend) {
    static float want[MAX_BATCH * CLASSES], got[MAX_BATCH * CLASSES], floats[33 * PIXELS];
    struct lenet5_options options = {backend, MAX_BATCH, 0};
    struct lenet5_error err = {""};
    void *block[64];
    struct lenet5 *net = open_or_skip(backend), *opened;
    assert_int_equal(lenet5_run(net, host_images, MAX_BATCH, want, NULL), 0);
    lenet5_close(net);
    CHECK(cudaDeviceReset());
    assert_int_equal(lenet5_open(&opened, WEIGHTS, &options, NULL), 0);
    int count = take_memory(block, 0);
    for (int k = 0; k < 2; k++) {
        memset(got, 0xff, sizeof got);
        assert_int_equal(lenet5_run(opened, host_images, 33, got, NULL), 0);
        assert_memory_equal(got, want, 33 * CLASSES * sizeof *want);
        assert_int_equal(lenet5_run(opened, host_images, MAX_BATCH, got, NULL), 0);
        assert_memory_equal(got, want, sizeof want);
        if (lenet5_run_floats(opened, floats, 33, got, &err))
            assert_true(*err.message);
    }
    give_memory(block, count);
    lenet5_close(opened);
}

static void memory_gone_after_open(void **state) {
    if (quick)
        skip();
    memory_gone((const char *)*state);
    memory_gone("auto");
}

/* With little device memory left, a large batch is granted smaller, and right, or refused. */
static void short_of_memory(void **state) {
    enum { ASKED = 1 << 22, LEFT = 256 << 20 };
    static float want[33 * CLASSES], got[33 * CLASSES];
    struct lenet5_options options = {(const char *)*state, ASKED, 0};
    struct lenet5_error err;
    void *block[64];
    if (quick)
        skip();
    struct lenet5 *net = open_or_skip((const char *)*state);
    assert_int_equal(lenet5_run(net, host_images, 33, want, NULL), 0);
    lenet5_close(net);
    int count = take_memory(block, LEFT);
    if (lenet5_open(&net, WEIGHTS, &options, &err)) {
        assert_non_null(strstr(err.message, "memory"));
    } else {
        assert_in_range(lenet5_info(net)->max_batch, 1, ASKED / 2);
        assert_non_null(strstr(lenet5_info(net)->backend_note, "device memory is short"));
        memset(got, 0xff, sizeof got);
        assert_int_equal(lenet5_run(net, host_images, 33, got, NULL), 0);
        assert_memory_equal(got, want, sizeof want);
        lenet5_close(net);
    }
    give_memory(block, count);
}

/* Right after much memory was given back, copies arrive late: weights must be there all the
   same when the first kernel reads them. */
static void memory_just_given_back(void **state) {
    static float want[33 * CLASSES], got[33 * CLASSES];
    struct lenet5_options options = {(const char *)*state, MAX_BATCH, 0};
    void *block[64];
    if (quick)
        skip();
    struct lenet5 *net = open_or_skip((const char *)*state);
    CHECK(cudaDeviceSynchronize());
    assert_int_equal(lenet5_run(net, host_images, 33, want, NULL), 0);
    lenet5_close(net);
    give_memory(block, take_memory(block, 1 << 30));
    assert_int_equal(lenet5_open(&net, WEIGHTS, &options, NULL), 0);
    assert_int_equal(lenet5_run(net, host_images, 33, got, NULL), 0);
    assert_memory_equal(got, want, sizeof want);
    lenet5_close(net);
}

static void refusals(void **state) {
    struct lenet5 *net = open_or_skip((const char *)*state);
    struct lenet5_error err;
    assert_int_equal(lenet5_run_device(net, NULL, 0, NULL, NULL, &err), -1);
    assert_string_equal(err.message, "0 images at once; this network was opened for 1 to 4300");
    assert_int_equal(lenet5_run_device(net, NULL, MAX_BATCH + 1, NULL, NULL, &err), -1);
    assert_string_equal(err.message,
                        "4301 images at once; this network was opened for 1 to 4300");
    lenet5_close(net);
}

/* A failure that somebody else left behind is not this network's. */
static void stale_error(void **state) {
    float logits[CLASSES];
    void *never;
    if (quick) /* memcheck would report it */
        skip();
    struct lenet5 *net = open_or_skip((const char *)*state);
    assert_int_not_equal(cudaMalloc(&never, (size_t)1 << 60), cudaSuccess);
    assert_int_equal(lenet5_run(net, host_images, 1, logits, NULL), 0);
    lenet5_close(net);
}

/* Another device is current: one sentence, and right again when the network's own is. */
static void another_device(void **state) {
    struct lenet5 *net = open_or_skip((const char *)*state);
    struct lenet5_error err;
    float logits[CLASSES];
    int devices;
    CHECK(cudaGetDeviceCount(&devices));
    if (devices < 2) {
        print_message("# skip: there is but one GPU\n");
        lenet5_close(net);
        skip();
    }
    CHECK(cudaSetDevice(1));
    assert_int_equal(lenet5_run(net, host_images, 1, logits, &err), -1);
    assert_string_equal(err.message, "the network was opened on device 0, but device 1 is "
                                     "current; call cudaSetDevice(0) first");
    CHECK(cudaSetDevice(0));
    assert_int_equal(lenet5_run(net, host_images, 1, logits, &err), 0);
    lenet5_close(net);
}

/* The example of lenet5.h, line by line: cli.bats looks for them here. */
static void the_example(void **state) {
    enum { n = 33 };
    static float want[n * CLASSES];
    struct lenet5_error err;
    struct lenet5 *net = open_or_skip((const char *)*state);
    assert_int_equal(lenet5_run(net, host_images, n, want, NULL), 0);
    struct device_batch b = device_batch_new(n);
    CHECK(cudaDeviceSynchronize());
    uint8_t *images;
    float *logits;
    cudaStream_t stream;
    images = b.images;
    logits = b.logits;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    if (lenet5_run_device(net, images, n, logits, stream, &err))
        fail_msg("%s", err.message);
    cudaStreamSynchronize(stream);
    assert_logits(&b, want, n);
    cudaStreamDestroy(stream);
    device_batch_free(&b);
    lenet5_close(net);
}

static void not_on_the_cpu(void **state) {
    struct lenet5 *net = open_or_skip("reference");
    struct lenet5_error err;
    (void)state;
    assert_int_equal(lenet5_run_device(net, NULL, 1, NULL, NULL, &err), -1);
    assert_string_equal(err.message, "backend reference works in host memory; "
                                     "lenet5_run_device needs a GPU one");
    lenet5_close(net);
}

struct worker {
    const char *backend;
    int first;         /* of the images: each thread has others */
    const float *want; /* logits of all images */
    int wrong;
};

/* One network and one stream a thread, by lenet5_run and lenet5_run_device in turns; cmocka's
   assertions belong to the main thread, so this one counts. */
static void *work(void *argument) {
    enum { OWN = 97 };
    struct worker *w = (struct worker *)argument;
    struct lenet5_options options = {w->backend, OWN, 0};
    const size_t size = OWN * CLASSES * sizeof(float), bytes = OWN * PIXELS;
    const uint8_t *own = host_images + (size_t)w->first * PIXELS;
    float got[OWN * CLASSES], *logits = NULL;
    uint8_t *images = NULL;
    cudaStream_t stream = NULL;
    struct lenet5 *net;
    w->wrong = lenet5_open(&net, WEIGHTS, &options, NULL) || cudaMalloc(&images, bytes) ||
               cudaMalloc(&logits, size) ||
               cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    for (int k = 0; k < 20 && !w->wrong; k++) {
        memset(got, 0xff, sizeof got);
        if (k % 2)
            w->wrong = lenet5_run(net, own, OWN, got, NULL);
        else
            w->wrong = cudaMemcpyAsync(images, own, bytes, cudaMemcpyHostToDevice, stream) ||
                       lenet5_run_device(net, images, OWN, logits, stream, NULL) ||
                       cudaMemcpyAsync(got, logits, size, cudaMemcpyDeviceToHost, stream) ||
                       cudaStreamSynchronize(stream);
        w->wrong |= memcmp(got, w->want + (size_t)w->first * CLASSES, size) != 0;
    }
    cudaStreamDestroy(stream);
    cudaFree(images);
    cudaFree(logits);
    lenet5_close(net);
    return NULL;
}

static void several_threads(void **state) {
    enum { THREADS = 4 };
    static float want[MAX_BATCH * CLASSES];
    pthread_t threads[THREADS];
    struct worker workers[THREADS];
    if (quick) /* racecheck cannot follow launches from several threads */
        skip();
    struct lenet5 *net = open_or_skip((const char *)*state);
    assert_int_equal(lenet5_run(net, host_images, MAX_BATCH, want, NULL), 0);
    for (int k = 0; k < THREADS; k++) {
        workers[k] = {(const char *)*state, 50 * k, want, 0};
        assert_int_equal(pthread_create(&threads[k], NULL, work, &workers[k]), 0);
    }
    for (int k = 0; k < THREADS; k++) {
        pthread_join(threads[k], NULL);
        assert_int_equal(workers[k].wrong, 0);
    }
    lenet5_close(net);
}

int main(void) {
    static const struct {
        const char *name;
        CMUnitTestFunction function;
    } claims[] = {{"same bits as lenet5_run", same_bits_as_run},
                  {"in a CUDA graph", in_a_graph},
                  {"allocates nothing", allocates_nothing},
                  {"the example", the_example},
                  {"short of memory", short_of_memory},
                  {"memory just given back", memory_just_given_back},
                  {"memory gone after open", memory_gone_after_open},
                  {"stale error", stale_error},
                  {"another device", another_device},
                  {"refusals", refusals},
                  {"several threads", several_threads}};
    static char names[64][96];
    struct CMUnitTest tests[64];
    const char *asked = getenv("LENET5_QUICK");
    int count = 0;
    quick = asked && !strcmp(asked, "1");
    fill_images();
    memset(tests, 0, sizeof tests);
    for (const struct backend *const *b = backends; *b; b++)
        for (size_t k = 0; (*b)->on_gpu && k < sizeof claims / sizeof *claims; k++) {
            snprintf(names[count], sizeof names[count], "%s, backend %s", claims[k].name,
                     (*b)->name);
            tests[count].name = names[count];
            tests[count].test_func = claims[k].function;
            tests[count++].initial_state = (void *)(*b)->name;
        }
    tests[count].name = "not on the CPU";
    tests[count++].test_func = not_on_the_cpu;
    return _cmocka_run_group_tests("lenet5_run_device", tests, (size_t)count, NULL, NULL);
}
