// What a Matmul must satisfy before either implementation takes it: the emulator refuses what cuBLASLt would.
#pragma once
#include "core/cuda/runtime.h"

namespace modrwkv::cuda {

// Throws Error("matmul: …"). A problem with m, n or batch = 0 is legal and is nothing to do: returns false.
bool check_matmul(const Matmul& p);

}  // namespace modrwkv::cuda
