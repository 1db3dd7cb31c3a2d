#include "kernels/core/cpu_target.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "kernels/core/error.h"

namespace lockstep {
namespace {

// Leaves the process as it was.
class CpuTarget : public ::testing::Test {
 protected:
  void SetUp() override { initial_ = cpu_target(); }
  void TearDown() override {
    unsetenv("LOCKSTEP_CPU");
    set_cpu_target(initial_);
  }

 private:
  int64_t initial_ = 0;
};

TEST_F(CpuTarget, EveryNameIsObeyed) {
  for (int64_t t : supported_targets()) {
    setenv("LOCKSTEP_CPU", cpu_target_name(t), 1);
    apply_cpu_target_from_environment();
    EXPECT_EQ(cpu_target(), t) << cpu_target_name(t);
  }
}

TEST_F(CpuTarget, LessDoesNotHideMore) {
  const auto all = supported_targets();
  ASSERT_FALSE(all.empty());
  set_cpu_target(all.back());
  EXPECT_EQ(supported_targets(), all);
  set_cpu_target(all.front());
  EXPECT_EQ(cpu_target(), all.front());
}

TEST_F(CpuTarget, UnsetChangesNothing) {
  unsetenv("LOCKSTEP_CPU");
  const int64_t before = cpu_target();
  apply_cpu_target_from_environment();
  EXPECT_EQ(cpu_target(), before);
}

TEST_F(CpuTarget, UnknownNamesAreConfigurationErrors) {
  for (const char* value : {"", "avx1024", "AVX2", "avx2 "}) {
    setenv("LOCKSTEP_CPU", value, 1);
    try {
      apply_cpu_target_from_environment();
      ADD_FAILURE() << "'" << value << "' was taken";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), 78);
      EXPECT_NE(std::string(e.what()).find("LOCKSTEP_CPU"), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("baseline"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace lockstep
