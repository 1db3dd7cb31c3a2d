// `lockstep sample RUN|FOLDER`: images from a diffusion model.
#include <fmt/format.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "launch/commands/command.h"
#include "launch/commands/job_plan.h"
#include "launch/job/unet_config.h"
#include "models/diffusion/sample.h"
#include "models/diffusion/scheduler_config.h"
#include "models/unet2d.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/comm/together.h"
#include "runtime/training/state_io.h"

namespace lockstep {

extern const Command sample_command;

namespace {

namespace fs = std::filesystem;

struct Options {
  std::string folder, out = "samples.png", each, raw, init_noise, save_noise, sampler;
  int64_t count = 0, steps = 0, label = -1;
  double guidance = 0, eta = 0;
  uint64_t seed = 0;
};

// What a run's job or a diffusers folder says; options come on top.
struct Model {
  UNet2DConfig unet;
  diffusion::SchedulerConfig scheduler;
  diffusion::GenerateRequest request;
  InputShape input;
  TrainingConfig config;
};

Model open_run(const std::string& folder) {
  const Job job = read_run_job(folder);
  if (!job.hyperparameters.diffusion)
    throw Error(Exit::config, "E_SAMPLE_MODEL", "the run trained a classifier, which draws nothing").at("run", folder);
  const DatasetShape data = probe_dataset(job.training);
  Model m{job.model.unet, job.scheduler, generate_request(job, data.classes),
          input_shape(job.training, data.channels, data.height, data.width, data.classes), job.hyperparameters};
  return m;
}

// By its own files alone: whoever has the folder needs neither job nor data.
Model open_folder(const std::string& folder) {
  Model m;
  m.unet = read_unet_config(folder + "/unet/config.json");
  const auto file = diffusion::read_scheduler_config(folder + "/scheduler/scheduler_config.json");
  m.scheduler = file.config;
  if (!file.sampler.empty()) m.request.sampler = file.sampler;
  if (m.unet.sample_size.empty())
    throw Error(Exit::config, "E_SAMPLE_SIZE", "the configuration says no sample_size").at("file", folder + "/unet/config.json");
  // With a table of classes its last row is taken for 'no class', as guidance has it.
  const int64_t classes = m.unet.num_class_embeds.value_or(1);
  const std::vector<float> half(static_cast<size_t>(m.unet.in_channels), 0.5f);
  m.input = {m.unet.in_channels, m.unet.sample_size.front(), m.unet.sample_size.back(), classes, half, half};
  m.request.count = 16;
  m.request.null_label = static_cast<int32_t>(classes - 1);
  if (m.unet.conditional())
    m.request.labels = diffusion::labels_in_turn(m.request.count, std::max<int64_t>(1, classes - 1));
  auto& d = m.config.diffusion.emplace();
  d.prediction = m.scheduler.schedule.prediction_type;
  const auto alphas = diffusion::make_alphas_cumprod(m.scheduler.schedule);
  d.alphas_cumprod.assign(alphas.begin(), alphas.end());
  return m;
}

void apply(const boost::program_options::variables_map& vm, const Options& o, Model& m) {
  auto& r = m.request;
  if (vm.count("count")) {
    if (o.count < 1 || o.count > 1 << 20) throw Error(Exit::usage, "E_OPTION", "sample: --count is 1 to 1048576");
    r.count = o.count;
    if (!r.labels.empty()) r.labels = diffusion::labels_in_turn(r.count, std::max<int64_t>(1, r.null_label));
  }
  if (vm.count("class")) {
    if (r.labels.empty()) throw Error(Exit::config, "E_SAMPLE_CLASS", "sample: --class, but the model knows no classes");
    const int64_t numbers = m.unet.num_class_embeds.value_or(r.null_label);  // the hidden class's included
    if (o.label < 0 || o.label >= numbers)
      throw Error(Exit::config, "E_SAMPLE_CLASS",
                  fmt::format("sample: class {} is out of range, the model has 0 to {}", o.label, numbers - 1));
    r.labels.assign(r.labels.size(), static_cast<int32_t>(o.label));
  }
  if (vm.count("guidance")) r.guidance = o.guidance;
  if (r.guidance < 0) throw Error(Exit::usage, "E_OPTION", "sample: --guidance is at least 0");
  if (r.guidance != 1 && r.labels.empty())
    throw Error(Exit::config, "E_SAMPLE_GUIDANCE", "sample: guidance goes between classes, and the model knows none");
  if (r.guidance != 1 && m.config.diffusion->label_dropout == 0 && fs::exists(o.folder + "/job.yaml"))
    throw Error(Exit::config, "E_SAMPLE_GUIDANCE", "sample: guidance needs a model trained with objective.label_dropout")
        .at("run", o.folder);
  if (vm.count("sampler")) r.sampler = o.sampler;
  if (vm.count("steps")) r.steps = o.steps;
  if (vm.count("eta")) r.eta = o.eta;
  if (vm.count("seed")) r.seed = o.seed;
}

std::vector<float> read_noise(const std::string& path, const Model& m) {
  const auto file = SafetensorsFile::open(path);
  const StoredTensor* t = file->find("noise");
  const std::vector<int64_t> expected = {m.request.count, m.input.channels, m.input.height, m.input.width};
  if (!t || t->dtype != "F32" || t->shape != expected)
    throw Error(Exit::data, "E_SAMPLE_NOISE",
                fmt::format("needs one tensor \"noise\", F32 [{}, {}, {}, {}]", expected[0], expected[1], expected[2], expected[3]))
        .at("file", path);
  std::vector<float> values(t->bytes.size() / sizeof(float));
  std::memcpy(values.data(), t->bytes.data(), t->bytes.size());
  return values;
}

void write_tensor(const std::string& path, const std::string& name, std::span<const float> values, const Model& m) {
  StoredTensor t;
  t.name = name;
  t.dtype = "F32";
  t.shape = {m.request.count, m.input.channels, m.input.height, m.input.width};
  t.bytes = std::as_bytes(values);
  export_model(path, std::span(&t, 1));
}

void write_results(const Options& o, const Model& m, std::span<const float> images) {
  const auto pictures = diffusion::pictures(images, m.input);
  if (!o.each.empty()) {
    std::error_code error;
    fs::create_directories(o.each, error);
    if (error) throw Error(Exit::cannot_create, "E_IO", "cannot create the folder: " + error.message()).at("folder", o.each);
    for (size_t i = 0; i < pictures.size(); ++i) {
      const std::string of = m.request.labels.empty() ? "" : fmt::format("-class-{}", m.request.labels[i]);
      write_png(fmt::format("{}/{:06}{}.png", o.each, i, of), pictures[i]);
    }
  }
  if (!o.raw.empty()) write_tensor(o.raw, "images", images, m);
  write_png(o.out, diffusion::grid(pictures));
}

int run(const std::vector<std::string>& arguments) {
  namespace po = boost::program_options;
  Options o;
  po::options_description visible("Options"), hidden;
  visible.add_options()("count", po::value(&o.count)->value_name("N"), "images; of a model with classes, of each in turn")(
      "class", po::value(&o.label)->value_name("K"), "all of this class")(
      "guidance", po::value(&o.guidance)->value_name("W"), "how far towards the class; 1: as the model has it")(
      "sampler", po::value(&o.sampler)->value_name("NAME"), "ddpm, ddim, dpm_solver, euler, euler_ancestral")(
      "steps", po::value(&o.steps)->value_name("N"), "evaluations of the model")(
      "eta", po::value(&o.eta)->value_name("E"), "ddim's share of noise")("seed", po::value(&o.seed)->value_name("S"), "of the noise")(
      "out", po::value(&o.out)->value_name("FILE"), "the grid (samples.png)")(
      "each", po::value(&o.each)->value_name("DIR"), "each image as a file of its own, too")(
      "raw", po::value(&o.raw)->value_name("FILE"), "the images before rounding, as the tensor `images` of a safetensors file")(
      "init-noise", po::value(&o.init_noise)->value_name("FILE"), "the tensor `noise` to start from")(
      "save-noise", po::value(&o.save_noise)->value_name("FILE"), "what it started from");
  hidden.add_options()("folder", po::value(&o.folder));
  po::positional_options_description positional;
  positional.add("folder", 1);
  const auto vm = parse_arguments(sample_command, "RUN|FOLDER", "lockstep sample runs/ddpm-mnist-001 --count 64 --guidance 1.5 --out grid.png",
                                  arguments, visible, hidden, positional);
  if (!vm) return 0;
  if (o.folder.empty()) missing_argument(sample_command, "RUN|FOLDER");

  const LauncherEnvironment environment = launcher_environment();
  std::unique_ptr<Communicator> comm =
      environment.present && environment.size > 1 ? make_mpi_communicator({}) : make_self_communicator();
  const bool root = comm->rank() == 0;
  try {
    Model m;
    std::vector<float> noise;
    std::unique_ptr<Session> session;
    together(*comm, [&] {
      if (!fs::exists(o.folder)) throw Error(Exit::no_input, "E_SAMPLE_NONE", "no such run or folder").at("folder", o.folder);
      m = fs::exists(o.folder + "/job.yaml") ? open_run(o.folder) : open_folder(o.folder);
      apply(*vm, o, m);
      diffusion::make_sampler(m.request.sampler, m.scheduler, m.request.steps, m.request.eta);
      if (!o.init_noise.empty()) noise = read_noise(o.init_noise, m);
    });
    SessionOptions s;
    s.model = make_unet2d(m.unet);
    s.input = m.input;
    s.config = m.config;
    Job job;  // any machine's cores, on the CPU
    job.device = "cpu";
    s.kernels = kernel_choice(job, environment.present ? environment.local_size : 1);
    s.training = false;
    session = std::make_unique<Session>(std::move(s), *comm);
    together(*comm, [&] {
      const auto file = open_model(o.folder);
      load_model_tensors(session->model(), *file, file->path());
    });
    session->executor().upload_model();
    m.request.init_noise = noise;
    if (root && ::isatty(2))
      m.request.progress = [](int64_t done, int64_t total) {
        fmt::print(stderr, "\r  step {}/{}{}", done, total, done == total ? "\r\x1b[K" : "");
        std::fflush(stderr);
      };
    const auto images = diffusion::generate(*session, m.scheduler, m.request);
    on_root(*comm, [&]() -> std::string {
      write_results(o, m, images);
      if (!o.save_noise.empty()) {
        if (noise.empty()) {
          noise.resize(images.size());
          diffusion::draw_image_noise(m.request.seed, 0, 0, m.input.channels * m.input.height * m.input.width, noise);
        }
        write_tensor(o.save_noise, "noise", noise, m);
      }
      fmt::print("{}: {} images, {} in {} steps{}\n", o.out, m.request.count, m.request.sampler, m.request.steps,
                 m.request.guidance != 1 ? fmt::format(", guidance {}", m.request.guidance) : "");
      return "";
    });
    return 0;
  } catch (const AgreedError& e) {
    if (!root) return e.code();  // rank 0 says it
    throw;
  }
}

}  // namespace

const Command sample_command{"sample", "images from a diffusion model", run};

}  // namespace lockstep
