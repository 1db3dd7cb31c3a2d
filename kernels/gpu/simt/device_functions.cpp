// SPDX-License-Identifier: Apache-2.0
// The functions of device_code.h, as the executor performs them.
#include <array>
#include <bit>
#include <cstring>

#include "kernels/core/error.h"
#include "kernels/gpu/simt/block.h"

// Of a function that kernel code calls: where it does.
#define LOCKSTEP_CALLER __builtin_return_address(0)

namespace lockstep::simt_executor {
namespace {

BlockRunner& runner() { return BlockRunner::active(); }

template <class T>
T& of(void* operand) {
  return *static_cast<T*>(operand);
}

struct ShuffleOperand {
  uint64_t value;
  unsigned source;
  uint64_t result;
};
void shuffle_all(const Operands& lanes, const void* place) {
  for (unsigned l = 0; l < kWarp; ++l) {
    if (!lanes[l]) continue;
    auto& o = of<ShuffleOperand>(lanes[l]);
    void* const source = lanes[o.source % kWarp];
    if (source == nullptr) {
      runner().report(Problem::warp,
                      fmt::format("lane {} shuffles from lane {}, which doesn't take part", l, o.source),
                      place);
      o.result = o.value;
    } else {
      o.result = of<ShuffleOperand>(source).value;
    }
  }
}

struct BallotOperand {
  bool predicate;
  uint32_t result;
};
void ballot_all(const Operands& lanes, const void*) {
  uint32_t votes = 0;
  for (unsigned l = 0; l < kWarp; ++l)
    if (lanes[l]) votes |= uint32_t{of<BallotOperand>(lanes[l]).predicate} << l;
  for (void* o : lanes)
    if (o) of<BallotOperand>(o).result = votes;
}

bool whole(const Operands& lanes, const char* what, const void* place) {
  for (unsigned l = 0; l < kWarp; ++l)
    if (!lanes[l]) {
      runner().report(Problem::warp, fmt::format("{} without lane {}", what, l), place);
      return false;
    }
  return true;
}

// PTX ISA, mma.m16n8k16 with .bf16: lane = 4 g + t holds of A (rows g, g+8) columns 2t, 2t+1 and 2t+8, 2t+9;
// of B rows 2t, 2t+1 and 2t+8, 2t+9 of column g; of D rows g and g+8, columns 2t and 2t+1.
struct MmaOperand {
  float* d;
  const uint32_t *a, *b;
};
float half_of(uint32_t pair, int which) {
  return std::bit_cast<float>(which == 0 ? pair << 16 : pair & 0xFFFF0000u);
}

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
__attribute__((target_clones("avx2", "default")))
#endif
void multiply(const float (&a)[16][16], const float (&b)[16][8], float (&d)[16][8]) {
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
}

void mma_all(const Operands& lanes, const void* place) {
  if (!whole(lanes, "mma", place)) return;
  float a[16][16], b[16][8], d[16][8];
  for (unsigned l = 0; l < kWarp; ++l) {
    const auto& o = of<MmaOperand>(lanes[l]);
    const unsigned g = l / 4, t = l % 4;
    for (unsigned i = 0; i < 2; ++i) {
      const int half = static_cast<int>(i);
      a[g][2 * t + i] = half_of(o.a[0], half);
      a[g + 8][2 * t + i] = half_of(o.a[1], half);
      a[g][2 * t + 8 + i] = half_of(o.a[2], half);
      a[g + 8][2 * t + 8 + i] = half_of(o.a[3], half);
      b[2 * t + i][g] = half_of(o.b[0], half);
      b[2 * t + 8 + i][g] = half_of(o.b[1], half);
      d[g][2 * t + i] = o.d[i];
      d[g + 8][2 * t + i] = o.d[2 + i];
    }
  }
  multiply(a, b, d);
  for (unsigned l = 0; l < kWarp; ++l) {
    float* to = of<MmaOperand>(lanes[l]).d;
    const unsigned g = l / 4, t = l % 4;
    for (unsigned i = 0; i < 2; ++i) {
      to[i] = d[g][2 * t + i];
      to[2 + i] = d[g + 8][2 * t + i];
    }
  }
}

// PTX ISA, ldmatrix: lanes 8j .. 8j+7 name the rows of matrix j, each eight 16-bit elements; lane 4 g + t
// gets elements 2t, 2t+1 of row g, transposed: of column g.
struct LoadMatrixOperand {
  const void* row;
  uint32_t* to;
  int matrices;
  bool transposed;
};
void load_matrix_all(const Operands& lanes, const void* place) {
  if (!whole(lanes, "ldmatrix", place)) return;
  const auto& first = of<LoadMatrixOperand>(lanes[0]);
  for (int j = 0; j < first.matrices; ++j) {
    uint16_t m[8][8];
    for (int row = 0; row < 8; ++row)
      std::memcpy(m[row], of<LoadMatrixOperand>(lanes[static_cast<size_t>(8 * j + row)]).row, 16);
    for (unsigned l = 0; l < kWarp; ++l) {
      const unsigned g = l / 4, t = l % 4;
      const uint32_t low = first.transposed ? m[2 * t][g] : m[g][2 * t];
      const uint32_t high = first.transposed ? m[2 * t + 1][g] : m[g][2 * t + 1];
      of<LoadMatrixOperand>(lanes[l]).to[j] = low | high << 16;
    }
  }
}

constexpr uint32_t kAll = 0xFFFFFFFF;

// The executor's own accesses are not the kernel's: the linker may give it the watched copy of an inline
// function.
class InExecutor {
 public:
  InExecutor() : watched_(position.watched) { position.watched = false; }
  ~InExecutor() { position.watched = watched_; }
  InExecutor(const InExecutor&) = delete;
  InExecutor& operator=(const InExecutor&) = delete;

