// SPDX-License-Identifier: Apache-2.0
// A StableDiffusionPipeline's folder whose UNet is trained on latents, by the real program: against diffusers
// (tests/golden/make_fine_tuning.py), and the same bits however it is run.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <list>

#include "launch/job/model_file.h"
#include "models/autoencoder_kl.h"
#include "models/diffusion/folder.h"
#include "models/model.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/training/step_graph.h"
#include "tests/distributed/fit.h"
#include "tests/models/unet_formula.h"
#include "tests/support/other_build.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::fine_tuning_test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kTuningSteps = 3;
constexpr uint64_t kProjection = 3000;  // of make_text_to_image.py
const std::string kTokenizerFolder = LOCKSTEP_SOURCE_DIR "/configs/data/clip_small";

const json& tuning_golden() {
  static const json file = json::parse(read_file(LOCKSTEP_SOURCE_DIR "/tests/golden/fine_tuning.json"));
  return file;
}

const std::map<std::string, std::string> kNetworkFiles = {
    {"unet", "unet/diffusion_pytorch_model.safetensors"},
    {"text_encoder", "text_encoder/model.safetensors"},
    {"vae", "vae/diffusion_pytorch_model.safetensors"}};

// The tensors of a file, by name.
std::map<std::string, std::vector<float>> tensors_in(const std::string& file) {
  std::map<std::string, std::vector<float>> all;
  const auto opened = SafetensorsFile::open(file);
  for (const StoredTensor& t : opened->tensors()) {
    auto& values = all[t.name];
    values.resize(t.bytes.size() / sizeof(float));
    std::memcpy(values.data(), t.bytes.data(), t.bytes.size());
  }
  return all;
}

class FineTuning : public ::testing::Test {
 protected:
  FineTuning() {
    write_pipeline();
    write_pictures();
    write_job("");
  }

  std::string job() const { return folder_.file("job.yaml"); }
  std::string start() const { return folder_.file("start"); }
  void write_job(const std::string& more) const {
    write_file(job(), fmt::format(R"(model: {{name: text_to_image, init_from: {}}}
trained: [unet]
objective: {{name: diffusion, beta_schedule: scaled_linear, beta_start: 0.00085, beta_end: 0.012}}
inputs: {{training: {{dataset: image_folder, path: {}, captions: {{column: text}}}}}}
hyperparameters: {{steps: {}, global_batch_size: 4, shuffle: false, seed: {}, optimizer: {{name: sgd, lr: 0.05, momentum: 0.9}}}}
sampling: {{steps: 2, count: 2, prompts: [a red seven]}}
threads_per_rank: 1
log_every: 1
{})",
                                  start(), folder_.file("pictures"), kTuningSteps,
                                  tuning_golden().at("seed").get<int>(), more));
  }

  std::string train(const std::string& name, const std::vector<std::string>& more = {}) const {
    const std::string path = folder_.file(name);
    EXPECT_TRUE(fit(job(), path, more)) << name;
    return path;
  }
  struct Ended {
    int code;
    std::string text;
  };
  static Ended run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), LOCKSTEP_BINARY);
    Process process(arguments, {{"XDG_CACHE_HOME", kTestCache}});
    const int code = process.wait();
    return {code, process.output()};
  }
  void expect_refused(const std::vector<std::string>& sets, const std::vector<std::string>& words) const {
    for (const char* command : {"check", "fit"}) {
      const std::string out = folder_.file("never");
      std::vector<std::string> arguments = {command, job()};
      for (const std::string& set : sets) arguments.insert(arguments.end(), {"--set", set});
      if (std::string(command) == "fit") arguments.insert(arguments.end(), {"--output", out});
      const Ended e = run(arguments);
      EXPECT_EQ(e.code, 78) << e.text;
      for (const std::string& word : words)
        EXPECT_NE(e.text.find(word), std::string::npos) << word << ": " << e.text;
      EXPECT_FALSE(fs::exists(out));
    }
  }
  static void expect_same(const std::string& one, const std::string& other) {
    EXPECT_EQ(step_losses(one, kTuningSteps), step_losses(other, kTuningSteps)) << other;
    for (const auto& [network, file] : kNetworkFiles)
      EXPECT_TRUE(read_file(one + "/" + file) == read_file(other + "/" + file)) << other << " " << file;
  }

  TestFolder folder_;

 private:
  // As diffusers writes it, with weights by formula.
  void write_pipeline() const {
    const json pipelines = json::parse(read_file(LOCKSTEP_SOURCE_DIR "/tests/golden/pipeline.json"));
    for (const auto& [file, content] : pipelines.at("sd1").at("files").items()) {
      fs::create_directories(fs::path(start() + "/" + file).parent_path());
      write_file(start() + "/" + file, content.get<std::string>());
    }
    fs::copy(kTokenizerFolder, start() + "/tokenizer");
    ModelDescription d = describe_folder(diffusion::expect_files(start()));
    d.config.trained = {"unet"};
    const auto objective = make_objective(d.model, d.input, d.config);
    const ParameterTable table =
        parameter_table(objective.get(), make_programs(d.model, d.input, d.config), {}, d.config);
    for (const auto& [network, file] : kNetworkFiles) {
      std::list<std::vector<float>> values;
      std::vector<StoredTensor> tensors;
      for (const FlatEntry& e : table.parameters) {
        if (!e.name.starts_with(network + ".")) continue;
        StoredTensor t;
        t.name = e.name.substr(network.size() + 1), t.dtype = "F32";
        for (int i = 0; i < e.shape.rank(); ++i) t.shape.push_back(e.shape[i]);
        auto& v = values.emplace_back(static_cast<size_t>(e.shape.elements()));
        formula_weight(t.name, e.shape, v);
        t.bytes = std::as_bytes(std::span(v));
        tensors.push_back(t);
      }
      export_model(start() + "/" + file, tensors);
    }
  }

  void write_pictures() const {
    const int64_t side = tuning_golden().at("side");
    std::string lines;
    fs::create_directories(folder_.file("pictures"));
    const auto captions = tuning_golden().at("captions").get<std::vector<std::string>>();
    for (int64_t i = 0; i < static_cast<int64_t>(captions.size()); ++i) {
      Image image{3, side, side, {}};
      for (int64_t c = 0; c < 3; ++c)
        for (int64_t y = 0; y < side; ++y)
          for (int64_t x = 0; x < side; ++x)
            image.pixels.push_back(static_cast<uint8_t>(i * 61 + c * 83 + y * 11 + x * (7 + i)));
      const std::string name = fmt::format("{}.png", i);
      write_png(folder_.file("pictures/" + name), image);
      lines += json{{"file_name", name}, {"text", captions[static_cast<size_t>(i)]}}.dump() + "\n";
    }
    write_file(folder_.file("pictures/metadata.jsonl"), lines);
  }
};

