#include "core/cuda/runtime.h"
#include "core/error.h"
#include "core/simt/emulator.h"

namespace modrwkv::cuda {

std::vector<std::string> thread_orders() { return {"ascending", "descending", "greedy"}; }

void set_thread_order(const std::string& order) {
  for (const simt::Schedule s :
       {simt::Schedule::ascending, simt::Schedule::descending, simt::Schedule::greedy}) {
    if (order == simt::name_of(s)) return simt::set_schedule(s);
  }
  fail("set_thread_order: {} is no order of the emulator", order);
}

}  // namespace modrwkv::cuda
