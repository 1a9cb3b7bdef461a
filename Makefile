# The only build file. `make help` lists the targets.
#
#   MARCH=x86-64-v3   instruction set of the CPU code (default native)
#   GPU_ARCH="80 90"  compute capabilities of the CUDA code
#   CUDA=0            leave CUDA out
#   JOBS=4            compilers at once (default one a core)
#   WERROR=-Werror    warnings are errors (make ci sets it)
#   V=1               print whole commands

ROOMS    := core autograd ops models data eval train tools
MARCH    ?= native
GPU_ARCH ?= 80 90
CXX      ?= g++
WERROR   ?=
JOBS     ?= $(shell nproc 2>/dev/null || echo 2)
MAKEFLAGS += --no-builtin-rules $(if $(filter 0,$(MAKELEVEL)),-j$(JOBS))
Q := $(if $(V),,@)
comma := ,
say = @printf '  %-5s %s\n'
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:
$(if $(filter clean,$(MAKECMDGOALS)),$(eval .NOTPARALLEL:))

# ---------------------------------------------------------------- what this machine has

no_config := help clean setup demo test ci format
ifneq ($(filter-out $(no_config),$(or $(MAKECMDGOALS),all)),)
include build/config.mk
endif
ifeq ($(CUDA),0)
HAVE_CUDA := 0
endif

build/config.mk: tools/configure.sh
	@CXX="$(CXX)" CUDA="$(CUDA)" tools/configure.sh $@

# ---------------------------------------------------------------- sources, by wildcard

