// SPDX-License-Identifier: Apache-2.0
#include "launch/job/model_file.h"

#include <algorithm>
#include <filesystem>

#include "launch/job/net_config.h"
#include "launch/job/overrides.h"
#include "launch/job/reader.h"
#include "launch/job/write.h"
#include "models/diffusion/scheduler_config.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/files/json_text.h"
#include "runtime/files/path.h"
#include "runtime/text/clip_tokenizer.h"
#include "runtime/text/unicode.h"
#include "runtime/training/trainer.h"

namespace lockstep {
namespace {

constexpr const char* kFormat = "lockstep-model";
constexpr int64_t kFormatVersion = 1;

// What the file has beside the keys of a job.
struct Facts {
  std::string format = kFormat;
  int64_t format_version = kFormatVersion;
  std::string program;
  int64_t channels = 0, height = 0, width = 0;
  std::string dtype = "uint8";
  std::vector<float> mean, std;
  Extent resize, crop, window;
  int64_t classes = 0;
  std::vector<std::string> class_names;
  bool no_class_row = false;
  int64_t evaluation_batch = 0;
  std::string dataset, training, validation, test, tokenizer;
};

#define FACT(member) [](void* object) -> job::Slot { return &static_cast<Facts*>(object)->member; }

const job::Table& fact_keys() {
  constexpr job::Range kExtent = {1, 65535}, kAny = {};
  static const job::Table table = {
      {.path = "format", .slot = FACT(format), .choices = {kFormat}, .required = true},
      {.path = "format_version", .slot = FACT(format_version), .range = {1, 1e6}, .required = true},
      {.path = "program", .slot = FACT(program), .absent = "not known"},
      {.path = "inputs.channels", .slot = FACT(channels), .range = {1, 65536}, .required = true},
      {.path = "inputs.height", .slot = FACT(height), .range = kExtent, .required = true},
      {.path = "inputs.width", .slot = FACT(width), .range = kExtent, .required = true},
      {.path = "inputs.dtype", .slot = FACT(dtype), .choices = {"uint8"}},
      {.path = "inputs.mean", .slot = FACT(mean), .range = kAny, .required = true},
      {.path = "inputs.std", .slot = FACT(std), .range = {0, 1e30, true, false}, .required = true},
      {.path = "inputs.resize", .slot = FACT(resize), .range = kExtent, .absent = "as it is"},
      {.path = "inputs.crop", .slot = FACT(crop), .range = kExtent, .absent = "all"},
      {.path = "inputs.window", .slot = FACT(window), .range = kExtent, .absent = "all"},
      {.path = "outputs.classes", .slot = FACT(classes), .range = {0, 1 << 24}},
      {.path = "outputs.no_class_row", .slot = FACT(no_class_row)},
      {.path = "evaluation.batch", .slot = FACT(evaluation_batch), .range = {1, 1 << 20}, .required = true},
      {.path = "data.dataset", .slot = FACT(dataset), .absent = "not known"},
      {.path = "data.training", .slot = FACT(training), .absent = "not known"},
      {.path = "data.validation", .slot = FACT(validation), .absent = "none"},
      {.path = "data.test", .slot = FACT(test), .absent = "none"},
      {.path = "data.tokenizer", .slot = FACT(tokenizer), .absent = "none"},
  };
  return table;
}

// The keys of a job that say what its model is, and not how it is trained.
const job::Table& model_keys() {
  static const job::Table table = [] {
    job::Table kept;
    const auto wanted = [](const std::string& path) {
      for (const char* part : {"model.", "objective.", "sampling."})
        if (path.starts_with(part)) return path != "model.init_from" && path != "model.tokenizer";
      return path == "hyperparameters.precision" || path == "hyperparameters.loss" ||
             path == "hyperparameters.seed";
    };
    for (const job::Key& key : job::job_keys())
      if (wanted(key.path)) kept.push_back(key);
    return kept;
  }();
  return table;
}

bool is_job_section(const std::string& key) {
  return key == "model" || key == "objective" || key == "sampling" || key == "hyperparameters";
}

Facts facts_of(const ModelDescription& d, const std::map<std::string, std::string>& data) {
  Facts f;
  f.program = d.program;
  f.channels = d.input.channels, f.height = d.input.height, f.width = d.input.width;
  f.mean = d.input.mean, f.std = d.input.std;
  f.resize = d.fit.resize, f.crop = d.fit.crop, f.window = d.window;
  f.classes = d.input.classes;
  f.class_names = d.class_names;
  f.no_class_row = d.no_class_row();
  f.evaluation_batch = d.config.global_batch_size;
  f.dataset = d.dataset;
  const auto hash = [&](const char* half) { return data.contains(half) ? data.at(half) : ""; };
  f.training = hash("training"), f.validation = hash("validation"), f.test = hash("test");
  f.tokenizer = hash("tokenizer");
  return f;
}

ModelDescription description_of(const Job& job, const Facts& f) {
  ModelDescription d;
  d.model = job.model;
  d.model.init_from.clear();
  TextToImageConfig& text = d.model.text_to_image;
  text.tokenizer.clear();
  text.text_length = text.text_encoder.max_position_embeddings;
  d.input = {f.channels, f.height, f.width, f.classes, f.mean, f.std, {}, {}};
  d.fit = {f.resize, f.crop};
  d.window = f.window;
  d.class_names = f.class_names;
  d.config.precision = job.hyperparameters.precision;
  d.config.loss = job.hyperparameters.loss;
  d.config.seed = job.hyperparameters.seed;
  d.config.global_batch_size = f.evaluation_batch;
  d.config.diffusion = diffusion_config(job);
  d.scheduler = job.scheduler;
  d.sampling = {job.sampling.sampler,  job.sampling.steps, job.sampling.eta,
                job.sampling.guidance, job.sampling.count, job.sampling.prompts};
  d.program = f.program;
  d.dataset = f.dataset;
  for (const auto& [half, hash] : {std::pair{"training", f.training},
                                   {"validation", f.validation},
                                   {"test", f.test},
                                   {"tokenizer", f.tokenizer}})
    if (!hash.empty()) d.data[half] = hash;
  return d;
}

[[noreturn]] void refuse(const std::string& path, const std::string& message) {
  throw Error(Exit::data, "E_MODEL_FILE", message).at("file", path);
}

void expect(bool holds, const std::string& path, const char* message) {
  if (!holds) refuse(path, message);
}

void check_facts(const Job& job, const Facts& f, const std::string& path) {
  const auto per_channel = [&](const std::vector<float>& v) {
    return static_cast<int64_t>(v.size()) == f.channels;
  };
  expect(per_channel(f.mean) && per_channel(f.std), path,
         "inputs.mean and inputs.std have a number a channel");
  expect(f.class_names.empty() || static_cast<int64_t>(f.class_names.size()) == f.classes, path,
         "outputs.class_names has not as many names as outputs.classes says");
  std::vector<std::string> names = f.class_names;
  std::sort(names.begin(), names.end());
  expect(std::adjacent_find(names.begin(), names.end()) == names.end(), path,
         "outputs.class_names has a name twice");
  const auto diffusion = diffusion_config(job);
  expect(f.no_class_row == (diffusion && diffusion->label_dropout > 0), path,
         "outputs.no_class_row and objective.label_dropout contradict each other");
  expect(diffusion.has_value() == job.model.draws(), path,
         "model.name and objective.name contradict each other");
}

// A folder may be called anything: more than a job's strings may say.
std::vector<std::string> class_names_in(const nlohmann::json& json, const std::string& path) {
  std::vector<std::string> names;
  const auto outputs = json.find("outputs");
  if (outputs == json.end() || !outputs->is_object() || !outputs->contains("class_names")) return names;
  const auto& list = (*outputs)["class_names"];
  expect(list.is_array(), path, "outputs.class_names is no list");
  for (const auto& name : list) {
    expect(name.is_string(), path, "outputs.class_names holds what is no string");
    names.push_back(nfc_text(name.get<std::string>()));  // as a folder's are
  }
  return names;
}

ModelDescription parse_model_file(const std::string& path) {
  const MappedFile file(path);
  const std::string text(file.text());
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) refuse(path, "is no JSON object");
  if (const auto version = json.find("format_version");
      version != json.end() && version->is_number_integer() && *version > kFormatVersion)
    refuse(path, fmt::format("is of format_version {}; this program knows {}", json_text(*version),
                             kFormatVersion));
  job::Node root = job::parse_yaml(text, path, true);  // JSON is YAML
  std::erase_if(root.children, [](const job::Node& n) { return n.key == "weights"; });
  job::take_path(root, "outputs.class_names");
  job::Node of_job = root;
  std::erase_if(of_job.children, [](const job::Node& n) { return !is_job_section(n.key); });
  std::erase_if(root.children, [](const job::Node& n) { return is_job_section(n.key); });

