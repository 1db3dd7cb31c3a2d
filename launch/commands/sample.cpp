// SPDX-License-Identifier: Apache-2.0
// `lockstep sample RUN|FOLDER`: images from a diffusion model.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "launch/commands/command.h"
#include "launch/commands/sampling.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/comm/together.h"
#include "runtime/files/path.h"

namespace lockstep {

extern const Command sample_command;

namespace {

namespace fs = std::filesystem;

struct Options {
  std::string label, folder, out = "samples.png", each, raw, init_noise, save_noise;
  SamplingOptions sampling;
  double eta = 0;
};

// By name, "none" for no class where the model has that, or by number where it knows no such name.
int64_t class_number(const SamplingModel& m, const std::string& word) {
  const ModelDescription& d = m.description();
  const auto& names = d.class_names;
  if (const auto found = std::find(names.begin(), names.end(), word); found != names.end())
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
  if (r.labels.empty())
    throw Error(Exit::config, "E_SAMPLE_CLASS", "sample: --class, but the model knows no classes")
        .at("folder", m.trained.folder);
  r.labels.assign(r.labels.size(), static_cast<int32_t>(class_number(m, word)));
}

std::vector<int64_t> shape_of(const SamplingModel& m) {
  const InputShape& in = m.description().input;
  return {m.request.count, in.channels, in.height, in.width};
}

std::vector<float> read_noise(const std::string& path, const SamplingModel& m) {
  const auto file = SafetensorsFile::open(path);
  const StoredTensor* t = file->find("noise");
  const std::vector<int64_t> expected = shape_of(m);
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
                  const SamplingModel& m) {
  StoredTensor t;
  t.name = name;
  t.dtype = "F32";
  t.shape = shape_of(m);
  t.bytes = std::as_bytes(values);
  export_model(path, std::span(&t, 1));
}

void write_results(const Options& o, const SamplingModel& m, std::span<const float> images) {
  const auto pictures = diffusion::pictures(images, m.description().input);
  if (!o.each.empty()) {
    std::error_code error;
    fs::create_directories(o.each, error);
    if (error)
      throw Error(Exit::cannot_create, "E_IO", "cannot create the folder: " + error.message())
          .at("folder", o.each);
    for (size_t i = 0; i < pictures.size(); ++i) {
      const std::string of = m.request.labels.empty() ? "" : fmt::format("-class-{}", m.request.labels[i]);
      write_png(fmt::format("{}/{:06}{}.png", o.each, i, of), pictures[i]);
    }
  }
  if (!o.raw.empty()) write_tensor(o.raw, "images", images, m);
  write_png(o.out, diffusion::grid(pictures));
}

int run_sample(const Arguments& arguments) {
  namespace po = boost::program_options;
  Options o;
  po::options_description visible("Options"), hidden;
  visible.add(o.sampling.description());
  visible.add_options()("class", po::value(&o.label)->value_name("CLASS"),
                        "all of this class: its name, or its number")(
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

  const std::unique_ptr<Communicator> comm = launched_communicator();
  const bool root = comm->rank() == 0;
  try {
    SamplingModel m;
    std::vector<float> noise;
    together(*comm, [&] {
      m = open_sampling_model(o.folder, root);
      apply("sample", *vm, o.sampling, m);
      if (vm->count("class")) set_class(m, o.label);
      if (vm->count("eta")) m.request.eta = o.eta;
      diffusion::make_sampler(m.request.sampler, m.description().scheduler, m.request.steps, m.request.eta);
      if (!o.init_noise.empty()) noise = read_noise(o.init_noise, m);
    });
    m.request.init_noise = noise;
    const Drawn drawn = draw(m, *comm);
    on_root(*comm, [&]() -> std::string {
      write_results(o, m, drawn.images);
      if (!o.save_noise.empty()) {
        if (noise.empty()) {
          noise.resize(drawn.images.size());
          std::vector<int64_t> numbers(static_cast<size_t>(m.request.count));
          std::iota(numbers.begin(), numbers.end(), 0);
          diffusion::draw_image_noise(m.request.seed, 0,
                                      m.request.numbers.empty() ? numbers : m.request.numbers, noise);
        }
        write_tensor(o.save_noise, "noise", noise, m);
      }
      fmt::print("{}: {} images, {} in {} steps{}: {:.3f} s\n", o.out, m.request.count, m.request.sampler,
                 m.request.steps,
                 m.request.guidance != 1 ? fmt::format(", guidance {}", m.request.guidance) : "",
                 drawn.seconds);
      return "";
    });
    return 0;
  } catch (const AgreedError& e) {
    if (!root) return e.code();  // rank 0 says it
    throw;
  }
}

}  // namespace

const Command sample_command{"sample", "images from a diffusion model", run_sample};

}  // namespace lockstep
