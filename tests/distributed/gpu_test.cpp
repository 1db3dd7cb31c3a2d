// SPDX-License-Identifier: Apache-2.0
// Whole training steps in fp32 and bf16, with the CPU's kernels and the GPU's: on the SIMT executor, and as
// device cuda on stand-ins for CUDA and NCCL, whose streams run beside each other and whose calls can be made
// to fail.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "runtime/checkpoint/safetensors.h"
#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::gpu_test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

const std::string kArticle = LOCKSTEP_SOURCE_DIR "/configs/mnist_article.yaml";
const std::string kTestImages =
    "inputs.test={dataset: mnist, path: " LOCKSTEP_SOURCE_DIR "/configs/data/mnist, limit: 20}";

std::vector<std::string> job(int ranks, int64_t steps, const std::vector<std::string>& more) {
  std::vector<std::string> settings = {"instance_count=" + std::to_string(ranks),
                                       "hyperparameters.steps=" + std::to_string(steps),
                                       "hyperparameters.global_batch_size=4", "log_every=1", kTestImages};
  settings.insert(settings.end(), more.begin(), more.end());
  return settings;
}

// fp32 on both sides, sums in another order.
constexpr double kFp32 = 1e-4;
// bf16 on both sides: where another order makes a sum round to another bf16, that is off by 2^-8 of itself;
// and of bf16 from fp32 in root mean square, where each activation is off by up to 2^-9 of itself, some ten
// of them one after the other.
constexpr double kBf16 = 2e-2;

void expect_same_losses(const std::vector<double>& got, const std::vector<double>& expected,
                        double tolerance = kFp32) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t s = 0; s < got.size(); ++s)
    ASSERT_NEAR(got[s], expected[s], tolerance * expected[s]) << "step " << s + 1;
}

constexpr const char* kAttentionNet =
    "model={layers: [{conv2d: {out_channels: 16, kernel: 3, stride: 2, padding: 1}}, {group_norm: 4}, silu,"
    " {residual: {layers: [{conv2d: {out_channels: 16, kernel: 3, padding: 1}}, {group_norm: 4}, silu]}},"
    " {avg_pool2d: 2}, {self_attention2d: {heads: 2, groups: 4}}, flatten, {linear: {out_features: 10}}]}";

double apart(const std::vector<double>& got, const std::vector<double>& expected) {
  double sum = 0;
  for (size_t s = 0; s < got.size(); ++s) sum += std::pow(got[s] / expected[s] - 1, 2);
  return std::sqrt(sum / static_cast<double>(got.size()));
}

// The GPU's kernels against the CPU's, in fp32 and in bf16, on one rank and two.
void expect_the_same_course(int64_t steps, const std::vector<std::string>& settings) {
  TestFolder runs;
  const auto losses = [&](const std::string& device, int ranks, const std::string& precision) {
    std::vector<std::string> all = {"device=" + device, "hyperparameters.precision=" + precision};
    all.insert(all.end(), settings.begin(), settings.end());
    const std::string run = runs.file(fmt::format("{}-{}-{}", device, precision, ranks));
    EXPECT_TRUE(fit(kArticle, run, job(ranks, steps, all)));
    // bf16 would be no more than a word, were there none in the plan.
    EXPECT_EQ(read_file(run + "/plan.json").find("\"bf16[") != std::string::npos, precision == "bf16");
    return step_losses(run, steps);
  };
  const auto fp32 = losses("cpu", 1, "fp32"), bf16 = losses("cpu", 1, "bf16");
  EXPECT_NE(bf16, fp32);
  EXPECT_LT(apart(bf16, fp32), kBf16);
  expect_same_losses(losses("cpu", 2, "bf16"), bf16, kBf16);
  for (int ranks : {1, 2}) {
    SCOPED_TRACE(ranks);
    expect_same_losses(losses("simt", ranks, "fp32"), fp32);
    expect_same_losses(losses("simt", ranks, "bf16"), bf16, kBf16);
  }
}

TEST(Devices, TheArticlesNetLearnsAlike) { expect_the_same_course(50, {}); }
TEST(Devices, GroupNormAttentionAndResidualLearnAlike) { expect_the_same_course(10, {kAttentionNet}); }