mains     := $(wildcard train/train_*.cpp eval/eval_*.cpp) $(filter-out $(patsubst %.h,%.cpp,$(wildcard tools/*.h)),$(wildcard tools/*.cpp))
sources   := $(filter-out $(mains),$(wildcard $(ROOMS:%=%/*.cpp))) $(filter-out %_nvidia.cpp %_emulated.cpp %_none.cpp,$(wildcard core/cuda/*.cpp))
kernels   := $(wildcard $(ROOMS:%=%/*.cu))
nvidia    := $(wildcard core/cuda/*_nvidia.cpp)
emulator  := $(wildcard core/cuda/*_emulated.cpp core/simt/*.cpp)
programs  := $(notdir $(mains:.cpp=))
# tests/test_NAME.cpp belongs to the room that has NAME.h; what belongs to none is a test of the programs.
room_of    = $(firstword $(foreach r,$(ROOMS),$(if $(wildcard $(r)/$(1).h),$(r))) programs)
test_rooms := $(ROOMS) programs
$(foreach r,$(test_rooms),$(eval tests_$(r) := $(foreach t,$(wildcard tests/test_*.cpp),$(if $(filter $(r),$(call room_of,$(t:tests/test_%.cpp=%))),$(t)))))
test_rooms := $(foreach r,$(test_rooms),$(if $(tests_$(r)),$(r)))
tests_ops += $(wildcard tests/example/*.cpp)
example_kernels := $(wildcard tests/example/*.cu)
test_helpers := $(filter-out tests/test_%.cpp,$(wildcard tests/*.cpp))
emulator_tests := $(wildcard tests/simt/*.cu)

# ---------------------------------------------------------------- flags

warnings   := -Wall -Wextra $(WERROR)
includes   := -I. $(HDF5_CFLAGS) $(FMT_CFLAGS) $(BLAS_CFLAGS) $(ZLIB_CFLAGS) $(XXHASH_CFLAGS) $(TOML_CFLAGS) $(JSON_CFLAGS) $(GTEST_CFLAGS)
libraries  := $(HDF5_LIBS) $(FMT_LIBS) $(BLAS_LIBS) $(ZLIB_LIBS) $(XXHASH_LIBS) -fopenmp -pthread
host_flags := -std=c++20 -O2 -g1 -march=$(MARCH) -fopenmp -pthread $(warnings) $(includes) -MMD -MP
# CPU ops: loops are vectorised and sums re-associated, while NaN and infinities keep their meaning (no -ffast-math).
ops_flags  := -O3 -fassociative-math -fno-signed-zeros -fno-trapping-math -fno-math-errno
emu_flags  := -std=c++20 -O2 -g -march=$(MARCH) -ffp-contract=off -DSIMT_EMULATED -x c++ $(warnings) -Wno-unknown-pragmas $(includes) -MMD -MP
nvcc_flags := -t 2 -std=c++20 -O3 -I. -MMD -MP -Werror all-warnings $(foreach a,$(GPU_ARCH),-gencode arch=compute_$(a),code=sm_$(a))
asan       := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
tsan       := -O1 -fsanitize=thread
cuda_libs  := $(if $(filter 1,$(HAVE_CUDA)),-L$(CUDA_HOME)/lib64 -Wl$(comma)-rpath$(comma)$(CUDA_HOME)/lib64 -lcublasLt -lcudart_static -ldl -lrt)
linker     := $(if $(shell command -v ld.lld),-fuse-ld=lld)

# ---------------------------------------------------------------- flavours
#
#   build/       what users run: CUDA kernels by nvcc, or none
#   build/emu/   the kernels in the emulator; host objects are those of build/
#   build/asan/  all of it, emulated kernels included, under AddressSanitizer and UndefinedBehaviorSanitizer
#   build/tsan/  the host code without kernels under ThreadSanitizer

obj = $(2:%=$(1)/obj/%.o)
host_objects := $(call obj,build,$(sources))
ifeq ($(HAVE_CUDA),1)
device_objects := $(call obj,build,$(kernels) $(nvidia))
else
device_objects := $(call obj,build,core/cuda/runtime_none.cpp)
endif
emu_objects := $(call obj,build/emu,$(kernels) $(emulator))

all: $(programs:%=build/bin/%)

# host_rules FOLDER, FLAGS and emulated_rules FOLDER, FLAGS: how a flavour's objects are compiled
define host_rules
$(1)/obj/ops/%.cpp.o: ops/%.cpp
	@mkdir -p $$(@D)
	$$(say) c++ $$<
	$$(Q)$$(CXX) $$(host_flags) $$(ops_flags) $(2) -c $$< -o $$@
$(1)/obj/core/cuda/%_nvidia.cpp.o: core/cuda/%_nvidia.cpp
	@mkdir -p $$(@D)
	$$(say) c++ $$<
	$$(Q)$$(CXX) $$(host_flags) $(2) -isystem $$(CUDA_HOME)/include -c $$< -o $$@
$(1)/obj/%.cpp.o: %.cpp
	@mkdir -p $$(@D)
	$$(say) c++ $$<
	$$(Q)$$(CXX) $$(host_flags) $(2) -c $$< -o $$@
endef
define emulated_rules
$(1)/obj/%.cu.o: %.cu
	@mkdir -p $$(@D)
	$$(say) emu $$<
	$$(Q)$$(CXX) $$(emu_flags) $(2) -c $$< -o $$@
$(1)/obj/core/simt/%.cpp.o: core/simt/%.cpp
	@mkdir -p $$(@D)
	$$(say) emu $$<
	$$(Q)$$(CXX) $$(emu_flags) $(2) -c $$< -o $$@
$(1)/obj/core/cuda/%_emulated.cpp.o: core/cuda/%_emulated.cpp
	@mkdir -p $$(@D)
	$$(say) emu $$<
	$$(Q)$$(CXX) $$(emu_flags) $(2) -c $$< -o $$@
endef
$(eval $(call host_rules,build,))
$(eval $(call emulated_rules,build/emu,))
$(eval $(call host_rules,build/asan,$(asan)))
$(eval $(call emulated_rules,build/asan,$(asan)))
$(eval $(call host_rules,build/tsan,$(tsan)))

build/obj/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(say) nvcc $<
	$(Q)$(CUDA_HOME)/bin/nvcc $(nvcc_flags) -Xptxas -v -c $< -o $@ 2>$@.log || { cat $@.log >&2; exit 1; }

# link FOLDER, OBJECTS, FOLDER_OF_HOST_OBJECTS, FOLDER_OF_KERNEL_OBJECTS, LIBRARIES: rules for the programs and tests of a flavour
define link
$(1)/bin/test_simt: $(call obj,$(4),$(emulator_tests)) $(2)
$(foreach r,$(test_rooms),$(eval $(1)/bin/test_$(r): $(call obj,$(3),$(tests_$(r)) $(test_helpers)) $(2)))
$(1)/bin/test_ops: $(call obj,$(1),$(example_kernels))
$(1)/bin/test_%:
	@mkdir -p $$(@D)
	$$(say) link $$@
	$$(Q)$(CXX) $(linker) $$(filter %.o,$$^) -o $$@ $(GTEST_LIBS) $(libraries) $(5)
$(foreach m,$(mains),$(eval $(1)/bin/$(notdir $(m:.cpp=)): $(call obj,$(3),$(m)) $(2)))
$(1)/bin/%:
	@mkdir -p $$(@D)
	$$(say) link $$@
	$$(Q)$(CXX) $(linker) $$(filter %.o,$$^) -o $$@ $(libraries) $(5)
endef
$(eval $(call link,build,$(host_objects) $(device_objects),build,build/emu,$(cuda_libs)))
$(eval $(call link,build/emu,$(host_objects) $(emu_objects),build,build/emu,))
$(eval $(call link,build/asan,$(call obj,build/asan,$(sources) $(kernels) $(emulator)),build/asan,build/asan,$(asan)))
$(eval $(call link,build/tsan,$(call obj,build/tsan,$(sources) core/cuda/runtime_none.cpp),build/tsan,build/emu,$(tsan)))

-include $(shell find build -name '*.d' 2>/dev/null)

# ---------------------------------------------------------------- targets

.PHONY: all help setup demo test test-emu bench ci format format-check rooms-check clean build-tests run-tests run-test-emu
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' Makefile

setup: ## install the packages that are missing (as root on Debian or Ubuntu)
	@tools/setup.sh

tests_built := $(test_rooms:%=build/emu/bin/test_%) $(if $(emulator_tests),build/emu/bin/test_simt)
build-tests: all $(programs:%=build/emu/bin/%) $(tests_built) $(if $(filter 1,$(HAVE_CUDA)),$(test_rooms:%=build/bin/test_%))

demo: ## train, evaluate and draw a forecaster on the sample data, or on DATA=file.csv
	@JOBS=$(JOBS) tools/demo.sh

test: setup ## set up, build and run every test
	@$(MAKE) --no-print-directory -j$(JOBS) build-tests
	@$(MAKE) --no-print-directory run-tests

run-tests:
ifeq ($(HAVE_CUDA),1)
	@tools/check_spills.sh build/obj
endif
	@rm -f build/emu/coverage
	@SIMT_COVERAGE=build/emu/coverage tools/run_tests.sh $(tests_built)

test-emu: setup ## every kernel in the emulator, in all thread orders, and which kernels were executed
	@$(MAKE) --no-print-directory -j$(JOBS) build-tests
	@$(MAKE) --no-print-directory run-test-emu

run-test-emu:
	@rm -f build/emu/coverage
	@SIMT_COVERAGE=build/emu/coverage tools/run_tests.sh $(filter %test_core %test_ops %test_simt,$(tests_built))
	@tools/kernel_coverage.sh build/emu/obj build/emu/coverage ascending descending greedy

bench: build/bin/bench ## tables of figures beside their bounds
	@build/bin/bench

ci: ## what continuous integration runs; minutes on 2 cores are in docs/reliability.md
	@$(MAKE) --no-print-directory rooms-check format-check
	@$(MAKE) --no-print-directory -j$(JOBS) build-tests WERROR=-Werror
	@$(MAKE) --no-print-directory run-test-emu WERROR=-Werror
	@$(MAKE) --no-print-directory run-tests WERROR=-Werror

clean: ## remove everything that was built
	rm -rf build

format: ## lay the sources out
	clang-format -i $$(git ls-files '*.h' '*.cpp' '*.cu')

# Includes point one way: core <- autograd <- ops <- models <- eval <- train <- tools; data uses core, and models up use data.
rooms-check:
	@tools/check_rooms.sh

format-check:
	@if command -v clang-format >/dev/null; then \
	  git ls-files '*.h' '*.cpp' '*.cu' | xargs clang-format --dry-run -Werror; \
	else echo "format: clang-format is not installed"; exit 1; fi
