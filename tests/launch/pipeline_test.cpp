// SPDX-License-Identifier: Apache-2.0
// Folders of a StableDiffusionPipeline, opened and asked: tests/golden/make_pipeline.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <list>
#include <nlohmann/json.hpp>

#include "launch/job/model_file.h"
#include "launch/job/trained_model.h"
#include "models/diffusion/generate.h"
#include "models/model.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/graph/parameter_table.h"
#include "tests/launch/small_run.h"
#include "tests/models/unet_formula.h"

namespace lockstep::testing {
namespace {

using nlohmann::json;

const std::string kGolden = LOCKSTEP_SOURCE_DIR "/tests/golden/pipeline";
const std::string kTokenizer = LOCKSTEP_SOURCE_DIR "/configs/data/clip_small";
constexpr uint64_t kLatents = 5000;

const json& golden() {
  static const json file = json::parse(read_file(kGolden + ".json"));
  return file;
}

// How files of other years have their names.
enum class Names { present, old };

std::string old_name(const std::string& network, std::string name) {
  if (network == "text_encoder") return name.substr(std::string("text_model.").size());
  if (network != "vae" || name.find("attentions") == std::string::npos) return name;
  for (const auto& [now, then] : {std::pair{".to_q.", ".query."},
                                  {".to_k.", ".key."},
                                  {".to_v.", ".value."},
                                  {".to_out.0.", ".proj_attn."}})
    if (const size_t at = name.find(now); at != std::string::npos)
      name.replace(at, std::string(now).size(), then);
  return name;
}

class Pipeline : public SmallRun, public ::testing::WithParamInterface<const char*> {
 protected:
  std::string path() const { return folder_.file("pipeline"); }

  // The folder as diffusers writes it, with weights by formula.
  void write_pipeline(const json& described, Names names) {
    for (const auto& [file, content] : described.at("files").items()) {
      std::filesystem::create_directories(std::filesystem::path(path() + "/" + file).parent_path());
      write_file(path() + "/" + file, content.get<std::string>());
    }
    std::filesystem::copy(kTokenizer, path() + "/tokenizer");
    const ModelDescription d = describe_folder(diffusion::expect_files(path()));
    ParameterTable table;
    for (const Program& p : make_programs(d.model, d.input, d.config))
      add_parameters(table, build_forward(p.forward, {}, false).graph);
    for (const auto& [network, file] : {std::pair{"unet", "diffusion_pytorch_model"},
                                        {"text_encoder", "model"},
                                        {"vae", "diffusion_pytorch_model"}})
      write_weights(table, network, path() + "/" + network + "/" + file + ".safetensors", names);
  }

  static void write_weights(const ParameterTable& table, const std::string& network, const std::string& file,
                            Names names) {
    std::list<std::vector<float>> values;
    std::vector<StoredTensor> tensors;
    for (const FlatEntry& e : table.parameters) {
      if (!e.name.starts_with(network + ".")) continue;
      const std::string name = e.name.substr(network.size() + 1);
      auto& v = values.emplace_back(static_cast<size_t>(e.shape.elements()));
      formula_weight(name, e.shape, v);
      StoredTensor t;
      t.name = names == Names::old ? old_name(network, name) : name;
      t.dtype = "F32";
      for (int i = 0; i < e.shape.rank(); ++i) t.shape.push_back(e.shape[i]);
      if (names == Names::old && t.name != name && network == "vae" && e.shape.rank() == 2)
        t.shape.insert(t.shape.end(), {1, 1});
      t.bytes = std::as_bytes(std::span(v));
      tensors.push_back(t);
    }
    // What no picture needs: the half that makes latents, and a buffer that older files have.
    const std::vector<int64_t> positions(24);
    const std::vector<float> unused(8);
    if (network == "vae")
      tensors.push_back({"encoder.conv_in.bias", "F32", {8}, std::as_bytes(std::span(unused))});
    if (network == "text_encoder" && names == Names::old)
      tensors.push_back({"embeddings.position_ids", "I64", {1, 24}, std::as_bytes(std::span(positions))});
    export_model(file, tensors);
  }

