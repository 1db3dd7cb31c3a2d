// SPDX-License-Identifier: Apache-2.0
// A model that reads text, trained on captioned digits and asked by the real program.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <sstream>
#include <tuple>

#include "runtime/checkpoint/safetensors.h"
#include "tests/distributed/fit.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing::text_to_image_test {
namespace {

constexpr int64_t kSteps = 8;
const std::string kJobText = R"(
model:
  name: text_to_image
  tokenizer: )" LOCKSTEP_SOURCE_DIR R"(/configs/data/clip_small
  text_encoder: {vocab_size: 681, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1,
                 num_attention_heads: 2, max_position_embeddings: 24}
  unet: {in_channels: 3, out_channels: 3, block_out_channels: [8, 16], layers_per_block: 1, norm_num_groups: 4,
         down_block_types: [DownBlock2D, CrossAttnDownBlock2D], up_block_types: [CrossAttnUpBlock2D, UpBlock2D],
         attention_head_dim: 2, cross_attention_dim: 8}
objective: {name: diffusion, prediction_type: v_prediction, snr_gamma: 5}
inputs:
  training: {dataset: captioned_digits, path: )" LOCKSTEP_SOURCE_DIR
                             R"(/configs/data/mnist, captions: {dropout: 0.2}}
  test: {dataset: captioned_digits, path: )" LOCKSTEP_SOURCE_DIR R"(/configs/data/mnist, limit: 16}
hyperparameters: {steps: 8, global_batch_size: 8, shards: 4, optimizer: {name: adamw, lr: 0.003}, ema: {decay: 0.9}}
threads_per_rank: 1
sampling: {steps: 3, count: 2, guidance: 2, prompts: [a red seven, a blue two]}
log_every: 1
)";

class TextToImage : public ::testing::Test {
 protected:
  TextToImage() { write_file(job(), kJobText); }
  std::string job() const { return folder_.file("job.yaml"); }
  std::string train(const std::string& name, const std::vector<std::string>& more = {}) {
    const std::string path = folder_.file(name);
    EXPECT_TRUE(fit(job(), path, more)) << name;
    return path;
  }
  struct Ended {
    int code;
    std::string text;
  };
  Ended run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), LOCKSTEP_BINARY);
    Process process(arguments, {{"XDG_CACHE_HOME", kTestCache}});
    const int code = process.wait();
    return {code, process.output()};
  }
  // Images of a model, [count, 3, 32, 32] unless it is told another size.
  std::vector<float> draw(const std::string& from, std::vector<std::string> arguments) const {
    const std::string raw = folder_.file("raw.safetensors");
    arguments.insert(arguments.begin(), {"sample", from, "--raw", raw, "--out", folder_.file("grid.png")});
    const Ended e = run(arguments);
    EXPECT_EQ(e.code, 0) << e.text;
    if (e.code != 0) return {};
    const auto file = SafetensorsFile::open(raw);
    const StoredTensor* t = file->find("images");
    std::vector<float> values(t->bytes.size() / sizeof(float));
    std::memcpy(values.data(), t->bytes.data(), t->bytes.size());
    return values;
  }
  void expect_refused(std::vector<std::string> arguments, int code, const std::string& word) const {
    const std::string out = folder_.file("none.png");
    arguments.insert(arguments.end(), {"--out", out});
    const Ended e = run(arguments);
    EXPECT_EQ(e.code, code) << e.text;
    EXPECT_NE(e.text.find(word), std::string::npos) << e.text;
    EXPECT_FALSE(std::filesystem::exists(out));
  }
  TestFolder folder_;
};

const std::vector<std::string> kWeights = {"/unet/diffusion_pytorch_model.safetensors",
                                           "/text_encoder/model.safetensors"};

