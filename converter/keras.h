/* SPDX-License-Identifier: MIT
 *
 * keras.h - from a file in any of Keras's layouts to the table that layer.h defines.
 *
 * The way of a file, one source file a step:
 *
 *     source.c    which container is it? HDF5, zip or folder; else say what it is instead
 *     config.c    with an architecture: its JSON becomes a list of units
 *     weights.c   arrays from the layouts A to K go to the units, or make them where there is
 *                 no architecture
 *     names.c     without one: what the names of layers betray,
 *     order.c     in which order they stand,
 *     ways.c      what the shapes betray,
 *     guess.c     the options, and assumptions
 *     input.c     shape and scaling of the images
 *     translate.c units become rows: shapes followed, kernels reordered, borders derived
 *     fold.c      batch normalisation disappears into its neighbours where that is exact
 *
 * A unit is one layer as Keras sees it, a row one step as the engine computes it. The units
 * stay in struct keras so that the user can compare them with model.summary().
 */
#ifndef LENET5_KERAS_H
#define LENET5_KERAS_H

#include "blob.h"
#include "h5.h"

enum { MAX_UNITS = 256, MAX_NOTES = 24 };

enum kind {
    KIND_NOTHING, /* at inference: dropout, noise, augmentation */
    KIND_CONV,
    KIND_POOL,
    KIND_DENSE,
    KIND_SCALE, /* batch normalisation, Rescaling, Normalization: all are x * s + t */
    KIND_ACTIVATION,
    KIND_PADDING,
    KIND_FLATTEN,
    KIND_RESHAPE
};

/* What an array is to its layer. For Rescaling, gamma is the scale and beta the offset. */
enum role { KERNEL, BIAS, GAMMA, BETA, MEAN, VARIANCE, ROLE_END };

enum padding { PADDING_VALID, PADDING_SAME, PADDING_FULL };

enum order { ORDER_UNKNOWN, ORDER_HWC, ORDER_CHW };

/* Bits of what an option may say of the whole network at once, for no name tells it. */
enum { OPEN_ACTIVATION = 1, OPEN_POOL = 2, OPEN_PADDING = 4 };

struct function {
    enum activation activation;
    float param[3];
};

struct unit {
    char name[NAME_SIZE];
    char type[NAME_SIZE]; /* Keras's class, as "Conv2D" */
    char group[256];      /* legacy files: name of the outermost layer, whose group it is */
    char place[256]; /* v3 files: its way through the containers, "Sequential 0/Conv2D 1" */
    enum kind kind;
    int outputs;              /* filters of a convolution, units of a dense layer */
    int window[2], stride[2]; /* rows, columns; a stride of 0 is the window's */
    enum padding padding;
    int border[4];     /* KIND_PADDING: top, left, bottom, right */
    int global;        /* pooling over the whole map ... */
    int keepdims;      /* ... that leaves a map of 1x1 */
    int maximum;       /* pooling takes the largest, else the mean */
    enum order order;  /* data_format of the layer: HWC is channels_last */
    enum order kernel; /* of a convolution's kernel: HWC is HWIO, CHW is OIHW */
    int transposed;    /* the dense kernel is stored as [out][in] */
    int has[ROLE_END]; /* the arrays that it must have */
    int axis;          /* of normalisation or softmax, as Keras counts them; 0 unknown */
    int preprocessing; /* KIND_SCALE that belongs to the input when it comes first */
    double epsilon;    /* KIND_SCALE: added to the variance */
    double least_deviation;
    int target_rank, target[3]; /* KIND_RESHAPE */
    struct function function;   /* KIND_ACTIVATION, or of a conv or dense layer */
    int function_known;         /* weights only: the name of an activation tells it */
    struct tensor array[ROLE_END];

    /* written by translate.c, for the report */
    struct shape out;
    int flat;             /* Keras shows a vector */
    long long parameters; /* as Keras counts them */
};

enum place { PLACE_BEFORE = 1, PLACE_AFTER };

struct keras_options {
    struct shape input;     /* c is 0 when it was not said, as below */
    int padding_count;      /* 0; of how many convolutions, the first or all, is said ... */
    unsigned padding_same;  /* ... which are padded: bit i is convolution i's */
    const char *activation; /* NULL; a name that keras_function knows */
    int pool;               /* 0; enum op */
    int batchnorm;          /* 0; enum place: in relation to the activation */
    double epsilon;         /* NAN; of batch normalisation */
    double slope;           /* NAN; of leaky relu layers */
    double scale, offset;   /* NAN */
    int invert;
    int layout;          /* ORDER_UNKNOWN; enum order */
    int flip;            /* -1; else whether kernels are rotated by 180 degrees */
    int classes;         /* 0: the ten of MNIST and Fashion-MNIST */
    const char *dataset; /* NULL */
};

/* What is left of layers without arrays whose place among the others is unknown. */
struct lost {
    int units; /* all of them; 0 where such layers leave no trace */
    int average_pools, maximum_pools;
    char global[32]; /* class of a pooling over the whole map, or empty */
    int activations; /* but softmax */
    int function_known;
    struct function function;
};

