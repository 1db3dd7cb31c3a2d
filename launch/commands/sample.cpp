// SPDX-License-Identifier: Apache-2.0
// `lockstep sample RUN|FOLDER`: images from a diffusion model.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <numeric>
#include <sstream>

#include "launch/commands/command.h"
#include "launch/commands/launched_ranks.h"
#include "launch/commands/report_error.h"
#include "launch/commands/sampling.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/comm/together.h"
#include "runtime/files/json_text.h"
#include "runtime/files/path.h"
#include "runtime/text/unicode.h"

namespace lockstep {

extern const Command sample_command;

namespace {

struct Options {
  std::string label, folder, out = "samples.png", each, raw, init_noise, save_noise;
  SamplingOptions sampling;
  double eta = 0;
  std::vector<std::string> prompts;
  std::string negative_prompt, prompts_file;
  int64_t height = 0, width = 0;
};

// By name, "none" for no class where the model has that, or by number where it knows no such name.
int64_t class_number(const SamplingModel& m, const std::string& word) {
  const ModelDescription& d = m.description();
  const auto& names = d.class_names;
  if (const auto found = std::find(names.begin(), names.end(), nfc_text(utf8_text(word)));
      found != names.end())
    return found - names.begin();
  if (word == "none" && d.no_class_row()) return d.input.classes;
  const int64_t rows = d.model.unet.num_class_embeds.value_or(d.input.classes);
  const int64_t numbers = d.model.unet.class_embed_type ? INT32_MAX : rows;  // the hidden class's included
  int64_t number = -1;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error == std::errc() && end == word.data() + word.size() && number >= 0 && number < numbers)
    return number;
  throw Error(Exit::config, "E_SAMPLE_CLASS",
              fmt::format("sample: --class: the model knows no class '{}'", word))
      .at("folder", m.trained.folder)
      .hint(names.empty() ? fmt::format("0 to {}", numbers - 1) : fmt::format("{}", fmt::join(names, ", ")));
}

void set_class(SamplingModel& m, const std::string& word) {
  auto& r = m.request;
  if (r.labels.empty() || m.trained.tokenizer)
    throw Error(Exit::config, "E_SAMPLE_CLASS", "sample: --class, but the model knows no classes")
        .at("folder", m.trained.folder);
  r.labels.assign(r.labels.size(), static_cast<int32_t>(class_number(m, word)));
}

// A prompt a line; empty lines are none.
std::vector<std::string> read_prompts(const std::string& path) {
  constexpr size_t kMostBytes = 16 << 20;
  std::vector<std::string> prompts;
  std::istringstream lines(read_text_file(path, kMostBytes));
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) prompts.push_back(line);
  }
  if (prompts.empty()) throw Error(Exit::data, "E_PROMPT", "the file has no prompts").at("file", path);
  return prompts;
}

// One picture of each prompt, unless --count says how many there are in all.
void set_texts(SamplingModel& m, Options& o, bool say) {
  const ClipTokenizer* tokenizer = m.trained.tokenizer.get();
  if (!tokenizer)
    throw Error(Exit::config, "E_PROMPT", "sample: a prompt, but the model reads no text")
        .at("folder", m.trained.folder)
        .hint(m.request.labels.empty() ? "" : "--class says which class to draw");
  if (!o.prompts_file.empty()) {
    const auto more = read_prompts(o.prompts_file);
    o.prompts.insert(o.prompts.end(), more.begin(), more.end());
  }
  const bool asked = !o.prompts.empty();
  if (!asked) o.prompts = m.description().sampling.prompts;
  if (o.prompts.empty()) o.prompts = {""};
  constexpr size_t kLongest = 10000;
  for (const std::string& prompt : o.prompts)
    if (prompt.size() > kLongest || o.negative_prompt.size() > kLongest)
      throw Error(Exit::usage, "E_PROMPT", fmt::format("sample: a prompt has at most {} bytes", kLongest));
  if (o.prompts.size() > 1 << 20) throw Error(Exit::usage, "E_PROMPT", "sample: at most 1048576 prompts");
  if (asked) m.request.count = static_cast<int64_t>(o.prompts.size());
  const auto left_out = diffusion::set_prompts(m.request, *tokenizer, o.prompts, o.negative_prompt);
  for (size_t i = 0; say && i < left_out.size(); ++i)
    if (!left_out[i].empty())
      report_error(fmt::format(
          "note: the model reads {} tokens of a text; left out of {}: {}", tokenizer->length() - 2,
          i < o.prompts.size() ? fmt::format("prompt {}", i + 1) : "the negative prompt", left_out[i]));
}