// Losses to 1e-5, as text to image is held against diffusers (check_text_to_image.py): sums in another order through three
// networks, in float. What SGD has moved is gradients, which are sums of more terms that cancel: 1e-3 of a tensor's own.
TEST_F(FineTuning, StepsAreThoseOfDiffusers) {
  const auto start_of = tensors_in(start() + "/unet/diffusion_pytorch_model.safetensors");
  for (const std::string name : {"sgd", "adamw"}) {
    std::vector<std::string> sets;
    if (name == "adamw") sets = {"hyperparameters.optimizer={name: adamw, lr: 0.001, weight_decay: 0.01}"};
    const std::string path = train(name, sets);
    const json& golden = tuning_golden().at(name);
    const auto losses = step_losses(path, kTuningSteps);
    for (size_t i = 0; i < losses.size(); ++i) {
      const double expected = golden.at("losses")[i];
      EXPECT_NEAR(losses[i] / expected, 1, 1e-5) << name << " step " << i;
    }
    double square = 0;
    for (const auto& [tensor, now] : tensors_in(path + "/unet/diffusion_pytorch_model.safetensors")) {
      const auto& before = start_of.at(tensor);
      double norm = 0, product = 0;
      for (size_t i = 0; i < now.size(); ++i) {
        const double d = double{now[i]} - double{before[i]};
        norm += d * d, product += d * double{formula_uniform(i, kProjection)};
      }
      square += norm;
      norm = std::sqrt(norm);
      if (!golden.contains("moved")) continue;
      const double expected = golden.at("moved").at(tensor)[0];
      EXPECT_NEAR(norm / expected, 1, 1e-3) << tensor;
      EXPECT_NEAR(product, golden.at("moved").at(tensor)[1].get<double>(), 1e-3 * expected) << tensor;
    }
    EXPECT_NEAR(std::sqrt(square) / golden.at("distance").get<double>(), 1, 1e-3) << name;
  }
}

