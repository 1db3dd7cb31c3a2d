// SPDX-License-Identifier: Apache-2.0
// device_code.h's words and the matrix product's tiles on a GPU, against the same kernels on the executor, to
// the bit: numbers are small integers, whose sums are exact in every order. tests/kernels/gpu has what they
// must give. Skipped where no GPU is.
#ifndef LOCKSTEP_STANDINS
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <numeric>

#include "kernels/core/bf16.h"
#include "runtime/device/device_runtime.h"
#include "tests/kernels/gpu/gemm.h"
#include "tests/kernels/gpu/kernels.h"

namespace lockstep::testing::words_test {
namespace {

class CudaWords : public ::testing::Test {
 protected:
  void SetUp() override {
    if (gpu_count() == 0) GTEST_SKIP() << "no GPU here";
    device_ = make_cuda_runtime(0);
  }
  // Kernels work on the default stream, which the runtime's own does not wait for.
  void send(const DeviceMemory& to, const void* from) {
    device_->copy_to_device(to.data(), from, to.bytes());
    device_->synchronize();
  }
  std::vector<std::byte> fetch(const DeviceMemory& from) {
    // Freed memory is memory that nothing uses any more: this waits for the default stream too.
    { const DeviceMemory freed(*device_, 1); }
    std::vector<std::byte> bytes(static_cast<size_t>(from.bytes()));
    device_->copy_to_host(bytes.data(), from.data(), from.bytes());
    device_->synchronize();
    return bytes;
  }
  std::unique_ptr<DeviceRuntime> device_;
};

// As a kernel finds its memory; each begins with the same.
struct Prepared {
  alignas(64) std::array<float, 256> x, y;
  alignas(64) std::array<int, 64> i{};
  explicit Prepared(const std::string& kernel) {
    std::iota(x.begin(), x.end(), 0.0f);
    std::iota(y.begin(), y.end(), 100.0f);
    if (kernel == "packing")
      for (size_t k = 0; k < x.size(); ++k)
        x[k] = std::bit_cast<float>(kBitsToRound[k % kBitsToRound.size()]);
    if (kernel == "atomics") i[4] = -1;
  }
};

TEST_F(CudaWords, GiveTheExecutorsBits) {
  const TestKernels on_host = simt::word_kernels(), on_gpu = cuda::word_kernels();
  ASSERT_EQ(on_host.size(), on_gpu.size());
  for (const auto& [name, kernel] : on_gpu) {
    SCOPED_TRACE(name);
    Prepared host(name);
    const DeviceMemory x(*device_, sizeof host.x), y(*device_, sizeof host.y), i(*device_, sizeof host.i);
    send(x, host.x.data()), send(y, host.y.data()), send(i, host.i.data());
    kernel({x.as<float>(), y.as<float>(), i.as<int>()});
    on_host.at(name)({host.x.data(), host.y.data(), host.i.data()});
    const auto expect_same = [&](const DeviceMemory& gpu, const auto& expected, const char* what) {
      const auto bytes = fetch(gpu);
      for (size_t k = 0; k < expected.size(); ++k) {
        uint32_t got = 0, wanted = 0;
        std::memcpy(&got, bytes.data() + 4 * k, 4), std::memcpy(&wanted, &expected[k], 4);
        ASSERT_EQ(got, wanted) << what << " " << k;
      }
    };
    expect_same(x, host.x, "x"), expect_same(y, host.y, "y"), expect_same(i, host.i, "i");
  }
}

TEST_F(CudaWords, TilesGiveTheExecutorsBits) {
  constexpr int kRows = 136, kColumns = 152, kDepth = 168;
  const std::vector<TestGemm> on_host = simt::gemm_tiles(), on_gpu = cuda::gemm_tiles();
  ASSERT_EQ(on_host.size(), on_gpu.size());
  const auto integers = [](size_t count, bool as_bf16, size_t step) {
    std::vector<std::byte> bytes(count * (as_bf16 ? 2 : 4));
    for (size_t k = 0; k < count; ++k) {
      const auto v = static_cast<float>(static_cast<int>(k * step % 17) - 8);
      const bf16 half(v);
      std::memcpy(bytes.data() + k * (as_bf16 ? 2 : 4), as_bf16 ? static_cast<const void*>(&half) : &v,
                  as_bf16 ? 2 : 4);
    }
    return bytes;
  };
  for (size_t g = 0; g < on_gpu.size(); ++g) {
    const TestGemm& tile = on_gpu[g];
    SCOPED_TRACE(tile.name + (tile.a_along_k ? ", A along k" : "") + (tile.b_along_k ? ", B along k" : ""));
    const auto a = integers(size_t{kRows} * kDepth, tile.bf16, 7),
               b = integers(size_t{kDepth} * kColumns, tile.bf16, 11), bias = integers(kColumns, false, 3);
    const size_t of_d =
        size_t{kRows} * kColumns * static_cast<size_t>(tile.slices) * (tile.bf16 && tile.slices == 1 ? 2 : 4);
    const auto bytes = [](size_t n) { return static_cast<int64_t>(n); };
    const DeviceMemory da(*device_, bytes(a.size())), db(*device_, bytes(b.size())),
        dbias(*device_, bytes(bias.size())), dd(*device_, bytes(of_d));
    send(da, a.data()), send(db, b.data()), send(dbias, bias.data());
    tile.run(da.data(), db.data(), dbias.as<float>(), dd.data(), kRows, kColumns, kDepth);
    std::vector<std::byte> expected(of_d + 64);
    void* aligned = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(expected.data()) + 63) / 64 * 64);
    on_host[g].run(a.data(), b.data(), reinterpret_cast<const float*>(bias.data()), aligned, kRows, kColumns,
                   kDepth);
    const auto got = fetch(dd);
    EXPECT_EQ(std::memcmp(got.data(), aligned, of_d), 0);
  }
}

}  // namespace
}  // namespace lockstep::testing::words_test
#endif
