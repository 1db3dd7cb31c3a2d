// SPDX-License-Identifier: Apache-2.0
// `lockstep plan --scale --link`: what it reads, what it refuses, and what the real program predicts.
#include "launch/commands/scale.h"

#include <gtest/gtest.h>

#include "tests/support/process.h"

namespace lockstep::testing {
namespace {

TEST(ScaleRequest, ReadsRanksAndLinks) {
  const ScaleRequest r = parse_scale_request("2,64,8,8", "100Gb,5us");
  EXPECT_EQ(r.ranks, (std::vector<int64_t>{2, 64, 8, 8}));
  EXPECT_DOUBLE_EQ(1 / r.link.seconds_per_byte, 12.5e9);
  EXPECT_DOUBLE_EQ(r.link.latency_seconds, 5e-6);
  EXPECT_EQ(r.ranks_per_host, 1);
  const struct {
    const char* link;
    double bytes_per_second, seconds;
    int ranks;
  } cases[] = {{"100Mb,500ns,8", 12.5e6, 500e-9, 8},
               {"1.5GB,0.25ms,1", 1.5e9, 0.25e-3, 1},
               {"8MB,10us,2", 8e6, 1e-5, 2}};
  for (const auto& c : cases) {
    const ScaleRequest q = parse_scale_request("1", c.link);
    EXPECT_DOUBLE_EQ(1 / q.link.seconds_per_byte, c.bytes_per_second) << c.link;
    EXPECT_DOUBLE_EQ(q.link.latency_seconds, c.seconds) << c.link;
    EXPECT_EQ(q.ranks_per_host, c.ranks) << c.link;
  }
}

TEST(ScaleRequest, NamesTheWordThatIsWrong) {
  const struct {
    const char *scale, *link;
    std::vector<std::string> words;
  } cases[] = {
      {"2", "", {"--scale and --link go together"}},
      {"", "1Gb,5us", {"--scale and --link go together"}},
      {"2,x", "1Gb,5us", {"--scale", "'x'", "integer"}},
      {"2,,4", "1Gb,5us", {"--scale", "''"}},
      {"2,0", "1Gb,5us", {"--scale", "'0'", "1.."}},
      {"-2", "1Gb,5us", {"--scale", "'-2'"}},
      {"2.5", "1Gb,5us", {"--scale", "'2.5'"}},
      {"2000000", "1Gb,5us", {"--scale", "'2000000'"}},
      {"2", "1Gb", {"--link", "'1Gb'", "latency"}},
      {"2", "1Gb,5us,2,3", {"--link", "'1Gb,5us,2,3'"}},
      {"2", "1gb,5us", {"--link", "'1gb'", "bandwidth", "Gb"}},
      {"2", "Gb,5us", {"--link", "'Gb'"}},
      {"2", "1..5Gb,5us", {"--link", "'1..5Gb'"}},
      {"2", "1 Gb,5us", {"--link", "'1 Gb'"}},
      {"2", "0Gb,5us", {"--link", "'0Gb'", "above 0"}},
      {"2", "-1Gb,5us", {"--link", "'-1Gb'"}},
      {"2", "1,5us", {"--link", "'1'"}},
      {"2", "1Gb,5", {"--link", "'5'", "latency", "us"}},
      {"2", "1Gb,5s", {"--link", "'5s'"}},
      {"2", "1Gb,0us", {"--link", "'0us'"}},
      {"2", "1Gb,5us,0", {"--link", "'0'"}},
      {"2", "1Gb,5us,two", {"--link", "'two'"}},
  };
  for (const auto& c : cases) try {
      parse_scale_request(c.scale, c.link);
      ADD_FAILURE() << c.scale << " " << c.link;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), static_cast<int>(Exit::usage));
      for (const std::string& word : c.words)
        EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << "no " << word << " in " << e.what();
    }
}

Ended plan(std::vector<std::string> words) {
  words.insert(words.begin(), {LOCKSTEP_BINARY, "plan", LOCKSTEP_SOURCE_DIR "/configs/mnist_cnn.yaml"});
  return run(words, {{"XDG_CACHE_HOME", LOCKSTEP_BINARY_DIR "/tests/cache"}});
}

