// SPDX-License-Identifier: Apache-2.0
// A job that is interrupted over and over, and resumed each time, ends as one that never was: the same bits
// in its weights, their moving average and optimizer state, the same lines of metrics. Dropout, batch norm,
// an uneven last batch and validation are in it, so that each kind of state is; one rank computes in bf16,
// two in fp32.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <numeric>
#include <random>
#include <thread>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/telemetry/run_folder.h"
#include "tests/distributed/fit.h"
#include "tests/support/combinations.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::interruption_test {
namespace fs = std::filesystem;
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr int64_t kSteps = 400;
const int kInterruptions = all_combinations() ? 20 : 5;

// The last of an epoch's 18 batches has 8 samples instead of 32.
constexpr const char* kJob = R"(
job_name: interrupted
threads_per_rank: 1
model:
  layers:
    - conv2d: {out_channels: 6, kernel: 5, bias: false}
    - batch_norm2d
    - relu
    - dropout2d: 0.2
    - max_pool2d: 2
    - conv2d: {out_channels: 8, kernel: 3}
    - relu
    - max_pool2d: 2
    - flatten
    - dropout: 0.25
    - linear: {out_features: 10}
inputs:
  training: {dataset: mnist, path: DATA, limit: 600, normalize: {mean: 0.1307, std: 0.3081}}
  test: {dataset: mnist, path: DATA, limit: 200}
validation_fraction: 0.08
hyperparameters:
  steps: STEPS
  global_batch_size: 32
  optimizer: {name: adam, lr: 0.002, weight_decay: 0.0005}
  lr_schedule: {name: cosine, warmup_steps: 20}
  clip_grad_norm: 1.0
  ema: {decay: 0.99}
  precision: PRECISION
  seed: 11
checkpoint: {every_steps: 17, keep: 2, best_by: validation_loss}
log_every: 1
)";

std::string with(std::string text, const std::string& word, const std::string& value) {
  for (size_t at; (at = text.find(word)) != std::string::npos;) text.replace(at, word.size(), value);
  return text;
}

// What metrics.jsonl says, without how long it took.
std::vector<json> metrics_of(const std::string& run) {
  std::vector<json> lines;
  std::istringstream in(read_file(run + "/metrics.jsonl"));
  for (std::string line; std::getline(in, line);) {
    json entry = json::parse(line);
    for (const char* timing :
         {"seconds", "samples_per_second", "data_wait_percent", "allreduce_exposed_percent"})
      entry.erase(timing);
    lines.push_back(entry);
  }
  return lines;
}