TEST_F(TextToImage, HasTheSameBitsOnOneTwoAndFourRanks) {
  const std::string one = train("1", {"instance_count=1"});
  for (int ranks : {2, 4}) {
    const std::string more = train(std::to_string(ranks), {fmt::format("instance_count={}", ranks)});
    EXPECT_EQ(step_losses(more, kSteps), step_losses(one, kSteps)) << ranks;
    for (const std::string& file : kWeights)
      EXPECT_TRUE(read_file(one + file) == read_file(more + file)) << file;
  }
}

TEST_F(TextToImage, ResumesWithTheSameBits) {
  const std::string whole = train("whole");
  const std::vector<std::string> often = {"checkpoint.every_steps=3", "checkpoint.keep=0"};
  const std::string parts = train("parts", often);
  for (const char* step : {"6", "8"})
    std::filesystem::remove_all(parts + "/checkpoints/step-0000000" + std::string(step));
  const Ended resumed =
      run({"fit", job(), "--output", parts, "--resume", "--set", often[0], "--set", often[1]});
  ASSERT_EQ(resumed.code, 0) << resumed.text;
  EXPECT_EQ(step_losses(parts, kSteps), step_losses(whole, kSteps));
  for (const std::string& file : kWeights)
    EXPECT_TRUE(read_file(whole + file) == read_file(parts + file)) << file;
}

TEST_F(TextToImage, DrawsByPromptAndSeedWhateverElseIsAsked) {
  const std::string path = train("run");
  const auto seven = draw(path, {"--prompt", "a red seven"});
  ASSERT_EQ(seven.size(), 3u * 32 * 32);
  const auto first = [&](const std::vector<float>& all) {
    return std::vector<float>(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(seven.size()));
  };
  EXPECT_EQ(first(draw(path, {"--prompt", "a red seven", "--prompt", "two", "--prompt", "a"})), seven);
  // Case and spaces are nothing to CLIP's tokenizer; another text is.
  EXPECT_EQ(draw(path, {"--prompt", " A  RED seven"}), seven);
  EXPECT_NE(draw(path, {"--prompt", "a blue seven"}), seven);
  EXPECT_NE(draw(path, {"--prompt", "a red seven", "--seed", "9"}), seven);
  EXPECT_NE(draw(path, {"--prompt", "a red seven", "--negative-prompt", "two"}), seven);
  // The job's own prompts in turn, and a file of prompts.
  EXPECT_EQ(draw(path, {}), draw(path, {"--prompt", "a red seven", "--prompt", "a blue two"}));
  write_file(folder_.file("prompts.txt"), "a red seven\n\na blue two\r\n");
  EXPECT_EQ(draw(path, {"--prompts", folder_.file("prompts.txt")}), draw(path, {}));
  EXPECT_EQ(draw(path, {"--prompt", "a", "--height", "20", "--width", "33"}).size(), 3u * 20 * 33);
  // The checkpoint alone draws as the run.
  std::filesystem::rename(path + "/checkpoints/step-00000008", folder_.file("alone"));
  std::filesystem::remove_all(path);
  EXPECT_EQ(draw(folder_.file("alone"), {"--prompt", "a red seven"}), seven);
}

