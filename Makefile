# SPDX-License-Identifier: MIT
#
# Builds lenet5 with nvcc where there is one and without it where not; `make help` lists what can
# be asked for. Every configuration has its own tree, build/cpu or build/cuda (with SANITIZE:
# build/cpu-address,undefined), so that switching never needs `make clean`; ./lenet5 and
# ./h5_to_blob are links into the last one built.
#
#   CUDA=0              without CUDA, even where there is nvcc
#   CUDA_ARCH=native    kernels for the GPU at hand only (default: 75 80 90 100 120)
#   SANITIZE=LIST       as -fsanitize=LIST
#   V=1                 print every command
#   CC, CFLAGS, LDFLAGS, NVCC, NVCCFLAGS, BUILD  as usual; what the code needs is kept apart

CFLAGS ?= -O2 -g
PREFIX ?= /usr/local

NVCC ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
ifeq ($(CUDA),0)
override NVCC :=
endif
CONFIG := $(if $(NVCC),cuda,cpu)$(if $(SANITIZE),-$(SANITIZE))
BUILD ?= build/$(CONFIG)

# The reference must give the same bits from every compiler: no contraction to fused
# multiply-adds, and never fast-math.
C_FLAGS := -std=c11 -Wall -Wextra -Wpedantic -Wshadow -ffp-contract=off -fPIC \
           -fvisibility=hidden -Ilayers -Ifashion_mnist -Iconverter -Icommand -MMD -MP \
           $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all \
           -fno-omit-frame-pointer)
LD_FLAGS := -Wl,--as-needed $(if $(SANITIZE),-fsanitize=$(SANITIZE))

CUDA_ARCH ?= 75 80 90 100 120
CUDA_TARGETS = $(if $(filter native all all-major,$(CUDA_ARCH)),-arch=$(CUDA_ARCH),\
    $(foreach a,$(CUDA_ARCH),-gencode arch=compute_$a,code=sm_$a) \
    -gencode arch=compute_$(lastword $(CUDA_ARCH)),code=compute_$(lastword $(CUDA_ARCH)))
NVCC_FLAGS = -std=c++17 -O2 -lineinfo -Ilayers -Ifashion_mnist -Icommand -DLENET5_CUDA -MMD -MP \
    -Xcompiler -Wall,-Wextra,-fPIC,-fvisibility=hidden,-fno-exceptions,-fno-rtti \
    -Xcompiler -fno-threadsafe-statics
CUDA_LIB = $(dir $(realpath $(NVCC)))../lib64
CUDA_LIBS = $(if $(NVCC),-L$(CUDA_LIB) -L$(dir $(realpath $(NVCC)))../lib -lcudart_static \
    -lpthread -ldl -lrt)