TEST_F(FineTuning, WhatIsFrozenKeepsItsBits) {
  const std::string path =
      train("run", {"hyperparameters.ema={decay: 0.9}", "hyperparameters.optimizer={name: adamw, lr: 0.01}"});
  for (const auto& [network, file] : kNetworkFiles) {
    const auto before = tensors_in(start() + "/" + file), after = tensors_in(path + "/" + file);
    ASSERT_EQ(before.size(), after.size()) << network;
    for (const auto& [name, values] : before) {
      const auto& now = after.at(name);
      ASSERT_EQ(now.size(), values.size()) << name;
      const bool same = std::memcmp(now.data(), values.data(), values.size() * sizeof(float)) == 0;
      EXPECT_EQ(same, network != "unet") << network << " " << name;
    }
  }
  // Optimizer state and raw weights beside the average: of the UNet alone.
  const auto state = tensors_in(path + "/checkpoints/step-00000003/state.safetensors");
  EXPECT_EQ(state.size(), 3 * tensors_in(path + "/" + kNetworkFiles.at("unet")).size());
  EXPECT_TRUE(
      std::ranges::all_of(state, [](const auto& t) { return t.first.find("unet.") != std::string::npos; }));
  const json was = json::parse(read_file(start() + "/vae/config.json")),
             is = json::parse(read_file(path + "/vae/config.json"));
  for (const auto& [key, value] : was.items())
    if (is.contains(key)) {
      EXPECT_EQ(value, is.at(key)) << key;
    }
  EXPECT_EQ(json::parse(read_file(path + "/model_index.json")).at("vae"),
            json({"diffusers", "AutoencoderKL"}));
}

TEST_F(FineTuning, TheRunAndItsCheckpointDraw) {
  const std::string path = train("run");
  const auto draw = [&](const std::string& from) {
    const std::string out = folder_.file("out.png");
    const Ended e =
        run({"sample", from, "--prompt", "a red seven", "--steps", "2", "--seed", "4", "--out", out});
    EXPECT_EQ(e.code, 0) << e.text;
    return read_file(out);
  };
  const std::string drawn = draw(path);
  fs::rename(path + "/checkpoints/step-00000003", folder_.file("alone"));
  fs::remove_all(path);
  EXPECT_TRUE(drawn == draw(folder_.file("alone")));
}

const std::vector<std::string> kManyRanks = {"hyperparameters.shards=4", "hyperparameters.shuffle=true",
                                             "inputs.training.captions.dropout=0.3"};

std::vector<std::string> with(std::vector<std::string> sets, const std::vector<std::string>& more) {
  sets.insert(sets.end(), more.begin(), more.end());
  return sets;
}

TEST_F(FineTuning, TheCacheChangesNoBit) {
  const std::string cache = "inputs.training.cache=latents";
  const std::string plain = train("plain", kManyRanks);
  expect_same(plain, train("computed", with(kManyRanks, {cache})));
  expect_same(plain, train("read", with(kManyRanks, {cache})));
  const auto log = [&](const std::string& name) { return read_file(folder_.file(name + "/log.txt")); };
  EXPECT_EQ(log("plain").find("latents of"), std::string::npos);
  EXPECT_NE(log("read").find("latents of 4 images read from "), std::string::npos) << log("read");
  // A text encoder that is trained reads captions in each step; the VAE's moments are the same.
  const std::string both = "trained=[unet, text_encoder]";
  expect_same(train("both", with(kManyRanks, {both})), train("both_cached", with(kManyRanks, {both, cache})));
}

TEST_F(FineTuning, TheCacheIsOfTheseWeightsAndWhole) {
  const std::string home = folder_.file("cache");
  std::string program = LOCKSTEP_BINARY;
  // Whether the latents were read.
  const auto fitted = [&](const std::string& name, const std::string& set = "inputs.training.cache=latents") {
    Process process({program, "fit", job(), "--output", folder_.file(name), "--set", set},
                    {{"XDG_CACHE_HOME", home}});
    EXPECT_EQ(process.wait(), 0) << process.output();
    return read_file(folder_.file(name + "/log.txt")).find("read from ") != std::string::npos;
  };
  std::string file;
  const auto find_file = [&] {
    for (const auto& entry : fs::directory_iterator(home + "/lockstep"))
      if (entry.path().filename().string().starts_with("latents-")) file = entry.path().string();
  };
  EXPECT_FALSE(fitted("plain", "log_every=1"));
  EXPECT_FALSE(fitted("1"));
  EXPECT_TRUE(fitted("2"));
  expect_same(folder_.file("plain"), folder_.file("1"));
  find_file();
  std::string bytes = read_file(file);
  bytes[bytes.size() - 3] = static_cast<char>(bytes[bytes.size() - 3] ^ 0x10);
  write_file(file, bytes);
  EXPECT_FALSE(fitted("damaged"));
  EXPECT_TRUE(fitted("3"));
  expect_same(folder_.file("1"), folder_.file("damaged"));
  // Another build: its kernels may differ.
  if (const std::string other = folder_.file("lockstep"); make_other_build(LOCKSTEP_BINARY, other)) {
    program = other;
    EXPECT_FALSE(fitted("other build"));
    program = LOCKSTEP_BINARY;
    EXPECT_FALSE(fitted("4"));
  }
  // One number of the VAE is another.
  const std::string weights = start() + "/" + kNetworkFiles.at("vae");
  std::string changed = read_file(weights);
  changed[changed.size() - 2] = static_cast<char>(changed[changed.size() - 2] ^ 0x08);
  write_file(weights, changed);
  EXPECT_FALSE(fitted("other"));
}