TEST_F(TextToImage, SaysWhatIsWrong) {
  const std::string path = train("run");
  expect_refused({"sample", path, "--prompt", "\xff"}, 64, "UTF-8");
  expect_refused({"sample", path, "--prompt", std::string(100000, 'a')}, 64, "E_PROMPT");
  expect_refused({"sample", path, "--prompt", "a", "--height", "0"}, 64, "--height");
  expect_refused({"sample", path, "--prompt", "a", "--sampler", "plms2"}, 78, "plms2");
  expect_refused({"sample", path, "--prompts", folder_.file("none.txt")}, 66, "none.txt");
  expect_refused({"sample", path, "--class", "3"}, 78, "E_SAMPLE_CLASS");
  const Ended long_one =
      run({"sample", path, "--prompt", "a red seven on blue " + std::string(60, 'x') + " end", "--out",
           folder_.file("long.png")});
  EXPECT_EQ(long_one.code, 0) << long_one.text;
  EXPECT_NE(long_one.text.find("end"), std::string::npos) << long_one.text;
  // Not the tokenizer that it was trained with: another length of texts, another word, none.
  const std::string config = path + "/tokenizer/tokenizer_config.json",
                    vocabulary = path + "/tokenizer/vocab.json";
  const std::string length = read_file(config), words = read_file(vocabulary);
  std::string other = length;
  write_file(config, other.replace(other.find("24"), 2, "23"));
  expect_refused({"sample", path, "--prompt", "a"}, 78, "E_TOKENIZER_MODEL");
  write_file(config, length);
  other = words;
  write_file(vocabulary, other.replace(other.find("red</w>"), 3, "rad"));
  expect_refused({"sample", path, "--prompt", "a"}, 65, "E_TOKENIZER");
  write_file(vocabulary, words);
  std::filesystem::remove_all(path + "/tokenizer");
  expect_refused({"sample", path, "--prompt", "a"}, 66, "E_TOKENIZER_NONE");
}

// A job's tokenizer is held against its text encoder before anything is touched.
TEST_F(TextToImage, ChecksItsTokenizer) {
  const std::string mnist = LOCKSTEP_SOURCE_DIR "/configs/data/mnist";
  for (const auto& [set, code, id] :
       {std::tuple{std::string("model.text_encoder.vocab_size=600"), 78, "E_TOKENIZER_MODEL"},
        {"model.text_encoder.max_position_embeddings=30", 78, "E_TOKENIZER_MODEL"},
        {"model.tokenizer=" + mnist, 66, "E_TOKENIZER_NONE"}})
    for (const char* command : {"check", "fit"}) {
      const std::string out = folder_.file("never");
      std::vector<std::string> words = {command, job(), "--set", set};
      if (std::string(command) == "fit") words.insert(words.end(), {"--output", out});
      const Ended e = run(words);
      EXPECT_EQ(e.code, code) << e.text;
      EXPECT_NE(e.text.find(id), std::string::npos) << e.text;
      EXPECT_NE(e.text.find("key=model.tokenizer"), std::string::npos) << e.text;
      EXPECT_FALSE(std::filesystem::exists(out));
    }
}

// Weights to start from know tokens by their numbers.
TEST_F(TextToImage, StartsFromWeightsOfItsTokenizerAlone) {
  const std::string from = "model.init_from=" + train("run");
  EXPECT_EQ(run({"check", job(), "--set", from}).code, 0);
  const std::string other = folder_.file("other"), vocabulary = other + "/vocab.json";
  std::filesystem::copy(LOCKSTEP_SOURCE_DIR "/configs/data/clip_small", other);
  auto json = nlohmann::json::parse(read_file(vocabulary));
  std::swap(json.at("a"), json.at("b"));
  write_file(vocabulary, json.dump());
  const std::string model = folder_.file("run/model.json"), text = read_file(model);
  for (const char* said_by : {"model.json", "tokenizer/"}) {
    for (const char* command : {"check", "fit"}) {
      std::vector<std::string> words = {command, job(), "--set", from, "--set", "model.tokenizer=" + other};
      if (std::string(command) == "fit") words.insert(words.end(), {"--output", folder_.file("never")});
      const Ended e = run(words);
      EXPECT_EQ(e.code, 78) << e.text;
      for (const std::string& word :
           {std::string("E_TOKENIZER_MODEL"), "folder=" + other, std::string("key=model.init_from")})
        EXPECT_NE(e.text.find(word), std::string::npos) << said_by << ": " << e.text;
      EXPECT_FALSE(std::filesystem::exists(folder_.file("never")));
    }
    std::filesystem::remove(model);  // as a folder that diffusers wrote
  }
  write_file(model, text);
}