TEST(PlanScale, PredictsMnistOnManyRanks) {
  const Ended e =
      plan({"--scale", "64,1,2,64", "--link", "1Gb,20us", "--set", "threads_per_rank=1", "--json"});
  ASSERT_EQ(e.code, 0) << e.output;
  const auto all = nlohmann::json::parse(e.output);
  const auto& s = all.at("scaling");
  EXPECT_EQ(s.at("samples_per_rank"), 64);
  EXPECT_EQ(s.at("threads_per_rank"), 1);
  int64_t bytes = 0;
  for (const auto& c : all.at("collectives")) bytes += c.at("bytes").get<int64_t>();
  const auto& points = s.at("ranks");
  ASSERT_EQ(points.size(), 4u);
  const double compute = points[0].at("compute_seconds");
  EXPECT_GT(compute, 0);
  for (const auto& p : points) {
    const int64_t ranks = p.at("ranks");
    const double step = p.at("step_seconds"), exposed = p.at("exposed_seconds");
    EXPECT_EQ(p.at("global_batch_size"), 64 * ranks);
    EXPECT_DOUBLE_EQ(p.at("compute_seconds"), compute);
    EXPECT_DOUBLE_EQ(step, compute + exposed);
    EXPECT_DOUBLE_EQ(p.at("samples_per_second"), 64 * static_cast<double>(ranks) / step);
    EXPECT_NEAR(p.at("efficiency"), compute / step, 1e-12);
  }
  EXPECT_EQ(points[0], points[3]);
  EXPECT_EQ(points[1].at("ranks"), 1);
  EXPECT_EQ(points[1].at("exposed_seconds"), 0);
  EXPECT_EQ(points[1].at("binds"), "compute");
  // 87 KB of gradients, ready at the end of the backward pass: 0.7 ms at 1 Gb/s, and no more than that and α.
  const double wire = static_cast<double>(bytes) / 125e6;
  EXPECT_GE(points[2].at("communication_seconds").get<double>(), wire + 20e-6);
  EXPECT_GT(points[2].at("exposed_seconds").get<double>(), 0.9 * wire);
  EXPECT_GT(points[0].at("exposed_seconds").get<double>(), points[2].at("exposed_seconds").get<double>());
}

TEST(PlanScale, SaysWhatItAssumes) {
  const Ended e = plan({"--scale", "2,512", "--link", "100Gb,5us,2"});
  ASSERT_EQ(e.code, 0) << e.output;
  for (const char* words :
       {"weak scaling", "64 samples a rank", "100 Gb/s", "5 us", "shared memory + halving-doubling"})
    EXPECT_NE(e.output.find(words), std::string::npos) << words << "\n" << e.output;
}

TEST(PlanScale, OfADiffusionModelAndBatchNorm) {
  for (const char* job : {"ddpm_mnist.yaml", "mnist_layers.yaml"}) {
    const Ended e = run({LOCKSTEP_BINARY, "plan", std::string(LOCKSTEP_SOURCE_DIR "/configs/") + job, "--set",
                         "hyperparameters.global_batch_size=8", "--set", "threads_per_rank=1", "--scale", "8",
                         "--link", "10Gb,10us", "--json"},
                        {{"XDG_CACHE_HOME", LOCKSTEP_BINARY_DIR "/tests/cache"}});
    ASSERT_EQ(e.code, 0) << e.output;
    const auto point = nlohmann::json::parse(e.output).at("scaling").at("ranks").at(0);
    EXPECT_GT(point.at("communication_seconds").get<double>(), 0);
    EXPECT_LE(point.at("efficiency").get<double>(), 1);
  }
}

TEST(PlanScale, Refuses) {
  const struct {
    std::vector<std::string> words;
    Exit exit;
    const char* text;
  } cases[] = {{{"--scale", "2"}, Exit::usage, "--link"},
               {{"--link", "1Gb,5us"}, Exit::usage, "--scale"},
               {{"--scale", "2", "--link", "1Gb,5parsec"}, Exit::usage, "5parsec"},
               {{"--scale", "2", "--link", "1Gb,5us", "--device", "simt"}, Exit::config, "device"},
               {{"--scale", "2", "--link", "1Gb,5us", "--device", "cuda"}, Exit::config, "device"}};
  for (const auto& c : cases) {
    const Ended e = plan(c.words);
    EXPECT_EQ(e.code, static_cast<int>(c.exit)) << e.output;
    EXPECT_NE(e.output.find(c.text), std::string::npos) << e.output;
  }
}

}  // namespace
}  // namespace lockstep::testing
