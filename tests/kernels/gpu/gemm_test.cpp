// SPDX-License-Identifier: Apache-2.0
// Every tile of the matrix product, with tails in m, n and k and more depth than the ring of buffers holds.
//
// Tolerance: 168 products added in float, 6e-8 * sqrt(168) of the largest at random: 1e-5 is ample; where D
// is bf16, its own rounding, half a unit in the last of 8 binary digits: 2^-8 of the value.
#include "tests/kernels/gpu/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "kernels/core/bf16.h"
#include "kernels/gpu/watch/watch.h"

namespace lockstep::gemm_test {
namespace {

constexpr int kRows = 136, kColumns = 152, kDepth = 168;

// 64-byte aligned, with space around it.
class Memory {
 public:
  Memory(size_t bytes, const char* name)
      : bytes_(bytes + 512), watched_(data(), static_cast<int64_t>(bytes), name) {}
  std::byte* data() {
    return bytes_.data() + 256 + (64 - reinterpret_cast<uintptr_t>(bytes_.data()) % 64) % 64;
  }

 private:
  std::vector<std::byte> bytes_;
  gpu_watch::Allocation watched_;
};

// Random numbers, in bf16 or float; `values` as they were rounded.
void fill(Memory& memory, bool as_bf16, std::vector<float>& values, unsigned seed) {
  std::mt19937 random(seed);
  for (size_t i = 0; i < values.size(); ++i) {
    const float v = static_cast<float>(random() >> 8) * 0x1p-23f - 1;
    values[i] = as_bf16 ? float(bf16(v)) : v;
    if (as_bf16)
      reinterpret_cast<bf16*>(memory.data())[i] = bf16(v);
    else
      reinterpret_cast<float*>(memory.data())[i] = v;
  }
}

void check(const TestGemm& g, bool watched) {
  SCOPED_TRACE(g.name + (g.a_along_k ? ", A along k" : "") + (g.b_along_k ? ", B along k" : "") +
               (watched ? ", watched" : ""));
  const size_t size = g.bf16 ? 2 : 4, count = size_t{kRows} * kColumns;
  const bool d_bf16 = g.bf16 && g.slices == 1;
  std::vector<float> a(size_t{kRows} * kDepth), b(size_t{kDepth} * kColumns), bias(kColumns);
  Memory a_memory(a.size() * size, "a"), b_memory(b.size() * size, "b"), bias_memory(bias.size() * 4, "bias"),
      d_memory(count * static_cast<size_t>(g.slices) * (d_bf16 ? 2 : 4), "d");
  fill(a_memory, g.bf16, a, 1), fill(b_memory, g.bf16, b, 2), fill(bias_memory, false, bias, 3);
  g.run(a_memory.data(), b_memory.data(), reinterpret_cast<const float*>(bias_memory.data()), d_memory.data(),
        kRows, kColumns, kDepth);
  for (const auto& f : gpu_watch::take_findings()) ADD_FAILURE() << f.text();

  const double tolerance = 1e-5 + (d_bf16 ? 0x1p-8 : 0), largest = 8 * std::sqrt(kDepth) / 3;
  int wrong = 0;
  for (int m = 0; m < kRows; ++m)
    for (int n = 0; n < kColumns; ++n) {
      double expected = g.slices == 1 ? bias[static_cast<size_t>(n)] : 0, got = 0;
      for (int k = 0; k < kDepth; ++k)
        expected += double{a[static_cast<size_t>(g.a_along_k ? m * kDepth + k : k * kRows + m)]} *
                    b[static_cast<size_t>(g.b_along_k ? n * kDepth + k : k * kColumns + n)];
      for (size_t s = 0; s < static_cast<size_t>(g.slices); ++s) {
        const size_t i = s * count + static_cast<size_t>(m * kColumns + n);
        got += d_bf16 ? float(reinterpret_cast<const bf16*>(d_memory.data())[i])
                      : reinterpret_cast<const float*>(d_memory.data())[i];
      }
      if (!(std::abs(got - expected) <= tolerance * std::max(std::abs(expected), largest / 8)) &&
          ++wrong <= 3)
        ADD_FAILURE() << "D[" << m << ", " << n << "] is " << got << ", expected " << expected;
    }
}

TEST(Gemm, EveryTileIsRightWithoutFindings) {
  gpu_watch::take_findings();
  for (const TestGemm& g : simt::gemm_tiles()) check(g, false);
  for (const TestGemm& g : simt_watched::gemm_tiles()) check(g, true);
}

}  // namespace
}  // namespace lockstep::gemm_test
