// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/sampling.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "launch/commands/job_plan.h"
#include "launch/job/unet_config.h"
#include "models/diffusion/scheduler_config.h"
#include "models/unet2d.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/comm/together.h"
#include "runtime/training/state_io.h"

namespace lockstep {

SamplingModel sampling_of_run(const std::string& folder) {
  const Job job = read_run_job(folder);
  if (!job.hyperparameters.diffusion)
    throw Error(Exit::config, "E_SAMPLE_MODEL", "the run trained a classifier, which draws nothing")
        .at("run", folder);
  const DatasetShape data = probe_dataset(job.training);
  SamplingModel m{folder,
                  job.model.unet,
                  job.scheduler,
                  generate_request(job, data.classes),
                  input_shape(job.training, data),
                  job.hyperparameters};
  return m;
}

SamplingModel sampling_of_folder(const std::string& folder) {
  SamplingModel m;
  m.folder = folder;
  m.unet = read_unet_config(folder + "/unet/config.json");
  const auto file = diffusion::read_scheduler_config(folder + "/scheduler/scheduler_config.json");
  m.scheduler = file.config;
  if (!file.sampler.empty()) m.request.sampler = file.sampler;
  if (m.unet.sample_size.empty())
    throw Error(Exit::config, "E_SAMPLE_SIZE", "the configuration says no sample_size")
        .at("file", folder + "/unet/config.json");
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

boost::program_options::options_description SamplingOptions::description() {
  namespace po = boost::program_options;
  po::options_description d("Sampling");
  d.add_options()("count", po::value(&count)->value_name("N"),
                  "images; of a model with classes, of each in turn")(
      "guidance", po::value(&guidance)->value_name("W"), "how far towards the class; 1: as the model has it")(
      "sampler", po::value(&sampler)->value_name("NAME"), "ddpm, ddim, dpm_solver, euler, euler_ancestral")(
      "steps", po::value(&steps)->value_name("N"), "evaluations of the model")(
      "compat", po::value(&compat)->value_name("NAME"),
      "none, or diffusers: ddim's steps have its numbers, off the list of timesteps too")(
      "precision", po::value(&precision)->value_name("NAME"),
      "of activations: fp32 or bf16; left out: the run's, of a folder fp32")(
      "seed", po::value(&seed)->value_name("S"), "of the noise");
  return d;
}

void set_count(SamplingModel& m, int64_t count) {
  auto& r = m.request;
  r.count = count;
  if (!r.labels.empty()) r.labels = diffusion::labels_in_turn(count, std::max<int64_t>(1, r.null_label));
}

void apply(const std::string& command, const boost::program_options::variables_map& vm,
           const SamplingOptions& o, SamplingModel& m) {
  auto& r = m.request;
  if (vm.count("count")) {
    if (o.count < 1 || o.count > 1 << 20)
      throw Error(Exit::usage, "E_OPTION", command + ": --count is 1 to 1048576");
    set_count(m, o.count);
  }
  if (vm.count("guidance")) r.guidance = o.guidance;
  if (r.guidance < 0) throw Error(Exit::usage, "E_OPTION", command + ": --guidance is at least 0");
  if (r.guidance != 1 && r.labels.empty())
    throw Error(Exit::config, "E_SAMPLE_GUIDANCE",
                command + ": guidance goes between classes, and the model knows none");
  if (r.guidance != 1 && m.config.diffusion->label_dropout == 0 &&
      std::filesystem::exists(m.folder + "/job.yaml"))
    throw Error(Exit::config, "E_SAMPLE_GUIDANCE",
                command + ": guidance needs a model trained with objective.label_dropout")
        .at("run", m.folder);
  if (vm.count("sampler")) r.sampler = o.sampler;
  if (vm.count("steps")) r.steps = o.steps;
  if (vm.count("compat")) m.scheduler.compat = o.compat;
  if (vm.count("seed")) r.seed = o.seed;
  if (vm.count("precision")) {
    if (o.precision != "fp32" && o.precision != "bf16")
      throw Error(Exit::usage, "E_OPTION",
                  fmt::format("{}: --precision is fp32 or bf16, not '{}'", command, o.precision));
    m.config.precision = o.precision;
  }
}

std::unique_ptr<Communicator> launched_communicator() {
  const LauncherEnvironment environment = launcher_environment();
  return environment.present && environment.size > 1 ? make_mpi_communicator({}) : make_self_communicator();
}

Drawn draw(const SamplingModel& m, Communicator& comm) {
  const LauncherEnvironment environment = launcher_environment();
  SessionOptions s;
  s.model = make_unet2d(m.unet);
  s.input = m.input;
  s.config = m.config;
  Job job;  // any machine's cores, on the CPU
  job.device = "cpu";
  s.kernels = kernel_choice(job, environment.present ? environment.local_size : 1);
  s.training = false;
  Session session(std::move(s), comm);
  together(comm, [&] {
    const auto file = open_model(m.folder);
    load_model_tensors(session.model(), *file, file->path());
  });
  session.executor().upload_model();
  diffusion::GenerateRequest request = m.request;
  using Clock = std::chrono::steady_clock;
  Clock::time_point started;
  Drawn drawn;
  request.progress = [&, shown = comm.rank() == 0 && ::isatty(2)](int64_t done, int64_t total) {
    if (done == 0) started = Clock::now();
    if (done == total) drawn.seconds = std::chrono::duration<double>(Clock::now() - started).count();
    if (!shown) return;
    fmt::print(stderr, "\r  step {}/{}{}", done, total, done == total ? "\r\x1b[K" : "");
    std::fflush(stderr);
  };
  drawn.images = diffusion::generate(session, m.scheduler, request);
  return drawn;
}

}  // namespace lockstep