// The step that a run being written has reached: the last whole line of its metrics.
int64_t step_reached(const std::string& run) {
  std::ifstream in(run + "/metrics.jsonl", std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const size_t end = text.rfind('\n');
  if (end == std::string::npos || end == 0) return 0;
  const size_t before = text.rfind('\n', end - 1);
  const json line = json::parse(text.substr(before + 1, end - before - 1), nullptr, false);
  return line.is_object() ? line.value("step", int64_t{0}) : 0;
}

int checkpoints_in_writing(const std::string& run) {
  int count = 0;
  std::error_code gone;
  for (const auto& entry : fs::directory_iterator(run + "/checkpoints", gone))
    count += entry.path().filename().string().starts_with(".tmp-");
  return count;
}

// Sees at once when the writing of a checkpoint begins.
class WritingWatch {
 public:
  explicit WritingWatch(const std::string& run) : notify_(::inotify_init1(IN_CLOEXEC)) {
    ::inotify_add_watch(notify_, (run + "/checkpoints").c_str(), IN_CREATE);
  }
  ~WritingWatch() { ::close(notify_); }
  bool wait(std::chrono::milliseconds limit) {
    pollfd readable{notify_, POLLIN, 0};
    return ::poll(&readable, 1, static_cast<int>(limit.count())) == 1;
  }

 private:
  int notify_;
};

class Interrupted : public ::testing::TestWithParam<int> {
 protected:
  Interrupted() {
    std::string text = with(kJob, "DATA", LOCKSTEP_SOURCE_DIR "/configs/data/mnist");
    text = with(text, "PRECISION", ranks() == 1 ? "bf16" : "fp32");
    write_file(job_, with(text, "STEPS", std::to_string(kSteps)));
  }
  ~Interrupted() override {
    for (pid_t p : living()) ::kill(p, SIGKILL);  // of a test that failed
  }

  int ranks() const { return GetParam(); }
  // Each run has the kernels that the first one chose: until its first checkpoint from the test's own cache.
  Process start(const std::string& run, bool resume) const {
    std::vector<std::string> c = {
        LOCKSTEP_BINARY, "fit", job_, "--output", run, "--set", "instance_count=" + std::to_string(ranks())};
    if (resume) c.emplace_back("--resume");
    return Process(c, {{"XDG_CACHE_HOME", folder_.file("cache")}, {"LOCKSTEP_TEST_MARK", folder_.path()}});
  }
  void finish(const std::string& run, bool resume) const {
    Process p = start(run, resume);
    ASSERT_EQ(p.wait(), 0) << p.output();
    EXPECT_EQ(read_status(run).state, "completed");
    EXPECT_EQ(read_status(run).step, kSteps);
  }
  std::vector<pid_t> living() const { return processes_with("LOCKSTEP_TEST_MARK=" + folder_.path()); }
  pid_t rank_process(int rank) const {
    if (ranks() == 1) return living().empty() ? -1 : living().front();
    return rank_with("LOCKSTEP_TEST_MARK=" + folder_.path(), rank);
  }

  void expect_same_end(const std::string& run, const std::string& expected) const {
    EXPECT_TRUE(read_file(run + "/model.safetensors") == read_file(expected + "/model.safetensors"))
        << "other weights";
    const std::string last = "/checkpoints/" + checkpoint_name(kSteps);
    const LoadedCheckpoint end = load_checkpoint(run + last);
    const StoredTensor *average = end.model->find("0.weight"), *raw = end.state->find("raw.0.weight");
    ASSERT_TRUE(average && raw);
    EXPECT_FALSE(std::ranges::equal(average->bytes, raw->bytes)) << "the average is no average";
    for (const char* file : {"/model.safetensors", "/state.safetensors"})
      EXPECT_TRUE(read_file(run + last + file) == read_file(expected + last + file))
          << "other bits in " << file;
    auto meta_of = [&](const std::string& r) {
      json meta = load_checkpoint(r + last).meta;
      for (const char* timing : {"seconds", "training_seconds"}) meta.erase(timing);
      return meta;
    };
    EXPECT_EQ(meta_of(run), meta_of(expected));
    const auto lines = metrics_of(run), expected_lines = metrics_of(expected);
    EXPECT_EQ(lines.size(), expected_lines.size());
    for (size_t i = 0; i < std::min(lines.size(), expected_lines.size()); ++i)
      ASSERT_EQ(lines[i], expected_lines[i]) << "line " << i + 1;
    step_losses(run, kSteps);  // each step once, in order
    const std::string best = meta_of(run).at("best_folder");
    EXPECT_TRUE(fs::exists(run + "/checkpoints/" + best)) << best;
  }

  TestFolder folder_;
  std::string job_ = folder_.file("job.yaml"), run_ = folder_.file("run"), whole_ = folder_.file("whole");
};

// In turn SIGTERM to the launcher and SIGKILL of a rank, when random steps have been reached; every fifth
// interruption comes at a random time about the start instead, so that starting and resuming are hit too.
TEST_P(Interrupted, ManyTimesEndsWithTheSameBits) {
  ASSERT_NO_FATAL_FAILURE(finish(whole_, false));

  constexpr unsigned kSeed = 20240229;
  std::mt19937 random(kSeed);
  std::cout << "seed " << kSeed << "\n";
  // From the first checkpoint on, and long enough before the end: a signal that comes behind it interrupts nothing.
  std::vector<int64_t> steps(kSteps - 100), targets;
  std::iota(steps.begin(), steps.end(), int64_t{20});
  std::ranges::sample(steps, std::back_inserter(targets), kInterruptions, random);
  auto to_first_step = std::chrono::microseconds(1s);  // from the start, the quickest so far

  for (int i = 0; i < kInterruptions; ++i) {
    // A step more than the lines that stand there already, or it could be reached before the start.
    const int64_t before = step_reached(run_), target = std::max(targets[static_cast<size_t>(i)], before + 1);
    const bool by_time = i % 5 == 4;
    const std::string status = i > 0 ? read_file(run_ + "/status.json") : "";
    const auto started = Clock::now();
    Process p = start(run_, i > 0);
    if (by_time) {
      std::this_thread::sleep_for(to_first_step * std::uniform_real_distribution<>(0.1, 1.1)(random));
    } else {
      ASSERT_TRUE(eventually([&] { return step_reached(run_) > before; })) << p.output();
      to_first_step = std::min(to_first_step,
                               std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - started));
      ASSERT_TRUE(eventually([&] { return step_reached(run_) >= target; })) << p.output();
    }
    const int rank = std::uniform_int_distribution<>(0, ranks() - 1)(random);
    const bool in_order = i % 2 == 0;
    pid_t process = p.pid();
    if (in_order) {
      p.signal(SIGTERM);
    } else {
      ASSERT_TRUE(eventually([&] { return (process = rank_process(rank)) > 0; })) << p.output();
      ASSERT_EQ(::kill(process, SIGKILL), 0) << "it ended before: " << p.output();
    }
    const int code = p.wait();
    // So early that the program itself doesn't catch the signal yet, or that its ranks take long to meet on a busy machine: it
    // has not touched the run.
    const bool not_begun = in_order && by_time &&
                           (code == 128 + SIGTERM ||
                            (code == 75 && p.output().find("before the ranks had met") != std::string::npos));
    if (not_begun) {
      EXPECT_EQ(read_file(run_ + "/status.json"), status) << p.output();
    } else {
      ASSERT_EQ(code, !in_order && ranks() == 1 ? 128 + SIGKILL : 75) << p.output();
    }
    if (in_order && !not_begun) {
      EXPECT_EQ(read_status(run_).state, "interrupted") << p.output();
    }
    ASSERT_TRUE(eventually([&] { return living().empty(); })) << "processes left behind";
    const auto checkpoints = list_checkpoints(run_);
    ASSERT_FALSE(checkpoints.empty());
    std::cout << (in_order ? "SIGTERM" : "SIGKILL of rank " + std::to_string(rank)) << " at step "
              << step_reached(run_) << (by_time ? ", by time" : "") << ", exit " << code << ", leaves "
              << fs::path(checkpoints.back()).filename().string() << "\n";
  }
  ASSERT_NO_FATAL_FAILURE(finish(run_, true));
  const std::string log = read_file(run_ + "/log.txt");
  int resumes = 0;
  for (size_t at = 0; (at = log.find("resumes rank 0", at)) != std::string::npos; ++at) ++resumes;
  EXPECT_GE(resumes, kInterruptions * 4 / 5) << "of those by time, some don't come that far";
  expect_same_end(run_, whole_);
}