LIBRARY := $(patsubst %,$(BUILD)/%.o,$(wildcard layers/*.c) $(if $(NVCC),$(wildcard layers/*.cu)))
CONVERTER := $(patsubst %,$(BUILD)/%.o,$(wildcard converter/*.c))
COMMAND := $(BUILD)/lenet5.cu.o $(patsubst %,$(BUILD)/%.o,$(wildcard command/*.c)) \
    $(BUILD)/fashion_mnist/idx.c.o
TEST_SOURCES := $(wildcard tests/test_*.c) $(if $(NVCC),$(wildcard tests/test_*.cu))
TESTS := $(basename $(TEST_SOURCES:%=$(BUILD)/%))
FUZZERS := $(patsubst tests/%.c,%,$(wildcard tests/fuzz_*.c))
OWN_BLOBS := $(patsubst %.h5,%.bin,$(wildcard weights/*.h5))

# Recursive, so that pkg-config is asked only by what needs HDF5; its refusal names the package.
pkg = $(shell pkg-config $1 $2 || echo "-lmissing-package-$(firstword $2)-run-scripts/setup.sh")
CONVERTER_LIBS = $(call pkg,--libs,hdf5) $(call pkg,--libs,jansson) $(call pkg,--libs,libzip) \
    -lmd -lz -lm

# Begins a command: without V=1 it prints what is made instead of the command.
say = $(if $(V),,@echo "  $1 $@" && )

.DELETE_ON_ERROR:
.PHONY: all help setup eval compare test test-arm bench asan fuzz gpu-check install clean \
    convert data tests data-or-sample bench_gpu

all: $(BUILD)/lenet5 $(BUILD)/h5_to_blob $(BUILD)/liblenet5.a $(BUILD)/liblenet5.so ## build the command, the converter and the library
	@ln -sfn $(BUILD)/lenet5 lenet5 && ln -sfn $(BUILD)/h5_to_blob h5_to_blob
	@echo "built $(BUILD) $(if $(NVCC),with $(NVCC),without CUDA); next: make eval"

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@sed -n 's/^#   /  /p' $(MAKEFILE_LIST)

setup: ## install the packages that building needs
	@scripts/setup.sh build

eval: setup data-or-sample ## set up, build, get the data, convert the weights, and report accuracy
	@$(MAKE) --no-print-directory convert
	@./lenet5 --eval
	@echo "next: make compare, make test, ./lenet5 --help"

compare: all convert ## time every layer on CPU and GPU and check each against the reference
	@./lenet5 --compare

data: ## fetch MNIST and Fashion-MNIST, or take them from DATA_FROM=folder
	@DATA_FROM="$(DATA_FROM)" scripts/fetch_data.sh

data-or-sample: | setup
	@DATA_FROM="$(DATA_FROM)" scripts/fetch_data.sh || true

ifdef H5
convert: all ## convert weights/*.h5, or H5=my.h5 BLOB=my.bin CONVERT_FLAGS='...'
	@./h5_to_blob $(CONVERT_FLAGS) "$(H5)" "$(or $(BLOB),$(basename $(H5)).bin)"
else
convert: all $(OWN_BLOBS)
	@echo "converted: $(OWN_BLOBS); next: ./lenet5 --eval"
endif

weights/%.bin: weights/%.h5 $(BUILD)/h5_to_blob
	@$(BUILD)/h5_to_blob --quiet $< $@

tests: $(TESTS) $(if $(NVCC),bench_gpu)

test: ## install what is missing, build and run every test; ends with a count
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory all tests convert
	@BUILD=$(BUILD) scripts/run_tests.sh

bench: all convert ## throughput and latency of every backend over batch sizes
	@./lenet5 --bench

asan: ## run every test under the address and undefined-behaviour sanitizers, without CUDA
	@$(MAKE) --no-print-directory CUDA=0 SANITIZE=address,undefined test

ARM_CC ?= aarch64-linux-gnu-gcc
ARM_TEST = -o build/arm/test_simd -lcmocka -lz -lm

test-arm: ## run the tests of backend simd as ARM code, under qemu
	@if command -v qemu-aarch64 >/dev/null && echo 'int main(void) {}' | \
	        $(ARM_CC) -x c - -o /dev/null -lcmocka -lz; then \
	    $(MAKE) --no-print-directory CUDA=0 CC=$(ARM_CC) BUILD=build/arm \
	        build/arm/layers.a build/arm/tests/test_simd.c.o && \
	    $(ARM_CC) build/arm/tests/test_simd.c.o build/arm/layers.a $(ARM_TEST) && \
	    qemu-aarch64 build/arm/test_simd; \
	else \
	    echo "left out: it needs gcc-aarch64-linux-gnu and qemu-user, and of architecture arm64" \
	        "libcmocka-dev and zlib1g-dev"; \
	fi

fuzz: ## run every fuzz target for FUZZ_SECONDS=30 each
	@$(MAKE) --no-print-directory CUDA=0 CC=clang CFLAGS="-O1 -g" BUILD=build/fuzz \
	    SANITIZE=fuzzer-no-link,address,undefined fuzzers
	@for f in $(FUZZERS); do scripts/fuzz.sh build/fuzz $$f $(or $(FUZZ_SECONDS),30) || exit 1; done

.PHONY: fuzzers
fuzzers: $(patsubst %,$(BUILD)/%,$(FUZZERS))

gpu-check: all tests convert ## on a machine with a GPU: test, sanitize and measure; leaves build/gpu/gpu_report.txt
	@BUILD=$(BUILD) scripts/gpu_check.sh

install: all ## install command, converter, library and header under PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include
	install $(BUILD)/lenet5 $(BUILD)/h5_to_blob $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(BUILD)/liblenet5.a $(BUILD)/liblenet5.so $(DESTDIR)$(PREFIX)/lib
	install -m 644 layers/lenet5.h $(DESTDIR)$(PREFIX)/include

clean: ## remove everything that was built
	rm -rf build lenet5 h5_to_blob weights/*.bin

# The only flag that chooses code: is there a backend "cuda"?
$(BUILD)/layers/network.c.o: C_FLAGS += $(if $(NVCC),-DLENET5_CUDA)

$(BUILD)/%.c.o: %.c
	@mkdir -p $(@D)
	$(call say,cc  )$(CC) $(C_FLAGS) $(if $(filter converter/% tests/%,$<),$(call pkg,--cflags,hdf5)) \
	    $(CFLAGS) $(CPPFLAGS) -c $< -o $@

ifneq ($(NVCC),)
# Unrolled as they are, line tables would make these objects four times as large. In fused.cu,
# ptxas -O1 keeps the order of FFMAs that is written: 4 % faster than its default on an H200.
WHOLE_FLAGS := $(filter-out -lineinfo,$(NVCC_FLAGS))
$(BUILD)/layers/fused.cu.o: NVCC_FLAGS := $(WHOLE_FLAGS) -Xptxas -O1
$(BUILD)/layers/tensor.cu.o: NVCC_FLAGS := $(WHOLE_FLAGS)

$(BUILD)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call say,nvcc)$(NVCC) $(NVCC_FLAGS) $(CUDA_TARGETS) $(NVCCFLAGS) -c $< -o $@
else
$(BUILD)/lenet5.cu.o: lenet5.cu
	@mkdir -p $(@D)
	$(call say,cc  )$(CC) -x c $(C_FLAGS) $(CFLAGS) $(CPPFLAGS) -c $< -o $@
endif

# All of it, for the project's own programs.
$(BUILD)/layers.a: $(LIBRARY)
	@rm -f $@
	$(call say,ar  )ar rcs $@ $^

# For embedders: one object whose only global names are lenet5_*, as in the shared library.
$(BUILD)/liblenet5.a: $(LIBRARY)
	@rm -f $@
	$(call say,ar  )$(CC) -r -nostdlib -o $(@:.a=.o) $^ && objcopy --localize-hidden $(@:.a=.o) && \
	    ar rcs $@ $(@:.a=.o)

$(BUILD)/liblenet5.so: $(LIBRARY)
	$(call say,ld  )$(CC) -shared -Wl,-soname,liblenet5.so $(LD_FLAGS) $(LDFLAGS) -o $@ $^ $(CUDA_LIBS) -lz -lm

$(BUILD)/lenet5: $(COMMAND) $(BUILD)/layers.a
	$(call say,ld  )$(CC) $(LD_FLAGS) $(LDFLAGS) -o $@ $^ $(CUDA_LIBS) $(call pkg,--libs,jansson) -lz -lm

$(BUILD)/h5_to_blob: $(CONVERTER) $(BUILD)/layers.a
	$(call say,ld  )$(CC) $(LD_FLAGS) $(LDFLAGS) -o $@ $^ $(CUDA_LIBS) $(CONVERTER_LIBS)

# A test is one program; what it does not use of the converter is not linked.
TEST_PARTS := $(filter-out %/h5_to_blob.c.o,$(CONVERTER)) $(BUILD)/fashion_mnist/idx.c.o

$(BUILD)/converter.a: $(TEST_PARTS)
	@rm -f $@
	$(call say,ar  )ar rcs $@ $^

link_test = $(CC) $(LD_FLAGS) $(LDFLAGS) -o $@ $^ $(CUDA_LIBS) $(CONVERTER_LIBS) -lcmocka

$(BUILD)/tests/test_%: $(BUILD)/tests/test_%.c.o $(BUILD)/converter.a $(BUILD)/layers.a
	$(call say,ld  )$(link_test)

$(BUILD)/tests/test_%: $(BUILD)/tests/test_%.cu.o $(BUILD)/layers.a
	$(call say,ld  )$(link_test)

# Checks and times the whole-network kernels on the device; C++ for its threads.
bench_gpu: $(BUILD)/tests/bench_gpu
$(BUILD)/tests/bench_gpu: $(BUILD)/tests/bench_gpu.cu.o $(BUILD)/layers.a
	$(call say,ld  )$(CC) $(LD_FLAGS) $(LDFLAGS) -o $@ $^ $(CUDA_LIBS) -lstdc++ -lz -lm

$(BUILD)/fuzz_%: $(BUILD)/tests/fuzz_%.c.o $(BUILD)/converter.a $(BUILD)/layers.a
	$(call say,ld  )$(CC) -fsanitize=fuzzer,address,undefined $(LDFLAGS) -o $@ $^ $(CONVERTER_LIBS)

.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