struct keras {
    const char *path;         /* of the file, for errors; the caller's */
    char layout;              /* 'A' to 'K', as weights.c lists them */
    const char *base;         /* group that holds the layers, static */
    char version[64];         /* "Keras 2.15.0", or empty */
    int major;                /* of that version; 0 unknown */
    char backend[32];         /* "tensorflow", "theano", ..., or empty */
    int architecture;         /* the file says what its layers do */
    int theano;               /* written on Theano: kernels rotated, borders centred */
    int flip;                 /* kernels are rotated */
    enum order flattened;     /* order in which a map reached the first dense layer */
    int input_rank, input[3]; /* as the file says, 0 where it does not */
    int size_assumed;         /* of the images */
    int count;
    struct unit units[MAX_UNITS]; /* arrays owned */
    int ordered;      /* weights only: the units came in their order, none left out */
    int pools_known;  /* weights only: the pooling layers stand among the units */
    struct lost lost; /* what does not */
    int norm_open;    /* where batch normalisation stands: said once */
    unsigned open;    /* weights only: what `lenet5 --identify` may read in another way */
    int note_count;
    char notes[MAX_NOTES][240]; /* what was assumed, and the option that says otherwise */
};

void keras_options_init(struct keras_options *options);

/* Reads a file and translates it. On success the caller owns both, see keras_free, blob_free;
   on failure both are empty. path must outlive k. */
int keras_read(struct keras *k, struct model *m, const char *path,
               const struct keras_options *options, struct lenet5_error *err);

void keras_free(struct keras *k);

/* ---- the steps, for keras.c and for tests ------------------------------------------------ */

/* config.c: the units of an architecture in JSON. All that cannot be converted is in the error,
   not only the first. */
int config_read(struct keras *k, const char *json, struct lenet5_error *err);
/* The version in metadata.json. */
int config_read_metadata(struct keras *k, const char *json, struct lenet5_error *err);
/* The function of that name, as Keras of that major version computes it; -1 if it is unknown.
 */
int keras_function(const char *name, int major, struct function *function);

/* weights.c: sets layout, base, version, backend and theano. */
int weights_find_layout(struct keras *k, struct h5 *h5, char container,
                        struct lenet5_error *err);
/* Gives every unit of an architecture its arrays, or makes units from the arrays alone. */
int weights_read(struct keras *k, struct h5 *h5, struct lenet5_error *err);
/* Do arrays and units agree? Units made from arrays take their numbers from them. */
int weights_check(struct keras *k, struct lenet5_error *err);

/* legacy.c, v3.c, torch.c: the two ways of weights_read for the layouts A to E, F to H, and K.
 */
int legacy_attach(struct keras *k, struct h5 *h5, struct lenet5_error *err);
int legacy_collect(struct keras *k, struct h5 *h5, struct lenet5_error *err);
int v3_attach(struct keras *k, struct h5 *h5, struct lenet5_error *err);
int v3_collect(struct keras *k, struct h5 *h5, struct lenet5_error *err);
int v3_is_subclassed(struct h5 *h5, struct lenet5_error *err);
int torch_collect(struct keras *k, struct h5 *h5, struct lenet5_error *err);

/* names.c: refuses a layer that is by its name of a class that cannot be converted. */
int name_check(const struct keras *k, const struct unit *u, struct lenet5_error *err);
/* What a layer without arrays is, by its name; the type of a pooling may stay empty. */
void name_read(struct unit *u, int major);
/* Makes a unit a pooling of this class. */
void make_pool(struct unit *u, const char *type);

/* order.c: puts the units of layouts without a list of layers into their order. */
int order_units(struct keras *k, struct lenet5_error *err);

/* guess.c: completes units that were made from arrays alone. */
int guess(struct keras *k, const struct keras_options *options, struct lenet5_error *err);

/* input.c: data format of the network, shape of its images, and what a byte becomes before the
   network's own preprocessing, if it has any. */
enum order input_order(const struct keras *k);
int input_shape(struct keras *k, const struct keras_options *options, struct shape *shape,
                struct lenet5_error *err);
enum origin input_scaling(struct keras *k, const struct keras_options *options, double *scale,
                          double *offset);

/* translate.c: makes the rows; the arrays of the units are used up. */
int translate(struct keras *k, const struct keras_options *options, struct model *m,
              struct lenet5_error *err);

/* ---- unit.c: what all steps share ---------------------------------------------------------
 */

/* The next unit, emptied; NULL when there are too many. */
struct unit *keras_add(struct keras *k, enum kind kind, const char *type, const char *name,
                       struct lenet5_error *err);

/* Reads an array and gives it to a unit, in a role that is still free. */
int keras_take(struct unit *u, enum role role, struct h5 *h5, const char *path,
               struct lenet5_error *err);

/* Remembers a version as Keras writes it, "2.15.0" or "2.2.4-tf". */
void keras_set_version(struct keras *k, const char *version);

/* Notes something that was assumed. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void keras_note(struct keras *k, const char *format, ...);

/* Makes a text of a file fit to be printed: control characters would move the cursor, broken
   UTF-8 fits into no JSON. */
void clean_text(char *text);

int unit_needs_arrays(const struct unit *u);
/* Inputs of a kernel: channels of a convolution, rows of a dense layer. */
size_t unit_inputs(const struct unit *u);
/* Number k of a scale layer: x * s + t. */
void unit_scale(const struct unit *u, size_t k, double *s, double *t);
/* How many such numbers it has; 1 serves all channels. */
size_t unit_scale_count(const struct unit *u);
int unit_is_uniform(const struct unit *u);
/* One side of the target shape of a Reshape may be -1: what remains of so many numbers. */
void unit_complete_target(struct unit *u, size_t size);

#endif