// What a GPU is for: the convolutions of wide nets as products on tensor cores, channels last from end to
// end.
TEST(Devices, WideNetsAreProductsOnChannelsLast) {
  for (const std::string config : {"resnet18_cifar10.yaml", "ddpm_mnist.yaml"})
    for (const std::string precision : {"fp32", "bf16"}) {
      SCOPED_TRACE(config + " " + precision);
      const auto planned = run({LOCKSTEP_BINARY, "plan", LOCKSTEP_SOURCE_DIR "/configs/" + config, "--json",
                                "--set", "device=simt", "--set",
                                std::string("inputs={training: {dataset: mnist, path: ") +
                                    LOCKSTEP_SOURCE_DIR + "/configs/data/mnist}}",
                                "--set", "hyperparameters.precision=" + precision},
                               {{"XDG_CACHE_HOME", kTestCache}});
      ASSERT_EQ(planned.code, 0) << planned.output;
      const auto plan = nlohmann::json::parse(planned.output);
      // "f32[N, C, H, W]:nhwc"
      const auto text = [](const nlohmann::json& tensor) { return tensor.at("tensor").get<std::string>(); };
      const auto channels = [&](const nlohmann::json& tensor) {
        return std::stoi(text(tensor).substr(text(tensor).find(',') + 1));
      };
      std::map<std::string, int> wide, all;
      for (const auto& node : plan.at("nodes")) {
        const std::string op = node.at("op");
        ++all[op];
        const bool conv = op.starts_with("conv2d");
        if (!conv && !op.starts_with("attention")) continue;
        const auto& x = node.at("in").at(0);
        const auto& y = op == "conv2d_weight_grad" ? node.at("in").at(1) : node.at("out").at(0);
        if (std::min(channels(x), channels(y)) < 16) continue;  // at a net's ends
        ++wide[op];
        EXPECT_EQ(node.at("kernel"), conv ? "implicit_gemm" : "tiled_nhwc") << node.at("layer");
        for (const auto& image : {x, y}) EXPECT_TRUE(text(image).ends_with(":nhwc")) << node.at("layer");
      }
      for (const char* op : {"conv2d", "conv2d_input_grad", "conv2d_weight_grad"})
        EXPECT_GT(wide[op], 10) << op;
      EXPECT_LE(all["reorder"], 4) << "at the net's ends";
    }
}

#ifdef LOCKSTEP_STANDIN
class StandIns : public ::testing::Test {
 protected:
  struct Outcome {
    int code;
    std::string text;
    std::chrono::duration<double> took;
  };
  Outcome fit_on_gpus(int ranks, int64_t steps, const std::vector<std::string>& more,
                      const std::map<std::string, std::string>& environment = {}) {
    run_ = folder_.file("run" + std::to_string(++runs_));
    return on_gpus({"fit", kArticle, "--output", run_}, ranks, steps, more, environment);
  }
  // The last run.
  Outcome resume_on_gpus(int ranks, int64_t steps, const std::vector<std::string>& more) {
    return on_gpus({"fit", kArticle, "--output", run_, "--resume"}, ranks, steps, more, {});
  }
  nlohmann::json plan_on_gpus(int ranks, const std::vector<std::string>& more) {
    const Outcome o = on_gpus({"plan", kArticle, "--json"}, ranks, 1, more, {});
    EXPECT_EQ(o.code, 0) << o.text;
    return nlohmann::json::parse(o.text);
  }
  Outcome on_gpus(const std::vector<std::string>& words, int ranks, int64_t steps,
                  const std::vector<std::string>& more, std::map<std::string, std::string> environment) {
    std::vector<std::string> command = {LOCKSTEP_STANDIN};
    command.insert(command.end(), words.begin(), words.end());
    for (const auto& s : job(ranks, steps, {"device=cuda"})) command.insert(command.end(), {"--set", s});
    for (const auto& s : more) command.insert(command.end(), {"--set", s});
    environment.insert({{"XDG_CACHE_HOME", folder_.file("cache")},
                        {"TMPDIR", folder_.path()},
                        {"LOCKSTEP_STANDIN_LOG", folder_.file("log" + std::to_string(runs_))},
                        {"LOCKSTEP_TEST_MARK", folder_.path()}});
    const auto start = Clock::now();
    Process process(command, environment);
    const int code = process.wait();
    return {code, process.output(), Clock::now() - start};
  }
  // Ranks that somebody else starts, each after `setup`, a line of the shell: what the environment gives it.
  Outcome ranks_after(const std::string& setup, const std::vector<std::string>& more) {
    run_ = folder_.file("run" + std::to_string(++runs_));
    std::string line = setup + "; exec " LOCKSTEP_STANDIN " fit " + kArticle + " --output " + run_;
    for (const auto& s : job(2, 4, {"device=cuda"})) line += " --set '" + s + "'";
    for (const auto& s : more) line += " --set '" + s + "'";
    const auto start = Clock::now();
    const Ended e = run(mpirun(2, {"sh", "-c", line}),
                        {{"XDG_CACHE_HOME", folder_.file("cache")},
                         {"TMPDIR", folder_.path()},
                         {"LOCKSTEP_STANDIN_LOG", folder_.file("log" + std::to_string(runs_))},
                         {"LOCKSTEP_TEST_MARK", folder_.path()}});
    return {e.code, e.output, Clock::now() - start};
  }
  // What rank `rank` of the last run called.
  std::vector<std::string> calls(int rank) const {
    std::ifstream file(folder_.file("log" + std::to_string(runs_) + "." + std::to_string(rank)));
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    return lines;
  }
  std::vector<std::string> collectives(int rank) const {
    auto lines = calls(rank);
    std::erase_if(lines,
                  [](const auto& l) { return !l.starts_with("allreduce") && !l.starts_with("all_gather"); });
    return lines;
  }
  // Digests of what that rank's parameters were after each of its last steps.
  std::vector<std::string> parameters(int rank, int64_t steps) const {
    auto lines = calls(rank);
    std::erase_if(lines, [](const auto& l) { return !l.starts_with("parameters"); });
    EXPECT_GE(static_cast<int64_t>(lines.size()), steps);
    lines.erase(lines.begin(), lines.end() - std::min<int64_t>(steps, std::ssize(lines)));
    return lines;
  }
  // What a run may take that ends at its deadline, or before: one that ended well took `usual`.
  static std::chrono::duration<double> at_most(std::chrono::duration<double> deadline, const Outcome& usual) {
    return deadline + std::max<std::chrono::duration<double>>(6s, 3 * usual.took);
  }
  static int64_t count(const std::vector<std::string>& lines, const std::string& start) {
    return std::count_if(lines.begin(), lines.end(), [&](const auto& l) { return l.starts_with(start); });
  }