  Facts facts;
  Job job;
  const auto folder = std::filesystem::path(path).parent_path();
  job::Reader(folder).read(fact_keys(), root, &facts, "");
  job::Reader(folder).read(model_keys(), of_job, &job, "");
  facts.class_names = class_names_in(json, path);
  if (job.model.name.empty() == job.model.layers.empty()) refuse(path, "needs model.name or model.layers");
  check_facts(job, facts, path);
  job.model.where = path;
  return description_of(job, facts);
}

nlohmann::ordered_json json_of(const job::Node& node) {
  switch (node.kind) {
    case job::Node::Kind::null:
      return nullptr;
    case job::Node::Kind::scalar: {
      if (node.quoted) return node.text;
      auto typed = nlohmann::ordered_json::parse(node.text, nullptr, false);
      return typed.is_discarded() || typed.is_string() ? nlohmann::ordered_json(node.text) : typed;
    }
    case job::Node::Kind::list: {
      auto list = nlohmann::ordered_json::array();
      for (const job::Node& child : node.children) list.push_back(json_of(child));
      return list;
    }
    case job::Node::Kind::map:
      break;
  }
  auto map = nlohmann::ordered_json::object();
  for (const job::Node& child : node.children) map[child.key] = json_of(child);
  return map;
}

nlohmann::ordered_json json_of(const job::Table& table, void* object) {
  return json_of(job::parse_yaml(job::block_text(table, object), kModelFile, false));
}

}  // namespace