TEST_F(FineTuning, HasTheSameBitsOnOneTwoAndFourRanks) {
  for (const std::string cache : {"", "inputs.training.cache=latents"}) {
    const auto sets = cache.empty() ? kManyRanks : with(kManyRanks, {cache});
    const std::string one = train("1" + cache, with(sets, {"instance_count=1"}));
    for (int ranks : {2, 4})
      expect_same(
          one, train(std::to_string(ranks) + cache, with(sets, {fmt::format("instance_count={}", ranks)})));
  }
}

TEST_F(FineTuning, ResumesWithTheSameBits) {
  const auto sets = with(kManyRanks, {"inputs.training.cache=latents", "checkpoint.every_steps=2",
                                      "checkpoint.keep=0", "hyperparameters.ema={decay: 0.9}"});
  const std::string whole = train("whole", sets), parts = train("parts", sets);
  fs::remove_all(parts + "/checkpoints/step-00000003");
  std::vector<std::string> resume = {"fit", job(), "--output", parts, "--resume"};
  for (const std::string& set : sets) resume.insert(resume.end(), {"--set", set});
  const Ended resumed = run(resume);
  ASSERT_EQ(resumed.code, 0) << resumed.text;
  expect_same(whole, parts);
  resume.insert(resume.end(), {"--set", "trained=[unet, text_encoder]"});
  fs::remove_all(parts + "/checkpoints/step-00000003");
  const Ended other = run(resume);
  EXPECT_EQ(other.code, 78) << other.text;
  EXPECT_NE(other.text.find("E_RESUME_JOB"), std::string::npos) << other.text;
}

TEST_F(FineTuning, SaysHowMuchIsTrained) {
  int64_t unet = 0, all = 0;
  for (const auto& [network, file] : kNetworkFiles)
    for (const auto& [name, values] : tensors_in(start() + "/" + file)) {
      all += static_cast<int64_t>(values.size());
      if (network == "unet") unet += static_cast<int64_t>(values.size());
    }
  const std::string count = fmt::format("{} parameters, {} of them trained", all, unet);
  for (const char* command : {"check", "plan"}) {
    const Ended e = run({command, job()});
    EXPECT_EQ(e.code, 0) << e.text;
    EXPECT_NE(e.text.find(count), std::string::npos) << count << ": " << e.text;
  }
}

TEST_F(FineTuning, SaysWhatIsWrong) {
  expect_refused({"trained=[unte]"}, {"E_JOB_CHOICE", "text_encoder, unet", "nearest: unet"});
  expect_refused({"trained=[vae]"}, {"E_JOB_CHOICE", "text_encoder, unet"});
  expect_refused({"trained=[]"}, {"E_JOB_TYPE", "empty"});
  expect_refused({"trained=[unet, unet]"}, {"E_JOB_CONFLICT", "twice"});
  expect_refused({"model.unet={in_channels: 3}"}, {"E_JOB_CONFLICT", "latent_channels is 4"});
  expect_refused({"inputs.training.resize=17"},
                 {"E_LATENTS", "17x17", "key=inputs.training", "multiples of 2"});
  const std::string cache = "inputs.training.cache=latents";
  expect_refused({cache, "inputs.training.augment.flip=true"},
                 {"E_JOB_CONFLICT", "inputs.training.cache", "augment"});
  expect_refused({cache, "inputs.training.augment.random_crop=8"},
                 {"E_JOB_CONFLICT", "inputs.training.cache"});
  expect_refused({"hyperparameters.param_groups=[{match: \"text_encoder.*\", lr_scale: 2}]"},
                 {"E_PARAM_GROUP", "no tensor that is trained"});
  fs::remove_all(start() + "/vae");
  expect_refused({cache}, {"E_JOB_CONFLICT", "no VAE"});
}

}  // namespace
}  // namespace lockstep::testing::fine_tuning_test