  TestFolder folder_;
  std::string run_;
  int runs_ = 0;
};

TEST_F(StandIns, StepsAreRecordedReplayedAndAllreducedInOneOrder) {
  constexpr int64_t kSteps = 8;
  ASSERT_TRUE(fit(kArticle, folder_.file("cpu"), job(1, kSteps, {"device=cpu"})));
  const auto expected = step_losses(folder_.file("cpu"), kSteps);
  for (int ranks : {1, 2, 4}) {
    SCOPED_TRACE(ranks);
    // The choice of kernels records and replays too: one call of a candidate or several, like a step.
    ASSERT_EQ(fit_on_gpus(ranks, 1, {"backend=nccl"}).code, 0);
    for (int r = 0; r < ranks; ++r) {
      EXPECT_GT(count(calls(r), "captured"), 1);
      EXPECT_GT(count(calls(r), "replay"), count(calls(r), "captured"));
    }
    const Outcome o = fit_on_gpus(ranks, kSteps, {"backend=nccl"});
    ASSERT_EQ(o.code, 0) << o.text;
    expect_same_losses(step_losses(run_, kSteps), expected);
    EXPECT_EQ(collectives(0).empty(), ranks == 1);
    for (int r = 0; r < ranks; ++r) {
      EXPECT_EQ(count(calls(r), "captured"), 1) << "the training step; evaluation runs once";
      EXPECT_EQ(count(calls(r), "replay"), kSteps - 1);
      EXPECT_EQ(collectives(r), collectives(0)) << "rank " << r << " calls the same in the same order";
      EXPECT_EQ(parameters(r, kSteps), parameters(0, kSteps)) << "rank " << r;
      ASSERT_FALSE(calls(r).empty());
      EXPECT_EQ(calls(r).back(), "leaks 0");
    }
  }
}

const std::vector<std::string> kBf16Gradients = {"backend=nccl", "gradient_precision=bf16"};

std::vector<std::string> with(std::vector<std::string> settings, const std::string& more) {
  settings.push_back(more);
  return settings;
}

// Two buckets, the second of which is the first layer's.
const std::string kTwoBuckets =
    "model={layers: [flatten, {linear: {out_features: 64}}, {linear: {out_features: 16500}},"
    " {linear: {out_features: 10}}]}";

// Each rank's share of a sum is rounded, by up to 2^-9 of itself, and so is the sum: by 2^-6 of the sum in
// all, as long as the shares together are no more than seven times as long. An update is off by that part of
// its length, and a loss by that part of what the updates have changed of it.
constexpr double kRounded = 0x1p-6;

// Between two runs' weights, as one vector each.
double distance(const std::string& run, const std::string& other) {
  const auto of_run = SafetensorsFile::open(run + "/model.safetensors"),
             of_other = SafetensorsFile::open(other + "/model.safetensors");
  double sum = 0;
  for (const StoredTensor& t : of_run->tensors()) {
    std::vector<float> a(t.bytes.size() / sizeof(float)), b(a.size());
    std::memcpy(a.data(), t.bytes.data(), t.bytes.size());
    std::memcpy(b.data(), of_other->find(t.name)->bytes.data(), t.bytes.size());
    for (size_t i = 0; i < a.size(); ++i) sum += std::pow(double{a[i]} - double{b[i]}, 2);
  }
  return std::sqrt(sum);
}

nlohmann::json first_line(const std::string& run) {
  std::istringstream lines(read_file(run + "/metrics.jsonl"));
  std::string line;
  std::getline(lines, line);
  return nlohmann::json::parse(line);
}

// What travels in place of these fp32 collectives, of so many buckets a step: all buckets in bf16, but for
// the metrics at the beginning of a step's first.
std::vector<std::string> in_bf16(const std::vector<std::string>& fp32, int buckets) {
  constexpr int64_t kMostStatistics = 100;  // floats
  std::vector<std::string> all;
  int bucket = 0;
  for (const std::string& line : fp32) {
    int64_t floats = std::stoll(line.substr(line.find(' ')));
    if (!line.starts_with("allreduce") || floats <= kMostStatistics) {
      all.push_back(line);
      continue;
    }
    if (bucket++ % buckets == 0) all.emplace_back("allreduce 16"), floats -= 16;
    all.push_back(fmt::format("allreduce {} bf16", floats));
  }
  return all;
}

