// SPDX-License-Identifier: Apache-2.0
// What the plan says of memory against what is really allocated; and that a step in the steady state
// allocates nothing.
#include <gtest/gtest.h>

#include "models/objectives/classification.h"
#include "runtime/device/memory.h"
#include "runtime/training/session.h"
#include "tests/runtime/graph/nets.h"
#include "tests/support/allocations.h"

namespace lockstep::testing {
namespace {

SessionOptions options(const Net& net, int threads) {
  SessionOptions o;
  o.config.loss = net.log_probabilities ? "nll" : "cross_entropy";
  o.objective = classification(
      [net](ModelContext& c, ValueId x) {
        return net.build(Layers{c.builder, c.step_state}, x);
      },
      {kChannels, kSide, kSide, kClasses, {0, 0, 0}, {1, 1, 1}}, o.config);
  o.config.optimizer.name = "adam";
  o.config.clip_grad_norm = 1;
  o.kernels = {Device::cpu, threads, "test", ""};
  return o;
}

class Steps {
 public:
  Steps(const Net& net, int64_t batch, int threads, int64_t micro = 1, const std::string& precision = "fp32")
      : images(static_cast<size_t>(batch * kChannels * kSide * kSide), 100),
        labels(static_cast<size_t>(batch), 1),
        comm(make_self_communicator()),
        micro_(micro),
        batch_(batch) {
    auto o = options(net, threads);
    o.config.gradient_accumulation = micro;
    o.config.precision = precision;
    if (precision == "bf16") o.config.ema.decay = 0.9;
    session = std::make_unique<Session>(std::move(o), *comm);
    session->prepare_training(batch);
    session->prepare(session->evaluation(), batch);
    session->model().initialise(1);
    session->model().start_ema();
    session->executor().upload_model();
    inputs_.set(kImages, images), inputs_.set(kLabels, labels);
    inputs_.state.global_samples = batch * micro, inputs_.state.lr = 1e-3f;
  }
  void train() {
    for (int64_t m = 0; m < micro_; ++m)
      session->executor().run(*session->training(batch_, m).bound, inputs_);
    ++inputs_.state.step;
  }
  void evaluate() {
    session->executor().run(*session->program(session->evaluation(), batch_).bound, inputs_);
  }

  std::vector<uint8_t> images;
  std::vector<int32_t> labels;
  std::unique_ptr<Communicator> comm;
  bool uses_onednn() const {
    for (const auto& [signature, name] : session->kernel_table())
      if (name.starts_with("onednn")) return true;
    return false;
  }

  std::unique_ptr<Session> session;

 private:
  int64_t micro_, batch_;
  StepInputs inputs_;
};

TEST(Memory, ReportIsWhatIsAllocated) {
  for (const Net& net : nets())
    for (const char* precision : {"fp32", "bf16"}) {
      const int64_t before = allocated_bytes();
      Steps steps(net, 40, 1, 2, precision);
      for (int i = 0; i < 3; ++i) steps.train();
      steps.evaluate();
      const int64_t held = allocated_bytes() - before, reported = steps.session->memory().total();
      EXPECT_GT(held, 10000);
      // 5 % are allowed; what the report leaves out is an evaluation's two floats of metrics, rounded up.
      EXPECT_NEAR(static_cast<double>(held), static_cast<double>(reported), 0.05 * static_cast<double>(held))
          << net.name << " " << precision;
    }
  EXPECT_EQ(allocated_bytes(), 0) << "everything is given back";
}

TEST(Memory, SteadyStateAllocatesNothing) {
  const auto all = nets();
  size_t counted = 0;
  for (size_t n = 0; n < all.size(); ++n) {
    const Net& net = all[n];
    const int threads = n == 0 ? 2 : 1;
    Steps steps(net, 24, threads, n == 1 ? 2 : 1);
    for (int i = 0; i < 4; ++i) steps.train();
    const int64_t held = allocated_bytes(), before = allocations;
    for (int i = 4; i < 10; ++i) steps.train();
    // oneDNN makes its argument lists anew on each call: its own, small, and out of reach. All else allocates
    // nothing.
    if (!steps.uses_onednn()) {
      ++counted;
      EXPECT_EQ(allocations - before, 0) << net.name << " with " << threads << " threads";
    }
    EXPECT_EQ(allocated_bytes(), held);
  }
  EXPECT_GE(counted, 1u) << "no net without oneDNN";
  const int64_t before = allocations;
  ::operator delete(::operator new(1));  // called as functions: no compiler may leave them out
  EXPECT_EQ(allocations - before, 1) << "the counter counts";
}

}  // namespace
}  // namespace lockstep::testing
