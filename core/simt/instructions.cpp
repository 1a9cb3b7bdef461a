// Instructions of the tensor core generation: aligned vector access, ldmatrix, mma, cp.async.
#include "core/simt/internal.h"

namespace simt::detail {
namespace {

bool in_shared(const Worker& w, const void* p, size_t bytes) {
  const auto* c = static_cast<const unsigned char*>(p);
  return c >= w.arena && c + bytes <= w.arena + w.arena_used;
}

float half_of(unsigned word, int half) {
  return modrwkv::to_float(modrwkv::bf16{uint16_t(word >> (16 * half))});
}

void load_all(const Gathered& g, bool transposed) {
  require_lanes(g, "ldmatrix");
  for (int lane = 0; lane < 32; ++lane) {
    const MatrixLane& m = g.of<MatrixLane>(lane);
    if (uintptr_t(m.row) % 16 != 0) fault(lane, fmt::format("ldmatrix: misaligned 16-byte row at {}", m.row));
    if (!in_shared(*here, m.row, 16))
      fault(lane, fmt::format("ldmatrix: the row at {} is not in shared memory", m.row));
  }
  uint16_t rows[32][8];
  for (int lane = 0; lane < 32; ++lane) {
    const MatrixLane& m = g.of<MatrixLane>(lane);
    note(m.row, 16, false, m.at);
    memcpy(rows[lane], m.row, 16);
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int m = 0; m < 4; ++m) {
      const int r = lane / 4, c = 2 * (lane % 4);
      const uint16_t low = transposed ? rows[8 * m + c][r] : rows[8 * m + r][c];
      const uint16_t high = transposed ? rows[8 * m + c + 1][r] : rows[8 * m + r][c + 1];
      g.of<MatrixLane>(lane).out[m] = unsigned(low) | unsigned(high) << 16;
    }
  }
}

void perform(const Copy& c) {
  if (c.from != nullptr) {
    note(c.from, 16, false, c.at);
    memcpy(c.to, c.from, 16);
  } else {
    memset(c.to, 0, 16);
  }
  note(c.to, 16, true, c.at);
}

}  // namespace

void check_aligned(const void* p, size_t bytes, const char* what, where at) {
  if (uintptr_t(p) % bytes != 0) fault(at, fmt::format("misaligned {}-byte {} at {}", bytes, what, p));
}

void load_matrices(const Gathered& g) { load_all(g, false); }
void load_matrices_transposed(const Gathered& g) { load_all(g, true); }

void multiply_fragments(const Gathered& g) {
  require_lanes(g, "mma");
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const MmaLane& m = g.of<MmaLane>(lane);
    const int group = lane / 4, t = lane % 4;
    for (int i = 0; i < 8; ++i)
      a[group + 8 * (i / 2 % 2)][2 * t + i % 2 + 8 * (i / 4)] = half_of(m.a[i / 2], i % 2);
    for (int i = 0; i < 4; ++i) b[2 * t + i % 2 + 8 * (i / 2)][group] = half_of(m.b[i / 2], i % 2);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const MmaLane& m = g.of<MmaLane>(lane);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      m.d[i] += sum;
    }
  }
}

void issue_copy(void* to, const void* from, bool valid, where at) {
  if (here == nullptr) modrwkv::fail("{}: cp.async outside a kernel", text_of(at));
  Worker& w = *here;
  if (uintptr_t(to) % 16 != 0) fault(at, fmt::format("misaligned 16-byte cp.async to {}", to));
  if (uintptr_t(from) % 16 != 0) fault(at, fmt::format("misaligned 16-byte cp.async from {}", from));
  if (!in_shared(w, to, 16)) fault(at, fmt::format("cp.async: the destination {} is not in shared memory", to));
  if (valid && !in_device_memory(from)) {
    fault(at, fmt::format("cp.async: the source {} is not in device memory", from));
  }
  const Copy copy{to, valid ? from : nullptr, w.groups_closed[w.current], at};
  if (copies_policy() == Copies::early) {
    perform(copy);
  } else {
    memset(to, kPoison, 16);
  }
  w.copies[w.current].push_back(copy);
  w.copies_used = true;
}

void commit_copies() {
  if (here == nullptr) return;
  ++here->groups_closed[here->current];
  here->copies_used = true;
}

void wait_copies(int pending) {
  if (here == nullptr) return;
  Worker& w = *here;
  auto& copies = w.copies[w.current];
  const int finished = w.groups_closed[w.current] - pending;
  size_t n = 0;
  while (n < copies.size() && copies[n].group < finished) {
    if (copies_policy() == Copies::late) perform(copies[n]);
    ++n;
  }
  copies.erase(copies.begin(), copies.begin() + long(n));
}

}  // namespace simt::detail