TEST_F(StandIns, GradientsTravelInBf16) {
  constexpr int64_t kSteps = 8;
  for (int ranks : {1, 2, 4}) {
    SCOPED_TRACE(ranks);
    const auto train = [&](const std::vector<std::string>& settings, int64_t steps) {
      const Outcome o = fit_on_gpus(ranks, steps, settings);
      EXPECT_EQ(o.code, 0) << o.text;
      return run_;
    };
    // One step: later ones are taken at weights that differ.
    const std::string untrained = train({"backend=nccl", "hyperparameters.optimizer.lr=0"}, 1);
    const std::string fp32_step = train({"backend=nccl"}, 1), bf16_step = train(kBf16Gradients, 1);
    EXPECT_EQ(distance(bf16_step, fp32_step) > 0, ranks > 1);
    EXPECT_LT(distance(bf16_step, fp32_step), kRounded * distance(fp32_step, untrained));

    const std::string fp32 = train({"backend=nccl"}, kSteps);
    const auto travelled = collectives(0);
    const std::string bf16 = train(kBf16Gradients, kSteps);

    const auto expected = step_losses(fp32, kSteps), got = step_losses(bf16, kSteps);
    expect_same_losses(got, expected, kRounded);
    EXPECT_EQ(got == expected, ranks == 1) << "one rank alone has nothing to send";
    // Of the weights that both began with: the metrics are exact.
    for (const char* metric : {"loss", "accuracy"})
      EXPECT_EQ(first_line(bf16).at(metric), first_line(fp32).at(metric));

    for (int r = 0; r < ranks; ++r) {
      ASSERT_FALSE(calls(r).empty());
      EXPECT_EQ(collectives(r), in_bf16(travelled, 1)) << "rank " << r;
      EXPECT_EQ(parameters(r, kSteps), parameters(0, kSteps)) << "rank " << r;
      EXPECT_EQ(count(calls(r), "captured"), 1);
      EXPECT_EQ(count(calls(r), "replay"), kSteps - 1);
      EXPECT_EQ(calls(r).back(), "leaks 0");
    }
  }
}

TEST_F(StandIns, StatisticsStayInFp32AndEveryBucketIsRounded) {
  const std::string normed =
      "model={layers: [{conv2d: {out_channels: 4, kernel: 5, stride: 3}}, batch_norm2d, relu, flatten,"
      " {linear: {out_features: 10}}]}";
  for (const auto& [model, buckets] : {std::pair{normed, 1}, {kTwoBuckets, 2}}) {
    SCOPED_TRACE(model);
    const Outcome fp32 = fit_on_gpus(2, 3, {"backend=nccl", model});
    ASSERT_EQ(fp32.code, 0) << fp32.text;
    const auto travelled = collectives(0);
    const int64_t statistics = std::ssize(travelled) - 3 * buckets;
    EXPECT_EQ(statistics > 0, model == normed);
    const Outcome bf16 = fit_on_gpus(2, 3, with(kBf16Gradients, model));
    ASSERT_EQ(bf16.code, 0) << bf16.text;
    for (int r : {0, 1}) EXPECT_EQ(collectives(r), in_bf16(travelled, buckets)) << "rank " << r;
    EXPECT_EQ(std::ssize(collectives(0)), statistics + 3 * (buckets + 1));
  }
}

TEST_F(StandIns, APlanCountsWhatTravelsAndWhatItIsRoundedInto) {
  const auto fp32 = plan_on_gpus(2, {"backend=nccl"}), bf16 = plan_on_gpus(2, kBf16Gradients);
  const auto bytes = [](const nlohmann::json& plan) {
    EXPECT_EQ(plan.at("collectives").size(), 1u);
    return plan.at("collectives").at(0).at("bytes").get<int64_t>();
  };
  constexpr int64_t kMetricsBytes = 64;
  EXPECT_EQ(bytes(bf16) - kMetricsBytes, (bytes(fp32) - kMetricsBytes) / 2);
  const auto gradients = [](const nlohmann::json& plan) {
    return plan.at("memory").at("gradients").get<int64_t>();
  };
  EXPECT_EQ(gradients(bf16), gradients(fp32) / 2 * 3);
}

TEST_F(StandIns, Bf16GradientsNeedNccl) {
  const auto refused = [&](const std::string& backend, const std::string& device, const std::string& gpus,
                           const std::string& why) {
    SCOPED_TRACE(why);
    const Outcome o = fit_on_gpus(2, 2, with({backend, device}, "gradient_precision=bf16"),
                                  {{"LOCKSTEP_STANDIN_GPUS", gpus}});
    EXPECT_EQ(o.code, 78) << o.text;
    for (const std::string& word : {std::string("key=gradient_precision"), why})
      EXPECT_NE(o.text.find(word), std::string::npos) << o.text;
  };
  refused("backend=mpi", "device=cuda", "8", "E_JOB_CONFLICT");
  refused("backend=auto", "device=auto", "0", "E_JOB_UNAVAILABLE");
  const Outcome automatic =
      fit_on_gpus(2, 2, with({"backend=auto", "device=auto"}, "gradient_precision=bf16"));
  EXPECT_EQ(automatic.code, 0) << automatic.text;
  EXPECT_GT(std::ssize(collectives(0)), 0);
}