void set_side(SamplingModel& m, const char* option, int64_t InputShape::*side, int64_t size) {
  InputShape& in = m.description().input;
  constexpr int64_t kMost = 4096;
  if (size < 1 || size > kMost)
    throw Error(Exit::usage, "E_OPTION", fmt::format("sample: {} is 1 to {}", option, kMost));
  const auto& vae = m.description().model.text_to_image.vae;
  if (vae && size % vae->scale() != 0)
    throw Error(Exit::usage, "E_OPTION",
                fmt::format("sample: {} {} is no multiple of {}, which a latent's side is", option, size,
                            vae->scale()))
        .at("folder", m.trained.folder);
  if (size != in.*side && !m.description().model.reads_text())
    throw Error(Exit::config, "E_SAMPLE_SIZE",
                fmt::format("sample: {} {}, but the model draws {}x{}", option, size, in.height, in.width))
        .at("folder", m.trained.folder);
  in.*side = size;
}

std::vector<int64_t> shape_of(const SamplingModel& m) {
  const InputShape& in = m.description().input;
  return {m.request.count, in.channels, in.height, in.width};
}

std::vector<int64_t> noise_shape(const SamplingModel& m) {
  const auto [channels, height, width] = m.description().drawn_shape();
  return {m.request.count, channels, height, width};
}

std::vector<float> read_noise(const std::string& path, const SamplingModel& m) {
  const auto file = SafetensorsFile::open(path);
  const StoredTensor* t = file->find("noise");
  const std::vector<int64_t> expected = noise_shape(m);
  if (!t || t->dtype != "F32" || t->shape != expected)
    throw Error(Exit::data, "E_SAMPLE_NOISE",
                fmt::format("needs one tensor \"noise\", F32 [{}, {}, {}, {}]", expected[0], expected[1],
                            expected[2], expected[3]))
        .at("file", path);
  std::vector<float> values(t->bytes.size() / sizeof(float));
  std::memcpy(values.data(), t->bytes.data(), t->bytes.size());
  return values;
}

void write_tensor(const std::string& path, const std::string& name, std::span<const float> values,
                  const std::vector<int64_t>& shape) {
  StoredTensor t;
  t.name = name;
  t.dtype = "F32";
  t.shape = shape;
  t.bytes = std::as_bytes(values);
  export_model(path, std::span(&t, 1));
}

// The pictures are a set of captioned ones, as a job's captions.column reads them.
void write_captions(const std::string& folder, const std::vector<std::string>& names, const Options& o,
                    const SamplingModel& m) {
  std::string lines;
  for (size_t i = 0; i < names.size(); ++i) {
    const nlohmann::ordered_json line = {{"file_name", names[i]},
                                         {"text", o.prompts[static_cast<size_t>(m.request.labels[i])]}};
    lines += json_text(line) + "\n";
  }
  write_file_atomically(folder + "/metadata.jsonl", lines);
}

void write_results(const Options& o, const SamplingModel& m, std::span<const float> images) {
  const auto pictures = diffusion::pictures(images, m.description().input);
  const bool of_classes = !m.request.labels.empty() && !m.trained.tokenizer;
  if (!o.each.empty()) {
    make_shared_folder(o.each);
    std::vector<std::string> names;
    for (size_t i = 0; i < pictures.size(); ++i) {
      names.push_back(
          fmt::format("{:06}{}.png", i, of_classes ? fmt::format("-class-{}", m.request.labels[i]) : ""));
      write_png(o.each + "/" + names.back(), pictures[i]);
    }
    if (m.trained.tokenizer) write_captions(o.each, names, o, m);
  }
  if (!o.raw.empty()) write_tensor(o.raw, "images", images, shape_of(m));
  write_png(o.out, diffusion::grid(pictures));
}

