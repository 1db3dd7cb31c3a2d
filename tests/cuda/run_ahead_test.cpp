// SPDX-License-Identifier: Apache-2.0
// Steps started before the results of the last are read, on stand-ins.
#ifdef LOCKSTEP_STANDINS
#include <gtest/gtest.h>

#include <cmath>

#include "models/objectives/classification.h"
#include "runtime/training/session.h"
#include "tests/runtime/graph/nets.h"

namespace lockstep::testing::run_ahead_test {
namespace {

constexpr int64_t kBatch = 4;

struct Job {
  explicit Job(DeviceRuntime* device) : comm(make_self_communicator()) {
    SessionOptions o;
    o.objective = classification(
        [](ModelContext& c, ValueId x) {
          return Layers{c.builder, c.step_state}.linear("fc", x, 3);
        },
        {1, 2, 2, 3, {0}, {1}}, o.config);
    o.config.global_batch_size = kBatch;
    o.config.optimizer.name = "sgd";
    o.kernels = {device ? Device::cuda : Device::cpu, 1, "test", ""};
    o.device = device;
    session = std::make_unique<Session>(std::move(o), *comm);
    session->prepare_training(kBatch);
    plan = session->training(kBatch, 0).bound;
    session->model().initialise(1);
  }
  StepInputs inputs(const std::vector<uint8_t>& images, int64_t step) const {
    StepInputs in;
    in.set(kImages, images), in.set(kLabels, labels);
    in.state.step = step, in.state.global_samples = kBatch, in.state.lr = 0.1f;
    return in;
  }
  std::unique_ptr<Communicator> comm;
  std::unique_ptr<Session> session;
  Executor::Bound* plan = nullptr;
  const std::vector<int32_t> labels = {0, 1, 2, 1};
};

std::vector<uint8_t> images(int shade) {
  std::vector<uint8_t> pixels(kBatch * 4);
  for (size_t i = 0; i < pixels.size(); ++i)
    pixels[i] = static_cast<uint8_t>(shade + 13 * static_cast<int>(i) * (shade > 0));
  return pixels;
}

// Each step's loss is its own, though the next has begun when it is read; from the recorded steps on too.
TEST(CudaRunAhead, ResultsAreReadOneStepLater) {
  const auto device = make_cuda_runtime(0);
  Job gpu(device.get()), cpu(nullptr);
  Executor &ahead = gpu.session->executor(), &plain = cpu.session->executor();
  ASSERT_TRUE(ahead.runs_ahead());
  ASSERT_FALSE(plain.runs_ahead());
  ahead.upload_model();
  constexpr int64_t kSteps = 7;
  std::vector<float> got, expected;
  for (int64_t step = 0; step < kSteps; ++step) {
    const auto pixels = images(20 * static_cast<int>(step));
    ahead.start(*gpu.plan, gpu.inputs(pixels, step));
    ahead.send_results(*gpu.plan);
    if (step > 0)
      ahead.await_results(*gpu.plan), got.push_back(gpu.session->model().gradients.as<float>()[0]);
    plain.run(*cpu.plan, cpu.inputs(pixels, step));
    expected.push_back(cpu.session->model().gradients.as<float>()[0]);
  }
  ahead.await_results(*gpu.plan), got.push_back(gpu.session->model().gradients.as<float>()[0]);
  // fp32 on both sides, sums in another order.
  for (int64_t step = 0; step < kSteps; ++step)
    EXPECT_NEAR(got[static_cast<size_t>(step)], expected[static_cast<size_t>(step)], 1e-5) << step;
}

// The batch of step 1 gives an infinite score, that of step 2, begun before anybody knows, a finite one.
TEST(CudaRunAhead, AStepAfterALossThatIsNotFiniteChangesNothing) {
  const auto device = make_cuda_runtime(0);
  Job job(device.get());
  Executor& executor = job.session->executor();
  ModelState& model = job.session->model();
  const auto weights = model.parameter("fc.weight");
  std::fill(weights.begin(), weights.end(), 3e38f);
  executor.upload_model();
  const std::vector<uint8_t> bright(kBatch * 4, 255), black(kBatch * 4, 0);
  std::vector<float> losses;
  const auto await = [&] {
    executor.await_results(*job.plan);
    losses.push_back(model.gradients.as<float>()[0]);
  };
  const std::vector<float> before(model.parameters.as<float>(),
                                  model.parameters.as<float>() + model.table.length);
  int64_t step = 0;
  for (const auto* batch : {&bright, &black, &black}) {
    executor.start(*job.plan, job.inputs(*batch, step));
    executor.send_results(*job.plan);
    if (step++ > 0) await();
  }
  await();
  for (const float loss : losses) EXPECT_FALSE(std::isfinite(loss));
  executor.download_model();
  EXPECT_TRUE(std::equal(before.begin(), before.end(), model.parameters.as<float>()));
}

}  // namespace
}  // namespace lockstep::testing::run_ahead_test
#endif
