// SPDX-License-Identifier: Apache-2.0
#include "kernels/core/cpu_target.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "kernels/core/error.h"
#include "kernels/core/kernel.h"
#include "kernels/linear/linear.h"

namespace lockstep::cpu_target_test {
namespace {

constexpr CpuLevel kAll[] = {CpuLevel::amx, CpuLevel::avx512_bf16, CpuLevel::avx512, CpuLevel::avx2,
                             CpuLevel::baseline};

// Leaves the process as it was.
class CpuTarget : public ::testing::Test {
 protected:
  void SetUp() override { initial_ = cpu_target(); }
  void TearDown() override { set_cpu_target(initial_); }

 private:
  int64_t initial_ = 0;
};

TEST_F(CpuTarget, LessDoesNotHideMore) {
  const auto all = supported_targets();
  ASSERT_FALSE(all.empty());
  set_cpu_target(all.back());
  EXPECT_EQ(supported_targets(), all);
  set_cpu_target(all.front());
  EXPECT_EQ(cpu_target(), all.front());
}

TEST_F(CpuTarget, ALevelHasAllBelow) {
  const auto levels = supported_levels();
  ASSERT_FALSE(levels.empty());
  EXPECT_EQ(levels.back(), CpuLevel::baseline);
  for (size_t i = 1; i < levels.size(); ++i)
    EXPECT_EQ(static_cast<int>(levels[i - 1]), static_cast<int>(levels[i]) + 1);
  EXPECT_EQ(cpu_level(), levels.front());
  set_cpu_target(supported_targets().back());
  EXPECT_EQ(cpu_level(), CpuLevel::baseline);
}

TEST_F(CpuTarget, ALevelIsKnownByItsName) {
  for (CpuLevel level : supported_levels()) EXPECT_EQ(cpu_level_named(name(level)), level);
}

void expect_refused(const char* value, const std::string& says) {
  try {
    cpu_level_named(value);
    ADD_FAILURE() << "'" << value << "' was taken";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), 78);
    for (const std::string& word : {std::string("LOCKSTEP_CPU"), says, std::string("baseline")})
      EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << e.what();
  }
}

TEST_F(CpuTarget, UnknownNamesAreConfigurationErrors) {
  for (const char* value : {"", "avx1024", "AVX2", "avx2 "})
    expect_refused(value, "is not an instruction set");
}

TEST_F(CpuTarget, WhatTheProcessorLacksIsAConfigurationError) {
  const auto found = supported_levels();
  for (CpuLevel level : kAll)
    if (std::find(found.begin(), found.end(), level) == found.end())
      expect_refused(name(level), fmt::format("this processor lacks {}", name(level)));
}

// Whether oneDNN takes bf16, which it does from AVX-512 on.
bool onednn_takes_bf16() {
  const TensorSpec x{DType::bf16, {32, 64}, Layout::plain}, w{DType::bf16, {48, 64}, Layout::plain};
  const TensorSpec y{DType::bf16, {32, 48}, Layout::plain};
  const Params params = LinearParams{};
  const std::vector<TensorSpec> in = {x, w}, out = {y};
  return Registry::builtin().find("linear", "onednn", Device::cpu, DType::bf16)->make({params, in, out, 1}) !=
         nullptr;
}

// Each in a process of its own, since oneDNN's limit can be set but once.
TEST(CpuTargetDeathTest, TheVariableIsObeyed) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (CpuLevel level : supported_levels())
    EXPECT_EXIT(
        {
          setenv("LOCKSTEP_CPU", name(level), 1);
          apply_cpu_level_from_environment();
          const bool limited = cpu_level() == level && onednn_takes_bf16() == (level >= CpuLevel::avx512);
          std::_Exit(limited ? 0 : 1);
        },
        ::testing::ExitedWithCode(0), "")
        << name(level);
  EXPECT_EXIT(
      {
        unsetenv("LOCKSTEP_CPU");
        apply_cpu_level_from_environment();
        std::_Exit(cpu_level() == supported_levels().front() ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace lockstep::cpu_target_test