 private:
  bool watched_;
};

}  // namespace

unsigned lane() { return position.linear % kWarp; }
Position here() { return position; }

void block_barrier() {
  const InExecutor guard;
  runner().block_barrier(false, LOCKSTEP_CALLER);
}

int block_barrier_count(bool predicate) {
  const InExecutor guard;
  runner().block_barrier(predicate, LOCKSTEP_CALLER);
  return runner().barrier_count();
}

void named_barrier(unsigned id, unsigned threads) {
  const InExecutor guard;
  runner().named_barrier(id, threads, LOCKSTEP_CALLER);
}

void warp_barrier(uint32_t mask) {
  const InExecutor guard;
  runner().warp_operation(WarpOp::barrier, mask, nullptr, nullptr, LOCKSTEP_CALLER);
}

uint64_t shuffle(uint32_t mask, uint64_t value, unsigned source) {
  const InExecutor guard;
  ShuffleOperand o{value, source, 0};
  runner().warp_operation(WarpOp::shuffle, mask, &o, shuffle_all, LOCKSTEP_CALLER);
  return o.result;
}

uint32_t ballot(uint32_t mask, bool predicate) {
  const InExecutor guard;
  BallotOperand o{predicate, 0};
  runner().warp_operation(WarpOp::ballot, mask, &o, ballot_all, LOCKSTEP_CALLER);
  return o.result;
}

void mma_bf16_16x8x16(float* d, const uint32_t* a, const uint32_t* b) {
  const InExecutor guard;
  MmaOperand o{d, a, b};
  runner().warp_operation(WarpOp::mma, kAll, &o, mma_all, LOCKSTEP_CALLER);
}

void load_matrix(uint32_t* to, const void* row, int matrices, bool transposed) {
  const InExecutor guard;
  if (Observer* w = observer(); w && static_cast<int>(lane()) < 8 * matrices)
    w->access(row, 16, false, LOCKSTEP_CALLER);
  LoadMatrixOperand o{row, to, matrices, transposed};
  runner().warp_operation(WarpOp::load_matrix, kAll, &o, load_matrix_all, LOCKSTEP_CALLER);
}

void async_copy16(void* shared, const void* global, int valid) {
  const InExecutor guard;
  if (Observer* w = observer()) {
    w->async_copy(shared, global, valid, LOCKSTEP_CALLER);  // which performs it when it is waited for
    return;
  }
  std::memcpy(shared, global, static_cast<size_t>(valid));
  std::memset(static_cast<std::byte*>(shared) + valid, 0, static_cast<size_t>(16 - valid));
}
void async_commit() {
  const InExecutor guard;
  if (Observer* w = observer()) w->async_commit();
}
void async_wait(int groups_left) {
  const InExecutor guard;
  if (Observer* w = observer()) w->async_wait(groups_left, LOCKSTEP_CALLER);
}
void fence() {
  const InExecutor guard;
  if (Observer* w = observer()) w->fence();
}
void atomic_access(const void* address, size_t bytes) {
  const InExecutor guard;
  if (Observer* w = observer()) w->atomic(address, bytes, LOCKSTEP_CALLER);
}

}  // namespace lockstep::simt_executor