int run_sample(const Arguments& arguments) {
  namespace po = boost::program_options;
  Options o;
  po::options_description visible("Options"), hidden;
  visible.add(o.sampling.description());
  visible.add_options()("prompt", po::value(&o.prompts)->value_name("TEXT")->composing(),
                        "what to draw, of a model that reads text; may be given several times")(
      "prompts", po::value(&o.prompts_file)->value_name("FILE"), "prompts, one a line")(
      "negative-prompt", po::value(&o.negative_prompt)->value_name("TEXT"), "what guidance leads away from")(
      "height", po::value(&o.height)->value_name("N"), "of the pictures; left out: as the model was trained")(
      "width", po::value(&o.width)->value_name("N"), "of the pictures")(
      "class", po::value(&o.label)->value_name("CLASS"), "all of this class: its name, or its number")(
      "eta", po::value(&o.eta)->value_name("E"), "ddim's share of noise")(
      "out", po::value(&o.out)->value_name("FILE"), "the grid (samples.png)")(
      "each", po::value(&o.each)->value_name("DIR"), "each image as a file of its own, too")(
      "raw", po::value(&o.raw)->value_name("FILE"),
      "the images before rounding, as the tensor `images` of a safetensors file")(
      "init-noise", po::value(&o.init_noise)->value_name("FILE"), "the tensor `noise` to start from")(
      "save-noise", po::value(&o.save_noise)->value_name("FILE"), "what it started from");
  hidden.add_options()("folder", po::value(&o.folder));
  po::positional_options_description positional;
  positional.add("folder", 1);
  const auto vm = parse_arguments(
      sample_command,
      {"RUN|FOLDER", "lockstep sample runs/ddpm-mnist-001 --count 64 --guidance 1.5 --out grid.png", visible,
       hidden, positional},
      arguments);
  if (!vm) return 0;
  if (o.folder.empty()) missing_argument(sample_command, "RUN|FOLDER");

  return on_launched_ranks([&](Communicator& comm) {
    const bool root = comm.rank() == 0;
    SamplingModel m;
    std::vector<float> noise;
    together(comm, [&] {
      m = open_sampling_model(o.folder, root);
      const auto given = [&](const char* option) { return vm->count(option) > 0; };
      if (m.trained.tokenizer || given("prompt") || given("prompts") || given("negative-prompt"))
        set_texts(m, o, root);
      if (given("height")) set_side(m, "--height", &InputShape::height, o.height);
      if (given("width")) set_side(m, "--width", &InputShape::width, o.width);
      apply("sample", *vm, o.sampling, m);
      if (vm->count("class")) set_class(m, o.label);
      if (vm->count("eta")) m.request.eta = o.eta;
      expect_sampler(m);
      if (!o.init_noise.empty()) noise = read_noise(o.init_noise, m);
    });
    m.request.init_noise = noise;
    const Drawn drawn = draw(m, comm);
    on_root(comm, [&]() -> std::string {
      write_results(o, m, drawn.images);
      if (!o.save_noise.empty()) {
        if (noise.empty()) {
          const auto [channels, height, width] = m.description().drawn_shape();
          noise.resize(static_cast<size_t>(m.request.count * channels * height * width));
          std::vector<int64_t> numbers(static_cast<size_t>(m.request.count));
          std::iota(numbers.begin(), numbers.end(), 0);
          diffusion::draw_image_noise(m.request.seed, 0,
                                      m.request.numbers.empty() ? numbers : m.request.numbers, noise);
        }
        write_tensor(o.save_noise, "noise", noise, noise_shape(m));
      }
      print_out("{}: {} images, {} in {} steps{}: {:.3f} s\n", o.out, m.request.count, m.request.sampler,
                m.request.steps,
                m.request.guidance != 1 ? fmt::format(", guidance {}", m.request.guidance) : "",
                drawn.seconds);
      return "";
    });
    return 0;
  });
}

}  // namespace

const Command sample_command{"sample", "images from a diffusion model", run_sample, true};

}  // namespace lockstep
