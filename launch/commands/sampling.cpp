// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/sampling.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cmath>

#include "launch/commands/report_error.h"
#include "runtime/telemetry/say.h"

namespace lockstep {

SamplingModel open_sampling_model(const std::string& folder, bool say) {
  SamplingModel m;
  m.trained = open_trained(folder, say ? report_error : nullptr);
  if (!m.description().diffusion())
    throw Error(Exit::config, "E_SAMPLE_MODEL", "a classifier draws nothing").at("folder", folder);
  m.request = diffusion::default_request(m.description(), m.trained.tokenizer.get());
  return m;
}

boost::program_options::options_description SamplingOptions::description() {
  namespace po = boost::program_options;
  po::options_description d("Sampling");
  d.add_options()("count", po::value(&count)->value_name("N"), "images; of each class or prompt in turn")(
      "guidance", po::value(&guidance)->value_name("W"),
      "how far towards the class or prompt; 1: as the model has it")(
      "sampler", po::value(&sampler)->value_name("NAME"),
      "ddpm, ddim, pndm, dpm_solver, euler, euler_ancestral")("steps", po::value(&steps)->value_name("N"),
                                                              "from noise to image")(
      "compat", po::value(&compat)->value_name("NAME"),
      "none, or diffusers: steps of ddim and pndm have its numbers, off the list of timesteps too")(
      "precision", po::value(&precision)->value_name("NAME"),
      "of activations: fp32 or bf16; left out: the run's, of a folder fp32")(
      "seed", po::value(&seed)->value_name("S"), "of the noise");
  return d;
}

void set_count(SamplingModel& m, int64_t count) {
  auto& r = m.request;
  r.count = count;
  // null_label comes after the classes or prompts.
  if (!r.labels.empty()) r.labels = diffusion::labels_in_turn(count, r.null_label);
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
  if (!(r.guidance >= 0) || !std::isfinite(r.guidance))
    throw Error(Exit::usage, "E_OPTION", command + ": --guidance is a number, at least 0");
  if (r.guidance != 1 && r.labels.empty())
    throw Error(Exit::config, "E_SAMPLE_GUIDANCE",
                command + ": guidance goes between classes, and the model knows none");
  if (r.guidance != 1 && !m.trained.tokenizer && !m.description().no_class_row())
    throw Error(Exit::config, "E_SAMPLE_GUIDANCE",
                command +
                    ": guidance goes from no class to a class, and nothing says that the model has a row for "
                    "'no class'")
        .at("folder", m.trained.folder)
        .hint("train with objective.label_dropout; model.json then says so");
  if (vm.count("sampler")) r.sampler = o.sampler;
  if (vm.count("steps")) r.steps = o.steps;
  if (vm.count("compat")) m.description().scheduler.compat = o.compat;
  if (o.seed < 0) throw Error(Exit::usage, "E_OPTION", command + ": --seed is at least 0");
  if (vm.count("seed")) r.seed = static_cast<uint64_t>(o.seed);
  if (vm.count("precision")) {
    if (o.precision != "fp32" && o.precision != "bf16")
      throw Error(Exit::usage, "E_OPTION",
                  fmt::format("{}: --precision is fp32 or bf16, not '{}'", command, o.precision));
    m.description().config.precision = o.precision;
  }
}

void expect_sampler(const SamplingModel& m) try {
  const auto& r = m.request;
  diffusion::make_sampler(r.sampler, m.description().scheduler, r.steps, r.eta);
} catch (Error& e) {
  e.add_place("folder", m.trained.folder);
  throw;
}

Drawn draw(const SamplingModel& m, Communicator& comm) {
  const auto session = open_session(
      m.trained, {.largest_batch = diffusion::largest_batch(m.request, comm.size()), .in_place = true}, comm);
  diffusion::GenerateRequest request = m.request;
  using Clock = std::chrono::steady_clock;
  const Clock::time_point started = Clock::now();
  Drawn drawn;
  request.progress = [&, shown = comm.rank() == 0 && ::isatty(2)](int64_t done, int64_t total) {
    if (!shown) return;
    say_styled(stderr, fmt::format("\r  step {}/{}{}", done, total, done == total ? "\r\x1b[K" : ""));
  };
  drawn.images = diffusion::generate(*session, m.description().scheduler, request);
  drawn.seconds = std::chrono::duration<double>(Clock::now() - started).count();
  return drawn;
}

}  // namespace lockstep