ModelDescription describe(const Job& job, const DatasetShape& training) {
  const InputShape input = input_shape(job.training, training);
  Facts f;
  f.channels = input.channels, f.height = input.height, f.width = input.width;
  f.mean = input.mean, f.std = input.std;
  f.resize = job.training.fit.resize, f.crop = job.training.fit.crop;
  if (job.training.augment.random_crop.given()) f.window = {input.height, input.width};
  f.classes = input.classes;
  f.class_names = training.class_names;
  f.evaluation_batch = evaluation_batch(job.hyperparameters, INT32_MAX, 1);
  f.dataset = job.training.dataset;
  ModelDescription d = description_of(job, f);
  if (d.diffusion()) d.model.draw_images_of(input.height, input.width);
  if (!d.conditional()) d.input.classes = 0, d.class_names.clear();
  return d;
}

nlohmann::ordered_json model_file(const Job& job, const DatasetShape& training,
                                  const std::map<std::string, std::string>& data,
                                  const std::string& program) {
  const ModelDescription d = describe(job, training);
  Job of_model = job;
  of_model.model = d.model;
  Facts f = facts_of(d, data);
  f.program = program;
  nlohmann::ordered_json j = json_of(fact_keys(), &f);
  if (!d.class_names.empty()) j["outputs"]["class_names"] = d.class_names;
  nlohmann::ordered_json ordered;
  for (const char* key : {"format", "format_version", "program"}) ordered[key] = j[key];
  ordered.update(json_of(model_keys(), &of_model));
  ordered.update(j);
  return ordered;
}

ModelDescription read_model_file(const std::string& path) try {
  return parse_model_file(path);
} catch (const Error& e) {
  // The reader speaks of a job that is wrong; here it is a file that was written and has changed since.
  if (e.exit() != Exit::config) throw;
  Error damaged(Exit::data, "E_MODEL_FILE", e.message());
  for (const auto& [key, value] : e.places()) damaged.add_place(key == "job" ? "file" : key, value);
  damaged.add_place("file", path);  // unless one of them was
  damaged.set_hint(e.hint());
  throw damaged;
}