TEST_F(TextToImage, IsEvaluatedWithCaptions) {
  const std::string path = train("run");
  const Ended e = run({"evaluate", path, "--json"});
  ASSERT_EQ(e.code, 0) << e.text;
  EXPECT_EQ(nlohmann::json::parse(e.text).at("loss"), test_line(path).at("loss"));
  // A tokenizer of other words is another model's: the run does not go on with it.
  const std::string changed = folder_.file("tokenizer");
  std::filesystem::copy(path + "/tokenizer", changed, std::filesystem::copy_options::recursive);
  std::string words = read_file(changed + "/vocab.json");
  const size_t red = words.find("\"red</w>\""), blue = words.find("\"blue</w>\"");
  ASSERT_TRUE(red != std::string::npos && blue != std::string::npos);
  words.replace(red, 9, "\"####</w>\"").replace(words.find("\"blue</w>\""), 10, "\"red</w>\"");
  words.replace(words.find("\"####</w>\""), 10, "\"blue</w>\"");
  write_file(changed + "/vocab.json", words);
  const Ended resumed = run({"fit", job(), "--output", path, "--resume", "--set",
                             "model.tokenizer=" + changed, "--set", "hyperparameters.steps=9"});
  EXPECT_EQ(resumed.code, 78) << resumed.text;
  EXPECT_NE(resumed.text.find("model.tokenizer"), std::string::npos) << resumed.text;
}

// What real images come to is next to all; what a painter of eight steps draws is not.
TEST_F(TextToImage, IsJudgedByWhatItWasAskedFor) {
  const std::string path = train("run"), reader = folder_.file("reader"),
                    lines = folder_.file("verdicts.jsonl");
  ASSERT_TRUE(fit(LOCKSTEP_SOURCE_DIR "/configs/mnist_cnn.yaml", reader,
                  {"hyperparameters.epochs=1", "inputs.training.limit=30000", "inputs.test.limit=100",
                   "hyperparameters.lr_schedule.warmup_steps=2"}));
  const std::string data = LOCKSTEP_SOURCE_DIR "/configs/data/mnist";
  const Ended e = run({"evaluate", path, "--judge", reader, "--count", "400", "--steps", "1", "--json",
                       "--data", data, "--verdicts", lines});
  ASSERT_EQ(e.code, 0) << e.text;
  const auto judged = nlohmann::json::parse(e.text);
  const auto& real = judged.at("real");
  EXPECT_EQ(real.at("count"), 400);
  EXPECT_GT(real.at("digit"), 0.8);  // the reader saw half of MNIST once
  for (const char* attribute : {"ink", "paper", "place", "size"})
    EXPECT_GT(real.at(attribute), 0.95) << attribute;
  for (const char* pairs : {"seen", "held_out"}) {
    EXPECT_EQ(judged.at(pairs).at("count"), 200);
    EXPECT_LT(judged.at(pairs).at("all"), 0.1) << pairs;
  }
  std::istringstream text(read_file(lines));
  int64_t count = 0, held_out = 0, right = 0;
  for (std::string line; std::getline(text, line); ++count) {
    const auto v = nlohmann::json::parse(line);
    held_out += v.at("held_out").get<bool>();
    right += v.at("right").get<bool>();
    EXPECT_NE(v.at("prompt").get<std::string>().find(v.at("asked").at("ink").get<std::string>()),
              std::string::npos);
  }
  EXPECT_EQ(count, 400);
  EXPECT_EQ(held_out, 200);
  EXPECT_DOUBLE_EQ(right, 200 * (judged.at("seen").at("all").get<double>() +
                                 judged.at("held_out").at("all").get<double>()));
  // A judge that knows no digits, and images that are no scenes.
  const Ended other = run({"evaluate", path, "--judge", path, "--count", "4", "--data", data});
  EXPECT_EQ(other.code, 78) << other.text;
  EXPECT_NE(other.text.find("E_JUDGE_MODEL"), std::string::npos) << other.text;
}

}  // namespace
}  // namespace lockstep::testing::text_to_image_test