  std::vector<float> draw(const std::string& folder) const {
    const TrainedModel model = open_trained(folder);
    const auto comm = make_self_communicator();
    diffusion::GenerateRequest r = diffusion::default_request(model.description, model.tokenizer.get());
    const auto prompts = golden().at("prompts").get<std::vector<std::string>>();
    r.count = static_cast<int64_t>(prompts.size());
    set_prompts(r, *model.tokenizer, prompts, golden().at("negative_prompt"));
    r.steps = golden().at("steps"), r.guidance = golden().at("guidance");
    const auto [channels, height, width] = model.description.drawn_shape();
    std::vector<float> latents(static_cast<size_t>(r.count * channels * height * width));
    const std::vector<std::string> kinds = {"sd1", "sd2", "tiny_vae"};
    const auto seed = kLatents + static_cast<uint64_t>(std::ranges::find(kinds, GetParam()) - kinds.begin());
    for (size_t i = 0; i < latents.size(); ++i) latents[i] = 4 * formula_uniform(i, seed);
    r.init_noise = latents;
    return generate(*open_session(model, {.largest_batch = 4, .independent = true}, *comm),
                    model.description.scheduler, r);
  }
};

// The largest difference, relative to the largest number. 1e-4: sums in another order, through five steps and the decoder, in
// float, whose epsilon is 1e-7; what is computed wrongly is off by more than a hundredth.
TEST_P(Pipeline, DrawsWhatDiffusersDraws) {
  const auto file = SafetensorsFile::open(kGolden + ".safetensors");
  const StoredTensor* t = file->find(std::string(GetParam()) + ".images");
  ASSERT_NE(t, nullptr);
  std::vector<float> expected(t->bytes.size() / sizeof(float));
  std::memcpy(expected.data(), t->bytes.data(), t->bytes.size());
  for (const Names names : {Names::present, Names::old}) {
    std::filesystem::remove_all(path());
    write_pipeline(golden().at(GetParam()), names);
    const std::vector<float> drawn = draw(path());
    ASSERT_EQ(drawn.size(), expected.size());
    double largest = 0, furthest = 0;
    for (size_t i = 0; i < drawn.size(); ++i) {
      largest = std::max(largest, std::abs(double{expected[i]}));
      furthest = std::max(furthest, std::abs(double{drawn[i]} - double{expected[i]}));
    }
    EXPECT_LT(furthest / largest, 1e-4) << largest;
  }
}

TEST_P(Pipeline, SaysWhatIsWrong) {
  write_pipeline(golden().at(GetParam()), Names::present);
  expect(lockstep("sample pipeline --prompt 'a red seven' --steps 2 --height 64 --width 32 --each each"),
         Exit::ok, "1 images");
  expect(lockstep("sample pipeline --prompt a --height 65"), Exit::usage, "E_OPTION", "65", "multiple");
  expect(lockstep("sample pipeline --prompt a --sampler plms2"), Exit::config, "plms2");
  expect(lockstep("evaluate pipeline --data each --dataset image_folder"), Exit::config, "E_EVALUATE_MODEL");
  // A size that the weights have not, said before memory is taken for it.
  const std::string text_config = path() + "/text_encoder/config.json";
  auto larger = nlohmann::json::parse(read_file(text_config));
  const std::string before = larger.dump();
  larger["vocab_size"] = 1 << 24;
  write_file(text_config, larger.dump());
  expect(lockstep("sample pipeline --prompt a"), Exit::data, "E_TENSORS", "token_embedding", "[16777216, ");
  write_file(text_config, before);
  const std::string weights = path() + "/unet/diffusion_pytorch_model.safetensors";
  std::filesystem::rename(weights, path() + "/unet/diffusion_pytorch_model.bin");
  expect(lockstep("sample pipeline --prompt a"), Exit::data, "diffusion_pytorch_model.bin");
  std::filesystem::rename(path() + "/unet/diffusion_pytorch_model.bin", weights);
  std::filesystem::remove_all(path() + "/tokenizer");
  expect(lockstep("sample pipeline --prompt a"), Exit::no_input, "E_TOKENIZER_NONE");
}

// Each program for each device, whether it is here or not: a kernel for every op, and bf16 where it is asked for.
TEST_P(Pipeline, IsPlannedForAnyDevice) {
  write_pipeline(golden().at(GetParam()), Names::present);
  for (const std::string device : {"cpu", "simt", "cuda"})
    for (const std::string precision : {"fp32", "bf16"}) {
      const std::string command =
          "plan pipeline --batch 2 --json --precision " + precision + " --device " + device;
      if (device == "cuda" && !has_cuda()) {
        expect(lockstep(command), Exit::config, "E_JOB_UNAVAILABLE");
        continue;
      }
      const Outcome e = lockstep(command);
      ASSERT_EQ(e.code, 0) << e.text;
      const json plan = json::parse(e.text);
      std::vector<std::string> names;
      int convolutions = 0, in_bf16 = 0;
      for (const json& program : plan.at("programs")) {
        names.push_back(program.at("name"));
        EXPECT_GT(program.at("flops"), 0) << names.back();
        EXPECT_GT(program.at("memory").at("activations"), 0) << names.back();
        for (const json& node : program.at("nodes")) {
          EXPECT_NE(node.value("kernel", "none is needed"), "") << node;
          if (node.at("op") != "conv2d") continue;
          ++convolutions;
          in_bf16 += node.at("in")[0].at("tensor").get<std::string>().starts_with("bf16");
        }
      }
      EXPECT_EQ(names, (std::vector<std::string>{"denoise", "encode_text", "decode"}));
      EXPECT_GT(convolutions, 0);
      const bool all_in_fp32 = precision == "fp32", most_in_bf16 = !all_in_fp32 && device != "cpu";
      EXPECT_TRUE(!all_in_fp32 || in_bf16 == 0) << device << ": " << in_bf16;
      EXPECT_TRUE(!most_in_bf16 || 2 * in_bf16 > convolutions)
          << device << ": " << in_bf16 << " of " << convolutions;
    }
  expect(lockstep("plan pipeline --device simt"), Exit::ok, "decode: batch 1, fp32", "attention",
         "FLOPs of a batch");
  expect(lockstep("plan pipeline --set a=1"), Exit::usage, "E_OPTION", "--set");
  expect(lockstep("plan pipeline --precision fp16"), Exit::usage, "E_OPTION", "fp16");
  expect(lockstep("plan pipeline --device tpu"), Exit::usage, "E_OPTION", "tpu");
  expect(lockstep("plan pipeline --batch 0"), Exit::usage, "E_OPTION", "--batch");
  expect(lockstep("plan " LOCKSTEP_SOURCE_DIR "/configs/mnist_cnn.yaml --batch 2"), Exit::usage, "E_OPTION",
         "--batch");
}

INSTANTIATE_TEST_SUITE_P(Kinds, Pipeline, ::testing::Values("sd1", "sd2", "tiny_vae"),
                         [](const auto& kind) { return std::string(kind.param); });

}  // namespace
}  // namespace lockstep::testing