TEST_F(StandIns, AResumedRunRoundsAsItBegan) {
  ASSERT_EQ(fit_on_gpus(2, 2, kBf16Gradients).code, 0);
  const Outcome other = resume_on_gpus(2, 4, {"backend=nccl"});
  EXPECT_EQ(other.code, 78) << other.text;
  EXPECT_NE(other.text.find("gradient_precision bf16, now fp32"), std::string::npos) << other.text;
  const Outcome alike = resume_on_gpus(2, 4, kBf16Gradients);
  EXPECT_EQ(alike.code, 0) << alike.text;
}

TEST_F(StandIns, GradientsOverMpiWhereRanksShareAGpu) {
  const std::map<std::string, std::string> one_gpu = {{"LOCKSTEP_STANDIN_GPUS", "1"}};
  ASSERT_TRUE(fit(kArticle, folder_.file("cpu"), job(2, 4, {"device=cpu"})));
  const Outcome mpi = fit_on_gpus(2, 4, {"backend=mpi"}, one_gpu);
  ASSERT_EQ(mpi.code, 0) << mpi.text;
  expect_same_losses(step_losses(run_, 4), step_losses(folder_.file("cpu"), 4));
  EXPECT_EQ(count(calls(0), "replay"), 0) << "the host takes part in every step";
  const Outcome nccl = fit_on_gpus(2, 4, {"backend=nccl"}, one_gpu);
  EXPECT_EQ(nccl.code, 78) << nccl.text;
  EXPECT_NE(nccl.text.find("2 ranks on this host, 1 GPU"), std::string::npos) << nccl.text;
  const Outcome none = fit_on_gpus(1, 4, {}, {{"LOCKSTEP_STANDIN_GPUS", "0"}});
  EXPECT_EQ(none.code, 78) << none.text;
  EXPECT_NE(none.text.find("no GPU"), std::string::npos) << none.text;
}

// A rank may see all GPUs of its host, or one of its own; under NCCL no two may have the same.
TEST_F(StandIns, EachRankHasAGpuOfItsOwn) {
  const Outcome own =
      ranks_after("export CUDA_VISIBLE_DEVICES=$OMPI_COMM_WORLD_LOCAL_RANK", {"backend=nccl"});
  ASSERT_EQ(own.code, 0) << own.text;
  for (int rank : {0, 1}) {
    EXPECT_GT(std::ssize(collectives(rank)), 0);
    EXPECT_EQ(calls(rank).back(), "leaks 0");
  }
  const std::string third = "export CUDA_VISIBLE_DEVICES=3", one = "export LOCKSTEP_STANDIN_GPUS=1";
  for (const std::string& setup : {third, one}) {
    SCOPED_TRACE(setup);
    const Outcome shared = ranks_after(setup, {"backend=nccl"});
    EXPECT_NE(shared.code, 0) << shared.text;
    EXPECT_FALSE(std::filesystem::exists(run_)) << "no step was done: nothing is left behind";
    const std::string card = setup == third
                                 ? "GPU-a3000000-0000-0000-0000-000000000000 at 0000:13:00 of host "
                                 : "GPU-a0000000-0000-0000-0000-000000000000 at 0000:10:00 of host ";
    EXPECT_NE(shared.text.find("E_GPU_SHARED"), std::string::npos) << shared.text;
    EXPECT_NE(shared.text.find("ranks 0 and 1 have one GPU, " + card), std::string::npos) << shared.text;
    const Outcome mpi = ranks_after(setup, {"backend=mpi"});
    EXPECT_EQ(mpi.code, 0) << mpi.text;
  }
  const Outcome some = ranks_after("[ $OMPI_COMM_WORLD_RANK = 0 ] || export LOCKSTEP_STANDIN_GPUS=0",
                                   {"backend=auto", "device=auto"});
  EXPECT_NE(some.code, 0);
  EXPECT_NE(some.text.find("device differs: cpu on rank 1, cuda on rank 0"), std::string::npos) << some.text;
}

// The program does without it; `nccl` says where it was looked for, and `auto` is mpi, with a word.
TEST_F(StandIns, NcclThatIsNotToBeHad) {
  const std::map<std::string, std::string> none = {{"LOCKSTEP_STANDIN_LACKS", "nccl"}};
  const Outcome nccl = fit_on_gpus(2, 4, {"backend=nccl"}, none);
  EXPECT_EQ(nccl.code, 78) << nccl.text;
  for (const char* word :
       {"key=backend", "no NCCL: ", "/libnccl.so.2: cannot open", "backend: mpi works here"})
    EXPECT_NE(nccl.text.find(word), std::string::npos) << nccl.text;
  const Outcome automatic = fit_on_gpus(2, 4, {"backend=auto"}, none);
  ASSERT_EQ(automatic.code, 0) << automatic.text;
  EXPECT_TRUE(collectives(0).empty());
  EXPECT_NE(read_file(run_ + "/log.txt").find("gradients go over MPI: no NCCL: "), std::string::npos);
  const Outcome rounded = fit_on_gpus(2, 4, {"backend=auto", "gradient_precision=bf16"}, none);
  EXPECT_EQ(rounded.code, 78) << rounded.text;
  EXPECT_NE(rounded.text.find("no NCCL: "), std::string::npos) << rounded.text;

  // What one rank lacks the others do without.
  const std::string one = "[ $OMPI_COMM_WORLD_RANK = 0 ] || export LOCKSTEP_STANDIN_LACKS=nccl";
  const Outcome mixed = ranks_after(one, {"backend=auto"});
  ASSERT_EQ(mixed.code, 0) << mixed.text;
  EXPECT_TRUE(collectives(0).empty());
  EXPECT_NE(read_file(run_ + "/log.txt").find("gradients go over MPI: another rank has no NCCL"),
            std::string::npos);
  const Outcome wanted = ranks_after(one, {"backend=nccl"});
  EXPECT_NE(wanted.code, 0);
  EXPECT_NE(wanted.text.find("rank=1: backend nccl: no NCCL: "), std::string::npos) << wanted.text;
}