// Killed in the middle of writing a checkpoint, and then the newest whole one damaged as well: the resumed
// run passes over both and still ends with the same bits.
TEST_P(Interrupted, InACheckpointWithTheOneBeforeDamaged) {
  ASSERT_NO_FATAL_FAILURE(finish(whole_, false));
  // Aims at a writer at work until one is hit: what it leaves is seen.
  bool hit = false;
  for (int attempt = 0; attempt < 30 && !hit; ++attempt) {
    fs::remove_all(run_);
    Process p = start(run_, false);
    ASSERT_TRUE(eventually([&] { return list_checkpoints(run_).size() >= 2; })) << p.output();
    const pid_t writer = rank_process(0);
    ASSERT_GT(writer, 0) << p.output();
    ASSERT_TRUE(WritingWatch(run_).wait(kPatience)) << p.output();
    send_signal(writer, SIGKILL);
    p.wait();
    ASSERT_TRUE(eventually([&] { return living().empty(); })) << "processes left behind";
    hit = checkpoints_in_writing(run_) > 0 && list_checkpoints(run_).size() >= 2;
  }
  ASSERT_TRUE(hit) << "no writer was killed at work: nothing was tested";

  const auto checkpoints = list_checkpoints(run_);
  const std::string damaged = checkpoints.back() + "/state.safetensors";
  const std::string bytes = read_file(damaged);
  overwrite_byte(damaged, bytes.size() - 5, static_cast<char>(bytes[bytes.size() - 5] ^ 0x10));
  Process p = start(run_, true);
  ASSERT_EQ(p.wait(), 0) << p.output();
  const std::string log = read_file(run_ + "/log.txt");
  EXPECT_NE(log.find("passed over a damaged checkpoint"), std::string::npos) << log;
  EXPECT_NE(log.find(damaged), std::string::npos) << log;
  EXPECT_EQ(checkpoints_in_writing(run_), 0) << "what the killed writer left is still there";
  expect_same_end(run_, whole_);
}

TEST_P(Interrupted, AllCheckpointsDamagedIsRefused) {
  Process p = start(run_, false);
  ASSERT_TRUE(eventually([&] { return list_checkpoints(run_).size() >= 2; })) << p.output();
  send_signal(rank_process(0), SIGKILL);
  p.wait();
  const auto checkpoints = list_checkpoints(run_);
  for (const std::string& c : checkpoints) fs::resize_file(c + "/model.safetensors", 1000);
  Process resumed = start(run_, true);
  EXPECT_EQ(resumed.wait(), 65) << resumed.output();
  EXPECT_NE(resumed.output().find(checkpoints.back() + "/model.safetensors"), std::string::npos)
      << resumed.output();
  EXPECT_NE(resumed.output().find("no checkpoint of this run is whole"), std::string::npos)
      << resumed.output();
  EXPECT_EQ(list_checkpoints(run_), checkpoints) << "they are not ours to remove";
}

INSTANTIATE_TEST_SUITE_P(Ranks, Interrupted, ::testing::Values(1, 2));

}  // namespace
}  // namespace lockstep::testing::interruption_test
