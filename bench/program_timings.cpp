// SPDX-License-Identifier: Apache-2.0
// Times the programs of a pipeline of Stable Diffusion 1.5's size, whose weights are drawn here, and prints JSON lines as they
// come.
//
//   gpu_programs program_timings [--device cuda|cpu|simt] [--precision fp32|bf16] [--few] [--calls N] [--list] [PROGRAM...]
//
// PROGRAM: encode_text and denoise of a batch of 2, which is a picture with guidance, and decode of a picture, 512x512 pixels;
// all where none is named. --few: a small pipeline. --list: what there is, without a device. A line a program: program,
// precision, batch, parameters (of its networks), flops (of a call), and seconds of each call, from the host's memory to the
// host's memory, behind three that warm up: kernels are chosen and the work is recorded by then.
#include "bench/program_timings.h"

#include <algorithm>
#include <boost/program_options.hpp>
#include <chrono>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "kernels/core/cpu_target.h"
#include "models/model.h"
#include "models/model_description.h"
#include "models/objectives/diffusion.h"
#include "runtime/device/cpu_topology.h"
#include "runtime/files/json_text.h"
#include "runtime/training/session.h"

namespace lockstep {
namespace {

constexpr int kWarmUp = 3;

ModelDescription pipeline(bool few) {
  ModelDescription d;
  d.model.name = kTextToImage;
  TextToImageConfig& c = d.model.text_to_image;
  AutoencoderKlConfig vae;
  int64_t side = 512;
  if (few) {
    side = 16;
    c.unet.block_out_channels = {16, 32};
    c.unet.down_block_types = {"CrossAttnDownBlock2D", "DownBlock2D"};
    c.unet.up_block_types = {"UpBlock2D", "CrossAttnUpBlock2D"};
    c.unet.attention_head_dim = {2};
    c.unet.norm_num_groups = vae.norm_num_groups = 8;
    c.text_encoder = {.vocab_size = 100,
                      .hidden_size = 32,
                      .intermediate_size = 64,
                      .num_hidden_layers = 1,
                      .num_attention_heads = 2,
                      .max_position_embeddings = 8};
    vae.block_out_channels = {16, 16};
  } else {  // what differs from the classes' own numbers
    c.text_encoder.hidden_size = 768, c.text_encoder.intermediate_size = 3072;
    c.text_encoder.num_attention_heads = 12;
    vae.block_out_channels = {128, 256, 512, 512};
    vae.layers_per_block = 2;
  }
  const size_t levels = vae.block_out_channels.size();
  vae.down_block_types.assign(levels, "DownEncoderBlock2D");
  vae.up_block_types.assign(levels, "UpDecoderBlock2D");
  c.unet.cross_attention_dim = c.text_encoder.hidden_size;
  c.unet.sample_size = {side / vae.scale()};
  c.text_length = c.text_encoder.max_position_embeddings;
  c.vae = VaeConfig{vae};
  d.input = {3, side, side, 0, {0.5f, 0.5f, 0.5f}, {0.5f, 0.5f, 0.5f}, {}, {}};
  d.config.diffusion = diffusion::training_objective(d.scheduler.schedule);
  return d;
}

int64_t batch_of(std::string_view program) { return program == diffusion::kDecode ? 1 : 2; }

nlohmann::ordered_json about(const Program& program, const std::string& precision, const Graph& graph) {
  int64_t parameters = 0;
  for (ValueId v : graph.values_in(Storage::parameter)) parameters += graph.value(v).spec.shape.elements();
  return {{"program", program.name},
          {"precision", precision},
          {"batch", batch_of(program.name)},
          {"parameters", parameters},
          {"flops", flops_of(graph)}};
}

// What a port is given: tokens and a timestep that every model has, numbers in [-1, 1).
std::vector<std::byte> some_values(const Port& port) {
  const int64_t n = port.spec.shape.elements();
  std::vector<std::byte> bytes(static_cast<size_t>(n * size_of(port.spec.dtype)));
  for (int64_t i = 0; i < n; ++i) {
    const auto word = static_cast<uint32_t>(i) * 2654435761u >> 16;
    if (port.spec.dtype == DType::i32)
      reinterpret_cast<int32_t*>(bytes.data())[i] = static_cast<int32_t>(word % 100);
    else
      reinterpret_cast<float*>(bytes.data())[i] =
          port.name == kTimesteps ? 500.0f : static_cast<float>(word) / 32768 - 1;
  }
  return bytes;
}

// With the weights and the kernels of a new session on that device.
nlohmann::ordered_json timed(const Program& program, const TrainingConfig& config, DeviceRuntime& device,
                             int64_t calls) {
  const auto alone = make_self_communicator();
  SessionOptions o;
  o.programs = {program};
  o.config = config;
  o.kernels.device = device.device();
  o.kernels.threads = threads_per_rank(0, 1);
  o.kernels.processor = device.name();
  o.kernels.independent = true;  // as pictures are drawn
  o.device = &device;
  o.training = false;
  Session session(std::move(o), *alone);
  session.model().initialise(1);
  session.executor().upload_model();
  session.prepare(program, batch_of(program.name));
  const Session::Compiled& compiled = session.program(program, batch_of(program.name));

  StepInputs inputs;
  inputs.state.training = 0;
  std::vector<std::vector<std::byte>> values;
  for (const Port& port : input_ports(compiled.plan->graph)) {
    values.push_back(some_values(port));
    inputs.set(
        {port.name, port.spec.dtype, values.back().data(), static_cast<int64_t>(values.back().size())});
  }
  auto seconds = nlohmann::ordered_json::array();
  for (int64_t i = 0; i < kWarmUp + calls; ++i) {
    const auto began = std::chrono::steady_clock::now();
    session.executor().run(*compiled.bound, inputs);
    if (i >= kWarmUp)
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  }
  const std::string port = output_ports(compiled.plan->graph)[0].name;
  const View& answer = session.executor().output(*compiled.bound, port);
  const auto* numbers = answer.as<float>();
  if (!std::all_of(numbers, numbers + answer.spec.shape.elements(), [](float x) { return std::isfinite(x); }))
    throw Error(Exit::diverged, "E_NOT_FINITE", "an answer is not finite").at("program", program.name);
  auto line = about(program, config.precision, compiled.plan->graph);
  line["seconds"] = seconds;
  return line;
}

}  // namespace

int time_programs(int argc, char** argv) {
  namespace po = boost::program_options;
  int64_t calls = 10;
  std::string device_name = "cuda", precision = "fp32";
  std::vector<std::string> wanted;
  po::options_description options("Options"), all;
  options.add_options()("help", "this text")("list", "the programs, not timed")("few", "a small pipeline")(
      "calls", po::value(&calls), "default 10")(
      "device", po::value(&device_name), "cuda (default), cpu or simt")("precision", po::value(&precision),
                                                                        "fp32 (default) or bf16");
  all.add(options).add_options()("program", po::value(&wanted));
  po::variables_map given;
  po::store(po::command_line_parser(argc, argv)
                .options(all)
                .positional(po::positional_options_description().add("program", -1))
                .run(),
            given);
  po::notify(given);
  if (given.count("help")) {
    std::cout << options;
    return 0;
  }
  const Device kind = device_name == "cuda"   ? Device::cuda
                      : device_name == "simt" ? Device::simt
                                              : Device::cpu;
  if (device_name != name(kind))
    throw Error(Exit::usage, "E_DEVICE", fmt::format("--device {}: cuda, cpu or simt", device_name));
  if (precision != "fp32" && precision != "bf16")
    throw Error(Exit::usage, "E_PRECISION", fmt::format("--precision {}: fp32 or bf16", precision));
  if (calls < 1) throw Error(Exit::usage, "E_CALLS", "--calls is at least 1");

  ModelDescription model = pipeline(given.count("few") > 0);
  model.config.precision = precision;
  const std::vector<Program> programs = make_programs(model.model, model.input, model.config);
  const auto is_wanted = [&](const Program& p) {
    return wanted.empty() || std::find(wanted.begin(), wanted.end(), p.name) != wanted.end();
  };
  for (const std::string& word : wanted)
    if (std::none_of(programs.begin(), programs.end(), [&](const Program& p) { return p.name == word; }))
      throw Error(Exit::usage, "E_PROGRAM", fmt::format("the pipeline has no program \"{}\"", word));
  if (given.count("list")) {
    for (const Program& p : programs)
      if (is_wanted(p))
        std::cout << json_text(about(p, precision, build_program(p, {batch_of(p.name), 1, kind})))
                  << std::endl;
    return 0;
  }

  apply_cpu_level_from_environment();
  const auto device = kind == Device::cuda ? make_cuda_runtime(0) : make_host_runtime(kind);
  for (const Program& p : programs)  // flushed: a reader waits for each
    if (is_wanted(p)) std::cout << json_text(timed(p, model.config, *device, calls)) << std::endl;
  return 0;
}

}  // namespace lockstep
