// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/device_code.h"
//
#include "kernels/gpu/gemm.cuh"
#include "tests/kernels/gpu/gemm.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

template <class T, int kM, int kN, bool kAAlongK, bool kBAlongK, int kSlices>
void run(const void* a, const void* b, const float* bias, void* d, int m, int n, int k) {
  const auto rows = [](const void* data, bool along_k, int extent, int depth) {
    const int lines = along_k ? extent : depth, length = along_k ? depth : extent;
    return Rows<T>{static_cast<const T*>(data), length, lines, length};
  };
  const auto start = [&](const auto& out, GemmSize size) {
    gemm_in_tiles<T, kM, kN, kAAlongK, kBAlongK, true>(rows(a, kAAlongK, m, k), rows(b, kBAlongK, n, k), out,
                                                       size, kSlices, true, nullptr);
  };
  GemmSize size = unsplit(m, n, k);
  if (kSlices == 1) return start(Output<T, PlainRows>{static_cast<T*>(d), {n}, bias}, size);
  size.k_slice = (size.k_slice / kSlices + 31) / 32 * 32;
  start(Partials{static_cast<float*>(d), n, int64_t{m} * n}, size);
}

template <class T, int kM, int kN>
void add(std::vector<TestGemm>& all) {
  const bool bf16 = sizeof(T) == 2;
  const std::string name = fmt::format("{} {} x {}", bf16 ? "bf16" : "f32", kM, kN);
  all.push_back({name, bf16, true, true, 1, run<T, kM, kN, true, true, 1>});
  all.push_back({name, bf16, true, false, 1, run<T, kM, kN, true, false, 1>});
  all.push_back({name, bf16, false, false, 2, run<T, kM, kN, false, false, 2>});
}

}  // namespace

std::vector<TestGemm> gemm_tiles() {
  std::vector<TestGemm> all;
  add<float, 128, 128>(all);
  add<float, 128, 64>(all);
  add<float, 64, 64>(all);
  add<bf16, 128, 128>(all);
  add<bf16, 128, 64>(all);
  add<bf16, 64, 64>(all);
  return all;
}

}  // namespace lockstep::LOCKSTEP_DEVICE
