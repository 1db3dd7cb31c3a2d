// SPDX-License-Identifier: Apache-2.0
#include "launch/commands/job_plan.h"

#include <algorithm>
#include <set>

#include "launch/commands/source_model.h"
#include "launch/commands/version.h"
#include "launch/job/model_file.h"
#include "launch/job/tokenizer.h"
#include "models/denoiser.h"
#include "models/diffusion/folder.h"
#include "models/diffusion/generate.h"
#include "models/model.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/file_io.h"
#include "runtime/comm/device_collectives.h"
#include "runtime/comm/whereabouts.h"
#include "runtime/data/sample_order.h"
#include "runtime/device/cpu_topology.h"
#include "runtime/files/path.h"
#include "runtime/graph/ports.h"
#include "runtime/training/batch_norm_check.h"
#include "runtime/training/evaluation.h"
#include "runtime/training/schedule.h"
#include "runtime/training/state_io.h"

namespace lockstep {
namespace {

ParameterCount count_parameters(const ParameterTable& table) {
  ParameterCount n;
  for (const auto& p : table.parameters) {
    n.all += p.shape.elements();
    if (table.trains(p)) n.trained += p.shape.elements();
  }
  return n;
}

std::shared_ptr<const Objective> objective_of(const Job& job, const DatasetShape& data) {
  return make_objective(job.model, input_shape(job.training, data), job.hyperparameters);
}

// All of them, frozen ones too, and those that only drawing needs.
ParameterTable parameters_of(const Job& job, const DatasetShape& data, const Objective& objective,
                             const GraphSpec& spec) {
  const auto& c = job.hyperparameters;
  return parameter_table(&objective, make_programs(job.model, input_shape(job.training, data), c), spec, c);
}

GraphSpec graph_spec(const Job& job, Device device) {
  return {1, static_cast<int>(job.instance_count), device, activation_dtype(job.hyperparameters)};
}

int64_t training_samples(const Job& job, const DatasetShape& data) {
  if (job.validation_fraction <= 0) return data.count;
  return static_cast<int64_t>(
      training_indices(data.count, job.validation_fraction, job.hyperparameters.seed).size());
}

// What the trainer of a diffusion model does beside training: grids of samples, and the folder for diffusers.
void add_diffusion(TrainerOptions& o, const Job& job) {
  o.sample_every = job.sampling.every;
  o.preview = [job, tokenizer = o.tokenizer](Session& session, const InputShape& in, int64_t step,
                                             const std::string& run, TensorBoardWriter* events) {
    const Extent size = in.training_images();
    const ModelDescription model =
        describe(job, {0, in.channels, size.height, size.width, in.classes, {}, {}});
    const diffusion::GenerateRequest request = diffusion::default_request(model, tokenizer.get());
    InferenceSession drawer(session, model, diffusion::largest_batch(request, session.comm().size()));
    const auto images = diffusion::generate(drawer, job.scheduler, request);
    if (!events) return;
    const OwnWork own("writing samples");
    const Image grid = diffusion::grid(diffusion::pictures(images, model.input));
    const std::string folder = run + "/samples";
    make_folders(folder);
    write_png(fmt::format("{}/step-{:08}.png", folder, step), grid);
    events->image_png("samples", step, grid.height, grid.width, grid.channels, encode_png(grid));
  };
  o.exported = {{"unet/diffusion_pytorch_model.safetensors", job.model.reads_text() ? kUNet : ""}};
  if (job.model.reads_text()) o.exported.push_back({"text_encoder/model.safetensors", kTextEncoder});
  if (job.model.draws_latents()) o.exported.push_back({"vae/diffusion_pytorch_model.safetensors", kVae});
  o.export_configuration = [job](const InputShape& in, const std::string& run) {
    ModelSpec model = job.model;
    model.draw_images_of(in.height, in.width);
    diffusion::write_configuration(run, model, job.scheduler);
  };
}

}  // namespace

Device device_of(const Job& job) {
  if (job.device == "simt") return Device::simt;
  const bool wanted =
      job.device == "cuda" || job.backend == "nccl" || (job.device == "auto" && gpu_count() > 0);
  return wanted ? Device::cuda : Device::cpu;
}

// Whether it is NCCL that joins ranks here, were there only one.
static bool joins_by_nccl(const Job& job) {
  return device_of(job) == Device::cuda && (job.backend == "nccl" || (job.backend == "auto" && has_nccl()));
}

bool uses_nccl(const Job& job) { return job.instance_count > 1 && joins_by_nccl(job); }

std::string why_not_nccl(const Job& job) {
  const bool wanted = job.backend == "auto" && job.instance_count > 1 && device_of(job) == Device::cuda;
  return wanted && !has_nccl() ? nccl_description() : "";
}

DType gradient_dtype(const Job& job) {
  return job.gradient_precision == "bf16" && uses_nccl(job) ? DType::bf16 : DType::f32;
}

KernelChoice kernel_choice(const Job& job, int local_size) {
  return {.device = device_of(job),
          .threads = threads_per_rank(static_cast<int>(job.threads_per_rank), local_size),
          .processor = processor_name(),
          .cache_file = default_kernel_cache(),
          .activations = activation_dtype(job.hyperparameters)};
}

TrainerOptions trainer_options(const Job& job, const KernelChoice& kernels) {
  TrainerOptions o;
  o.objective = [job](const InputShape& input) {
    return make_objective(job.model, input, job.hyperparameters);
  };
  o.programs = [job](const InputShape& input) {
    return make_programs(job.model, input, job.hyperparameters);
  };
  o.init_from = job.model.init_from;
  o.training_data = job.training;
  o.validation_data = job.validation;
  o.test_data = job.test;
  o.validation_fraction = job.validation_fraction;
  o.config = job.hyperparameters;
  o.checkpoint = job.checkpoint;
  o.log_every = job.log_every;
  o.kernels = kernels;
  o.gradient_precision = job.gradient_precision;
  o.stop = job.stop;
  o.job_hash = job_hash(job);
  o.job = job_values(job);
  o.describe = [job](const DatasetShape& training, const std::map<std::string, std::string>& data) {
    return model_file(job, training, data, version());
  };
  o.source_remarks = [job](const DatasetShape& training, const SafetensorsFile& weights) {
    return source_remarks(job, training, weights);
  };
  o.tokenizer = open_tokenizer(job);
  if (job.objective.name == "diffusion") add_diffusion(o, job);
  return o;
}

namespace {

bool asks_classes(const Job& job) {
  return !job.model.draws() || (job.model.name == "unet2d" && job.model.unet.conditional());
}

void check_classes(const Job& job, const DatasetConfig& config, const DatasetShape& data) {
  if (asks_classes(job)) expect_classes(config, data);
}

// Classes that training would not see; classes that no model asks for are nobody's loss.
std::vector<std::string> class_warnings(const Job& job, const DatasetShape& data) {
  const auto& names = data.class_names;
  std::vector<std::string> warnings;
  if (names.empty() || !asks_classes(job)) return warnings;
  if (names.size() == 1)
    warnings.push_back(fmt::format(
        "there is one class alone; is {} the folder that holds the classes' folders?", job.training.path));
  std::vector<std::string> absent;
  for (size_t i = 0; i < data.class_counts.size(); ++i)
    if (data.class_counts[i] == 0) absent.push_back(names[i]);
  if (absent.empty()) return warnings;
  constexpr size_t kMost = 10;
  const size_t more = absent.size() - std::min(kMost, absent.size());
  absent.resize(absent.size() - more);
  warnings.push_back(
      fmt::format("no training samples of {}{}{}", fmt::join(absent, ", "),
                  more ? fmt::format(" and {} classes more", more) : "",
                  job.training.limit > 0
                      ? fmt::format("; limit takes the first {} of the set, which may be sorted by class",
                                    job.training.limit)
                      : ""));
  return warnings;
}

// What a rank keeps from step to step.
MemoryReport flat_memory(const Job& job, const ParameterTable& table, const OptimizerParams& optimizer) {
  const ModelArrays arrays = model_arrays(job.hyperparameters, table, static_cast<int>(job.instance_count));
  MemoryReport m;
  const int64_t trained = table.trained_length;
  m.parameters = table.length * 4;
  m.gradients = (1 + arrays.partial_sums) * trained * 4;
  if (gradient_dtype(job) == DType::bf16) m.gradients += trained * size_of(DType::bf16);
  m.state = optimizer.state_count() * trained * 4;
  m.ema = optimizer.ema ? trained * 4 : 0;
  m.half = optimizer.half ? table.length * 2 : 0;
  m.buffers = table.buffer_length * 4;
  return m;
}

// What would make the bits depend on the number of ranks after all.
void refuse_rank_dependence(const Job& job, bool has_batch_norm) {
  const auto refused = [&](const char* why) {
    return Error(Exit::config, "E_JOB_SHARDS", fmt::format("shards: {}", why))
        .at("job", job.file)
        .at("key", "hyperparameters.shards");
  };
  if (has_batch_norm)
    throw refused(
        "batch norm's statistics cover what all ranks compute at once, which depends on their number")
        .hint("group_norm needs no statistics over samples");
  if (uses_nccl(job) && job.instance_count > 2)
    throw refused("NCCL sums more than two ranks in an order of its own").hint("backend: mpi");
}

// Where `auto` has become mpi, which sums in fp32 only.
void check_carried_precision(const Job& job) {
  if (job.gradient_precision == "fp32" || joins_by_nccl(job)) return;
  const std::string key = "gradient_precision";
  throw Error(
      Exit::config, "E_JOB_UNAVAILABLE",
      fmt::format("only nccl sums gradients in {}, but backend is mpi here: {}", job.gradient_precision,
                  device_of(job) == Device::cuda ? nccl_description() : "this machine shows no GPU"))
      .at("job", job.where.contains(key) ? job.where.at(key) : job.file)
      .at("key", key)
      .hint("gradient_precision: fp32 works here");
}

// A rule to stop by that training never comes to is none.
void expect_look(const Job& job, int64_t steps_per_epoch, int64_t total_steps) {
  const auto expect = [&](const std::string& key, int64_t every, int64_t total) {
    if (every <= total) return;
    throw Error(Exit::config, "E_JOB_CONFLICT",
                fmt::format("a look every {} in a training of {} never comes", every, total))
        .at("job", job.where.contains(key) ? job.where.at(key) : job.file)
        .at("key", key);
  };
  if (job.stop.metric.empty()) return;
  if (job.stop.every_steps)
    expect("stop.every_steps", *job.stop.every_steps, total_steps);
  else
    expect("stop.every_epochs", job.stop.every_epochs.value_or(1), total_steps / steps_per_epoch);
}

// Adds the place and the key that a model or a schedule knows nothing of.
template <class F>
auto placed(const Job& job, F f) {
  try {
    return f();
  } catch (Error& e) {
    std::string key;
    if (e.id() == "E_SHAPE")
      key = job.where.contains("model.layers") ? "model.layers" : "model.name";
    else if (e.id() == "E_LATENTS")
      key = "inputs.training";
    else if (e.id() == "E_JOB_BATCH")
      key = "hyperparameters.global_batch_size";
    if (!key.empty()) {
      e.add_place("job", job.where.contains(key) ? job.where.at(key) : job.file);
      e.add_place("key", key);
    }
    throw;
  }
}

CheckedJob check_placed(const Job& job) {
  check_carried_precision(job);
  CheckedJob c;
  c.data = probe_dataset(job.training);
  check_classes(job, job.training, c.data);
  open_tokenizer(job);
  const InputShape input = input_shape(job.training, c.data);
  for (const auto& other : {job.validation, job.test}) {
    if (!other) continue;
    DatasetShape data = probe_dataset(*other, &c.data);
    check_classes(job, *other, data);
    if (input.augment.random_crop.given() && data.height >= input.height && data.width >= input.width)
      data.height = input.height, data.width = input.width;  // the middle of them
    expect_size(*other, data, input);
  }
  const Schedule schedule(job.hyperparameters, training_samples(job, c.data),
                          static_cast<int>(job.instance_count));
  c.steps_per_epoch = schedule.steps_per_epoch(), c.total_steps = schedule.total_steps();
  expect_look(job, c.steps_per_epoch, c.total_steps);
  const auto objective = objective_of(job, c.data);
  GraphSpec spec = graph_spec(job, Device::cpu);
  const Graph forward = build_forward(forward_of(*objective), spec, true).graph;
  const ParameterTable table = parameters_of(job, c.data, *objective, spec);
  c.memory = flat_memory(job, table, optimizer_params(job.hyperparameters, table));
  c.warnings = class_warnings(job, c.data);
  if (const std::string warning = check_batch_norm(forward, schedule); !warning.empty())
    c.warnings.push_back(warning);
  spec.batch = schedule.nominal_part();
  flops_of(build_forward(forward_of(*objective), spec, true)
               .graph);  // sizes that 64 bits do not hold, with samples as with one
  if (job.hyperparameters.shards) refuse_rank_dependence(job, !table.buffers.empty());
  c.parameters = count_parameters(table);
  c.table = table;
  return c;
}

JobPlan plan_placed(const Job& job, bool time_kernels) {
  check_carried_precision(job);
  JobPlan p;
  const auto& c = job.hyperparameters;
  const int ranks = static_cast<int>(job.instance_count);
  p.data = probe_dataset(job.training);
  p.training_samples = training_samples(job, p.data);
  const Schedule schedule(c, p.training_samples, ranks);
  p.steps_per_epoch = schedule.steps_per_epoch(), p.total_steps = schedule.total_steps();
  p.nominal_batch = schedule.nominal_part();

  const auto objective = objective_of(job, p.data);
  GraphSpec spec = graph_spec(job, device_of(job));
  const Graph forward = build_forward(forward_of(*objective), spec, true).graph;
  check_batch_norm(forward, schedule);
  p.table = parameters_of(job, p.data, *objective, spec);
  p.parameters = count_parameters(p.table);
  p.optimizer = optimizer_params(c, p.table);

  const KernelChoice how = kernel_choice(job, job.hosts.empty() && job.hostfile.empty() ? ranks : 1);
  auto self = make_self_communicator();
  auto choose = [&](KernelTable& t, const Graph& g) {
    if (time_kernels)
      choose_kernels(t, g, how, *self);
    else
      choose_first_kernels(t, g, how);
  };
  p.memory = flat_memory(job, p.table, p.optimizer);
  const Recompute recompute = recompute_of(c, p.memory.total());
  const auto compile_training = [&](int64_t batch, const TrainingGraphOptions& options) {
    spec.batch = batch;
    return compile(build_training(*objective, spec, p.table, c, options), p.kernels, how, choose, recompute);
  };
  // Kernels are chosen at the nominal batch, as a run does, not at a shorter last one's.
  std::set<TrainingGraphOptions> variants;
  for (int64_t m = 0; m < schedule.micro_batches(); ++m)
    if (const auto options = micro_batch_options(c, ranks, m); variants.insert(options).second)
      compile_training(p.nominal_batch, options);
  std::set<std::pair<int64_t, TrainingGraphOptions>> compiled;  // most micro-batches are like another
  for (int64_t m = 0; m < schedule.micro_batches(); ++m)
    for (int64_t n : schedule.part_sizes(m, 0)) {  // ascending: a full step's comes last
      if (!compiled.insert({n, micro_batch_options(c, ranks, m)}).second) continue;
      p.training.push_back(compile_training(n, micro_batch_options(c, ranks, m)));
      p.memory.arena = std::max(p.memory.arena, p.training.back().arena_bytes);
    }
  for (const Program& encoder : objective->encoders()) {
    spec.batch = p.nominal_batch;
    const Graph graph = build_program(encoder, spec);
    p.data_bytes += output_ports(graph)[0].spec.bytes() / spec.batch * p.data.count;  // captions: at most
    p.memory.arena = std::max(p.memory.arena, compile(graph, p.kernels, how, choose).arena_bytes);
  }
  std::vector<int64_t> evaluated;  // in a run's order: the first decides the kernels that they share
  if (job.validation_fraction > 0) evaluated.push_back(p.data.count - p.training_samples);
  for (const auto& other : {job.validation, job.test})
    if (other) evaluated.push_back(probe_dataset(*other).count);
  for (int64_t images : evaluated) {
    spec.batch = evaluation_batch(c, images, ranks);
    const Plan plan = compile(build_program(evaluation_program(objective), spec), p.kernels, how, choose);
    p.memory.arena = std::max(p.memory.arena, plan.arena_bytes);
  }
  int64_t samples = checked_sum(
      "the samples in memory",
      {p.data.count,
       checked_product("the samples in flight", {loader_depth(schedule.micro_batches()), p.nominal_batch})});
  for (const auto& other : {job.validation, job.test})
    if (other) samples += probe_dataset(*other).count;
  const Shape sample{samples, p.data.channels, p.data.height, p.data.width};
  p.data_bytes += sample.elements() + samples * 4;
  return p;
}

}  // namespace

CheckedJob check_job(const Job& job) {
  return placed(job, [&] { return check_placed(job); });
}
JobPlan plan_job(const Job& job, bool time_kernels) {
  return placed(job, [&] { return plan_placed(job, time_kernels); });
}

}  // namespace lockstep
