// SPDX-License-Identifier: Apache-2.0
// `lockstep plan JOB`: what every rank will run, in order, and what it costs. `lockstep plan FOLDER`: what a trained model's
// programs run when they are asked.
#include <fmt/format.h>

#include <fstream>
#include <optional>
#include <set>

#include "launch/commands/command.h"
#include "launch/commands/job_plan.h"
#include "launch/commands/program_plan.h"
#include "launch/commands/report_error.h"
#include "launch/commands/scale.h"
#include "launch/job/availability.h"
#include "launch/job/trained_model.h"
#include "runtime/files/json_text.h"
#include "runtime/files/path.h"

namespace lockstep {

extern const Command plan_command;

namespace {

std::string megabytes(int64_t bytes) { return fmt::format("{:.2f} MB", static_cast<double>(bytes) / 1e6); }

nlohmann::json collectives(const Plan& plan, DType gradients) {
  nlohmann::json list = nlohmann::json::array();
  for (const Node& n : plan.graph.nodes()) {
    if (n.kind != NodeKind::allreduce && n.kind != NodeKind::all_gather) continue;
    list.push_back({{"op", n.op}, {"name", n.name}, {"bytes", collective_bytes(plan.graph, n, gradients)}});
  }
  return list;
}

// Kernels of the plan's ops that it doesn't use, but that are timed beside them where the job runs; on a GPU
// that isn't here, that is.
std::set<std::string> other_kernels(Device device, const Plan& plan) {
  std::set<std::string> ops, chosen, others;
  for (const Node& n : plan.graph.nodes())
    if (n.kind == NodeKind::compute) ops.insert(n.op), chosen.insert(n.kernel);
  if (device != Device::cuda) return others;
  for (const KernelInfo& k : Registry::builtin().all())
    if (k.device == Device::cuda && ops.contains(k.op) && !chosen.contains(k.name)) others.insert(k.name);
  return others;
}

nlohmann::json describe(const Job& job, const JobPlan& p) {
  const auto& m = p.memory;
  nlohmann::json j = to_json(p.training.back());
  j["job_name"] = job.job_name;
  j["precision"] = job.hyperparameters.precision;
  j["gradient_precision"] = job.gradient_precision;
  j["ranks"] = job.instance_count;
  j["batch_per_rank"] = p.nominal_batch;
  j["parameters"] = p.parameters.all;
  j["trained_parameters"] = p.parameters.trained;
  j["steps_per_epoch"] = p.steps_per_epoch;
  j["steps"] = p.total_steps;
  j["kernels"] = p.kernels;
  if (const Device device = device_of(job); device == Device::cuda)
    j["kernels_timed_on_the_gpu"] = other_kernels(device, p.training.back());
  j["collectives"] = collectives(p.training.back(), gradient_dtype(job));
  j["memory"] = {{"parameters", m.parameters}, {"gradients", m.gradients},
                 {"optimizer_state", m.state}, {"ema", m.ema},
                 {"bf16_weights", m.half},     {"buffers", m.buffers},
                 {"activations", m.arena},     {"peak", m.total()},
                 {"data", p.data_bytes}};
  return j;
}

void print_nodes(const Graph& g) {
  print_out("{:>4}  {:<22} {:<16} {:<12} {:<34} {:>10}\n", "#", "op", "layer", "kernel", "result", "MFLOP");
  for (size_t i = 0; i < g.nodes().size(); ++i) {
    const Node& n = g.nodes()[i];
    if (n.kind == NodeKind::view) continue;
    std::string result =
        n.out.empty() ? (n.params.empty() ? "" : n.params.text()) : g.value(n.out[0]).spec.text();
    print_out("{:>4}  {:<22} {:<16} {:<12} {:<34} {:>10.3f}\n", i, n.op, n.name, n.kernel, result,
              static_cast<double>(flops_of(g, n)) / 1e6);
  }
}

void print_other_kernels(Device device, const Plan& plan, const char* when) {
  if (const auto others = other_kernels(device, plan); !others.empty())
    print_out(
        "\nKernels are chosen on the GPU when {}, by their time there; these are the first that accept.\n"
        "Beside them: {}\n",
        when, fmt::join(others, ", "));
}

void print(const Job& job, const JobPlan& p) {
  const Plan& plan = p.training.back();
  const Graph& g = plan.graph;
  print_out("{}: {} ranks, {} samples a rank and micro-batch, {}, {}, {} steps an epoch, {} steps\n\n",
            job.job_name, job.instance_count, p.nominal_batch, job.hyperparameters.precision,
            p.parameters.text(), p.steps_per_epoch, p.total_steps);
  print_nodes(g);
  print_out(
      "\nFLOPs of a {} on one rank: {:.3f} GFLOP\n",
      micro_batches(job.hyperparameters, static_cast<int>(job.instance_count)) > 1 ? "micro-batch" : "step",
      static_cast<double>(flops_of(g)) / 1e9);
  print_other_kernels(device_of(job), plan, "the job starts");
  const auto list = collectives(plan, gradient_dtype(job));
  if (!list.empty()) {
    print_out("\nCollectives, in this order on every rank:\n");
    for (const auto& c : list)
      print_out("  {:<12} {:<20} {}\n", c["op"].get<std::string>(), c["name"].get<std::string>(),
                megabytes(c["bytes"]));
  }
  const auto& m = p.memory;
  print_out(
      "\nMemory of a rank: parameters {}, gradients {}, optimizer state {}, moving average {}, bf16 weights "
      "{}, buffers {}, activations and workspace {}\n",
      megabytes(m.parameters), megabytes(m.gradients), megabytes(m.state), megabytes(m.ema),
      megabytes(m.half), megabytes(m.buffers), megabytes(m.arena));
  print_out("Peak {} ({} bytes); the data set and batches in flight {}\n", megabytes(m.total()), m.total(),
            megabytes(p.data_bytes));
}

// On the CPU where no device is named: sessions compute there.
Device device_named(const std::string& word) {
  if (word.empty() || word == "cpu") return Device::cpu;
  if (word == "simt") return Device::simt;
  if (word != "cuda")
    throw Error(Exit::usage, "E_OPTION", fmt::format("plan: no device '{}'", word)).hint("cpu, cuda or simt");
  if (!has_cuda())
    throw Error(Exit::config, "E_JOB_UNAVAILABLE", "device cuda: this build has no CUDA")
        .hint("--device cpu works here");
  return Device::cuda;
}

int plan_folder(const std::string& folder, const std::string& precision, int64_t samples, Device device,
                bool as_json) {
  TrainedModel trained = open_trained(folder, report_error);
  ModelDescription& model = trained.description;
  if (!precision.empty()) model.config.precision = precision;
  nlohmann::json all = {{"folder", folder}, {"precision", model.config.precision}, {"batch", samples}};
  for (const ProgramPlan& p : plan_programs(model, samples, device)) {
    const int64_t parameter_bytes = p.parameters * size_of(DType::f32);
    if (as_json) {
      nlohmann::json j = to_json(p.plan);
      j["name"] = p.name;
      j["parameters"] = p.parameters;
      if (device == Device::cuda) j["kernels_timed_on_the_gpu"] = other_kernels(device, p.plan);
      j["memory"] = {{"parameters", parameter_bytes}, {"activations", p.plan.arena_bytes}};
      all["programs"].push_back(std::move(j));
      continue;
    }
    print_out("{}: batch {}, {}, {} parameters\n\n", p.name, samples, model.config.precision, p.parameters);
    print_nodes(p.plan.graph);
    print_out("\nFLOPs of a batch: {:.3f} GFLOP\n", static_cast<double>(flops_of(p.plan.graph)) / 1e9);
    print_other_kernels(device, p.plan, "the model is opened");
    print_out("\nMemory: parameters {}, activations and workspace {}\n\n", megabytes(parameter_bytes),
              megabytes(p.plan.arena_bytes));
  }
  if (as_json) print_out("{}\n", json_text(all, 1));
  return 0;
}

int run_plan(const Arguments& arguments) {
  namespace po = boost::program_options;
  std::string file, dot, device, scale, link, precision;
  std::vector<std::string> set;
  int64_t batch = 1;
  po::options_description visible("Options"), hidden;
  visible.add_options()("set", po::value(&set)->value_name("KEY=VALUE"),
                        "override a key of the job (repeatable)")(
      "device", po::value(&device)->value_name("NAME"), "short for --set device=NAME; cuda needs no GPU")(
      "batch", po::value(&batch)->value_name("N"), "samples, of a FOLDER: 1 where it is left out")(
      "precision", po::value(&precision)->value_name("NAME"),
      "of a FOLDER's activations: fp32 or bf16; left out: the run's")("json", "print the plan as JSON")(
      "dot", po::value(&dot)->value_name("FILE"), "write the graph for Graphviz")(
      "scale", po::value(&scale)->value_name("RANKS,..."),
      "predict a step on these rank counts, each rank with as many samples as it has in the job (weak "
      "scaling): ops "
      "are timed here, for a few steps, and the allreduce is a model over --link")(
      "link", po::value(&link)->value_name("BANDWIDTH,LATENCY[,RANKS]"),
      "what lies between hosts, as 100Gb,5us (Gb, Mb, GB, MB a second; ns, us, ms), and ranks a host (1)");
  hidden.add_options()("job", po::value(&file));
  po::positional_options_description positional;
  positional.add("job", 1);
  const auto vm = parse_arguments(plan_command,
                                  {"JOB|FOLDER",
                                   "lockstep plan configs/mnist_cnn.yaml --set instance_count=4\n"
                                   "lockstep plan runs/painter-digits-001 --device cuda",
                                   visible, hidden, positional},
                                  arguments);
  if (!vm) return 0;
  if (file.empty()) missing_argument(plan_command, "JOB");
  const bool trained = is_folder(file);
  const auto refuse = [&](std::initializer_list<const char*> options, const char* where) {
    for (const char* option : options)
      if (vm->count(option))
        throw Error(Exit::usage, "E_OPTION", fmt::format("plan: --{} is {}", option, where)).at("path", file);
  };
  if (!trained) {
    refuse({"batch", "precision"}, "for a trained model's folder; of a job --set says it");
  } else {
    refuse({"set", "dot", "scale", "link"}, "for a job, and this is a trained model's folder");
    if (batch < 1 || batch > 1 << 20) throw Error(Exit::usage, "E_OPTION", "plan: --batch is 1 to 1048576");
    if (vm->count("precision") && precision != "fp32" && precision != "bf16")
      throw Error(Exit::usage, "E_OPTION",
                  fmt::format("plan: --precision is fp32 or bf16, not '{}'", precision));
    return plan_folder(file, precision, batch, device_named(device), vm->count("json") > 0);
  }
  std::optional<ScaleRequest> request;
  if (vm->count("scale") || vm->count("link")) request = parse_scale_request(scale, link);
  if (!device.empty()) set.push_back("device=" + device);
  const Job job = read_job(file, set);
  require_built(job);
  const JobPlan p = plan_job(job, true);
  if (!dot.empty()) {
    std::ofstream out(dot);
    out << to_dot(p.training.back());
    if (!out.flush()) throw Error(Exit::cannot_create, "E_WRITE", "cannot write the graph").at("file", dot);
  }
  std::optional<Scaling> scaling;
  if (request) scaling = predict_scaling(job, p, *request);
  if (vm->count("json")) {
    nlohmann::json all = describe(job, p);
    if (scaling) all["scaling"] = to_json(*scaling);
    print_out("{}\n", json_text(all, 1));
  } else {
    print(job, p);
    if (scaling) print_out("{}", to_text(*scaling));
  }
  return 0;
}

}  // namespace

const Command plan_command{
    "plan", "print what every rank, or a trained model, will run: ops, kernels, memory", run_plan, true};

}  // namespace lockstep
