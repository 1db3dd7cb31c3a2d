// SPDX-License-Identifier: Apache-2.0
// One program of a trained model, asked with given tensors: how long it takes, where the time goes, and what it answers.
//
//   program_bench FOLDER denoise --inputs FILE --calls 3 --trace FILE
//   program_bench FOLDER encode_text --inputs FILE --outputs FILE
//
// FOLDER: a run, or a diffusers folder. --inputs: a safetensors file with a tensor for each of the program's ports, the first
// dimension counting samples (models/inference_session.h has the ports); the height and width of `images` are those of the
// pictures. --outputs: such a file with the answer. Prints a JSON object: seconds of opening, and of each call.
#include <boost/program_options.hpp>
#include <chrono>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/program.h"
#include "kernels/core/cpu_target.h"
#include "launch/job/trained_model.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/files/json_text.h"
#include "runtime/telemetry/trace.h"

namespace lockstep {
namespace {

// The model draws at the size of these samples.
void fit_to(ModelDescription& d, const StoredTensor& images) {
  if (images.shape.size() != 4 || !d.model.reads_text()) return;
  const auto& vae = d.model.text_to_image.vae;
  const int64_t scale = vae ? vae->scale() : 1;
  d.input.height = images.shape[2] * scale, d.input.width = images.shape[3] * scale;
}

InputTensor input_of(const Port& port, const SafetensorsFile& file) {
  const StoredTensor* t = file.find(port.name);
  if (!t) throw Error(Exit::data, "E_PORT", "no tensor " + port.name).at("file", file.path());
  const std::string dtype = port.spec.dtype == DType::i32  ? "I32"
                            : port.spec.dtype == DType::u8 ? "U8"
                                                           : "F32";
  if (t->dtype != dtype)
    throw Error(Exit::data, "E_PORT", fmt::format("{} is {}, expected {}", port.name, t->dtype, dtype))
        .at("file", file.path());
  return {port.name, port.spec.dtype, t->bytes.data(), static_cast<int64_t>(t->bytes.size())};
}

void write_answers(const std::string& path, int64_t samples, std::span<const Port> ports,
                   const std::vector<std::vector<float>>& answers) {
  std::vector<StoredTensor> tensors;
  for (size_t i = 0; i < ports.size(); ++i) {
    StoredTensor t{ports[i].name, "F32", {samples}, std::as_bytes(std::span(answers[i]))};
    for (int k = 0; k < ports[i].spec.shape.rank(); ++k) t.shape.push_back(ports[i].spec.shape[k]);
    tensors.push_back(std::move(t));
  }
  export_model(path, tensors);
}

int run(int argc, char** argv) {
  namespace po = boost::program_options;
  std::string folder, program, inputs, outputs;
  int64_t calls = 1;
  std::string trace_file;
  po::options_description options("Options"), all;
  options.add_options()("help", "this text")("inputs", po::value(&inputs)->required()->value_name("FILE"))(
      "outputs", po::value(&outputs)->value_name("FILE"))("calls", po::value(&calls)->value_name("N"))(
      "trace", po::value(&trace_file)->value_name("FILE"),
      "of the calls behind the first, for ui.perfetto.dev");
  all.add(options).add_options()("folder", po::value(&folder)->required())("program",
                                                                           po::value(&program)->required());
  po::variables_map given;
  po::store(po::command_line_parser(argc, argv)
                .options(all)
                .positional(po::positional_options_description().add("folder", 1).add("program", 1))
                .run(),
            given);
  if (given.count("help")) {
    std::cout << "program_bench FOLDER PROGRAM --inputs FILE [--outputs FILE] [--calls N] [--trace FILE]\n\n"
              << options;
    return 0;
  }
  po::notify(given);
  apply_cpu_level_from_environment();

  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point t) {
    return std::chrono::duration<double>(Clock::now() - t).count();
  };
  const auto file = SafetensorsFile::open(inputs);
  const auto began = Clock::now();
  TrainedModel trained = open_trained(folder);
  int64_t samples = 1;
  for (const StoredTensor& t : file->tensors()) {
    if (t.name == kImages) fit_to(trained.description, t);
    if (!t.shape.empty()) samples = t.shape[0];
  }
  const auto comm = launched_communicator();
  const auto model = open_session(trained, {.largest_batch = samples, .in_place = true}, *comm);
  nlohmann::ordered_json said = {{"open_seconds", since(began)}};

  std::vector<InputTensor> in;
  for (const Port& port : model->inputs(program)) in.push_back(input_of(port, *file));
  const std::span<const Port> ports = model->outputs(program);
  std::vector<std::vector<float>> answers;
  for (const Port& port : ports)
    answers.emplace_back(static_cast<size_t>(samples * port.spec.shape.elements()));
  std::vector<OutputTensor> out;
  for (size_t i = 0; i < ports.size(); ++i) out.push_back({ports[i].name, answers[i]});

  Trace trace(calls - 1);
  for (int64_t i = 0; i < calls; ++i) {
    if (i == 1 && !trace_file.empty()) model->set_trace(&trace), trace.start();
    const auto call = Clock::now();
    model->run(program, samples, in, out);
    said["seconds"].push_back(since(call));
    if (trace.recording()) trace.end_step();
  }
  if (!trace_file.empty()) write_file_atomically(trace_file, Trace::trace_file({trace.events(0)}));
  if (!outputs.empty()) write_answers(outputs, samples, ports, answers);
  std::cout << json_text(said) << "\n";
  return 0;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) { return lockstep::program("program_bench", lockstep::run, argc, argv); }