// A GPU that this build has no kernels for is refused before anything is started on it.
TEST_F(StandIns, AnotherArchitectureIsRefusedAtStart) {
  for (const auto& [capability, code] : {std::pair<std::string, int>{"86", 0}, {"75", 78}, {"100", 78}}) {
    SCOPED_TRACE(capability);
    const Outcome o = fit_on_gpus(1, 1, {}, {{"LOCKSTEP_STANDIN_CAPABILITY", capability}});
    EXPECT_EQ(o.code, code) << o.text;
    if (code == 0) continue;
    for (const std::string& words :
         {std::string("E_GPU_ARCHITECTURE"),
          "compute capability " + std::string(capability == "75" ? "7.5" : "10.0"),
          std::string("kernels for 80-real 90a-real"), "LOCKSTEP_CUDA_ARCHITECTURES=" + capability})
      EXPECT_NE(o.text.find(words), std::string::npos) << words << ": " << o.text;
  }
}

// Every entry point that the program calls, failing at its first and at a later call: a message with its name
// and an exit code, and nobody left.
TEST_F(StandIns, EveryFailureEndsInAMessage) {
  ASSERT_EQ(fit_on_gpus(1, 6, {}).code, 0);  // chooses the kernels: a candidate may fail
  for (const std::string call :
       {"cudaSetDevice:1", "cudaGetDeviceProperties:1", "cudaStreamCreateWithPriority:1",
        "cudaEventCreateWithFlags:1", "cudaMalloc:1", "cudaMalloc:9", "cudaMallocHost:1", "cudaMemsetAsync:2",
        "cudaMemcpyAsync:1", "cudaMemcpyAsync:12", "cudaEventRecord:5", "cudaEventQuery:1",
        "cudaStreamBeginCapture:1", "cudaStreamEndCapture:1", "cudaGraphInstantiate:1",
        "cudaGraphLaunch:2"}) {
    SCOPED_TRACE(call);
    const Outcome o = fit_on_gpus(1, 6, {}, {{"LOCKSTEP_STANDIN_FAIL", call}});
    const std::string name = call.substr(0, call.find(':'));
    EXPECT_EQ(o.code, name.starts_with("cudaMalloc") ? 74 : 70) << o.text;
    EXPECT_NE(o.text.find(name == "cudaEventQuery" ? "waiting for the GPU" : name), std::string::npos)
        << o.text;
  }
}

// A library that doesn't start ends the job; a kernel of it that fails is not chosen, which the log says, and
// so is one that cannot be recorded. The choice, made anew each time, tries them all. A library that isn't
// there is done without.
TEST_F(StandIns, LibrariesThatFailAndLibrariesThatLack) {
  const auto with = [&](const std::string& variable, const std::string& value) {
    return fit_on_gpus(1, 3, {}, {{variable, value}, {"XDG_CACHE_HOME", folder_.file("cache-" + value)}});
  };
  for (const std::string call : {"cudnnCreate", "cublasLtCreate"}) {
    SCOPED_TRACE(call);
    const Outcome o = with("LOCKSTEP_STANDIN_FAIL", call);
    EXPECT_EQ(o.code, 70) << o.text;
    EXPECT_NE(o.text.find(call + ": injected failure"), std::string::npos) << o.text;
  }
  for (const auto& [call, line] :
       {std::pair<std::string, std::string>{"cudnnConvolutionBackwardFilter:0",
                                            "kernel cudnn of conv2d_weight_grad is not taken for "},
        {"cublasLtMatmul:0", "kernel cublaslt of linear is not taken for "},
        {"cudaStreamEndCapture:1", "is not taken for "}}) {
    SCOPED_TRACE(call);
    const Outcome o = with("LOCKSTEP_STANDIN_FAIL", call);
    EXPECT_EQ(o.code, 0) << o.text;
    const std::string log = read_file(run_ + "/log.txt");
    const size_t at = log.find(line);
    ASSERT_NE(at, std::string::npos) << log;
    const std::string name = call.substr(0, call.find(':'));
    EXPECT_NE(log.find(name, at), std::string::npos) << log;
  }
  for (const auto& [lack, line] : {std::pair<std::string, std::string>{"cudnn", "no cuDNN: "},
                                   {"cublasLtMatmul", "no cuBLASLt: libcublasLt.so"},
                                   {"nvrtc", "cuDNN's run-time compiled engines decline: libnvrtc.so"}}) {
    SCOPED_TRACE(lack);
    const Outcome o = with("LOCKSTEP_STANDIN_LACKS", lack);
    EXPECT_EQ(o.code, 0) << o.text;
    EXPECT_NE(read_file(run_ + "/log.txt").find(line), std::string::npos) << read_file(run_ + "/log.txt");
  }
}

