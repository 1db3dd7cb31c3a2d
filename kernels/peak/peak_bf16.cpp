// SPDX-License-Identifier: Apache-2.0
// AVX512-BF16 and AMX as intrinsics, each in a function compiled for it and called where the processor has
// it: Highway's dispatch knows neither.
#include "kernels/core/cpu_target.h"
#include "kernels/peak/best_rate.h"
#include "kernels/peak/peak.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lockstep {
#if defined(__x86_64__)
namespace {

// Both: `rounds` of independent chains from registers, which hold zeros; return the operations.

__attribute__((target("avx512f,avx512bf16"))) double dot_products(long rounds, float* result) {
  constexpr int kChains = 12;  // two units, each up to six cycles from operands to result
  __m512 sum[kChains];
  for (auto& s : sum) s = _mm512_setzero_ps();
  const auto a = (__m512bh)_mm512_set1_epi32(static_cast<int>(rounds & 1)), b = a;
  for (long i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (int k = 0; k < kChains; ++k) sum[k] = _mm512_dpbf16_ps(sum[k], a, b);
  for (int k = 1; k < kChains; ++k) sum[0] = _mm512_add_ps(sum[0], sum[k]);
  float lanes[16];
  _mm512_storeu_ps(lanes, sum[0]);
  *result = lanes[0];
  return 2.0 * 32 * kChains * static_cast<double>(rounds);
}

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};
};

__attribute__((target("amx-tile,amx-bf16"))) double tile_products(long rounds, float* result) {
  TileConfig config;
  for (int t = 0; t < 8; ++t) config.bytes_per_row[t] = 64, config.rows[t] = 16;
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (long i = 0; i < rounds; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  alignas(64) float tile[256];
  _tile_stored(0, tile, 64);
  _tile_release();
  *result = tile[0];
  return 2.0 * 4 * 16 * 16 * 32 * static_cast<double>(rounds);
}

}  // namespace

Bf16Peak measure_bf16_peak(int threads) {
  Bf16Peak peak;
  if (cpu_level() >= CpuLevel::avx512_bf16) peak.avx512_gflops = best_rate(threads, 1'000'000, dot_products);
  if (cpu_level() >= CpuLevel::amx) peak.amx_gflops = best_rate(threads, 100'000, tile_products);
  return peak;
}
#else
Bf16Peak measure_bf16_peak(int) { return {}; }
#endif

}  // namespace lockstep
