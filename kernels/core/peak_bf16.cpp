// AVX512-BF16 and AMX as intrinsics, each in a function compiled for it and called where the processor has
// it: Highway's dispatch knows neither.
#include "kernels/core/best_rate.h"
#include "kernels/core/peak.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lockstep {
#if defined(__x86_64__)
namespace {

constexpr int kTileData = 18;  // of XCR0, and of the kernel's permissions

// What the kernel saves of a thread's registers (Intel's manual, volume 1, 13.3).
__attribute__((target("xsave"))) uint64_t saved_states() { return _xgetbv(0); }

struct Features {
  bool avx512_bf16 = false, amx = false;
};

Features features() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1U << 27))) return {};  // OSXSAVE
  const uint64_t saved = saved_states();
  Features f;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return {};
  const bool avx512 = (b & (1U << 16)) && (saved & 0xE6) == 0xE6;
  const bool tiles = (d & (1U << 22)) && (d & (1U << 24)) && (saved >> 17 & 3) == 3;
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM of arch_prctl(2)
  f.amx = tiles && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) f.avx512_bf16 = avx512 && (a & (1U << 5));
  return f;
}

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
  static const Features has = features();
  Bf16Peak peak;
  if (has.avx512_bf16) peak.avx512_gflops = best_rate(threads, 1'000'000, dot_products);
  if (has.amx) peak.amx_gflops = best_rate(threads, 100'000, tile_products);
  return peak;
}
#else
Bf16Peak measure_bf16_peak(int) { return {}; }
#endif

}  // namespace lockstep