// A candidate that fails on one rank is out of the race on all; one that takes the GPU with it ends the job.
TEST_F(StandIns, RanksAgreeOnWhatFailsAndALostGpuIsLost) {
  const Outcome one = fit_on_gpus(2, 3, {"backend=nccl"},
                                  {{"LOCKSTEP_STANDIN_FAIL", "cudnnConvolutionBackwardFilter:0:rank1"}});
  ASSERT_EQ(one.code, 0) << one.text;
  EXPECT_NE(one.text.find("warning: rank 1: kernel cudnn of conv2d_weight_grad is not taken for "),
            std::string::npos)
      << one.text;
  EXPECT_EQ(one.text.find("warning: rank 0: kernel cudnn"), std::string::npos) << one.text;
  const auto plan = nlohmann::json::parse(read_file(run_ + "/plan.json"));
  int gradients = 0;
  for (const auto& node : plan.at("nodes"))
    if (node.at("op") == "conv2d_weight_grad") {
      EXPECT_NE(node.at("kernel"), "cudnn");
      ++gradients;
    }
  EXPECT_GT(gradients, 0);
  const Outcome lost = fit_on_gpus(1, 3, {},
                                   {{"LOCKSTEP_STANDIN_FAIL", "cudnnConvolutionBackwardFilter:1:lose"},
                                    {"XDG_CACHE_HOME", folder_.file("another cache")}});
  EXPECT_EQ(lost.code, 70) << lost.text;
  EXPECT_NE(lost.text.find("error[E_CUDA]"), std::string::npos) << lost.text;
}

// A choice that stems from an earlier run and fails in this one's steps.
TEST_F(StandIns, AKernelThatFailsInAStepIsNamed) {
  ASSERT_EQ(fit_on_gpus(1, 1, {}).code, 0);
  const std::string cache = folder_.file("cache/lockstep/kernels.json");
  auto choices = nlohmann::json::parse(read_file(cache));
  int planted = 0;
  for (auto& [key, kernel] : choices.items())
    if (key.find(" conv2d_weight_grad(") != std::string::npos) kernel = "cudnn", ++planted;
  ASSERT_GT(planted, 0);
  write_file(cache, choices.dump());
  ASSERT_EQ(fit_on_gpus(1, 3, {}).code, 0);
  EXPECT_NE(read_file(run_ + "/log.txt").find("another algorithm takes its place"), std::string::npos);
  const Outcome o = fit_on_gpus(1, 3, {}, {{"LOCKSTEP_STANDIN_FAIL", "cudnnConvolutionBackwardFilter:0"}});
  EXPECT_EQ(o.code, 70) << o.text;
  for (const char* words :
       {"op=conv2d_weight_grad", "kernel=cudnn", "layer=", "injected failure (5000), algorithm 5",
        "injected failure (5000), algorithm 1", "remove the kernel cache"})
    EXPECT_NE(o.text.find(words), std::string::npos) << words << ": " << o.text;
}

// The next step has begun when a loss turns out not to be finite, or a stop to be wished for.
TEST_F(StandIns, ADivergenceIsFoundWhileTheNextStepRuns) {
  const std::vector<std::string> diverging = {"hyperparameters.optimizer.lr=1e6",
                                              "hyperparameters.optimizer.weight_decay=1"};
  const Outcome gpus = fit_on_gpus(2, 40, diverging);
  EXPECT_EQ(gpus.code, 80) << gpus.text;
  EXPECT_NE(gpus.text.find("E_DIVERGED"), std::string::npos) << gpus.text;
  const auto status = nlohmann::json::parse(read_file(run_ + "/status.json"));
  const int step = status.at("step");
  EXPECT_NE(gpus.text.find("step=" + std::to_string(step) + " "), std::string::npos) << gpus.text;
  step_losses(run_, step - 1);  // every step before it has its line
}