static void take_scheduler(ModelDescription& d, const std::string& path) {
  const auto file = diffusion::read_scheduler_config(path);
  d.scheduler = file.config;
  if (!file.sampler.empty()) d.sampling.sampler = file.sampler;
  try {
    d.config.diffusion = diffusion::training_objective(d.scheduler.schedule);
  } catch (Error& e) {
    e.add_place("file", path);
    throw;
  }
}

// A StableDiffusionPipeline's. Its texts have as many tokens as its tokenizer says.
static ModelDescription describe_pipeline(const diffusion::FolderFiles& files) {
  ModelDescription d;
  d.model.name = kTextToImage;
  d.model.where = files.unet_config;
  TextToImageConfig& config = d.model.text_to_image;
  config.unet = read_unet_condition_config(files.unet_config);
  config.text_encoder = read_clip_text_config(files.text_encoder_config);
  if (files.tokenizer.empty())
    throw Error(Exit::no_input, "E_TOKENIZER_NONE", "no tokenizer/ beside the text encoder")
        .at("folder", parent_folder(parent_folder(files.text_encoder_config)));
  config.text_length = ClipTokenizer(files.tokenizer).length();
  const auto refuse = [](const std::string& file, std::string message) {
    return Error(Exit::config, "E_PIPELINE", std::move(message)).at("file", file);
  };
  if (config.text_length > config.text_encoder.max_position_embeddings)
    throw refuse(files.text_encoder_config,
                 fmt::format("max_position_embeddings is {}, the tokenizer makes {} tokens of a text",
                             config.text_encoder.max_position_embeddings, config.text_length));
  if (config.unet.cross_attention_dim != config.text_encoder.hidden_size)
    throw refuse(files.unet_config,
                 fmt::format("cross_attention_dim is {}, the text encoder's hidden_size {}",
                             config.unet.cross_attention_dim, config.text_encoder.hidden_size));
  if (config.unet.in_channels != config.unet.out_channels)
    throw refuse(files.unet_config, "in_channels and out_channels differ: a pipeline of another kind");
  int64_t channels = config.unet.in_channels, scale = 1;
  if (!files.vae_config.empty()) {
    config.vae = read_vae_config(files.vae_config);
    if (config.vae->latent_channels() != channels)
      throw refuse(files.vae_config, fmt::format("latent_channels is {}, the UNet's in_channels {}",
                                                 config.vae->latent_channels(), channels));
    channels = config.vae->image_channels(), scale = config.vae->scale();
  }
  if (config.unet.sample_size.empty())
    throw Error(Exit::config, "E_SAMPLE_SIZE", "the configuration says no sample_size")
        .at("file", files.unet_config);
  const std::vector<float> half(static_cast<size_t>(channels), 0.5f);
  d.input = {channels,
             config.unet.sample_size.front() * scale,
             config.unet.sample_size.back() * scale,
             0,
             half,
             half,
             {},
             {}};
  take_scheduler(d, files.scheduler_config);
  // As StableDiffusionPipeline has it, whatever the file says.
  d.scheduler.clip_sample = false, d.scheduler.steps_offset = 1;
  d.sampling.guidance = 7.5;
  d.sampling.count = 1;
  return d;
}

ModelDescription describe_folder(const diffusion::FolderFiles& files) {
  if (!files.text_encoder_config.empty()) return describe_pipeline(files);
  ModelDescription d;
  d.model.name = "unet2d";
  d.model.where = files.unet_config;
  const UNet2DConfig& unet = d.model.unet = read_unet_config(files.unet_config);
  take_scheduler(d, files.scheduler_config);
  if (unet.sample_size.empty())
    throw Error(Exit::config, "E_SAMPLE_SIZE", "the configuration says no sample_size")
        .at("file", files.unet_config);
  const std::vector<float> half(static_cast<size_t>(unet.in_channels), 0.5f);
  // Numbers that are embedded as timesteps are have no end: 0 alone is drawn unless --class says another.
  const int64_t classes = unet.num_class_embeds.value_or(unet.class_embed_type ? 1 : 0);
  d.input = {
      unet.in_channels, unet.sample_size.front(), unet.sample_size.back(), classes, half, half, {}, {}};
  return d;
}

}  // namespace lockstep