// Gradients lie in memory that NCCL knows; where it won't have it, in the device's own.
TEST_F(StandIns, GradientsAreRegisteredWhereNcclTakesThem) {
  ASSERT_TRUE(fit(kArticle, folder_.file("cpu"), job(2, 4, {"device=cpu"})));
  const auto expected = step_losses(folder_.file("cpu"), 4);
  for (const std::string fail : {"", "ncclMemAlloc", "ncclCommRegister"}) {
    SCOPED_TRACE(fail);
    const Outcome o = fit_on_gpus(2, 4, {"backend=nccl"}, {{"LOCKSTEP_STANDIN_FAIL", fail + ":1"}});
    ASSERT_EQ(o.code, 0) << o.text;
    expect_same_losses(step_losses(run_, 4), expected);
    for (int rank : {0, 1}) {
      EXPECT_EQ(count(calls(rank), "register"), fail.empty() ? 1 : 0);
      EXPECT_EQ(calls(rank).back(), "leaks 0");
    }
  }
  std::vector<double> losses;
  for (const std::string fail : {"", "ncclMemAlloc:2", "ncclCommRegister:2"}) {
    SCOPED_TRACE(fail);
    const Outcome o = fit_on_gpus(2, 4, kBf16Gradients, {{"LOCKSTEP_STANDIN_FAIL", fail}});
    ASSERT_EQ(o.code, 0) << o.text;
    if (losses.empty()) losses = step_losses(run_, 4);
    EXPECT_EQ(step_losses(run_, 4), losses);
    for (int rank : {0, 1}) {
      EXPECT_EQ(count(calls(rank), "register"), fail.empty() ? 2 : 1) << "what they are rounded into, too";
      EXPECT_EQ(calls(rank).back(), "leaks 0");
    }
  }
}

TEST_F(StandIns, AFailedRankEndsTheJob) {
  const Outcome usual = fit_on_gpus(2, 1, {"backend=nccl"});  // chooses the kernels, which takes its time
  ASSERT_EQ(usual.code, 0) << usual.text;
  const std::string fp32 = "gradient_precision=fp32", bf16 = "gradient_precision=bf16";
  for (const auto& [call, gradients] :
       std::vector<std::pair<std::string, std::string>>{{"ncclCommInitRankConfig:1:rank1", fp32},
                                                        {"ncclCommGetAsyncError:1:rank1", fp32},
                                                        {"ncclAllReduce:1:rank1", fp32},
                                                        {"ncclAllReduce:2:rank0", fp32},
                                                        {"ncclAllReduce:1:rank1", bf16},  // of the metrics
                                                        {"ncclAllReduce:2:rank0", bf16},
                                                        {"ncclAllReduce:4:rank1", bf16},  // recorded
                                                        {"ncclCommGetAsyncError:9:rank1", fp32},
                                                        {"cudaGraphLaunch:2:rank1", fp32},
                                                        {"cudaStreamWaitEvent:3:rank0", fp32}}) {
    SCOPED_TRACE(call + " " + gradients);
    const Outcome o = fit_on_gpus(2, 6, {"backend=nccl", "deadline_seconds=5", gradients},
                                  {{"LOCKSTEP_STANDIN_FAIL", call}});
    const bool start = call.starts_with("ncclCommInit") || call.starts_with("ncclCommGetAsyncError:1:");
    EXPECT_EQ(o.code, start ? 69 : call.starts_with("nccl") ? 75 : 70) << o.text;
    EXPECT_NE(o.text.find(call.starts_with("ncclCommGet") ? "injected" : call.substr(0, call.find(':'))),
              std::string::npos)
        << o.text;
    EXPECT_LT(o.took, at_most(5s, usual)) << o.text;
    EXPECT_TRUE(processes_with("LOCKSTEP_TEST_MARK=" + folder_.path()).empty());
  }
}

TEST_F(StandIns, AHangEndsAtTheDeadline) {
  // Of two buckets the third call is recorded, and hangs in the graph. In bf16 there are two calls of the
  // bucket with the metrics, the second for the gradients.
  struct Hang {
    std::string call, model, record, gradients = "fp32";
  };
  const std::string small = "model.name=mnist_convnet_dropout";
  Outcome usual{};
  for (const std::string& model : {small, kTwoBuckets}) {
    usual = fit_on_gpus(2, 1, {"backend=nccl", model});  // as above
    ASSERT_EQ(usual.code, 0) << usual.text;
  }
  for (const auto& [call, model, record, gradients] :
       {Hang{"ncclAllReduce:1:hang:rank1", small, "step=0: "},
        Hang{"ncclAllReduce:2:hang", kTwoBuckets, "bucket 1"},
        Hang{"ncclAllReduce:3:hang", kTwoBuckets, "bucket 0"},
        Hang{"ncclAllReduce:2:hang:rank1", small, "bucket 0", "bf16"},
        Hang{"ncclAllReduce:4:hang", small, "bucket 0", "bf16"}}) {
    SCOPED_TRACE(call + " " + gradients);
    const Outcome o =
        fit_on_gpus(2, 6, {"backend=nccl", "deadline_seconds=2", model, "gradient_precision=" + gradients},
                    {{"LOCKSTEP_STANDIN_FAIL", call}});
    EXPECT_EQ(o.code, 75) << o.text;
    EXPECT_NE(o.text.find("not done within 2 s"), std::string::npos) << o.text;
    EXPECT_NE(o.text.find("error[E_PEER_LOST] rank="), std::string::npos) << o.text;
    EXPECT_NE(o.text.find(record), std::string::npos) << o.text;
    EXPECT_NE(o.text.find("resume with"), std::string::npos) << o.text;
    EXPECT_LT(o.took, at_most(2s, usual)) << o.text;
    EXPECT_TRUE(processes_with("LOCKSTEP_TEST_MARK=" + folder_.path()).empty());
  }
}
#endif

}  // namespace
}  // namespace lockstep::testing::gpu_test
